"""What a policy is: from the state of a run to the parents of the next candidate."""

import random
from dataclasses import dataclass
from typing import Protocol

from kernelevolve_lab.proposers.base import Memory
from kernelevolve_lab.records.run_state import Entry, RunState

# After a quarter of the run's candidates (but no fewer and no more than this) without a new best, clean slates are mixed in: a new start
# that is not shown what failed finds what no change to the old kernels reaches.
STAGNATION_LEAST, STAGNATION_MOST = 6, 20
RESTART_SHARE = 0.25


@dataclass(frozen=True)
class Choice:
    """What to expand: no parents for a draft, two for a crossover; `memory` says how much history the proposer should consider."""

    parents: tuple[str, ...] = ()
    memory: Memory = "parent"


DRAFT = Choice(())
RESTART = Choice((), "clean_slate")


class Policy(Protocol):
    """Chooses parents. A policy is registered in the group `kernelevolve_lab.policies` as a callable that returns one; it keeps nothing
    between calls, so that a resumed run goes on as it would have."""

    name: str

    def choose(self, state: RunState, rng: random.Random, draft_target: int) -> Choice:
        """Choose from a state; a draft while fewer than `draft_target` exist. Never chooses a banned candidate, and two calls with equal
        arguments choose the same."""


def candidates_for_parents(state: RunState) -> tuple[Entry, ...]:
    """Whom one may expand, best first: correct candidates that are not banned, all of the best evidence there is. While there is none,
    those that failed, latest first: the proposer is told why and can repair them."""
    usable = [entry for entry in state.ranked() if not entry.banned and entry.evaluation is not None]
    correct = [entry for entry in usable if entry.correct]
    if not correct:
        return tuple(usable)
    evidence = correct[0].evaluation.evidence
    return tuple(entry for entry in correct if entry.evaluation.evidence is evidence)


def new_start(state: RunState, rng: random.Random, draft_target: int) -> Choice | None:
    """`DRAFT` while the draft phase lasts or nothing can be expanded, now and then `RESTART` when the search stagnates, else None."""
    drafts = sum(not entry.candidate.parents for entry in state.entries.values())
    if drafts < draft_target or not any(entry.evaluation and not entry.banned for entry in state.entries.values()):
        return DRAFT
    return RESTART if state.since_best >= stagnation(state) and rng.random() < RESTART_SHARE else None


def stagnation(state: RunState) -> int:
    """After how many candidates without a new best a run stagnates."""
    return min(STAGNATION_MOST, max(STAGNATION_LEAST, (state.budget.candidates or 4 * STAGNATION_MOST) // 4))


def beaten(entries: tuple[Entry, ...]) -> dict[str, Entry]:
    """Those of `entries` that a child of theirs among `entries` beats, by id, each with its best such child.

    `entries` stand best first. Ranks alone would go on choosing such a parent, since it stands right behind the child that replaced it.
    """
    rank = {entry.id: place for place, entry in enumerate(entries)}
    found: dict[str, Entry] = {}
    for child in entries:  # best first, so the first child that is found is the best
        for parent in child.candidate.parents:
            if parent in rank and rank[child.id] < rank[parent] and not child.evaluation.wrong_elsewhere:
                found.setdefault(parent, child)
    return found


def clearly(better: Entry, worse: Entry) -> bool:
    """Whether the whole interval of one candidate's speedup lies above the other's."""
    one, other = better.evaluation.speedup, worse.evaluation.speedup
    return one is not None and other is not None and one.low > other.high


def unbeaten(entries: tuple[Entry, ...]) -> tuple[Entry, ...]:
    """`entries`, best first, without those that a child clearly beats: what one would make of them is better made of that child. The first
    always remains, and so does what a person pinned."""
    children = beaten(entries)
    return tuple(entry for entry in entries if entry.pinned or entry.id not in children or not clearly(children[entry.id], entry))


def pinned(entries: tuple[Entry, ...]) -> tuple[Entry, ...]:
    """Those that a person pinned."""
    return tuple(entry for entry in entries if entry.pinned)
