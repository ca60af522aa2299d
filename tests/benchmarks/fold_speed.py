"""What the log costs: appending, folding with a snapshot after every event, reading back, listing runs.

python tests/benchmarks/fold_speed.py [candidates]
"""

import itertools
import sys
import tempfile
import time
from pathlib import Path

from kernelevolve_lab.records import Candidate, Evaluation, Evidence, OperatorRef, Ratio, RunConfig, Verdict, events
from kernelevolve_lab.records.fold import RunFold
from kernelevolve_lab.store import Store


def main(candidates: int) -> None:
    config = RunConfig(operator=OperatorRef(kind="registered", name="op", text="op"), target="cpu", language="cpp")
    with tempfile.TemporaryDirectory() as folder:
        store = Store.open(str(Path(folder) / "lab.db"))
        run = store.create_run(config, "Op")
        began = time.perf_counter()
        for n in range(candidates):
            candidate = Candidate(language="cpp", source=f"// {n}\n" + "float x = 0;\n" * 300)
            ratio = Ratio(value=1 + n % 7, low=1, high=9, baseline="eager")
            found = Evaluation(
                candidate=candidate.id, target="cpu", language="cpp", verdict=Verdict.CORRECT, evidence=Evidence.MEASURED, speedup=ratio
            )
            store.append(run, events.CandidateProposed(candidate=candidate, index=n))
            store.append(run, events.EvaluationStarted(candidate=candidate.id))
            store.append(run, events.EvaluationFinished(evaluation=found))
        appended = time.perf_counter() - began
        began = time.perf_counter()
        log = store.read(run)
        read = time.perf_counter() - began
        fold, marks = RunFold(), []
        for n, item in enumerate(log):
            if n % (len(log) // 4) == 0 and len(marks) < 4:
                marks.append(time.perf_counter())
            fold.apply(item)
            assert fold.state.seq == item.seq
        marks.append(time.perf_counter())
        quarters = " ".join(f"{(b - a) / (len(log) / 4) * 1e6:.0f}" for a, b in itertools.pairwise(marks))
        store.append(run, events.RunEnded(outcome="finished", reason="done"))
        for _ in range(999):
            store.append(store.create_run(config, "Op"), events.RunEnded(outcome="finished", reason="done"))
        began = time.perf_counter()
        assert len(store.runs()) == 1000
        listed = time.perf_counter() - began
        size = (Path(folder) / "lab.db").stat().st_size / 2**20
        store.close()
    print(f"{candidates} candidates, {len(log)} events, {size:.1f} MiB")
    print(f"append, durable:            {appended / len(log) * 1e3:8.2f} ms an event")
    print(f"read back:                  {read / len(log) * 1e6:8.0f} us an event")
    print(f"fold + snapshot, quarters:  {quarters} us an event")
    print(f"list of 1000 runs:          {listed * 1e3:8.0f} ms")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 2000)
