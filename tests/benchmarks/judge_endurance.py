"""Does the judge last? Many evaluations in a row of kernels that are right, wrong, crash, hang, leak, fork and cheat, by one judge.

Counted as it goes: verdicts that are not what they must be, processes below this one, descriptors, resident memory of this process and of
the reference worker, shared memory that this process keeps open, and files in the cache. Ends with status 1 when a verdict was wrong or
anything grew after the first round of the mix.

usage: judge_endurance.py [--evaluations 10000] [--seconds S] [--json FILE]
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import itertools
import json
import os
import sys
import time
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory

sys.path.insert(0, str(Path(__file__).parent.parent / "harness"))
from small_operator import GOOD, SMALL
from test_leaks import LEAKY, MIX, SETTINGS, _children, _descriptors

from kernelevolve_lab.harness.judge import Judge
from kernelevolve_lab.operators.loading import ref_of
from kernelevolve_lab.records import Candidate
from kernelevolve_lab.targets import resolve

LATE = GOOD.replace('extern "C"', "#include <thread>\n" + 'extern "C"').replace(
    "    #pragma omp parallel for num_threads(stream.threads)\n    for", "    std::thread([=] { for"
)
LATE = LATE.replace("greater[i] = x[i] > y[i];\n    }\n", "greater[i] = x[i] > y[i];\n    } }).detach();\n")
SPINS = GOOD.replace('extern "C"', "#include <thread>\n" + 'extern "C"').replace(
    "const long n", "static std::thread* spinning = new std::thread([] { for (volatile int i = 0;; i = 1 - i) {} });\n    const long n"
)
SOURCES = {"correct": GOOD, **MIX, "leaks and forks": LEAKY, "answers late": LATE, "spins": SPINS}
WANTED = {name: {name} for name in MIX} | {"leaks and forks": {"correct"}, "spins": {"cheating"}}
WANTED["answers late"] = {"incorrect", "crashed"}  # it may write to where its outputs were and something else is now
ROUND = ["correct", "leaks and forks", "incorrect", "crashed"] * 10 + ["answers late"] * 5 + ["build_failed"] * 3 + ["spins", "timed_out"]
SLACK_MB = 64


def _megabytes(pid: int | str) -> float:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) / 256


def _shared_mb() -> float:
    """Of the memory files that are open here."""
    total = 0
    for fd in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            if os.readlink(f"/proc/self/fd/{fd}").startswith("/memfd:"):
                total += os.stat(f"/proc/self/fd/{fd}").st_blocks * 512
    return total / 2**20


def snapshot(judge: Judge, cache: Path) -> dict:
    """What there is now."""
    gc.collect()
    return {
        "processes": len(_children()),
        "descriptors": sum(_descriptors().values()),
        "judge_mb": round(_megabytes("self"), 1),
        "reference_mb": round(_megabytes(judge._opened().reference.pid), 1),
        "shared_mb": round(_shared_mb(), 1),
        "files": sum(1 for path in cache.rglob("*") if path.is_file()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--evaluations", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, default=float("inf"))
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    wrong: Counter[str] = Counter()
    verdicts: Counter[str] = Counter()
    before = {"processes": len(_children()), "descriptors": sum(_descriptors().values())}
    with TemporaryDirectory() as scratch, Judge(ref_of(SMALL), resolve("cpu"), cache=Path(scratch), settings=SETTINGS) as judge:
        candidates = {name: Candidate(language="cpp", source=source) for name, source in SOURCES.items()}
        builds = {name: judge.build(candidate) for name, candidate in candidates.items()}
        started, first, done = time.monotonic(), None, 0
        for name in itertools.islice(itertools.cycle(ROUND), options.evaluations):
            found = judge.evaluate(candidates[name], builds[name])
            verdicts[found.verdict.value] += 1
            done += 1
            if found.verdict.value not in WANTED[name]:
                wrong[f"{name}: {found.verdict.value}: {'; '.join(found.reasons)[:200]}"] += 1
            if done == len(ROUND):
                first = snapshot(judge, Path(scratch))
            if done % 500 == 0:
                print(done, snapshot(judge, Path(scratch)), dict(wrong), file=sys.stderr, flush=True)
            if time.monotonic() - started > options.seconds:
                break
        seconds, last = time.monotonic() - started, snapshot(judge, Path(scratch))
    gc.collect()
    after = {"processes": len(_children()), "descriptors": sum(_descriptors().values())}
    grown = [] if first is None else [name for name in last if last[name] > first[name] + (SLACK_MB if name.endswith("mb") else 0)]
    grown += [f"{name} after closing" for name in after if after[name] > before[name]]
    result = {
        "evaluations": done,
        "per_minute": round(60 * done / seconds, 1),
        "verdicts": dict(verdicts),
        "wrong": dict(wrong),
        "after_one_round": first,
        "at_the_end": last,
        "grown": grown,
    }
    print(json.dumps(result, indent=1))
    if options.json:
        options.json.write_text(json.dumps(result, indent=1))
    sys.exit(1 if wrong or grown else 0)


if __name__ == "__main__":
    main()
