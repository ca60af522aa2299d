"""A person writes for a run that waits for nobody else: what a model said is kept, and what was asked to be expanded is served."""

from dataclasses import replace

import pytest
from scripted import OPERATOR, PATIENCE, services, until

from kernelevolve_lab.engine.handle import RunHandle
from kernelevolve_lab.errors import BadInput
from kernelevolve_lab.proposers import manual
from kernelevolve_lab.records import Budget, OperatorRef, RunConfig
from kernelevolve_lab.store import Store


@pytest.fixture
def run(store: Store) -> RunHandle:
    """A run with the manual proposer and a scripted judge."""
    config = RunConfig(
        operator=OperatorRef(kind="registered", name=OPERATOR.name, text=OPERATOR.name),
        target="cpu",
        language="cpp",
        proposer="manual",
        policy="greedy",
        budget=Budget(candidates=2),
    )
    given = replace(services(), make_proposer=lambda config, operator, target: manual.create(operator, target, "cpp", {}, 0))
    handle = RunHandle(store, store.create_run(config, "Scripted"), given)
    handle._drive()
    return handle


def test_prompt_reply_and_plan_stay_with_the_candidate(run: RunHandle) -> None:
    first = run.enqueue("speed=2", title="two", notes="a plan", prompt="asked so", reply="answered so")
    until(lambda: run.state.judged == 1)
    entry = run.state.entries[first]
    assert (entry.prompt, entry.reply, entry.candidate.notes) == ("asked so", "answered so", "a plan")
    run.stop()
    assert run.wait(PATIENCE)


def test_a_branch_is_served_by_what_a_person_makes_of_it(run: RunHandle) -> None:
    first = run.enqueue("speed=2")
    until(lambda: run.state.judged == 1)
    run.branch(first)
    second = run.enqueue("speed=3", parents=(first,))
    assert run.wait(PATIENCE) and run.state.judged == 2
    assert not run.state.pending_requests
    assert [request.note for request in run.state.requests if request.command.command == "branch"] == [
        f"{second} was made from {first} by hand."
    ]


def test_a_reply_that_no_store_can_keep_is_refused(run: RunHandle) -> None:
    with pytest.raises(BadInput, match="not valid Unicode"):
        run.enqueue("speed=2", reply="\ud800")
    run.stop()
    assert run.wait(PATIENCE)
