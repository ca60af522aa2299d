"""How the policies go on from where a recorded search ended."""

import random
from collections import Counter
from dataclasses import replace

import pytest

from kernelevolve_lab.engine.policies.evolutionary import Evolutionary
from kernelevolve_lab.engine.policies.greedy import Greedy
from kernelevolve_lab.engine.recorded import shipped
from kernelevolve_lab.records.fold import RunFold
from kernelevolve_lab.store.bundle import read_run


@pytest.mark.parametrize("policy", [Greedy(), Evolutionary()], ids=lambda policy: policy.name)
def test_children_that_are_ahead_are_expanded_before_their_parents(policy) -> None:
    state = replace(RunFold(read_run(shipped()["softmax_cpu"])).state, since_best=0)
    counts = Counter(parent for seed in range(400) for parent in policy.choose(state, random.Random(seed), 0).parents)
    ahead = [
        (parent, child.id)
        for child in state.entries.values()
        for parent in child.candidate.parents
        if child.correct and child.fitness > state.entries[parent].fitness
    ]
    assert ahead
    assert all(counts[child] >= counts[parent] for parent, child in ahead)
