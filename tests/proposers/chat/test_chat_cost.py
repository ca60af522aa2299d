"""Money: the price file, and a cap that is never passed."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st
from run_states import TARGET, request, source, state_of
from scripted_endpoint import Hang, Say, serving

from kernelevolve_lab.errors import BadInput
from kernelevolve_lab.proposers.chat import create, prices
from kernelevolve_lab.proposers.chat.prices import Price
from kernelevolve_lab.proposers.chat.purse import CapReached, Purse

REMOTE = "https://api.example.com/v1"


def numbered(body) -> Say:
    """A different candidate for each request; 1000 tokens in, 200 out."""
    numbered.count += 1
    return Say(f"TITLE: n\n\n```cpp\n{source(numbered.count)}```\n", pause=0.002)


numbered.count = 0


def test_cost_counts_cached_input_apart():
    assert Price(2.0, 10.0, 0.5).cost(1_000_000, 100_000, 400_000) == pytest.approx(0.6 * 2 + 0.4 * 0.5 + 1.0)
    assert Price(2.0, 10.0).cost(1_000_000, 0, 400_000) == pytest.approx(2.0)


def test_models_are_found_by_name_prefix_and_date():
    known = prices.price_of("gpt-5-mini", REMOTE)
    assert known is not None
    assert prices.price_of("openai/gpt-5-mini", REMOTE) == known
    assert prices.price_of("gpt-5-mini-2025-08-07", REMOTE) == known
    assert prices.price_of("gpt-5-mini", "http://localhost:8000/v1") == known, "a paid model behind a local proxy costs money too"


def test_unknown_model_is_free_only_on_this_machine():
    assert prices.price_of("whoever/what", REMOTE) is None
    assert prices.price_of("whoever/what", "http://127.0.0.1:11434/v1") == prices.FREE
    assert prices.price_of("whoever/what", "http://[::1]:1/v1") == prices.FREE


def test_own_prices_win(monkeypatch, tmp_path):
    own = tmp_path / "my.toml"
    own.write_text('"gpt-5-mini" = { input = 9, output = 9 }\n')
    monkeypatch.setenv("KERNELEVOLVE_PRICES", str(own))
    assert prices.price_of("gpt-5-mini", REMOTE) == Price(9.0, 9.0)


@pytest.mark.parametrize(
    "text", ["nonsense", '"m" = { input = 1 }', '"m" = { input = -1, output = 1 }', '"m" = { input = 1, output = 1, x = 1 }']
)
def test_bad_price_file_gets_a_sentence(monkeypatch, tmp_path, text):
    own = tmp_path / "my.toml"
    own.write_text(text)
    monkeypatch.setenv("KERNELEVOLVE_PRICES", str(own))
    with pytest.raises(BadInput, match=r"my\.toml"):
        prices.price_of("m", REMOTE)


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), max_size=12), st.floats(0.1, 3))
def test_purse_never_passes_the_cap(requests, cap):
    """Whatever worst cases are asked for and whatever they come to, spent and reserved money stay under the cap."""

    async def one(purse: Purse, worst: float, share: float) -> None:
        try:
            async with purse.reserve(worst, cap) as reservation:
                assert purse.spent + purse.reserved <= cap + 1e-9
                await asyncio.sleep(0)
                reservation.settle(worst * share)
        except CapReached:
            pass

    async def all_of_them() -> float:
        purse = Purse()
        await asyncio.gather(*(one(purse, worst, share) for worst, share in requests))
        assert purse.reserved == 0
        return purse.spent

    assert asyncio.run(all_of_them()) <= cap + 1e-9


async def test_cap_stops_the_run_before_it_is_passed(operator):
    options = {"model": "m", "price_input": 1.0, "price_output": 10.0, "max_output_tokens": 1000, "concurrency": 4}
    cap = 0.06
    with serving(numbered) as endpoint:
        proposer = create(operator, TARGET, "cpp", options | {"base_url": endpoint.url}, 0)
        state, spent, reasons = state_of(cost=cap), 0.0, []
        for _ in range(6):
            batch = await asyncio.gather(*(proposer.propose(request(operator, state)) for _ in range(4)))
            spent += sum(proposal.cost for proposal in batch)
            reasons += [proposal.reason for proposal in batch if proposal.exhausted]
        await proposer.close()
    assert 0 < spent <= cap
    assert spent == pytest.approx(len(endpoint.requests) * 0.003)
    assert reasons and all("cost cap is reached" in reason for reason in reasons)


async def test_money_spent_before_a_resume_counts(operator):
    with serving(numbered) as endpoint:
        options = {"model": "m", "price_input": 1.0, "price_output": 10.0, "base_url": endpoint.url}
        from kernelevolve_lab.records.events import ProposalFailed

        state = state_of(ProposalFailed(proposer="chat", reason="x", cost=0.99), cost=1.0)
        proposer = create(operator, TARGET, "cpp", options, 0)
        proposal = await proposer.propose(request(operator, state))
        await proposer.close()
    assert proposal.exhausted and not endpoint.requests


async def test_unknown_price_refuses_a_cap(operator, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "k" * 20)
    proposer = create(operator, TARGET, "cpp", {"model": "nobody-knows", "base_url": REMOTE}, 0)
    proposal = await proposer.propose(request(operator, state_of(cost=1.0)))
    await proposer.close()
    assert proposal.exhausted and "price of 'nobody-knows' is not known" in proposal.reason


async def test_reply_that_never_came_counts_at_its_worst(operator):
    options = {"model": "m", "price_input": 1.0, "price_output": 10.0, "max_output_tokens": 1000, "silence_seconds": 0.2, "retries": 0}
    with serving(Hang(1.0)) as endpoint:
        proposer = create(operator, TARGET, "cpp", options | {"base_url": endpoint.url}, 0)
        proposal = await proposer.propose(request(operator, state_of(cost=5.0)))
        await proposer.close()
    assert proposal.candidate is None
    assert proposal.cost >= 0.01 and proposal.output_tokens == 1000


async def test_cancelled_request_counts_at_its_worst(operator):
    options = {"model": "m", "price_input": 1.0, "price_output": 10.0, "max_output_tokens": 1000}
    with serving(Hang(2.0)) as endpoint:
        proposer = create(operator, TARGET, "cpp", options | {"base_url": endpoint.url}, 0)
        task = asyncio.create_task(proposer.propose(request(operator, state_of(cost=5.0))))
        while not endpoint.requests:
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert proposer.spent >= 0.01
        await proposer.close()
