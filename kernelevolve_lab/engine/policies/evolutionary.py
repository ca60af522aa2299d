"""Evolutionary search on islands: tournaments within an island, crossover of two parents, migration of the best.

Each draft founds a family, and families are dealt out to islands in order; a candidate lives on the island of its first ancestor. So the
island of a candidate follows from the state alone, and a resumed run has the same islands.
"""

import random

from kernelevolve_lab.engine.policies.base import Choice, candidates_for_parents, new_start, pinned
from kernelevolve_lab.records.run_state import Entry, RunState

ISLANDS = 3
TOURNAMENT = 3
POPULATION = 24
CROSSOVER_SHARE = 0.2
MIGRATION_SHARE = 0.1
PINNED_SHARE = 0.4


class Evolutionary:
    """Several populations that improve apart and exchange their best now and then."""

    name = "evolutionary"

    def choose(self, state: RunState, rng: random.Random, draft_target: int) -> Choice:
        if start := new_start(state, rng, draft_target):
            return start
        entries = candidates_for_parents(state)
        favourites = pinned(entries)
        if favourites and rng.random() < PINNED_SHARE:
            return Choice((rng.choice(favourites).id,), "parent")
        islands = _islands(state, entries)
        home = islands[rng.randrange(len(islands))]
        first = _tournament(home, rng)
        if len(entries) > 1 and rng.random() < CROSSOVER_SHARE:
            others = [entry for entry in _partners(islands, home, entries, rng) if entry.id != first.id]
            if others:
                return Choice((first.id, _tournament(others, rng).id), "both")
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


def _tournament(entries: list[Entry], rng: random.Random) -> Entry:
    """The best of a few drawn at random; entries stand best first."""
    return entries[min(rng.randrange(len(entries)) for _ in range(TOURNAMENT))]


def _partners(islands: list[list[Entry]], home: list[Entry], entries: tuple[Entry, ...], rng: random.Random) -> list[Entry]:
    """Whom to cross with: mostly a neighbour from another island, whose ideas differ."""
    abroad = [entry for island in islands if island is not home for entry in island]
    return abroad if abroad and rng.random() < 0.7 else list(entries[:POPULATION])
