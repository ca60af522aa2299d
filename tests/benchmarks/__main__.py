"""`make bench`: the numbers of the README, measured on this machine.

For each operator a search by the schedule proposer; then its winner against eager and against `torch.compile` (paired, with 95 %
intervals, re-measured in a fresh process with fresh inputs), the percent of the roofline, and where the judge's time went. One store in a
temporary folder; results go to standard output as markdown.

    python -m tests.benchmarks [--operators a,b] [--candidates 60] [--seconds 90] [--json FILE]
"""

import argparse
import json
import math
import sys
import tempfile
from pathlib import Path

import kernelevolve_lab as kel
from kernelevolve_lab import registry
from kernelevolve_lab.records import Evaluation, Ratio
from kernelevolve_lab.records.run_state import RunState

STAGES = ("build", "correctness", "timing", "overhead")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--operators", default=",".join(registry.names("operators")))
    parser.add_argument("--candidates", type=int, default=60)
    parser.add_argument("--seconds", type=float, default=90.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name in options.operators.split(","):
            print(f"searching {name}", file=sys.stderr, flush=True)
            run = kel.search(
                name,
                target="cpu",
                max_candidates=options.candidates,
                max_seconds=options.seconds,
                seed=options.seed,
                store=f"sqlite:///{folder}/bench.db",
            )
            run.wait()
            rows.append(row(name, run.state))
            print(line(rows[-1]), file=sys.stderr, flush=True)
            target = run.state.target
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1))
    print(f"\nOn {target.title}; at most {options.candidates} candidates and {options.seconds:g} s each.\n")
    print("| operator | judged | vs eager | vs torch.compile | of the roofline | judged a minute |")
    print("| --- | --- | --- | --- | --- | --- |")
    for found in rows:
        print(line(found))
    for baseline in ("eager", "torch.compile"):
        values = [found[baseline]["value"] for found in rows if found.get(baseline)]
        if values:
            mean = math.exp(sum(map(math.log, values)) / len(values))
            print(f"\nGeometric mean against {baseline}: {mean:.2f}x over {len(values)} operators.")
    print("\nWhere the judge's time went, share of the whole: " + "; ".join(f"{s} {share(rows, s):.0%}" for s in STAGES) + ".")


def row(name: str, state: RunState) -> dict:
    """What the table says of one operator."""
    best = state.best
    judged = [entry.evaluation for entry in state.entries.values() if entry.evaluation]
    stages = {stage: sum(e.stage_seconds.get(stage, 0.0) for e in judged) for stage in STAGES}
    found = {"operator": name, "judged": len(judged), "stages": stages, "reason": state.reason, "per_minute": rate(state)}
    if best:
        found |= {ratio.baseline: ratio.model_dump() for ratio in best.evaluation.speedups}
        found |= {"roofline": roofline(best.evaluation), "title": best.candidate.title, "final": best.evaluation.final}
    return found


def rate(state: RunState) -> float | None:
    """Candidates judged a minute, between the first and the last evaluation of the search (finalists' second rounds left out)."""
    times = sorted(entry.judged_at for entry in state.entries.values() if entry.evaluation and not entry.evaluation.final)
    return 60.0 * (len(times) - 1) / (times[-1] - times[0]) if len(times) > 2 else None


def roofline(evaluation: Evaluation) -> list[str]:
    return [f"{r.roofline.fraction:.0%} of {r.roofline.bound_by}" for r in evaluation.cases if r.roofline and not r.case.held_out]


def share(rows: list[dict], stage: str) -> float:
    total = sum(sum(found["stages"].values()) for found in rows)
    return sum(found["stages"][stage] for found in rows) / total if total else 0.0


def line(found: dict) -> str:
    def ratio(name: str) -> str:
        value = Ratio(**found[name]) if found.get(name) else None
        return f"{value.value:.2f}x ({value.low:.2f} to {value.high:.2f})" if value else "none"

    rate = f"{found['per_minute']:.0f}" if found["per_minute"] else ""
    cells = (found["operator"], found["judged"], ratio("eager"), ratio("torch.compile"), "; ".join(found.get("roofline", [])), rate)
    return "| " + " | ".join(map(str, cells)) + " |"


if __name__ == "__main__":
    main()
