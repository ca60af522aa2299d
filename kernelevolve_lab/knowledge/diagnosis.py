"""Diagnose first, then retrieve: what stands between a kernel and a faster one, from its evaluation and its place in the run.

The judge says what it measured about one kernel. This adds what only the run knows: whether a change helped, which case lags, what was
tried from here, and how much room the roofline leaves. The result serves prompts (as text), retrieval (as a query) and people (in the
inspector). It is made by rules, so that it costs nothing and can be tested; a model may refine it.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from kernelevolve_lab.knowledge.retrieval import Query
from kernelevolve_lab.knowledge.visible import fails_elsewhere, visible
from kernelevolve_lab.operators.base import Operator
from kernelevolve_lab.records import Evaluation, Flag, Profile, TargetSpec, Verdict
from kernelevolve_lab.records.run_state import Entry, RunState

STALLED_AFTER = 6
"""So many judged children in a row without a gain make a parent stalled."""
NEAR_ROOF, FAR_FROM_ROOF = 0.85, 0.35
UNEVEN = 1.3

_BROKEN = {
    Verdict.BUILD_FAILED: "build",
    Verdict.INCORRECT: "numerics",
    Verdict.CRASHED: "crash",
    Verdict.TIMED_OUT: "timeout",
    Verdict.CHEATING: "cheating",
    Verdict.UNSUPPORTED: "build",
}


@dataclass(frozen=True)
class Analysis:
    """`phase` is `draft`, `repair`, `improve` or `stalled`; `bottleneck` one of the values that knowledge pages are tagged with, or empty.
    `evidence` are sentences with numbers, `advice` what to try, most promising first, `avoid` what not to."""

    phase: str
    bottleneck: str
    evidence: tuple[str, ...] = ()
    advice: tuple[str, ...] = ()
    avoid: tuple[str, ...] = ()

    def query(self, operator: Operator, target: TargetSpec, language: str, profile: Profile = "laptop") -> Query:
        """What to look for in the knowledge base, for the cases of a size profile."""
        found = self.evidence if self.phase != "draft" else ()
        words = " ".join((operator.name, operator.title, operator.title, operator.semantics, self.bottleneck, *found, *self.advice))
        dtypes = frozenset(case.dtype for case in operator.visible(profile))
        # What bounds an operator on paper need not bound the first kernel: a draft looks at pages for every bottleneck, at those first.
        draft = self.phase == "draft"
        return Query(
            target.vendor,
            language,
            bottleneck="" if draft else self.bottleneck,
            leaning=self.bottleneck if draft else "",
            phase=self.phase,
            family=operator.family,
            dtypes=dtypes,
            words=_without_other_dtypes(words, dtypes),
        )


def _without_other_dtypes(words: str, dtypes: frozenset[str]) -> str:
    """The words without the names of dtypes that no case has: pages about them would help nobody."""
    others = {"float16", "bfloat16", "float64"} - dtypes
    return re.sub(rf"\b(?:{'|'.join(sorted(others))})\b", "", words) if others else words


def diagnose(operator: Operator, target: TargetSpec, state: RunState, parents: Sequence[str] = ()) -> Analysis:
    """The analysis for a request that has these parents (none: a draft)."""
    entries = [state.entries[parent] for parent in parents if parent in state.entries]
    if not entries:
        return _draft(operator, target, state)
    entry = entries[0]
    if entry.evaluation is None:
        return Analysis("improve", "", (f"Candidate {entry.candidate.id} is not judged yet.",))
    evaluation = visible(entry.evaluation, operator)
    if evaluation.verdict is not Verdict.CORRECT:
        return _repair(evaluation, state, entry)
    if fails_elsewhere(entry.evaluation):
        return Analysis(
            "repair", "numerics", ("It is right on the cases that you are shown and wrong on another.",), _advice("numerics", "repair")
        )
    return _improve(operator, target, state, entry, evaluation)


def _draft(operator: Operator, target: TargetSpec, state: RunState) -> Analysis:
    """Where the operator itself stands on the roofline, before any kernel."""
    profile = state.config.profile if state.config else "laptop"
    evidence, bounds = [], []
    for case in operator.visible(profile):
        work = operator.work(case)
        bandwidth, compute = _roofs(target, case.dtype)
        if bandwidth and compute and work.bytes:
            by_memory, by_compute = work.bytes / bandwidth, work.flops / compute
            bounds.append("memory" if by_memory >= by_compute else "compute")
            evidence.append(
                f"Case {case.name}: at least {max(by_memory, by_compute) * 1e3:.3g} ms when its data comes from main memory "
                f"({work.bytes / 1e6:.3g} MB, {work.flops / 1e6:.3g} MFLOP): {bounds[-1]}-bound."
            )
    bottleneck = max(sorted(set(bounds)), key=bounds.count) if bounds else ""
    return Analysis("draft", bottleneck, tuple(evidence), _advice(bottleneck, "draft"))


def _repair(evaluation: Evaluation, state: RunState, entry: Entry) -> Analysis:
    bottleneck = _BROKEN.get(evaluation.verdict, "")
    evidence = [f"The verdict is {evaluation.verdict.value}: {evaluation.reasons[0]}"]
    bad = [result for result in evaluation.cases if result.verdict is not Verdict.CORRECT]
    good = [result.case.name for result in evaluation.cases if result.verdict is Verdict.CORRECT]
    if bad and good:
        evidence.append(f"It works on {', '.join(good)} and fails on {', '.join(result.case.name for result in bad)}: compare their sizes.")
    elif good and not bad:
        evidence.append("All cases you are shown are right: suppositions about sizes or alignment are the likely cause.")
    for result in bad[:1]:
        if result.error is not None and result.error.candidate > 0:
            ratio = result.error.candidate / result.error.gate
            kind = "rounding: the order or the width of accumulation" if ratio < 100 else "logic: indices, bounds or a wrong formula"
            evidence.append(f"On {result.case.name} the error is {ratio:.3g} times what is allowed, which points to {kind}.")
    before = _parent(state, entry)
    avoid = ()
    if before is not None and before.correct:
        evidence.append(f"Its parent {before.candidate.id} is correct: the fault lies in what this candidate changed.")
    return Analysis("repair", bottleneck, tuple(evidence), _advice(bottleneck, "repair"), avoid)


def _improve(operator: Operator, target: TargetSpec, state: RunState, entry: Entry, evaluation: Evaluation) -> Analysis:
    judged = evaluation.diagnosis
    bottleneck = judged.bound if judged and judged.bound != "unknown" else _bound_by_roofline(evaluation)
    evidence, advice = [], []
    if judged:
        evidence += [judged.summary, *(finding.what for finding in judged.findings)]
        advice += [finding.advice for finding in judged.findings if finding.advice]
    evidence += [*_room(evaluation), *_unevenness(evaluation), *_against_parent(state, entry), *_against_best(state, entry)]
    phase = "improve"
    children = [child for child in state.children(entry.candidate.id) if child.evaluation is not None]
    recent = sorted(children, key=lambda child: child.order)[-STALLED_AFTER:]
    avoid = []
    if len(recent) == STALLED_AFTER and all(child.fitness <= entry.fitness for child in recent):
        phase = "stalled"
        evidence.append(f"The last {STALLED_AFTER} kernels made from this one were not faster.")
        avoid.append("Small variations of this kernel: change the algorithm, the layout or what is parallel.")
    return Analysis(phase, bottleneck, tuple(filter(None, evidence)), (*advice, *_advice(bottleneck, phase)), tuple(avoid))


def _roofs(target: TargetSpec, dtype: str) -> tuple[float, float]:
    """Bytes/s of the main memory and the highest FLOP/s for that dtype, whole device; 0 where unknown."""
    bandwidth = next((c.value for name in ("dram", "hbm") if (c := target.ceiling("bandwidth", name))), 0.0)
    compute = [c.value for c in target.ceilings if c.kind == "compute" and c.threads == 0 and c.name.split("-")[0] == dtype]
    return bandwidth, max(compute, default=0.0)


def _bound_by_roofline(evaluation: Evaluation) -> str:
    points = [result.roofline for result in evaluation.cases if result.roofline is not None]
    if not points:
        return ""
    if max(point.fraction for point in points) < FAR_FROM_ROOF:
        return ""
    names = ["compute" if point.bound_by.startswith(("float", "bfloat", "int", "tf32")) else "memory" for point in points]
    return max(sorted(set(names)), key=names.count)


def _room(evaluation: Evaluation) -> list[str]:
    """How far the roof is; a busy machine makes every kernel look farther from it than it is."""
    if Flag.NOISY in evaluation.flags:
        return []
    lines = []
    for result in evaluation.cases:
        if (point := result.roofline) is None or point.fraction <= 0:
            continue
        reached = f"Case {result.case.name} reaches {point.fraction:.0%} of the {point.bound_by} roof"
        if point.fraction >= NEAR_ROOF:
            lines.append(f"{reached}: only moving fewer bytes or doing less work can make it much faster.")
        else:
            lines.append(f"{reached}: up to {1 / point.fraction:.2g}× is left.")
    return lines


def _unevenness(evaluation: Evaluation) -> list[str]:
    main = evaluation.speedup.baseline if evaluation.speedup else ""
    speeds = {result.case.name: ratio.value for result in evaluation.cases for ratio in result.speedups if ratio.baseline == main}
    if len(speeds) < 2:
        return []
    worst, best = min(speeds, key=speeds.__getitem__), max(speeds, key=speeds.__getitem__)
    if speeds[best] < UNEVEN * speeds[worst]:
        return []
    return [f"It does far better on {best} ({speeds[best]:.3g}×) than on {worst} ({speeds[worst]:.3g}×): fitness is their geometric mean."]


def _against_parent(state: RunState, entry: Entry) -> list[str]:
    before = _parent(state, entry)
    if before is None or not before.correct or not before.evaluation.speedup or not entry.evaluation.speedup:
        return []
    mine, its = entry.evaluation.speedup, before.evaluation.speedup
    change = f"{its.value:.3f}× to {mine.value:.3f}×"
    if mine.low > its.high:
        return [f"Its last change helped: from {change}."]
    if mine.high < its.low:
        return [f"Its last change hurt: from {change}; consider taking it back."]
    return [f"Whether its last change helped is not settled: {change}, and the intervals overlap."]


def _against_best(state: RunState, entry: Entry) -> list[str]:
    best = state.best
    if best is None or best.candidate.id == entry.candidate.id:
        return []
    name = f"{best.candidate.id} ({best.candidate.title})" if best.candidate.title else best.candidate.id
    return [f"The best kernel of the run is {name} at {best.fitness:.3f}×; this one is at {entry.fitness:.3f}×."]


def _parent(state: RunState, entry: Entry) -> Entry | None:
    return next((state.entries[parent] for parent in entry.candidate.parents if parent in state.entries), None)


@cache
def _rules() -> dict[str, dict[str, list[str]]]:
    return tomllib.loads((Path(__file__).parent / "advice.toml").read_text("utf-8"))


def inclinations(phase: str) -> tuple[str, ...]:
    """Directions among which parallel requests of a phase are spread, so that they do not all bring the same kernel; none for repairs."""
    return tuple(_rules()["inclinations"].get(phase, ()))


def _advice(bottleneck: str, phase: str) -> tuple[str, ...]:
    rules = _rules()
    return tuple(rules.get(bottleneck, {}).get(phase, ()) or rules.get(bottleneck, {}).get("any", ()))
