"""What came of a candidate, measured against its parents: only what the intervals bear out."""

from __future__ import annotations

from typing import Literal

from kernelevolve_lab.records import Evidence, Flag, Verdict
from kernelevolve_lab.records.run_state import Entry, RunState

Outcome = Literal["faster", "slower", "unclear", "broken", "unknown"]
"""`unclear`: no difference that the intervals bear out; `unknown`: not judged, or correct with nothing to compare it to."""


def against(entry: Entry, parent: Entry) -> Outcome:
    """A correct candidate against a correct parent. It is slower only where its whole interval lies below its parent's and neither timing
    was noisy: an idea must not be written off on noise."""
    mine, its = entry.evaluation.speedup, parent.evaluation.speedup
    measured = all(evaluation.evidence is Evidence.MEASURED for evaluation in (entry.evaluation, parent.evaluation))
    if mine is None or its is None or mine.baseline != its.baseline or not measured:
        return "unknown"
    noisy = Flag.NOISY in entry.evaluation.flags or Flag.NOISY in parent.evaluation.flags
    if mine.low > its.high:
        return "faster"
    return "slower" if mine.high < its.low and not noisy else "unclear"


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
