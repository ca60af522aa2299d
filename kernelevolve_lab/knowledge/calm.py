"""How calm the machine was while a kernel was timed: the baselines' times in one evaluation against their calmest in the run.

A baseline does the same work in every evaluation, so where it took longer something else took the machine. The paired ratio to the
baseline moves little with that; absolute times, and the comparison of two evaluations, move much.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from kernelevolve_lab.records import CaseResult, Evaluation, Evidence
from kernelevolve_lab.records.run_state import RunState

BUSY = 1.25
"""From this ratio to its calm time on, the baseline says that the machine was busy; repeated medians of a calm machine differ by less."""

Calm = Mapping[tuple[str, str], float]
"""The calmest median in seconds by (case, baseline)."""


def calmest(state: RunState) -> Calm:
    """The least median of each baseline on each visible case that a run has seen, its own measurement of the baselines included."""
    found: dict[tuple[str, str], float] = {}

    def see(case: str, name: str, seconds: float) -> None:
        found[case, name] = min(seconds, found.get((case, name), math.inf))

    for baseline in state.baselines:
        see(baseline.case.name, baseline.name, baseline.timing.median)
    for entry in state.entries.values():
        for judgement in entry.history:
            if judgement.evaluation.evidence is Evidence.MEASURED:
                for result in judgement.evaluation.cases:
                    for ratio in result.speedups if not result.case.held_out else ():
                        if ratio.baseline in result.times:
                            see(result.case.name, ratio.baseline, result.times[ratio.baseline].median)
    return found


def busyness(evaluation: Evaluation, calm: Calm) -> tuple[str, float] | None:
    """The main baseline and how many times its calm time it took in this evaluation (geometric mean over the visible cases); None where
    that cannot be told or is less than `BUSY`."""
    main = evaluation.speedup.baseline if evaluation.speedup else ""
    factors = [
        result.times[main].median / calm[result.case.name, main]
        for result in evaluation.cases
        if not result.case.held_out and main in result.times and (result.case.name, main) in calm
    ]
    if not factors:
        return None
    factor = math.exp(sum(map(math.log, factors)) / len(factors))
    return (main, factor) if factor >= BUSY else None


def calm_seconds(result: CaseResult, calm: Calm) -> float:
    """About how long the kernel takes on that case while the machine is calm: the baseline's calm time over the paired ratio, where that is
    less than what was measured. The case must be timed."""
    measured = result.times["candidate"].median
    estimates = [calm[key] / ratio.value for ratio in result.speedups[:1] if (key := (result.case.name, ratio.baseline)) in calm]
    return min([measured, *estimates])
