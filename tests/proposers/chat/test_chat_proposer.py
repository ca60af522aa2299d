"""The chat proposer against a real server: what it sends, what it makes of replies, and how it fails."""

import asyncio
import logging

import pytest
from run_states import TARGET, broken, candidate, correct, request, source, state_of
from scripted_endpoint import Hang, Raw, Say, Status, serving

from kernelevolve_lab.errors import BadInput
from kernelevolve_lab.proposers.chat import create
from kernelevolve_lab.proposers.chat.client import Masked

KEY = "sk-test-0123456789abcdef"


def reply(number: int = 1, title: str = "a design") -> str:
    return f"TITLE: {title}\n\nIt reads each row once.\n\n```cpp\n{source(number)}```\n"


async def ask(endpoint, operator, state=None, options=None, parents=(), **changes):
    settings = {"base_url": endpoint.url, "model": "some-model", "silence_seconds": 0.5, "retries": 2}
    proposer = create(operator, TARGET, "cpp", settings | (options or {}), seed=0)
    try:
        return await proposer.propose(request(operator, state, parents=parents, **changes))
    finally:
        await proposer.close()


async def test_whole_file_becomes_a_candidate(operator):
    pieces = []
    with serving(Say(reply(1, "one pass"))) as endpoint:
        proposal = await ask(endpoint, operator, emit=pieces.append)
    assert proposal.candidate.source == source(1)
    assert proposal.candidate.title == "one pass"
    assert proposal.candidate.notes == "It reads each row once."
    assert (proposal.input_tokens, proposal.output_tokens, proposal.cost) == (1000, 200, 0.0)
    assert "".join(pieces) == proposal.reply == reply(1, "one pass")
    sent = endpoint.requests[0]
    assert sent["stream"] is True and sent["max_tokens"] == 16_000
    assert all(message["content"] in proposal.prompt for message in sent["messages"])


async def test_edits_apply_to_the_parent(operator):
    mother = candidate(7)
    state = state_of(mother, correct(mother, 1.2, operator))
    line = "    static const int number = {};\n"
    edit = f"TITLE: edited\n\nWhy.\n\n<<<<<<< SEARCH\n{line.format(7)}=======\n{line.format(8)}>>>>>>> REPLACE\n"
    with serving(Say(edit)) as endpoint:
        proposal = await ask(endpoint, operator, state, parents=(mother.id,))
    assert proposal.candidate.source == source(8)
    assert proposal.candidate.parents == (mother.id,)


async def test_unusable_reply_is_told_back_to_the_model(operator):
    with serving(Say("I would do it in one pass."), Say(reply(2))) as endpoint:
        proposal = await ask(endpoint, operator)
    assert proposal.candidate.source == source(2)
    turns = endpoint.requests[1]["messages"]
    assert [turn["role"] for turn in turns] == ["system", "user", "assistant", "user"]
    assert "no fenced code block" in turns[-1]["content"]
    assert proposal.input_tokens == 2000
    assert "I would do it in one pass." in proposal.reply and source(2) in proposal.reply


@pytest.mark.parametrize(
    ("text", "finish", "reason"),
    [
        ("", "stop", "empty"),
        ("I'm sorry, I can't help with that.", "stop", "refused"),
        ('```cpp\n#include "kel.h"\nvoid kernel(', "length", "cut off"),
        ("```python\ndef kernel(x):\n    return x\n```", "stop", "not in the language"),
        ("<<<<<<< SEARCH\nx\n=======\ny\n>>>>>>> REPLACE", "stop", "no parent"),
        ("", "content_filter", "refused"),
    ],
)
async def test_hopeless_replies_fail_with_a_reason(operator, text, finish, reason):
    with serving(Say(text, finish=finish)) as endpoint:
        proposal = await ask(endpoint, operator)
    assert proposal.candidate is None and not proposal.exhausted
    assert reason in proposal.reason
    assert len(endpoint.requests) == 2


async def test_known_source_is_refused(operator):
    known = candidate(1)
    with serving(Say(reply(1)), Say(reply(2))) as endpoint:
        proposal = await ask(endpoint, operator, state_of(known, broken(known)))
    assert proposal.candidate.source == source(2)
    assert known.id in endpoint.requests[1]["messages"][-1]["content"]


async def test_rate_limit_is_waited_for(operator):
    with serving(Status(429, "slow down", {"Retry-After": "0.6"}), Say(reply())) as endpoint:
        proposal = await ask(endpoint, operator)
    assert proposal.candidate is not None
    assert endpoint.times[1] - endpoint.times[0] >= 0.6


