"""What came of a candidate, measured against its parents: only what the intervals bear out."""

from __future__ import annotations

from typing import Literal

from kernelevolve_lab.records import Evaluation, Evidence, Flag, Verdict
from kernelevolve_lab.records.run_state import Entry, RunState

Outcome = Literal["faster", "slower", "unclear", "broken", "unknown"]
"""`unclear`: no difference that the intervals bear out; `unknown`: not judged, or correct with nothing to compare it to."""


def against(entry: Entry, parent: Entry) -> Outcome:
    """A correct candidate against a correct parent. It is slower only where its whole interval lies below its parent's and neither timing
    was noisy: an idea must not be written off on noise."""
    evaluations = alike(entry, parent)
    mine, its = (evaluation.speedup for evaluation in evaluations)
    measured = all(evaluation.evidence is Evidence.MEASURED for evaluation in evaluations)
    if mine is None or its is None or mine.baseline != its.baseline or not measured:
        return "unknown"
    noisy = any(Flag.NOISY in evaluation.flags for evaluation in evaluations)
    if mine.low > its.high:
        return "faster"
    return "slower" if mine.high < its.low and not noisy else "unclear"


def alike(one: Entry, other: Entry) -> tuple[Evaluation, Evaluation]:
    """The verdicts by which two correct candidates are compared: those that count, or the first ones where only one of them was measured
    once more. What leads owes part of its first number to luck, which a second measurement takes back."""
    assert one.evaluation is not None and other.evaluation is not None
    if one.evaluation.final == other.evaluation.final:
        return one.evaluation, other.evaluation
    return _first(one), _first(other)


def _first(entry: Entry) -> Evaluation:
    assert entry.evaluation is not None
    found = (said.evaluation for said in entry.history if said.evaluation.verdict is Verdict.CORRECT and not said.evaluation.final)
    return next(found, entry.evaluation)


def outcome(state: RunState, entry: Entry) -> Outcome:
    """What came of a candidate; one with two parents is slower where it is slower than both, and faster where it is faster than both."""
    if entry.evaluation is None or entry.evaluation.verdict is Verdict.INFRA_ERROR:
        return "unknown"
    if entry.evaluation.verdict is not Verdict.CORRECT:
        return "broken"
    found = {against(entry, parent) for parent in correct_parents(state, entry)} - {"unknown"}
    if not found:
        return "unknown"
    return found.pop() if len(found) == 1 else "unclear"


def correct_parents(state: RunState, entry: Entry) -> list[Entry]:
    """The parents that are in the run and correct."""
    known = [state.entries[parent] for parent in entry.candidate.parents if parent in state.entries]
    return [parent for parent in known if parent.correct]
