"""Diagnose first, then retrieve: what stands between a kernel and a faster one, from its evaluation and its place in the run.

The judge says what it measured about one kernel. This adds what only the run knows: whether a change helped, which case lags, what was
tried from here, and how much room the roofline leaves. The result serves prompts (as text), retrieval (as a query) and people (in the
inspector). It is made by rules, so that it costs nothing and can be tested; a model may refine it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from kernelevolve_lab.knowledge import advising, floors
from kernelevolve_lab.knowledge.calm import Calm, calm_seconds, calmest
from kernelevolve_lab.knowledge.outcomes import against
from kernelevolve_lab.knowledge.retrieval import Query
from kernelevolve_lab.knowledge.visible import fails_elsewhere, visible
from kernelevolve_lab.operators.base import Operator
from kernelevolve_lab.records import CaseResult, Evaluation, Profile, TargetSpec, Verdict
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
        # What a run says of its own candidates would make the pages change from prompt to prompt; what went wrong must be looked for.
        found = self.evidence if self.phase == "repair" else ()
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
            "repair",
            "numerics",
            ("It is right on the cases that you are shown and wrong on another.",),
            advising.by_bottleneck("numerics", "repair"),
        )
    return _improve(operator, target, state, entry, evaluation)


def on_paper(operator: Operator, target: TargetSpec, profile: Profile) -> str:
    """What bounds most of the visible cases before there is any kernel: `memory`, `compute`, or empty where the ceilings are not known."""
    least = [floors.floor(target, operator.work(case), case.dtype) for case in operator.visible(profile)]
    bounds = ["memory" if bound.memory else "compute" for bound in least if bound]
    return max(sorted(set(bounds)), key=bounds.count) if bounds else ""


def _draft(operator: Operator, target: TargetSpec, state: RunState) -> Analysis:
    """Where the operator itself stands on the roofline, before any kernel."""
    profile = state.config.profile if state.config else "laptop"
    evidence = []
    for case in operator.visible(profile):
        if least := floors.floor(target, operator.work(case), case.dtype):
            bound = "memory" if least.memory else "compute"
            rate = f"{least.rate / 1e9:.3g} {'GB/s' if least.memory else 'GFLOP/s'}"
            what = f"its {'bytes' if least.memory else 'arithmetic as written'} at the {rate} of {least.level}"
            evidence.append(f"Case {case.name} takes at least {least.seconds * 1e3:.3g} ms, {what}: {bound}-bound on paper.")
    bottleneck = on_paper(operator, target, profile)
    return Analysis("draft", bottleneck, tuple(evidence), advising.by_bottleneck(bottleneck, "draft"))


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
    return Analysis("repair", bottleneck, tuple(evidence), advising.by_bottleneck(bottleneck, "repair"), avoid)


def _improve(operator: Operator, target: TargetSpec, state: RunState, entry: Entry, evaluation: Evaluation) -> Analysis:
    judged, calm = evaluation.diagnosis, calmest(state)
    shares = _shares(evaluation, calm)
    bottleneck = _bottleneck(evaluation, shares)
    noticed = [finding for finding in judged.findings if finding.rule not in advising.ROOF_RULES] if judged else []
    evidence = [*_standing(shares), *(finding.what for finding in noticed), *_unevenness(evaluation)]
    evidence += [*_against_parent(state, entry), *_against_best(state, entry)]
    phase, avoid = "improve", []
    children = [child for child in state.children(entry.candidate.id) if child.evaluation is not None]
    recent = sorted(children, key=lambda child: child.order)[-STALLED_AFTER:]
    if len(recent) == STALLED_AFTER and all(child.fitness <= entry.fitness for child in recent):
        phase = "stalled"
        evidence.append(f"The last {STALLED_AFTER} kernels made from this one were not faster.")
        avoid.append("Small variations of this kernel: change the algorithm, the layout or what is parallel.")
    advice, tried = advising.by_evidence(operator, target, state, entry, evaluation, noticed, bottleneck, phase, shares)
    return Analysis(phase, bottleneck, tuple(filter(None, evidence)), advice, (*avoid, *tried))


def _shares(evaluation: Evaluation, calm: Calm) -> dict[str, tuple[CaseResult, float, float]]:
    """By visible case: the result, the seconds that it takes on a calm machine, and the share of them that the roof allows. A busy machine
    makes every kernel look farther from the roof than it is, so the calm time is estimated from the paired ratio."""
    shares = {}
    for result in evaluation.cases:
        if (point := result.roofline) is not None and point.fraction > 0 and "candidate" in result.times:
            seconds = calm_seconds(result, calm)
            shares[result.case.name] = (result, seconds, point.fraction * result.times["candidate"].median / seconds)
    return shares


def _bottleneck(evaluation: Evaluation, shares: dict[str, tuple[CaseResult, float, float]]) -> str:
    """What limits, as far as the numbers tell: what the judge said of starts and waiting, else the roof that it is not far from."""
    if evaluation.diagnosis and evaluation.diagnosis.bound == "latency":
        return "latency"
    if not shares:
        return evaluation.diagnosis.bound if evaluation.diagnosis and evaluation.diagnosis.bound != "unknown" else ""
    result, _, share = max(shares.values(), key=lambda found: found[1] * (1 - min(1.0, found[2])))
    if share < FAR_FROM_ROOF:
        return ""
    return "memory" if floors.is_memory(result.roofline.bound_by) else "compute"


def _standing(shares: dict[str, tuple[CaseResult, float, float]]) -> list[str]:
    """Where the kernel stands in each case: what its bytes or its arithmetic take at least, and what that says of its time."""
    lines = []
    for name, (result, seconds, share) in shares.items():
        calm = " (on a calm machine, by the ratio to the baseline)" if seconds < 0.95 * result.times["candidate"].median else ""
        point, took = result.roofline, f"{share:.0%} of its {seconds * 1e3:.3g} ms{calm}"
        level = floors.level_name(point.bound_by)
        if floors.is_memory(point.bound_by):
            rate = point.bytes_per_second / point.fraction / 1e9
            moved = f"Case {name}: its bytes are in {level}; moved once, at {rate:.3g} GB/s, they take {took}"
            meaning = f"moved {1 / share:.2g} times they would take all of it" if share >= FAR_FROM_ROOF else "most of its time is not that"
        else:
            moved = f"Case {name}: its arithmetic at the peak of {level} takes {took}"
            meaning = f"up to {1 / share:.2g}× is left"
        lines.append(f"{moved}: {'only fewer bytes or less work can make it much faster' if share >= NEAR_ROOF else meaning}.")
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
    match against(entry, before):
        case "faster":
            return [f"Its last change helped: from {change}."]
        case "slower":
            return [f"Its last change hurt: from {change}; consider taking it back."]
    return [f"Whether its last change helped is not settled: {change}, and the timings do not tell the two apart."]


def _against_best(state: RunState, entry: Entry) -> list[str]:
    best = state.best
    if best is None or best.candidate.id == entry.candidate.id:
        return []
    name = f"{best.candidate.id} ({best.candidate.title})" if best.candidate.title else best.candidate.id
    return [f"The best kernel of the run is {name} at {best.fitness:.3f}×; this one is at {entry.fitness:.3f}×."]


def _parent(state: RunState, entry: Entry) -> Entry | None:
    return next((state.entries[parent] for parent in entry.candidate.parents if parent in state.entries), None)
