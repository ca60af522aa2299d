"""Greedy: expand the best candidate, now and then a pinned one or the runner-up."""

import random

from kernelevolve_lab.engine.policies.base import Choice, candidates_for_parents, new_start, pinned
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
        elif len(entries) > 1 and rng.random() < RUNNER_UP_SHARE:
            parent = entries[1]
        else:
            parent = entries[0]
        return Choice((parent.id,), rng.choices(("parent", "both"), (0.7, 0.3))[0])
