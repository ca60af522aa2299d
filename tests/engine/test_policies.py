"""What holds of every policy, whatever the tree looks like."""

import random
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scripted import config

from kernelevolve_lab import registry
from kernelevolve_lab.engine.policies.base import stagnation
from kernelevolve_lab.engine.policies.evolutionary import Evolutionary
from kernelevolve_lab.engine.policies.greedy import Greedy
from kernelevolve_lab.engine.policies.mcts import Mcts
from kernelevolve_lab.engine.policies.sample import Sample
from kernelevolve_lab.records import Budget, Candidate, Evaluation, Evidence, Ratio, Verdict, events
from kernelevolve_lab.records.events import Logged
from kernelevolve_lab.records.fold import RunFold
from kernelevolve_lab.records.run import Pin, Reject
from kernelevolve_lab.records.run_state import RunState

POLICIES = [Greedy(), Evolutionary(), Mcts()]
each_policy = pytest.mark.parametrize("policy", POLICIES, ids=lambda policy: policy.name)


def grown(
    speeds: list[float | None], parents: list[list[int]], pinned: set[int] = frozenset(), rejected: set[int] = frozenset()
) -> RunState:
    """A run whose candidate n has that speed (None: wrong; below 0: not judged yet) and descends from the candidates in `parents[n]`."""
    fold, seq = RunFold(), 0

    def say(event: events.Event) -> None:
        nonlocal seq
        seq += 1
        fold.apply(Logged(run="r", seq=seq, time=float(seq), event=event))

    say(events.RunStarted(config=config(), title="t"))
    ids: list[str] = []
    for n, speed in enumerate(speeds):
        made = Candidate(language="cpp", source=f"n={n}", parents=tuple(ids[p] for p in parents[n]))
        ids.append(made.id)
        say(events.CandidateProposed(candidate=made, index=n))
        if speed is not None and speed < 0:
            continue
        common = {"candidate": made.id, "target": "cpu", "language": "cpp", "evidence": Evidence.MEASURED}
        if speed is None:
            found = Evaluation(verdict=Verdict.INCORRECT, reasons=("wrong",), **common)
        else:
            found = Evaluation(verdict=Verdict.CORRECT, speedup=Ratio(value=speed, low=speed, high=speed, baseline="eager"), **common)
        say(events.EvaluationFinished(evaluation=found))
    for n in sorted(pinned):
        say(events.SteeringAccepted(command=Pin(candidate=ids[n])))
    for n in sorted(rejected):
        say(events.SteeringAccepted(command=Reject(candidate=ids[n], reason="no")))
    return fold.state


@st.composite
def trees(draw: st.DrawFn) -> RunState:
    size = draw(st.integers(0, 25))
    speeds = [draw(st.none() | st.floats(0.1, 20) | st.just(-1.0)) for _ in range(size)]
    parents = [draw(st.lists(st.integers(0, n - 1), max_size=2, unique=True)) if n else [] for n in range(size)]
    some = st.sets(st.integers(0, size - 1), max_size=6) if size else st.just(set())
    return grown(speeds, parents, draw(some), draw(some))


@each_policy
@settings(max_examples=150, deadline=None)
@given(state=trees(), seed=st.integers(0, 2**32), drafts=st.integers(-2, 8))
def test_a_choice_is_legal_and_repeatable(policy, state: RunState, seed: int, drafts: int) -> None:
    choice = policy.choose(state, random.Random(seed), drafts)
    assert choice == policy.choose(state, random.Random(seed), drafts)
    assert len(choice.parents) == len(set(choice.parents)) <= 2
    usable = [entry for entry in state.entries.values() if entry.evaluation and not entry.banned]
    for parent in choice.parents:
        assert state.entries[parent] in usable
        if any(entry.correct for entry in usable):
            assert state.entries[parent].correct
    if sum(not entry.candidate.parents for entry in state.entries.values()) < drafts or not usable:
        assert choice.parents == () and choice.memory != "clean_slate"
    elif state.since_best < stagnation(state):
        assert choice.parents != ()
    if choice.memory == "clean_slate":
        assert choice.parents == ()


def chosen(policy, state: RunState, times: int = 400) -> Counter:
    return Counter(parent for seed in range(times) for parent in policy.choose(state, random.Random(seed), 0).parents)


@each_policy
def test_better_candidates_are_expanded_more_often(policy) -> None:
    state = grown([1.0, 2.0, 3.0, 4.0, 5.0, 6.0], [[]] * 6)
    counts = chosen(policy, state)
    best, worst = list(state.entries)[-1], next(iter(state.entries))
    assert counts[best] > counts[worst]


@each_policy
def test_a_pinned_candidate_is_preferred(policy) -> None:
    plain = grown([1.0, 5.0, 6.0, 7.0], [[]] * 4)
    pinned = grown([1.0, 5.0, 6.0, 7.0], [[]] * 4, pinned={0})
    first = next(iter(plain.entries))
    assert chosen(policy, pinned)[first] > 100 + chosen(policy, plain)[first]


