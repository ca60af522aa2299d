"""The diagnosis by a model, and the rules that stand where it fails."""

import json

import pytest
from run_states import TARGET, candidate, correct, request, source, state_of
from scripted_endpoint import Say, Status, serving

from kernelevolve_lab.knowledge.diagnosis import Analysis
from kernelevolve_lab.proposers.chat import create
from kernelevolve_lab.proposers.chat.diagnosing import refined
from kernelevolve_lab.records.events import ModelReplied

RULES = Analysis("improve", "memory", ("by rules",), ("advice by rules",))
ANSWER = {"bottleneck": "compute", "evidence": ["exp costs 60 %"], "advice": ["a shorter polynomial"], "avoid": ["wider tiles"]}
GOOD = Say(f"TITLE: t\n\n```cpp\n{source(1)}```\n")


@pytest.mark.parametrize("text", [json.dumps(ANSWER), f"Sure:\n```json\n{json.dumps(ANSWER, indent=1)}\n```\nDone."])
def test_answer_takes_the_place_of_the_rules(text):
    found = refined(RULES, text)
    assert (found.phase, found.bottleneck, found.evidence) == ("improve", "compute", ("exp costs 60 %",))
    assert found.avoid == ("wider tiles",)


@pytest.mark.parametrize(
    "text", ["", "it is slow", "{broken", '{"bottleneck": "gremlins"}', '{"bottleneck": 1}', '{"evidence": []}', "{" * 5000]
)
def test_useless_answer_leaves_the_rules(text):
    assert refined(RULES, text) == RULES


async def propose(endpoint, operator, *, events=(), recorded=None, parents=True, **options):
    mother = candidate(7)
    state = state_of(mother, correct(mother, 1.2, operator), *events)
    proposer = create(operator, TARGET, "cpp", {"model": "m", "base_url": endpoint.url, "diagnosis": "model", "retries": 0} | options, 0)
    try:
        asked = request(operator, state, parents=(mother.id,) if parents else (), record=(recorded if recorded is not None else []).append)
        return await proposer.propose(asked)
    finally:
        await proposer.close()


async def test_model_diagnoses_before_it_writes(operator):
    recorded: list[ModelReplied] = []
    with serving(Say(json.dumps(ANSWER)), GOOD) as endpoint:
        proposal = await propose(endpoint, operator, recorded=recorded)
    assert "You diagnose" in endpoint.prompt(0) and source(7) in endpoint.prompt(0)
    assert "exp costs 60 %" in endpoint.prompt(1) and "What limits: **compute**" in endpoint.prompt(1)
    assert proposal.input_tokens == 2000
    assert [event.purpose for event in recorded] == ["diagnosis", "candidate"]


async def test_rules_stand_in_for_a_model_that_fails(operator):
    with serving(Status(500, "oops"), GOOD) as endpoint:
        proposal = await propose(endpoint, operator)
    assert proposal.candidate is not None and "3 of 4 passes read the row again" in endpoint.prompt(1)


async def test_drafts_are_diagnosed_by_rules(operator):
    with serving(GOOD) as endpoint:
        await propose(endpoint, operator, parents=False)
    assert len(endpoint.requests) == 1


async def test_diagnosis_is_not_paid_for_twice(operator):
    recorded: list[ModelReplied] = []
    with serving(Say(json.dumps(ANSWER)), GOOD) as endpoint:
        await propose(endpoint, operator, recorded=recorded)
    with serving(GOOD) as endpoint:
        proposal = await propose(endpoint, operator, events=recorded[:1])
    assert len(endpoint.requests) == 1 and "exp costs 60 %" in endpoint.prompt(0)
    assert proposal.input_tokens == 2000, "the diagnosis counts, once"