async def test_rate_limit_without_a_time_backs_off(operator):
    with serving(Status(429, "slow down"), Status(500, "oops"), Say(reply())) as endpoint:
        proposal = await ask(endpoint, operator)
    assert proposal.candidate is not None
    first, second = endpoint.times[1] - endpoint.times[0], endpoint.times[2] - endpoint.times[1]
    assert first >= 0.35 and second >= 0.7


async def test_rate_limit_holds_all_requests_back(operator):
    with serving(Status(429, "slow", {"Retry-After": "0.8"}), Say(reply(1)), Say(reply(2))) as endpoint:
        proposer = create(operator, TARGET, "cpp", {"base_url": endpoint.url, "model": "m"}, 0)
        first = asyncio.create_task(proposer.propose(request(operator)))
        while not endpoint.times:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.2)
        await proposer.propose(request(operator))
        await first
        await proposer.close()
    assert min(endpoint.times[1:]) - endpoint.times[0] >= 0.8


@pytest.mark.parametrize(
    "step",
    [
        Say(reply(1), cut_after=60),
        Hang(2.0),
        Raw(b"<html>hello</html>", "text/html"),
        Raw(b"data: {nonsense\n\n"),
        Raw(b'data: {"choices": "what"}\n\n'),
        Raw(b'data: {"error": {"message": "overloaded"}}\n\n'),
    ],
    ids=["cut", "hang", "html", "garbage", "wrong-types", "error-in-stream"],
)
async def test_broken_reply_is_asked_for_again(operator, step):
    with serving(step, Say(reply(3))) as endpoint:
        proposal = await ask(endpoint, operator)
    assert proposal.candidate.source == source(3)
    assert len(endpoint.requests) == 2
    assert proposal.input_tokens > 1000, "what may have been charged is counted"


async def test_huge_reply_is_dropped(operator):
    with serving(Say("x" * 2_000_000, piece=50_000)) as endpoint:
        proposal = await ask(endpoint, operator)
    assert proposal.candidate is None and "1000 kB" in proposal.reason
    assert len(endpoint.requests) == 1


async def test_wrong_model_names_what_there_is(operator):
    with serving(Status(404, "The model `some-model` does not exist")) as endpoint:
        endpoint.models = ["right-model"]
        proposal = await ask(endpoint, operator)
    assert proposal.exhausted and "some-model" in proposal.reason and "right-model" in proposal.reason
    assert len(endpoint.requests) == 1


async def test_bad_key_ends_the_run_without_showing_the_key(operator, monkeypatch, caplog):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    caplog.set_level(logging.DEBUG)
    with serving(Status(401, f"Incorrect API key provided: {KEY}")) as endpoint:
        proposal = await ask(endpoint, operator)
    assert endpoint.keys == [f"Bearer {KEY}"]
    assert proposal.exhausted and "OPENAI_API_KEY" in proposal.reason
    assert KEY not in repr(proposal) and KEY not in caplog.text


