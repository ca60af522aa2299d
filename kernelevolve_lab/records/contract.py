"""The JSON objects that `kernelevolve-lab evaluate --json` and `search --json` write; other people's scripts rely on their fields."""

import math
from typing import Any

from kernelevolve_lab.records.evaluation import CaseResult, Evaluation, Ratio
from kernelevolve_lab.records.run_state import RunState


def evaluation_object(evaluation: Evaluation) -> dict[str, Any]:
    """`verdict`, `evidence`, `flags`, `reasons`, `speedup`, `cases`, `target`, `language`, `environment`, and what more the judge found."""
    rest = evaluation.model_dump(mode="json", exclude={"cases", "speedup"})
    return {
        **rest,
        "speedup": _ratio(evaluation.speedup),
        "cases": [_case(result) for result in evaluation.cases],
    }


def search_object(state: RunState) -> dict[str, Any]:
    """`run`, `candidates`, `verdicts` (count of each), `best` (candidate id with its evaluation, or null), `seconds`, `cost`."""
    verdicts: dict[str, int] = {}
    for entry in state.entries.values():
        if entry.evaluation:
            verdicts[entry.evaluation.verdict.value] = verdicts.get(entry.evaluation.verdict.value, 0) + 1
    best = state.best
    return {
        "run": state.run,
        "candidates": state.judged,
        "verdicts": verdicts,
        "best": evaluation_object(best.evaluation) if best else None,
        "seconds": round(state.active_seconds, 3),
        "cost": state.cost,
        "outcome": state.outcome,
        "reason": state.reason,
    }


def _ratio(ratio: Ratio | None) -> dict[str, Any] | None:
    return ratio.model_dump(mode="json") if ratio else None


def _case(result: CaseResult) -> dict[str, Any]:
    """One case; `times` are median seconds by name, `speedup` is against the main baseline: the last one measured. `scaled_from` are the
    task's own values of those `sizes` that were made smaller, `scale` the product of the ratios (1: nothing was)."""
    sizes, given = result.case.sizes, result.case.scaled_from
    return {
        "name": result.case.name,
        "sizes": sizes,
        "scaled_from": given,
        "scale": math.prod(float(sizes[name]) / float(value) for name, value in given.items()),
        "shapes": [list(spec.shape) for spec in result.inputs],
        "dtype": result.case.dtype,
        "distribution": result.case.distribution,
        "held_out": result.case.held_out,
        "verdict": result.verdict.value,
        "reason": result.reason,
        "error": result.error.model_dump(mode="json") if result.error else None,
        "times": {name: timing.model_dump(mode="json") for name, timing in result.times.items()},
        "speedup": _ratio(next((r for r in result.speedups if r.baseline == "torch.compile"), next(iter(result.speedups), None))),
        "speedups": [_ratio(ratio) for ratio in result.speedups],
        "roofline": result.roofline.model_dump(mode="json") if result.roofline else None,
    }
