"""Distils a run into lessons: which changes helped or hurt, by how much, what failed again and again, and the winner.

Only what the intervals support becomes a lesson: a change helped when the whole interval of the ratio child over parent lies above 1, and
hurt when it lies below 1 and neither timing was noisy, since an idea that is written off is not tried again. That ratio is conservative
(its bounds divide the bounds of two separate comparisons with the same baseline).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from kernelevolve_lab.knowledge.lessons import Gain, Lesson, LessonBook
from kernelevolve_lab.knowledge.outcomes import against, alike
from kernelevolve_lab.knowledge.visible import fails_elsewhere, visible
from kernelevolve_lab.operators.base import Operator
from kernelevolve_lab.records import Evidence, Verdict
from kernelevolve_lab.records.events import LessonLearned
from kernelevolve_lab.records.run_state import Entry, RunState

MOST_HELPED, MOST_HURT, MOST_PITFALLS = 6, 3, 3
WORTH_TELLING = 1.05
"""A change that moves the time by less than 5 % is not kept, however sure it is."""


def learn(state: RunState, operator: Operator, book: LessonBook | None = None) -> list[LessonLearned]:
    """Distil a run into the lesson book (default: the person's own); returns what was new or changed, as events for the run's log."""
    written = (book or LessonBook()).add(distil(state, operator))
    return [LessonLearned(lesson=name, text=lesson.text, evidence="; ".join(lesson.evidence)) for name, lesson in written.items()]


def distil(state: RunState, operator: Operator) -> list[Lesson]:
    """The lessons of a run; the same for the same state."""
    if state.config is None:
        return []
    changes = list(_changes(state, operator))
    helped = sorted((c for c in changes if c.kind == "helped"), key=lambda lesson: -lesson.gain.value)[:MOST_HELPED]
    hurt = sorted((c for c in changes if c.kind == "hurt"), key=lambda lesson: lesson.gain.value)[:MOST_HURT]
    return [*_winner(state, operator), *helped, *hurt, *_pitfalls(state, operator)]


def _changes(state: RunState, operator: Operator) -> Iterator[Lesson]:
    for entry in state.entries.values():
        parents = [state.entries[parent] for parent in entry.candidate.parents if parent in state.entries]
        if len(parents) != 1 or not (_counts(entry) and _counts(parents[0])):
            continue
        mine, its = (evaluation.speedup for evaluation in alike(entry, parents[0]))
        if mine.baseline != its.baseline:
            continue
        gain = Gain(mine.value / its.value, mine.low / its.high, mine.high / its.low)
        text = _what_changed(parents[0], entry)
        if not text:
            continue
        evidence = f"run {state.run}: {parents[0].candidate.id} to {entry.candidate.id}"
        if gain.low > 1 and gain.value >= WORTH_TELLING:
            yield _lesson("helped", state, operator, text, gain, evidence)
        elif against(entry, parents[0]) == "slower" and gain.value <= 1 / WORTH_TELLING:
            yield _lesson("hurt", state, operator, text, gain, evidence)


def _counts(entry: Entry) -> bool:
    evaluation = entry.evaluation
    sound = entry.correct and not entry.banned and not fails_elsewhere(evaluation)
    return sound and evaluation.speedup is not None and evaluation.evidence is Evidence.MEASURED


def _what_changed(before: Entry, after: Entry) -> str:
    """Knobs of the same template, else the proposer's own title and plan; empty where nobody said."""
    old, new = before.candidate, after.candidate
    if new.template and new.template == old.template:
        names = sorted({*old.knobs, *new.knobs})
        deltas = [
            f"{name} from {old.knobs.get(name, 'none')} to {new.knobs.get(name, 'none')}"
            for name in names
            if old.knobs.get(name) != new.knobs.get(name)
        ]
        return f"In template {new.template}: {', '.join(deltas)}." if deltas else ""
    if new.template:
        return f"Template {new.template} instead of {old.template or 'a hand-written kernel'}."
    if new.knobs:
        return f"{old.title or old.id}: {', '.join(f'{name} = {value}' for name, value in sorted(new.knobs.items()))}."
    plan = " ".join(new.notes.split())
    made_from = f" (made from: {old.title})" if old.title else ""
    return f"{new.title}{made_from}. {plan[:600]}".strip() if new.title or plan else ""


def _pitfalls(state: RunState, operator: Operator) -> list[Lesson]:
    """Failures that came up at least twice with the same message."""
    counted: Counter[tuple[str, str]] = Counter()
    examples: dict[tuple[str, str], str] = {}
    for entry in state.entries.values():
        if entry.evaluation is None or entry.evaluation.verdict in (Verdict.CORRECT, Verdict.INFRA_ERROR):
            continue
        evaluation = visible(entry.evaluation, operator)
        errors = [item.message for item in evaluation.diagnostics if "error" in item.severity]
        key = (evaluation.verdict.value, " ".join((errors or list(evaluation.reasons))[0].split())[:300])
        counted[key] += 1
        examples.setdefault(key, entry.candidate.id)
    lessons = []
    for (verdict, message), count in counted.most_common(MOST_PITFALLS):
        if count > 1:
            evidence = f"run {state.run}: {examples[verdict, message]} and {count - 1} more"
            lessons.append(_lesson("pitfall", state, operator, f"{verdict}: {message}", None, evidence))
    return lessons


def _winner(state: RunState, operator: Operator) -> list[Lesson]:
    best = state.best
    if best is None or not _counts(best) or best.evaluation.speedup.low <= 1:
        return []
    ratio = best.evaluation.speedup
    title = best.candidate.title or best.candidate.template or "Best kernel"
    text = f"{title}: {ratio.value:.2f}× over {ratio.baseline}, after {state.judged} candidates."
    gain = Gain(ratio.value, ratio.low, ratio.high)
    return [_lesson("winner", state, operator, text, gain, f"run {state.run}: {best.candidate.id}", best.candidate.source)]


def _lesson(kind, state: RunState, operator: Operator, text: str, gain: Gain | None, evidence: str, source: str = "") -> Lesson:
    return Lesson(kind, operator.name, operator.family, state.config.target, state.config.language, text, gain, 1, (evidence,), source)