async def test_key_that_a_model_echoes_is_masked(operator, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with serving(Say(reply(1, f"my key is {KEY}"))) as endpoint:
        proposal = await ask(endpoint, operator)
    assert proposal.candidate is not None and KEY not in repr(proposal)


async def test_outage_ends_the_run_after_some_requests(operator):
    with serving(Status(503, "down")) as endpoint:
        proposer = create(operator, TARGET, "cpp", {"base_url": endpoint.url, "model": "m", "retries": 0}, 0)
        proposals = [await proposer.propose(request(operator)) for _ in range(3)]
        await proposer.close()
    assert [proposal.exhausted for proposal in proposals] == [False, False, True]


async def test_nobody_listens(operator):
    with serving(Say("")) as endpoint:
        pass
    proposal = await ask(endpoint, operator, options={"retries": 0})
    assert "cannot be reached" in proposal.reason


async def test_long_wait_is_refused_with_the_time(operator):
    with serving(Status(429, "quota", {"Retry-After": "7200"})) as endpoint:
        proposal = await ask(endpoint, operator)
    assert proposal.exhausted and "7200" in proposal.reason


async def test_parameters_that_a_server_does_not_know_are_left_out(operator):
    refuse_options = Status(400, "Unknown parameter: stream_options", error={"param": "stream_options"})
    refuse_limit = Status(400, "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead.", error={"param": "max_tokens"})
    with serving(refuse_options, refuse_limit, Say(reply())) as endpoint:
        proposal = await ask(endpoint, operator)
    assert proposal.candidate is not None
    last = endpoint.requests[-1]
    assert "stream_options" not in last and "max_tokens" not in last and last["max_completion_tokens"] == 16_000


async def test_prompt_too_long_shrinks_the_next(operator):
    too_long = Status(400, "This model's maximum context length is 8192 tokens", error={"code": "context_length_exceeded"})
    with serving(too_long, Say(reply())) as endpoint:
        proposer = create(operator, TARGET, "cpp", {"base_url": endpoint.url, "model": "m", "context_tokens": 5000}, 0)
        first = await proposer.propose(request(operator))
        second = await proposer.propose(request(operator))
        await proposer.close()
    assert not first.exhausted and "shorter" in first.reason
    assert len(second.prompt) < len(first.prompt)


async def test_thinking_is_not_part_of_the_candidate(operator):
    text = f"<think>maybe\n```cpp\n{source(9)}```\n</think>\n{reply(4)}"
    with serving(Say(text)) as endpoint:
        proposal = await ask(endpoint, operator)
    assert proposal.candidate.source == source(4)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"modle": "x"}, "did you mean 'model'"),
        ({"api_key": KEY}, "looks like a secret"),
        ({"model": "m", "temperature": 9}, "temperature"),
        ({"model": "m", "base_url": "http://user:pw@host/v1"}, "no user name"),
        ({"model": "m", "base_url": "ftp://host"}, "http://"),
        ({"base_url": "http://127.0.0.1:1/v1"}, "KERNELEVOLVE_MODEL"),
    ],
)
def test_wrong_options_get_a_sentence(operator, options, words):
    with pytest.raises(BadInput) as caught:
        create(operator, TARGET, "cpp", options, 0)
    assert words in str(caught.value) and KEY not in str(caught.value) and "pw" not in str(caught.value)


async def test_missing_key_is_said_before_the_run(operator):
    with pytest.raises(BadInput, match="OPENAI_API_KEY"):
        create(operator, TARGET, "cpp", {"model": "m", "base_url": "https://api.example.com/v1"}, 0)


async def test_winner_of_an_earlier_run_comes_first_and_costs_nothing(operator):
    from kernelevolve_lab.knowledge.lessons import Gain, Lesson, LessonBook

    LessonBook().add([Lesson("winner", "rms_norm", "row", "cpu", "cpp", "Two passes.", Gain(1.9, 1.8, 2.0), source=source(77))])
    with serving(Say(reply(1))) as endpoint:
        first = await ask(endpoint, operator)
        second = await ask(endpoint, operator, state_of(first.candidate), index=1)
        without = await ask(endpoint, operator, options={"lessons": False})
    assert (first.candidate.source, first.candidate.proposer, first.cost, first.prompt) == (source(77), "lesson", 0.0, "")
    assert second.candidate.source == without.candidate.source == source(1)


async def test_the_same_code_in_other_words_is_told_back_and_not_judged_twice(operator):
    mother = candidate(1)
    state = state_of(mother, correct(mother, 1.2, operator))
    twin = source(1).replace("number", "counter").replace("{\n", "{  // faster\n")
    assert twin != source(1)
    with serving(Say(f"TITLE: t\n\n```cpp\n{twin}```\n"), Say(reply(2))) as endpoint:
        proposal = await ask(endpoint, operator, state, parents=(mother.id,))
    told = endpoint.requests[1]["messages"][-1]["content"]
    assert mother.id in told and "names" in told and "correct, 1.200×" in told
    assert proposal.candidate.source == source(2)


async def test_two_requests_at_once_do_not_deliver_the_same_code(operator):
    with serving(Say(reply(5)), Say(reply(5).replace("number", "n")), Say(reply(6))) as endpoint:
        proposer = create(operator, TARGET, "cpp", {"base_url": endpoint.url, "model": "some-model"}, 0)
        first = await proposer.propose(request(operator, index=0))
        second = await proposer.propose(request(operator, index=1))
        await proposer.close()
    assert (first.candidate.source, second.candidate.source) == (source(5), source(6))


@pytest.mark.parametrize("size", [1, 2, 5, 7, 1000])
def test_a_streamed_key_is_masked_however_it_is_cut(size):
    text = f"sk-te is no key, {KEY} is one, {KEY}{KEY}, and sk-test-01 is half of one: {KEY[:-1]}"
    shown = []
    masked = Masked(shown.append, KEY)
    for start in range(0, len(text), size):
        masked(text[start : start + size])
    masked.flush()
    assert "".join(shown) == text.replace(KEY, "[key]")
