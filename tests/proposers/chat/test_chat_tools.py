"""Tools: what they answer, and how a model uses them within its budget."""

import json

import pytest
from run_states import TARGET, broken, candidate, correct, request, source, state_of
from scripted_endpoint import Say, Status, serving

from kernelevolve_lab.knowledge.retrieval import KnowledgeBase
from kernelevolve_lab.proposers.chat import create
from kernelevolve_lab.proposers.chat.client import ToolCall
from kernelevolve_lab.proposers.chat.tools import LONGEST, Toolbox, specifications
from kernelevolve_lab.records.events import ModelReplied
from kernelevolve_lab.targets import resolve

GOOD = Say(f"TITLE: t\n\n```cpp\n{source(1)}```\n")


def calls(*wanted: tuple[str, dict]) -> Say:
    deltas = [
        {"index": index, "id": f"call{index}", "type": "function", "function": {"name": name, "arguments": json.dumps(arguments)}}
        for index, (name, arguments) in enumerate(wanted)
    ]
    return Say("", finish="tool_calls", tool_calls=deltas)


def answer(operator, name: str, arguments: object, state=None) -> str:
    toolbox = Toolbox(KnowledgeBase.load(), request(operator, state))
    return toolbox.answer(ToolCall("1", name, arguments if isinstance(arguments, str) else json.dumps(arguments)))


def test_pages_are_found_and_read(operator):
    assert "hardware/cpu/streaming_stores: " in answer(operator, "search_knowledge", {"words": "streaming stores"})
    assert "_mm512_stream_ps" in answer(operator, "read_page", {"name": "hardware/cpu/streaming_stores"})


def test_candidates_are_read_without_held_out_cases(operator):
    mother = candidate(2)
    state = state_of(mother, correct(mother, 1.3, operator))
    text = answer(operator, "read_candidate", {"id": mother.id[:6]}, state)
    assert source(2) in text and "1.300×" in text
    assert not any(case.name in text for case in operator.held_out("laptop"))


@pytest.mark.parametrize(
    ("name", "arguments", "words"),
    [
        ("rm", {}, "no tool 'rm'"),
        ("read_page", "{not json", "not valid JSON"),
        ("read_page", {}, "needs the argument 'name'"),
        ("read_page", [1], "needs the argument 'name'"),
        ("read_page", {"name": 7}, "needs the argument 'name'"),
        ("read_page", {"name": "../../errors"}, "no knowledge page"),
        ("read_candidate", {"id": "zzz"}, "no such candidate"),
        ("search_knowledge", {"words": "qqqqqqq"}, ""),
    ],
)
def test_any_call_is_answered(operator, name, arguments, words):
    assert words in answer(operator, name, arguments)


def test_compiling_tells_messages_and_runs_nothing(operator, tmp_path):
    toolbox = Toolbox(KnowledgeBase([]), request(operator, target=resolve("cpu")))
    trap = tmp_path / "ran"
    text = f'#include <cstdlib>\nstatic int t = std::system("touch {trap}");\n{source(1)}'
    said = toolbox.answer(ToolCall("1", "compile", json.dumps({"source": text})))
    assert said.startswith("It compiles.") and not trap.exists()
    said = toolbox.answer(ToolCall("1", "compile", json.dumps({"source": "int x = y;\n"})))
    assert "does not compile" in said and "'y' was not declared" in said
    secret = tmp_path / "secret.h"
    secret.write_text("int secret_word;\n")
    said = toolbox.answer(ToolCall("1", "compile", json.dumps({"source": f'#include "{secret}"\n'})))
    assert "does not compile" in said and "secret_word" not in said


def test_long_answers_are_cut(operator):
    mother = candidate(0, text=source(1) + "// " + "x" * 50_000 + "\n")
    text = answer(operator, "read_candidate", {"id": mother.id}, state_of(mother, broken(mother)))
    assert len(text) < LONGEST + 100 and "cut here" in text


async def ask(endpoint, operator, recorded=None, state=None, **options):
    settings = {"base_url": endpoint.url, "model": "m", "tools": True} | options
    proposer = create(operator, TARGET, "cpp", settings, 0)
    try:
        return await proposer.propose(request(operator, state, record=(recorded if recorded is not None else []).append))
    finally:
        await proposer.close()


async def test_model_calls_tools_and_then_answers(operator):
    recorded: list[ModelReplied] = []
    steps = calls(("search_knowledge", {"words": "stores"}), ("read_page", {"name": "hardware/cpu/streaming_stores"})), GOOD
    with serving(*steps) as endpoint:
        proposal = await ask(endpoint, operator, recorded)
    assert [tool["function"]["name"] for tool in endpoint.requests[0]["tools"]] == [t["function"]["name"] for t in specifications()]
    turns = endpoint.requests[1]["messages"]
    assert [turn["role"] for turn in turns] == ["system", "user", "assistant", "tool", "tool"]
    assert turns[3]["tool_call_id"] == "call0" and "Streaming" in turns[4]["content"]
    assert proposal.candidate.source == source(1)
    assert "[calls search_knowledge(" in proposal.reply and proposal.input_tokens == 2000
    assert len(recorded) == 2


async def test_resume_between_tools(operator):
    recorded: list[ModelReplied] = []
    with serving(calls(("search_knowledge", {"words": "stores"})), GOOD) as endpoint:
        await ask(endpoint, operator, recorded)
    with serving(GOOD) as endpoint:
        proposal = await ask(endpoint, operator, state=state_of(recorded[0]))
    assert [turn["role"] for turn in endpoint.requests[0]["messages"]] == ["system", "user", "assistant", "tool"]
    assert proposal.candidate.source == source(1)


async def test_calls_are_bounded(operator):
    with serving(calls(("search_knowledge", {"words": "stores"}))) as endpoint:
        proposal = await ask(endpoint, operator, tool_calls=2, repairs=0)
    assert proposal.candidate is None and "empty" in proposal.reason
    said = [turn["content"] for turn in endpoint.requests[-1]["messages"] if turn["role"] == "tool"]
    assert [text == "No calls are left: answer now." for text in said] == [False, False, True, True, True]


async def test_server_without_tools_is_asked_without(operator):
    with serving(Status(400, "m does not support tools"), GOOD) as endpoint:
        proposal = await ask(endpoint, operator)
    assert proposal.candidate is not None and "tools" not in endpoint.requests[1]


async def test_tools_are_off_by_default(operator):
    with serving(GOOD) as endpoint:
        await ask(endpoint, operator, tools=False)
    assert "tools" not in endpoint.requests[0] and "call tools" not in endpoint.prompt(0)
