"""The table of the GPU: every operator at the published production shapes on this machine's NVIDIA card.

For each operator a search by the schedule proposer in Triton; its finalists are measured again in fresh processes on fresh inputs against
eager PyTorch, `torch.compile` and `torch.compile(mode="max-autotune")`, in pairs, with 95 % intervals, and against the measured roofline
and the measured copy bandwidth. Each operator runs in a process of its own with a limit in time, on the next card that is free; its row is
written as soon as it is there, so that a run that is cut off leaves what it has.

usage: python -m tests.benchmarks.gpu_table [--operators a,b] [--seconds 60] [--candidates 400] [--out FOLDER] [--cards N]
"""

from __future__ import annotations

import argparse
import json
import math
import os
import queue
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

BASELINES = ("eager", "torch.compile", "max-autotune")
# Meta's figures (PyTorch 2.x on Meta's H100 of 96 GB and 2.4 TB/s) for the same shapes, by operator and case: KernelEvolve, ISCA 2026.
PUBLISHED = {
    "conv1d": "2.30x over conv1d, 1.62x over the conv2d form (float16, 2048 x 96 x 96 x 200)",
    "optimized_fm": "4.0x",
    "pffn": "2.6x",
    "map_id_transform": "4.07x",
    "merge_bucketized_dense": "9.25x",
    "batch_event_truncate": "14.5x",
}
# The longest to compile first, so that the cards end together.
ORDER = (
    "matmul", "conv1d", "pffn", "optimized_fm", "softmax", "batch_event_truncate", "merge_bucketized_dense", "map_id_transform",
    "rms_norm", "layer_norm", "bias_gelu",
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--operators", default=",".join(ORDER))
    parser.add_argument("--seconds", type=float, default=60.0, help="of search for each operator, finals included")
    parser.add_argument("--candidates", type=int, default=400)
    parser.add_argument("--language", default="triton")
    parser.add_argument("--cards", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("."))
    parser.add_argument("--deadline", type=float, default=math.inf, help="seconds after which no further operator is begun")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    if options.one:
        search_one(options.one, options)
        return
    began, left = time.monotonic(), queue.SimpleQueue()
    for name in options.operators.split(","):
        left.put(name)
    cards = [threading.Thread(target=work, args=(card, left, options, began)) for card in range(options.cards)]
    for card in cards:
        card.start()
    for card in cards:
        card.join()
    rows = [json.loads(file.read_text()) for file in sorted(options.out.glob("row-*.json"))]
    (options.out / "gpu_table.json").write_text(json.dumps(rows, indent=1))
    text = table(rows)
    (options.out / "gpu_table.md").write_text(text)
    print(text)


def work(card: int, left: queue.SimpleQueue, options: argparse.Namespace, began: float) -> None:
    """Take operators as long as there are some, each in a process that sees one card."""
    while time.monotonic() - began < options.deadline:
        try:
            name = left.get_nowait()
        except queue.Empty:
            return
        line = [sys.executable, "-m", "tests.benchmarks.gpu_table", "--one", name, "--out", str(options.out)]
        line += ["--seconds", str(options.seconds), "--candidates", str(options.candidates), "--language", options.language]
        environment = {**os.environ, "CUDA_VISIBLE_DEVICES": str(card)}
        log = options.out / f"log-{name}.txt"
        with log.open("w") as file:
            try:
                subprocess.run(line, env=environment, stdout=file, stderr=subprocess.STDOUT, timeout=2 * options.seconds + 90)
            except subprocess.TimeoutExpired:
                file.write("\nstopped: out of time\n")
        said = (log.read_text().strip().splitlines() or ["nothing"])[-1]
        print(f"[{time.monotonic() - began:5.0f} s, card {card}] {name}: {said[:300]}", file=sys.stderr, flush=True)


def search_one(name: str, options: argparse.Namespace) -> None:
    """Search one operator and write its row."""
    import kernelevolve_lab as kel
    from kernelevolve_lab import paths
    from kernelevolve_lab.engine.services import Services
    from kernelevolve_lab.harness import devices
    from kernelevolve_lab.harness.judge import Judge
    from kernelevolve_lab.harness.settings import JudgeSettings

    def make_judge(config: Any, target: Any) -> Judge:
        settings = replace(
            JudgeSettings.for_device(devices.device_of(target)),
            autotuned=True,
            cold_rounds=0,
            pool_sets=6,
            final_min_rounds=12,
            final_max_rounds=32,
            final_case_seconds=1.0,
        )
        return Judge(config.operator, target, profile=config.profile, cache=paths.cache_dir(), settings=settings)

    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        run = kel.search(
            name,
            target="nvidia",
            language=options.language,
            profile="gpu",
            max_candidates=options.candidates,
            max_seconds=options.seconds,
            seed=0,
            store=f"sqlite:///{folder}/gpu.db",
            services=Services(make_judge=make_judge),
        )
        run.wait(timeout=2 * options.seconds + 60)
        found = row(name, run.state, time.monotonic() - began)
        best = run.state.best
        if best is not None:
            (options.out / f"best-{name}.py").write_text(best.candidate.source)
        run.save(options.out / f"run-{name}.kel")
    (options.out / f"row-{name}.json").write_text(json.dumps(found, indent=1))
    print(summary(found))


def row(name: str, state: Any, seconds: float) -> dict[str, Any]:
    """What a finished run says of its operator."""
    from kernelevolve_lab.targets.ceilings.cuda import copy_bandwidth

    verdicts: dict[str, int] = {}
    spent: dict[str, float] = {}
    for entry in state.entries.values():
        if entry.evaluation is None:
            continue
        verdicts[entry.evaluation.verdict.value] = verdicts.get(entry.evaluation.verdict.value, 0) + 1
        for stage, value in entry.evaluation.stage_seconds.items():
            spent[stage] = spent.get(stage, 0.0) + value
    found: dict[str, Any] = {
        "operator": name,
        "target": state.target.title if state.target else "",
        "judged": state.judged,
        "verdicts": verdicts,
        "seconds": round(seconds, 1),
        "search_seconds": round(state.active_seconds, 1),
        "stage_seconds": {stage: round(value, 2) for stage, value in spent.items()},
        "outcome": f"{state.outcome}: {state.reason}",
        "log": [line.text for line in state.log if line.level != "info"][-5:],
        "cases": [],
        "speedups": {},
    }
    best = state.best
    if best is None or best.evaluation is None:
        return found
    evaluation = best.evaluation
    found |= {"candidate": best.candidate.title, "final": evaluation.final, "flags": [flag.value for flag in evaluation.flags]}
    found["reasons"] = list(evaluation.reasons)
    found["speedups"] = {ratio.baseline: [ratio.value, ratio.low, ratio.high] for ratio in evaluation.speedups}
    copy = copy_bandwidth(state.target) if state.target else None
    for result in evaluation.cases:
        times = {who: timing.median for who, timing in result.times.items()}
        point = result.roofline
        found["cases"].append(
            {
                "case": result.case.name,
                "dtype": result.case.dtype,
                "held_out": result.case.held_out,
                "verdict": result.verdict.value,
                "times": times,
                "speedups": {ratio.baseline: [ratio.value, ratio.low, ratio.high] for ratio in result.speedups},
                "roof": None if point is None else point.fraction,
                "bound_by": None if point is None else point.bound_by,
                "tflops": None if point is None else point.flops_per_second / 1e12,
                "copy_share": None if point is None or copy is None else point.bytes_per_second / copy,
            }
        )
    return found


def summary(found: dict[str, Any]) -> str:
    """One line."""
    ratios = ", ".join(f"{value[0]:.2f}x {name}" for name, value in found["speedups"].items()) or "no correct candidate"
    return f"{ratios}; {found['judged']} judged {found['verdicts']} in {found['search_seconds']:.0f} s ({found['seconds']:.0f} s in all)"


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as markdown, and the geometric means."""
    lines = [
        "| operator, case | best, µs | eager | torch.compile | max-autotune | of the roof | of the copy rate | published |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for found in rows:
        for case in found["cases"]:
            if case["held_out"]:
                continue
            ratios = [_ratio(case["speedups"].get(name)) for name in BASELINES]
            roof = "" if case["roof"] is None else f"{case['roof']:.0%} ({case['bound_by']})"
            copied = "" if case["copy_share"] is None else f"{case['copy_share']:.0%}"
            best = case["times"].get("candidate")
            lines.append(
                f"| {found['operator']} {case['case']} | {'' if best is None else f'{best * 1e6:.1f}'} | {' | '.join(ratios)} | {roof} | "
                f"{copied} | {PUBLISHED.get(found['operator'], '')} |"
            )
    lines += ["", "| operator | judged | verdicts | search, s | in all, s | candidates a minute |", "|---|---|---|---|---|---|"]
    for found in rows:
        rate = 60 * found["judged"] / max(1.0, found["search_seconds"])
        told = ", ".join(f"{count} {verdict}" for verdict, count in found["verdicts"].items())
        lines.append(
            f"| {found['operator']} | {found['judged']} | {told} | {found['search_seconds']:.0f} | {found['seconds']:.0f} | {rate:.0f} |"
        )
    lines.append("")
    for name in BASELINES:
        values = [
            case["speedups"][name][0] for found in rows for case in found["cases"] if not case["held_out"] and name in case["speedups"]
        ]
        by_operator = [found["speedups"][name][0] for found in rows if name in found["speedups"]]
        if values and by_operator:
            lines.append(
                f"Geometric mean against {name}: {_mean(by_operator):.2f}x over {len(by_operator)} operators, {_mean(values):.2f}x over "
                f"{len(values)} cases."
            )
    return "\n".join(lines)


def _ratio(value: list[float] | None) -> str:
    return "" if value is None else f"{value[0]:.2f}x [{value[1]:.2f}, {value[2]:.2f}]"


def _mean(values: list[float]) -> float:
    return math.exp(sum(math.log(value) for value in values) / len(values))


if __name__ == "__main__":
    main()
