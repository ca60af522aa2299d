"""Chooses what of a run's past a prompt tells: ancestors, siblings, designs taken, and failures that should not be repeated."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass

from kernelevolve_lab.operators.base import Operator
from kernelevolve_lab.proposers.chat.findings import in_short
from kernelevolve_lab.proposers.chat.render import oneline
from kernelevolve_lab.records import Verdict
from kernelevolve_lab.records.run_state import Entry, RunState

DIFF_LINES = 60


@dataclass(frozen=True)
class Step:
    """One candidate of the past: a line about it, and the diff that made it from its parent (may be empty)."""

    id: str
    line: str
    diff: str = ""


def ancestors(state: RunState, parent: str, operator: Operator) -> list[Step]:
    """The way from the first draft to the parent, oldest first, each with what it changed; the parent itself has no diff."""
    chain = state.lineage(parent)
    steps = []
    for before, entry in zip((None, *chain), chain, strict=False):
        steps.append(
            Step(entry.candidate.id, _line(entry, operator), _diff(before, entry) if before and entry.candidate.id != parent else "")
        )
    return steps


def siblings(state: RunState, parent: str, operator: Operator) -> list[Step]:
    """What was already made from the parent, best first, with the change each made."""
    mother = state.entries[parent]
    judged = [entry for entry in state.children(parent) if entry.evaluation and not entry.banned]
    children = sorted(judged, key=lambda entry: (-entry.fitness, entry.order))
    return [
        Step(entry.candidate.id, _line(entry, operator), _diff(mother, entry))
        for entry in children
        if entry.evaluation and not entry.banned
    ]


def failures(state: RunState, operator: Operator, near: tuple[str, ...], told: set[str], most: int = 20) -> list[str]:
    """One line for each try that did not work out: what failed near the parents first, then the newest; without repeats, and without
    candidates that the prompt tells of elsewhere (`told`).

    A correct candidate counts as a failure when its whole interval lies below its parent's.
    """
    family = set(near)
    for parent in near:
        family |= {entry.candidate.id for entry in state.children(parent)} | {entry.candidate.id for entry in state.lineage(parent)}
    tries = [entry for entry in state.entries.values() if entry.evaluation and entry.rejected is None and entry.candidate.id not in told]
    tries.sort(key=lambda entry: (entry.candidate.id not in family, -entry.order))
    lines: dict[str, None] = {}
    for entry in tries:
        evaluation = entry.evaluation
        if evaluation.verdict is Verdict.INFRA_ERROR:
            continue
        if evaluation.verdict is not Verdict.CORRECT:
            lines.setdefault(f"{_name(entry)} — {in_short(evaluation, operator)}")
        elif (parent := _parent(state, entry)) and _slower(entry, parent):
            lines.setdefault(f"{_name(entry)} — slower: {entry.fitness:.3f}× after {parent.fitness:.3f}× of its parent")
    return list(lines)[:most]


def taken(state: RunState, pending: tuple[str, ...], most: int = 24) -> list[str]:
    """Titles of designs in the run and on their way, best first, for the sake of variety."""
    entries = sorted(state.entries.values(), key=lambda entry: (-entry.fitness, -entry.order))
    first = [entry for entry in entries if entry.candidate.id in pending]
    return titles([*first, *entries])[:most]


def titles(entries: Sequence[Entry]) -> list[str]:
    """The titles of candidates in quotes, each once."""
    return list(dict.fromkeys(f'"{oneline(entry.candidate.title, 90)}"' for entry in entries if entry.candidate.title))


def _line(entry: Entry, operator: Operator) -> str:
    return f"{_name(entry)} — {in_short(entry.evaluation, operator)}"


def _name(entry: Entry) -> str:
    title = f' "{oneline(entry.candidate.title, 110)}"' if entry.candidate.title else ""
    return f"{entry.candidate.id}{title}"


def _parent(state: RunState, entry: Entry) -> Entry | None:
    return next((state.entries[p] for p in entry.candidate.parents if p in state.entries and state.entries[p].correct), None)


def _slower(entry: Entry, parent: Entry) -> bool:
    mine, its = entry.evaluation.speedup, parent.evaluation.speedup
    return mine is not None and its is not None and mine.high < its.low


def _diff(before: Entry, after: Entry) -> str:
    """A unified diff with little context; empty where so much changed that it says less than the title."""
    old, new = before.candidate.source.splitlines(), after.candidate.source.splitlines()
    lines = list(difflib.unified_diff(old, new, lineterm="", n=1))[2:]
    return "\n".join(lines) if len(lines) <= DIFF_LINES else ""