@each_policy
def test_stagnation_brings_new_starts(policy) -> None:
    """They are clean slates: the proposer is not shown what failed."""
    tries = 20
    state = grown([5.0] + [1.0] * tries, [[]] + [[0]] * tries)
    assert state.since_best == tries >= stagnation(state)
    starts = [choice for seed in range(400) if not (choice := policy.choose(state, random.Random(seed), 1)).parents]
    assert 50 < len(starts) < 200
    assert all(choice.memory == "clean_slate" for choice in starts)


@pytest.mark.parametrize(("candidates", "after"), [(8, 6), (20, 6), (40, 10), (1000, 20), (None, 20)])
def test_short_runs_stagnate_sooner(candidates: int | None, after: int) -> None:
    assert stagnation(replace(RunState(), budget=Budget(candidates=candidates))) == after


@each_policy
def test_where_all_failed_the_latest_failures_can_be_repaired(policy) -> None:
    state = grown([None, None, None], [[]] * 3)
    assert set(chosen(policy, state)) <= set(state.entries)
    assert chosen(policy, state)


def test_evolution_crosses_two_parents_of_different_families() -> None:
    state = grown([3.0, 2.9, 2.8, 3.1, 3.2, 3.3], [[], [], [], [0], [1], [2]])
    pairs = [choice.parents for seed in range(400) if len((choice := Evolutionary().choose(state, random.Random(seed), 0)).parents) == 2]
    assert 20 < len(pairs) < 200
    family = {id: n % 3 for n, id in enumerate(state.entries)}
    assert sum(family[a] != family[b] for a, b in pairs) > len(pairs) / 2


def test_evolution_keeps_weaker_islands_alive() -> None:
    """The second and third families are never the best, and yet are expanded."""
    state = grown([9.0, 1.0, 1.1, 9.1, 9.2, 9.3], [[], [], [], [0], [3], [4]])
    counts = chosen(Evolutionary(), state)
    assert all(counts[id] > 20 for id in list(state.entries)[1:3])


def test_mcts_explores_what_was_tried_little() -> None:
    """Two branches of equal promise, one with many children: the other comes first."""
    state = grown([2.0, 2.0] + [1.0] * 8, [[], []] + [[0]] * 8)
    counts = chosen(Mcts(), state)
    first, second = list(state.entries)[:2]
    assert counts[second] > counts[first]


def test_mcts_follows_a_lineage_thousands_deep() -> None:
    state = grown([1.0 + n / 1000 for n in range(1500)], [[]] + [[n] for n in range(1499)])
    assert Mcts().choose(state, random.Random(1), 0).parents


@given(state=trees(), seed=st.integers(0, 2**32), drafts=st.integers(-2, 8))
def test_samples_are_independent_of_each_other(state: RunState, seed: int, drafts: int) -> None:
    choice = Sample().choose(state, random.Random(seed), drafts)
    assert (choice.parents, choice.memory) == ((), "none")


def test_the_policies_are_registered() -> None:
    for policy in (*POLICIES, Sample()):
        assert registry.load("policies", policy.name)().name == policy.name


def unsure(state: RunState, width: float) -> RunState:
    """The same run, with intervals that reach by that factor to both sides."""

    def blurred(evaluation: Evaluation | None) -> Evaluation | None:
        if evaluation is None or evaluation.speedup is None:
            return evaluation
        ratio = evaluation.speedup
        wide = ratio.model_copy(update={"low": ratio.value / width, "high": ratio.value * width})
        return evaluation.model_copy(update={"speedup": wide})

    return replace(state, entries={id: replace(entry, evaluation=blurred(entry.evaluation)) for id, entry in state.entries.items()})


@pytest.mark.parametrize("policy", [Greedy(), Evolutionary()], ids=lambda policy: policy.name)
def test_a_parent_that_its_child_clearly_beats_is_not_expanded_again(policy) -> None:
    """A line of ever better candidates beside two drafts that nobody improved."""
    state = grown([5.0, 4.0, 3.0, 6.0, 7.0, 8.0], [[], [], [], [0], [3], [4]])
    first, *drafts, second, third, last = state.entries
    counts = chosen(policy, state)
    assert not counts[first] + counts[second] + counts[third]
    assert counts[last] > max(counts[id] for id in drafts)
    assert counts[drafts[0]], "the runner-up, who has no better child"


def test_evolution_keeps_a_parent_whose_child_is_not_clearly_better_but_less_often() -> None:
    speeds, parents = [5.0, 4.9, 5.1], [[], [], [1]]
    alone, with_child = grown([5.0, 4.9, 5.1], [[], [], []]), unsure(grown(speeds, parents), 1.2)
    second = list(alone.entries)[1]
    counts = chosen(Evolutionary(), with_child)
    assert 0 < counts[second] < chosen(Evolutionary(), unsure(alone, 1.2))[second]


@each_policy
def test_a_pinned_candidate_is_expanded_though_its_child_beats_it(policy) -> None:
    state = grown([1.0, 9.0], [[], [0]], pinned={0})
    assert chosen(policy, state)[next(iter(state.entries))] > 100


def test_no_candidate_is_crossed_with_its_own_ancestor() -> None:
    state = unsure(grown([2.0, 2.1, 2.2, 2.05], [[], [0], [1], []]), 1.5)
    for seed in range(400):
        choice = Evolutionary().choose(state, random.Random(seed), 0)
        if len(choice.parents) == 2:
            first, second = choice.parents
            assert second not in {entry.id for entry in state.lineage(first)}
