"""Which model answers: several can serve one run, by fixed weights or by what they have brought for their money.

The bandit is Thompson sampling over gain per dollar. What a model's candidate gained is the logarithm of its fitness over the best of its
parents' (a draft: over 1), 0 where it is slower or wrong; each model's mean gain has a normal posterior whose width falls with the number
of tries, and the draw is divided by the model's mean cost. State and seed decide the draw, so a resumed run goes on as it would have.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from random import Random

from kernelevolve_lab.records.run_state import Entry, RunState

PRIOR_GAIN, PRIOR_SPREAD = 0.1, 0.3
"""Before a model has shown anything it is taken to gain 10 % a candidate, with a standard deviation of 0.3 in the logarithm."""
FREE = 1e-4
"""USD that a request counts at least, so that free models compare by gain alone."""


@dataclass(frozen=True)
class Record:
    """What a model has brought in a run: judged candidates, their summed gain and squares, and what all its candidates cost."""

    tries: int = 0
    gain: float = 0.0
    squares: float = 0.0
    cost: float = 0.0


def by_weight(weights: Mapping[str, float], seed: int) -> str:
    """A model drawn by weight."""
    return Random(seed).choices(list(weights), list(weights.values()))[0]


def by_gain(weights: Mapping[str, float], state: RunState, seed: int) -> str:
    """A model drawn by gain per cost; the weights are how much each is favoured before anything is known."""
    random = Random(seed)
    records = track(state)
    total = sum(weights.values())

    def draw(model: str) -> float:
        record = records.get(model, Record())
        prior = 1.0 + weights[model] / total
        mean = (PRIOR_GAIN * prior + record.gain) / (prior + record.tries)
        variance = (PRIOR_SPREAD**2 * prior + record.squares) / (prior + record.tries)
        gain = max(1e-6, random.gauss(mean, math.sqrt(variance / (prior + record.tries))))
        return gain / max(FREE, record.cost / record.tries if record.tries else _typical_cost(records))

    return max(weights, key=draw)


def track(state: RunState) -> dict[str, Record]:
    """What each model has brought so far."""
    records: dict[str, Record] = {}
    for entry in state.entries.values():
        if not entry.model or entry.evaluation is None:
            continue
        gain, before = _gain(entry, state), records.get(entry.model, Record())
        records[entry.model] = Record(before.tries + 1, before.gain + gain, before.squares + gain**2, before.cost + entry.cost)
    return records


def _gain(entry: Entry, state: RunState) -> float:
    parents = [state.entries[parent].fitness for parent in entry.candidate.parents if parent in state.entries]
    base = max([fitness for fitness in parents if fitness > 0], default=1.0)
    return max(0.0, math.log(entry.fitness / base)) if entry.fitness > 0 else 0.0


def _typical_cost(records: Mapping[str, Record]) -> float:
    """What a candidate of the other models cost on average; 0 where none was judged."""
    tries = sum(record.tries for record in records.values())
    return sum(record.cost for record in records.values()) / tries if tries else 0.0
