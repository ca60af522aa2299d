"""Chooses what of a run's past a prompt tells: ancestors, what was tried near the parents, designs taken, and failures elsewhere."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass

from kernelevolve_lab.knowledge.outcomes import outcome
from kernelevolve_lab.knowledge.visible import fails_elsewhere
from kernelevolve_lab.operators.base import Operator
from kernelevolve_lab.proposers.chat.findings import in_short, interval
from kernelevolve_lab.proposers.chat.render import oneline
from kernelevolve_lab.records import Verdict
from kernelevolve_lab.records.run_state import Entry, RunState

DIFF_LINES = 60
_CAME_OF_IT = {
    "faster": "faster than its parent",
    "slower": "slower than its parent, beyond noise",
    "unclear": "no clear difference from its parent",
}


@dataclass(frozen=True)
class Step:
    """One candidate of the past: a line about it, and the diff that made it from its parent (may be empty)."""

    id: str
    line: str
    diff: str = ""


@dataclass(frozen=True)
class Group:
    """Candidates that were made from the same parent, with a heading that names it; the most telling first."""

    heading: str
    steps: tuple[Step, ...]


def ancestors(state: RunState, parent: str, operator: Operator) -> list[Step]:
    """The way from the first draft to the parent, oldest first, each with what it changed; the parent itself has no diff."""
    chain = state.lineage(parent)
    steps = []
    for before, entry in zip((None, *chain), chain, strict=False):
        diff = _diff(before, entry) if before and entry.candidate.id != parent else ""
        steps.append(Step(entry.candidate.id, _line(entry, operator, state), diff))
    return steps


def children(state: RunState, parent: str, operator: Operator) -> Group:
    """What was already made from a parent, best first, with the change each made."""
    mother = state.entries[parent]
    made = _telling(state.children(parent))
    steps = tuple(Step(entry.id, _line(entry, operator, state), _diff(mother, entry)) for entry in made)
    return Group(f"Made from {_of(mother)}", steps)


def siblings(state: RunState, parent: str, operator: Operator) -> list[Group]:
    """What else was made from the parents of a parent, best first; for a first draft, the other first drafts."""
    entry = state.entries[parent]
    known = [state.entries[name] for name in entry.candidate.parents if name in state.entries]
    if not known:
        drafts = [other for other in state.entries.values() if not other.candidate.parents and other.id != parent]
        return [Group("Other first drafts", tuple(Step(other.id, _line(other, operator, state)) for other in _telling(drafts)))]
    groups = []
    for mother in known:
        others = _telling(other for other in state.children(mother.id) if other.id != parent)
        steps = tuple(Step(other.id, _line(other, operator, state)) for other in others)
        groups.append(Group(f"Made like {parent} from {_of(mother)}", steps))
    return groups


def failures(state: RunState, operator: Operator, told: set[str], most: int = 20) -> list[str]:
    """One line for each try that did not work out, the newest first; without repeats, and without candidates that the prompt tells of
    elsewhere (`told`).

    A try failed when it is wrong, does not build or run, or is slower than its parent beyond noise. One that made no clear difference has
    not failed.
    """
    tries = [entry for entry in state.entries.values() if entry.evaluation and entry.rejected is None and entry.candidate.id not in told]
    tries.sort(key=lambda entry: -entry.order)
    failed = [entry for entry in tries if outcome(state, entry) in ("broken", "slower")]
    return list(dict.fromkeys(_line(entry, operator, state) for entry in failed))[:most]


def undecided(state: RunState, told: set[str], most: int = 6) -> list[str]:
    """One line for each try that made no clear difference to its parent, the newest first; without those in `told`."""
    tries = [entry for entry in state.entries.values() if entry.correct and entry.rejected is None and entry.candidate.id not in told]
    tries.sort(key=lambda entry: -entry.order)
    unclear = [entry for entry in tries if outcome(state, entry) == "unclear"]
    return [f"{entry.id} {_quoted(entry, 110)}: {interval(entry.evaluation.speedup)}" for entry in unclear[:most]]


def taken(state: RunState, pending: tuple[str, ...], results: bool = True, most: int = 24) -> list[str]:
    """Titles of designs in the run and on their way, best first, for variety; each with what came of it, or (`results` False) bare."""
    entries = sorted(state.entries.values(), key=lambda entry: (-entry.secured, -entry.order))
    first = [entry for entry in entries if entry.candidate.id in pending]
    found: dict[str, str] = {}
    for entry in (*first, *entries):
        if entry.candidate.title:
            title = _quoted(entry, 90)
            found.setdefault(title, f"{title} ({_came_of(entry)})" if results else title)
    return list(found.values())[:most]


def titles(entries: Sequence[Entry]) -> list[str]:
    """The titles of candidates in quotes, each once."""
    return list(dict.fromkeys(_quoted(entry, 90) for entry in entries if entry.candidate.title))


def _telling(entries) -> list[Entry]:
    """Those that were judged and that nobody rejected, the best first, then the failures, newest first."""
    judged = [entry for entry in entries if entry.evaluation and not entry.banned]
    return sorted(judged, key=lambda entry: (-entry.secured, -entry.order))


def _line(entry: Entry, operator: Operator, state: RunState) -> str:
    """What a candidate was and what came of it."""
    name = entry.candidate.id + (f" {_quoted(entry, 110)}" if entry.candidate.title else "")
    evaluation = entry.evaluation
    if evaluation is not None and evaluation.verdict is Verdict.INFRA_ERROR:
        return f"{name}: the judge failed, not the kernel; it may be tried again"
    if not entry.correct or evaluation.speedup is None:
        return f"{name}: {in_short(evaluation, operator)}"
    came = _CAME_OF_IT.get(outcome(state, entry), "")
    return f"{name}: {interval(evaluation.speedup)}{', ' if came else ''}{came}"


def _came_of(entry: Entry) -> str:
    """The verdict in a few words, with the speedup where there is one."""
    evaluation = entry.evaluation
    if evaluation is None:
        return "not judged yet"
    if evaluation.verdict is Verdict.INFRA_ERROR:
        return "the judge failed, not the kernel"
    if fails_elsewhere(evaluation):
        return "wrong on a case that is not shown"
    speed = f" {entry.fitness:.2f}×" if entry.correct and entry.fitness else ""
    return f"{evaluation.verdict.value.replace('_', ' ')}{speed}"


def _of(mother: Entry) -> str:
    speed = mother.evaluation.speedup if mother.evaluation else None
    return f"{mother.id} ({interval(speed)})" if speed else mother.id


def _quoted(entry: Entry, length: int) -> str:
    return f'"{oneline(entry.candidate.title, length)}"'


def _diff(before: Entry, after: Entry) -> str:
    """A unified diff with little context; empty where so much changed that it says less than the title."""
    old, new = before.candidate.source.splitlines(), after.candidate.source.splitlines()
    lines = list(difflib.unified_diff(old, new, lineterm="", n=1))[2:]
    return "\n".join(lines) if len(lines) <= DIFF_LINES else ""
