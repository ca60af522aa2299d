"""Greedy: expand the best candidate, now and then a pinned one or the runner-up, the best of the others that no child of theirs beats."""

import random

from kernelevolve_lab.engine.policies.base import Choice, beaten, candidates_for_parents, new_start, pinned
from kernelevolve_lab.records.run_state import RunState

PINNED_SHARE = 0.5
RUNNER_UP_SHARE = 0.1


class Greedy:
    """Depth first: nearly all proposals start from the best known."""

    name = "greedy"

    def choose(self, state: RunState, rng: random.Random, draft_target: int) -> Choice:
        if start := new_start(state, rng, draft_target):
            return start
        entries = candidates_for_parents(state)
        favourites = pinned(entries)
        if favourites and rng.random() < PINNED_SHARE:
            parent = rng.choice(favourites)
        else:
            children = beaten(entries)
            others = [entry for entry in entries[1:] if entry.id not in children]
            parent = others[0] if others and rng.random() < RUNNER_UP_SHARE else entries[0]
        return Choice((parent.id,), rng.choices(("parent", "both"), (0.7, 0.3))[0])
