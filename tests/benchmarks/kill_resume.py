"""Kill a real search at random moments and take it up again, many times over; say whether anything finished was lost.

    python tests/benchmarks/kill_resume.py [kills] [operator] [seed]

Each process drives the same run with the real judge and the schedule proposer until it is killed (SIGKILL) after a random time, which
falls into the start of the judge as well as into builds, proposals and measurements. Checked after every kill: the log is what it was
plus new events, every evaluation that was there is there, none of the killed process's children outlives it. Checked at the end: no
request was answered twice or skipped, no candidate that had been judged was judged again, the run ends with its budget.
"""

import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

from kernelevolve_lab.engine.handle import RunHandle
from kernelevolve_lab.records import Budget, OperatorRef, RunConfig
from kernelevolve_lab.records.events import BudgetChanged
from kernelevolve_lab.store import Store

DRIVE = """
import sys
from kernelevolve_lab.engine.handle import RunHandle
from kernelevolve_lab.store import Store
run = RunHandle(Store.open(sys.argv[1]), sys.argv[2])
run.resume()
run.wait()
"""


def main(kills: int, operator: str, seed: int) -> None:
    rng = random.Random(seed)
    with tempfile.TemporaryDirectory() as folder:
        store = Store.open(str(Path(folder) / "lab.db"))
        config = RunConfig(
            operator=OperatorRef(kind="registered", name=operator, text=operator),
            target="cpu",
            language="cpp",
            budget=Budget(candidates=1000),
            seed=seed,
        )
        run = RunHandle(store, store.create_run(config, operator))
        orphans = 0
        for kill in range(1, kills + 1):
            process = subprocess.Popen([sys.executable, "-c", DRIVE, store.url, run.id])
            judged = run.state.judged
            began = time.monotonic()
            # Half of the kills come at any time at all, half once something was judged, since starting takes longer than judging.
            if kill % 2:
                time.sleep(rng.uniform(0.3, 20))
            else:
                while run.state.judged == judged and process.poll() is None and time.monotonic() - began < 300:
                    time.sleep(0.02)
                time.sleep(rng.uniform(0, 5))
            children = psutil.Process(process.pid).children(recursive=True)
            before = run.events()
            process.kill()
            process.wait()
            _, alive = psutil.wait_procs(children, timeout=10)
            orphans += len(alive)
            after = run.events()
            assert after[: len(before)] == before, "the log changed"
            kept = {item.event.evaluation.candidate for item in after if item.event.kind == "evaluation_finished"}
            assert kept == {entry.id for entry in run.state.entries.values() if entry.evaluation}
            where = run.state.phase
            lived = time.monotonic() - began
            print(
                f"kill {kill:2}: after {lived:5.1f} s, {where}; {len(after)} events, {len(kept)} judged, {len(alive)} orphans", flush=True
            )
            assert run.status == "interrupted"
        left = run.state.judged + 3
        store.append(run.id, BudgetChanged(budget=Budget(candidates=left)))
        assert subprocess.run([sys.executable, "-c", DRIVE, store.url, run.id]).returncode == 0
        state, log = run.state, run.events()
        answered = [item.event.index for item in log if item.event.kind in ("candidate_proposed", "proposal_failed")]
        found = [item.event.evaluation for item in log if item.event.kind == "evaluation_finished"]
        first = [evaluation.candidate for evaluation in found if not evaluation.final]
        assert sorted(answered) == list(range(len(answered))), "a request was answered twice, or skipped"
        assert len(first) == len(set(first)), "a candidate was judged twice"
        assert (state.outcome, state.judged) == ("finished", left), (state.outcome, state.reason, state.judged)
        assert orphans == 0, f"{orphans} processes outlived their judge"
        store.close()
    best = f"best {state.best.fitness:.2f}x" if state.best else "none correct"
    print(f"{kills} kills on {operator}: nothing lost, nothing done twice, no orphans; {left} judged, {best}")


if __name__ == "__main__":
    os.nice(5)
    arguments = sys.argv[1:] + ["20", "rms_norm", "1"][len(sys.argv) - 1 :]
    main(int(arguments[0]), arguments[1], int(arguments[2]))
