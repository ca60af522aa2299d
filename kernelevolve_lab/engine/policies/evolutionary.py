"""Evolutionary search on islands: tournaments within an island, crossover of two parents, migration of the best.

Each draft founds a family, and families are dealt out to islands in order; a candidate lives on the island of its first ancestor. So the
island of a candidate follows from the state alone, and a resumed run has the same islands.

A candidate that a child of its own clearly beats has left the population: the child stands for it. Where the child is ahead by less than
the intervals tell apart, every second draw of the parent goes to the child.
"""

import random

from kernelevolve_lab.engine.policies.base import Choice, beaten, candidates_for_parents, new_start, pinned, unbeaten
from kernelevolve_lab.records.run_state import Entry, RunState

ISLANDS = 3
TOURNAMENT = 3
POPULATION = 24
CROSSOVER_SHARE = 0.2
MIGRATION_SHARE = 0.1
CHILD_SHARE = 0.5
PINNED_SHARE = 0.4


class Evolutionary:
    """Several populations that improve apart and exchange their best now and then."""

    name = "evolutionary"

    def choose(self, state: RunState, rng: random.Random, draft_target: int) -> Choice:
        if start := new_start(state, rng, draft_target):
            return start
        entries = unbeaten(candidates_for_parents(state))
        favourites = pinned(entries)
        if favourites and rng.random() < PINNED_SHARE:
            return Choice((rng.choice(favourites).id,), "parent")
        islands = _islands(state, entries)
        home = islands[rng.randrange(len(islands))]
        children = beaten(entries)
        first = _tournament(home, children, rng)
        if len(entries) > 1 and rng.random() < CROSSOVER_SHARE:
            others = [entry for entry in _partners(islands, home, entries, rng) if not _in_line(state, first, entry)]
            if others and not _in_line(state, first, second := _tournament(others, children, rng)):
                return Choice((first.id, second.id), "both")
        if rng.random() < MIGRATION_SHARE:
            first = entries[0]
        return Choice((first.id,), rng.choices(("parent", "siblings", "both"), (0.6, 0.2, 0.2))[0])


def _islands(state: RunState, entries: tuple[Entry, ...]) -> list[list[Entry]]:
    """The inhabited islands, each with its best first, at most `POPULATION` on each."""
    family: dict[str, int] = {}
    founded = 0
    for entry in state.entries.values():
        parent = next((p for p in entry.candidate.parents if p in family), None)
        if parent is None:
            family[entry.id] = founded % ISLANDS
            founded += 1
        else:
            family[entry.id] = family[parent]
    islands: list[list[Entry]] = [[] for _ in range(ISLANDS)]
    for entry in entries:
        islands[family[entry.id]].append(entry)
    return [island[:POPULATION] for island in islands if island]


def _tournament(entries: list[Entry], children: dict[str, Entry], rng: random.Random) -> Entry:
    """The best of a few drawn at random, or its child that beats it; entries stand best first."""
    drawn = entries[min(rng.randrange(len(entries)) for _ in range(TOURNAMENT))]
    while drawn.id in children and not drawn.pinned and rng.random() < CHILD_SHARE:
        drawn = children[drawn.id]
    return drawn


def _in_line(state: RunState, one: Entry, other: Entry) -> bool:
    """Whether one descends from the other or is the same: a cross of the two would only be the younger one again."""
    return any(a.id == entry.id for a, b in ((one, other), (other, one)) for entry in state.lineage(b.id))


def _partners(islands: list[list[Entry]], home: list[Entry], entries: tuple[Entry, ...], rng: random.Random) -> list[Entry]:
    """Whom to cross with: mostly a neighbour from another island, whose ideas differ."""
    abroad = [entry for island in islands if island is not home for entry in island]
    return abroad if abroad and rng.random() < 0.7 else list(entries[:POPULATION])
