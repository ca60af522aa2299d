"""A run that was killed goes on where it stopped: what models said is written down at once and not paid for twice."""

import asyncio

import pytest
from run_states import TARGET, candidate, correct, request, source, state_of
from scripted_endpoint import Hang, Say, serving

from kernelevolve_lab.proposers.chat import create
from kernelevolve_lab.records.events import CandidateProposed, ModelReplied

PRICED = {"model": "m", "price_input": 1.0, "price_output": 10.0, "max_output_tokens": 1000}
COST = 0.003


def good(number: int) -> Say:
    return Say(f"TITLE: n\n\n```cpp\n{source(number)}```\n")


async def killed_while_repairing(operator, state, parents):
    """What the log holds of a request whose first reply was unusable when the process was killed in the second turn."""
    recorded: list[ModelReplied] = []
    with serving(Say("no code here"), Hang(5.0)) as endpoint:
        proposer = create(operator, TARGET, "cpp", PRICED | {"base_url": endpoint.url}, 0)
        asked = request(operator, state, index=3, parents=parents, record=recorded.append)
        task = asyncio.create_task(proposer.propose(asked))
        while len(endpoint.requests) < 2:
            await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await proposer.close()
    return recorded


async def test_resumed_request_goes_on_after_the_recorded_reply(operator):
    mother = candidate(1)
    before = mother, correct(mother, 1.2, operator)
    recorded = await killed_while_repairing(operator, state_of(*before), (mother.id,))
    assert [(event.index, event.parents) for event in recorded] == [(3, (mother.id,))]
    state = state_of(*before, *recorded, cost=1.0)
    assert state.cost == COST and len(state.replies[3]) == 1
    with serving(good(7)) as endpoint:
        proposer = create(operator, TARGET, "cpp", PRICED | {"base_url": endpoint.url}, 0)
        proposal = await proposer.propose(request(operator, state, index=3))
        await proposer.close()
    assert [turn["role"] for turn in endpoint.requests[0]["messages"]] == ["system", "user", "assistant", "user"]
    assert proposal.candidate.source == source(7) and proposal.candidate.parents == (mother.id,)
    assert proposal.cost == 2 * COST and "no code here" in proposal.reply
    after = state_of(*before, *recorded, CandidateProposed(index=3, candidate=proposal.candidate, cost=proposal.cost))
    assert after.cost == pytest.approx(2 * COST) and not after.replies


async def test_finished_reply_is_used_without_asking_again(operator):
    recorded: list[ModelReplied] = []
    with serving(good(4)) as endpoint:
        options = PRICED | {"base_url": endpoint.url}
        proposer = create(operator, TARGET, "cpp", options, 0)
        first = await proposer.propose(request(operator, record=recorded.append))
        again = await proposer.propose(request(operator, state_of(*recorded)))
        await proposer.close()
    assert len(endpoint.requests) == 1
    assert again == first


async def test_each_turn_is_written_down(operator):
    recorded: list[ModelReplied] = []
    with serving(Say(""), good(1)) as endpoint:
        proposer = create(operator, TARGET, "cpp", PRICED | {"base_url": endpoint.url}, 0)
        proposal = await proposer.propose(request(operator, record=recorded.append))
        await proposer.close()
    assert [len(event.messages) for event in recorded] == [2, 4]
    assert sum(event.cost for event in recorded) == proposal.cost == 2 * COST
    assert proposal.model == "m"


async def test_unknown_price_is_said_once(operator, monkeypatch):
    with serving(good(1), good(2)) as endpoint:
        monkeypatch.setattr("kernelevolve_lab.proposers.chat.prices.is_local", lambda url: False)
        monkeypatch.setenv("OPENAI_API_KEY", "k" * 20)
        proposer = create(operator, TARGET, "cpp", {"model": "nobody-knows", "base_url": endpoint.url}, 0)
        proposals = [await proposer.propose(request(operator)) for _ in range(2)]
        await proposer.close()
    assert ["not known" in proposal.warning for proposal in proposals] == [True, False]
    assert proposals[0].input_tokens == 1000
