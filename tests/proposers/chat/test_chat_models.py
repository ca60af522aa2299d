"""Several models in one run: by weight, and by gain per cost."""

from collections import Counter

import pytest
from run_states import TARGET, broken, candidate, correct, request, source, state_of
from scripted_endpoint import Say, serving

from kernelevolve_lab.errors import BadInput
from kernelevolve_lab.proposers.chat import create
from kernelevolve_lab.proposers.chat.models import by_gain, by_weight, track
from kernelevolve_lab.proposers.chat.settings import read
from kernelevolve_lab.records.events import CandidateProposed

LOCAL = {"base_url": "http://127.0.0.1:1/v1"}


def proposed(number: int, model: str, cost: float = 0.01, parents=()):
    return CandidateProposed(candidate=candidate(number, parents), model=model, cost=cost, index=number)


def history(operator, gains: dict[str, float], costs: dict[str, float], rounds: int = 12):
    """A run in which each model wrote drafts of one speedup."""
    events, number = [], 0
    for _ in range(rounds):
        for model, gain in gains.items():
            number += 1
            event = proposed(number, model, costs.get(model, 0.01))
            events += [event, correct(event.candidate, gain, operator)]
    return state_of(*events)


def test_weights_are_kept():
    drawn = Counter(by_weight({"big": 1.0, "small": 3.0}, seed) for seed in range(2000))
    assert 0.7 < drawn["small"] / 2000 < 0.8
    assert by_weight({"only": 1.0}, 5) == "only"


def test_better_model_is_preferred_and_the_other_still_tried(operator):
    state = history(operator, {"good": 1.6, "bad": 1.02}, {})
    drawn = Counter(by_gain({"good": 1.0, "bad": 1.0}, state, seed) for seed in range(300))
    assert drawn["good"] > 240


def test_gain_is_weighed_against_cost(operator):
    state = history(operator, {"dear": 1.3, "cheap": 1.25}, {"dear": 0.2, "cheap": 0.01})
    drawn = Counter(by_gain({"dear": 1.0, "cheap": 1.0}, state, seed) for seed in range(300))
    assert drawn["cheap"] > 270


def test_unknown_models_are_tried(operator):
    state = history(operator, {"known": 1.05}, {})
    drawn = Counter(by_gain({"known": 1.0, "new": 1.0}, state, seed) for seed in range(300))
    assert drawn["new"] > 60


def test_gain_is_over_the_parent_and_never_negative(operator):
    first = proposed(1, "m")
    second, third, fourth = (proposed(number, "m", parents=(first.candidate.id,)) for number in (2, 3, 4))
    state = state_of(
        first,
        correct(first.candidate, 2.0, operator),
        second,
        correct(second.candidate, 4.0, operator),
        third,
        correct(third.candidate, 1.0, operator),
        fourth,
        broken(fourth.candidate),
    )
    record = track(state)["m"]
    assert record.tries == 4 and record.gain == pytest.approx(2 * 0.6931, abs=1e-3) and record.cost == pytest.approx(0.04)


def test_same_state_and_seed_same_model(operator):
    state = history(operator, {"a": 1.2, "b": 1.2}, {})
    assert [by_gain({"a": 1, "b": 1}, state, seed) for seed in range(50)] == [by_gain({"a": 1, "b": 1}, state, seed) for seed in range(50)]


async def test_models_of_a_run_are_asked_by_weight(operator):
    number = iter(range(1, 100))
    with serving(lambda body: Say(f"```cpp\n{source(next(number))}```\n")) as endpoint:
        proposer = create(operator, TARGET, "cpp", {"model": "big*1, small*3", "base_url": endpoint.url}, 0)
        proposals = [await proposer.propose(request(operator, index=index, seed=index)) for index in range(24)]
        await proposer.close()
    asked = Counter(sent["model"] for sent in endpoint.requests)
    assert set(asked) == {"big", "small"} and asked["small"] > asked["big"]
    assert [proposal.model for proposal in proposals] == [sent["model"] for sent in endpoint.requests]


@pytest.mark.parametrize(("model", "expected"), [("a", {"a": 1.0}), ("a*2, b:8b", {"a": 2.0, "b:8b": 1.0}), ("x/y*0.5", {"x/y": 0.5})])
def test_models_are_read(model, expected):
    assert read(LOCAL | {"model": model}).models == expected


@pytest.mark.parametrize("model", ["a*b", "a*0", "a*-1", ","])
def test_wrong_models_get_a_sentence(model):
    with pytest.raises(BadInput, match="model"):
        read(LOCAL | {"model": model})
