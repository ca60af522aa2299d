"""Does a search disturb the notebook? A real kernel runs a real search with its live view, while `1 + 1` is asked for again and again;
then the same kernel shows a run of many scripted candidates (nothing is judged: the log, the fold and the view are what is measured) and
its memory is read on the way.

    python -m tests.benchmarks.notebook_latency [--tries 200] [--candidates 1000]

Times are from sending `execute_request` to `idle`, over the kernel's own sockets, without a browser.
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil
from jupyter_client import KernelManager
from jupyter_client.blocking import BlockingKernelClient

SEARCH = """
import kernelevolve_lab as kel
run = kel.search("rms_norm", target="cpu", max_candidates=1000, seed=0, store={store!r})
run
"""

# Batches, so that memory can be read after each; the scripted services are those of the engine's tests.
SCRIPTED = """
import sys
sys.path.insert(0, {tests!r})
import scripted
from kernelevolve_lab.api import Run
from kernelevolve_lab.store import Store
store = Store.open({store!r})
long = Run(store, store.create_run(scripted.config(candidates={batch}, seed=1), "Scripted"), scripted.services())
long._drive()
long
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tries", type=int, default=200)
    parser.add_argument("--candidates", type=int, default=1000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        manager = KernelManager()
        manager.start_kernel()
        client = manager.blocking_client()
        client.start_channels()
        client.wait_for_ready(timeout=60)
        try:
            idle = latencies(client, options.tries)
            ask(client, SEARCH.format(store=f"sqlite:///{folder}/search.db"))
            busy = latencies(client, options.tries, pause=0.4)
            judged = value(client, "run.state.judged")
            ask(client, "assert run.status == 'running', run.status\nrun.stop()\nassert run.wait(60)")
            memory = growth(client, manager, Path(folder), options.candidates)
        finally:
            client.stop_channels()
            manager.shutdown_kernel(now=True)
    result = {"idle_ms": quantiles(idle), "searching_ms": quantiles(busy), "judged_meanwhile": int(judged), "memory_mib": memory}
    print(json.dumps(result, indent=1))


def latencies(client: BlockingKernelClient, tries: int, pause: float = 0.05) -> list[float]:
    """Milliseconds of each try; the pauses spread them over what a search does."""
    found = []
    for _ in range(tries):
        began = time.perf_counter()
        ask(client, "1 + 1")
        found.append((time.perf_counter() - began) * 1e3)
        time.sleep(pause)
    return found


def growth(client: BlockingKernelClient, manager: KernelManager, folder: Path, candidates: int) -> dict[int, float]:
    """MiB of the kernel by candidates shown."""
    process = psutil.Process(manager.provisioner.process.pid)
    tests = str(Path(__file__).parents[1] / "engine")
    batch = max(1, candidates // 5)
    ask(client, SCRIPTED.format(tests=tests, store=f"sqlite:///{folder}/scripted.db", batch=batch))
    found = {}
    for number in range(1, 6):
        if number > 1:
            ask(client, f"long.extend(candidates={batch}); long.resume() if long.status != 'running' else None")
        while int(value(client, "len(long.state.entries)")) < number * batch:
            time.sleep(0.2)
        found[number * batch] = round(process.memory_info().rss / 2**20, 1)
    return found


def ask(client: BlockingKernelClient, code: str) -> str:
    """Run a cell to its end; return its text result, and leave on an error."""
    text = ""

    def hear(message: dict) -> None:
        nonlocal text
        if message["header"]["msg_type"] == "execute_result":
            text = message["content"]["data"].get("text/plain", "")

    reply = client.execute_interactive(code, timeout=120, output_hook=hear)
    if reply["content"]["status"] != "ok":
        sys.exit("\n".join(reply["content"]["traceback"]))
    return text


def value(client: BlockingKernelClient, expression: str) -> str:
    """The text of an expression's value."""
    return ask(client, expression)


def quantiles(found: list[float]) -> dict[str, float]:
    """Median, 99th percentile and maximum."""
    return {"median": round(float(np.median(found)), 1), "p99": round(float(np.quantile(found, 0.99)), 1), "max": round(max(found), 1)}


if __name__ == "__main__":
    main()
