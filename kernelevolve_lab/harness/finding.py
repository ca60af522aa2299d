"""From what a trial found to an `Evaluation`: flags, speedups, diagnosis and where the time went."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np

from kernelevolve_lab import registry
from kernelevolve_lab.harness import environment, tripwires
from kernelevolve_lab.harness.diagnosis import diagnose
from kernelevolve_lab.harness.settings import LONGEST_SOURCE
from kernelevolve_lab.harness.trial import Trial
from kernelevolve_lab.harness.works import AUTOTUNED, COMPILED, EAGER, Order, Works
from kernelevolve_lab.languages.base import Build
from kernelevolve_lab.records import Candidate, CaseResult, Diagnosis, Evaluation, Evidence, Flag, Ratio, Verdict

NOISY_WIDTH = 0.2
"""An interval wider than this part of its value is flagged as noisy."""


def evaluation(
    order: Order,
    works: Works,
    candidate: Candidate,
    build: Build,
    began: float,
    verdict: Verdict,
    reasons: tuple[str, ...],
    *,
    trial: Trial | None = None,
    final: bool,
) -> Evaluation:
    """What is to be told of a candidate, judged since `began` by `time.perf_counter`; without a trial none took place."""
    flags: tuple[Flag, ...] = ()
    stages, metrics = {"build": build.seconds}, dict(build.metrics or {})
    cases: tuple[CaseResult, ...] = ()
    speedups: tuple[Ratio, ...] = ()
    diagnosis = None
    if trial is not None:
        flags = tuple(trial.flags)
        stages |= trial.seconds
        metrics |= trial.metrics
        found = [trial.results[case.name] for case in works.description.cases if case.name in trial.results]
        cases = tuple(result.model_copy(update={"inputs": works.inputs[result.case.name]}) for result in found)
        if verdict is Verdict.CORRECT:
            speedups = tuple(ratio for name in (COMPILED, AUTOTUNED, EAGER) if (ratio := trial.overall(name)) is not None)
            diagnosis = None if order.emulated else _diagnose(order, trial, cases, speedups, build)
            wide = next((r for r in speedups if r.high - r.low > NOISY_WIDTH * r.value), None)
            if wide is not None:
                flags = (*flags, Flag.NOISY)
                reasons = (
                    *reasons,
                    f"timings were noisy: the speedup over {wide.baseline} lies between {wide.low:.2f}x and {wide.high:.2f}x",
                )
    hits = tripwires.tripped(candidate.source[:LONGEST_SOURCE], registry.load("languages", candidate.language))
    if verdict is Verdict.CORRECT and (why := tripwires.suspicion(hits)):
        flags, reasons = tuple(dict.fromkeys((*flags, Flag.SUSPICIOUS))), (*reasons, why)
    if works.degenerate:
        flags, reasons = (*flags, Flag.DEGENERATE_TASK), (*reasons, works.degenerate)
    spent = sum(seconds for name, seconds in stages.items() if name != "build")
    stages["overhead"] = max(0.0, time.perf_counter() - began - spent)
    return Evaluation(
        candidate=candidate.id,
        target=order.target.name,
        language=candidate.language,
        verdict=verdict,
        evidence=_evidence(order, trial),
        flags=flags,
        reasons=reasons,
        speedup=speedups[0] if speedups else None,
        speedups=speedups,
        cases=cases,
        diagnostics=(*build.diagnostics, *(hit.diagnostic() for hit in hits)),
        diagnosis=diagnosis,
        metrics=metrics,
        stage_seconds={name: round(value, 4) for name, value in stages.items()},
        environment=environment.snapshot(order.threads, order.confined, {"torch": works.description.versions["torch"]}),
        final=final,
    )


def _evidence(order: Order, trial: Trial | None) -> Evidence:
    if not order.emulated:
        return Evidence.MEASURED
    return Evidence.COMPILED if trial is None else Evidence.EMULATED


def _diagnose(order: Order, trial: Trial, cases: Sequence[CaseResult], speedups: Sequence[Ratio], build: Build) -> Diagnosis | None:
    shown = [result for result in cases if not result.case.held_out]
    used = {name: float(np.median(timing.processor)) / order.threads for name, timing in trial.timings.items()}
    return diagnose(shown, order.threads, used, speedups[0].baseline if speedups else EAGER, build.metrics or {})
