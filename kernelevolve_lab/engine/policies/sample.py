"""Best-of-N sampling: every candidate is a first one, written from scratch by somebody who is told nothing of the others.

It is no search but what a search is held against: whatever a policy gains over it at equal candidates is gained by choosing parents and by
what the judge found (`tests/benchmarks/best_of_n.py` measures that). What a person pins or branches from is expanded by no other rule
than that of the branch.
"""

import random

from kernelevolve_lab.engine.policies.base import Choice
from kernelevolve_lab.records.run_state import RunState


class Sample:
    """Independent drafts only."""

    name = "sample"

    def choose(self, state: RunState, rng: random.Random, draft_target: int) -> Choice:
        return Choice((), "none")
