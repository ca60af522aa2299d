"""The proposer `replay`: a recorded run's candidates, from the store or from a file."""

import pytest
from run_states import TARGET, candidate, correct, request

from kernelevolve_lab import registry
from kernelevolve_lab.errors import BadInput, LabError
from kernelevolve_lab.proposers.replay import Recording, ReplayProposer, create
from kernelevolve_lab.records import OperatorRef, RunConfig
from kernelevolve_lab.records.events import CandidateProposed, EvaluationFinished, ProposalFailed
from kernelevolve_lab.store import Store
from kernelevolve_lab.store.bundle import export_run


@pytest.fixture(scope="module")
def operator():
    return registry.load("operators", "rms_norm")


@pytest.fixture
def recorded(tmp_path, operator):
    """A store with one run: request 0 and 2 brought candidates, 1 failed, a person enqueued one, 3 is missing, 4 brought one."""
    store = Store.open(f"sqlite:///{tmp_path / 'lab.db'}")
    config = RunConfig(operator=OperatorRef(kind="registered", name="rms_norm", text="rms_norm"), target="cpu", language="cpp")
    run = store.create_run(config, "RMSNorm")
    for event in (
        CandidateProposed(index=0, candidate=candidate(0), prompt="p", reply="r", model="m", cost=0.5, input_tokens=7),
        EvaluationFinished(evaluation=correct(candidate(0), 1.2, operator)),
        CandidateProposed(index=2, candidate=candidate(2)),
        CandidateProposed(candidate=candidate(9, proposer="manual")),
        ProposalFailed(index=1, proposer="chat", reason="no code"),
        CandidateProposed(index=4, candidate=candidate(4)),
    ):
        store.append(run, event)
    yield store, run
    store.close()


async def answers(proposer, operator, count: int = 6):
    return [await proposer.propose(request(operator, index=index)) for index in range(count)]


@pytest.mark.parametrize("source", ["store", "file"])
async def test_requests_get_their_recorded_answers(recorded, operator, tmp_path, source):
    store, run = recorded
    path = export_run(store, run, tmp_path / "kept.kevrun")
    options = {"run": run, "store": store.url} if source == "store" else {"run": str(path)}
    said = await answers(create(operator, TARGET, "cpp", options, 0), operator)
    assert [answer.candidate and answer.candidate.title for answer in said] == ["design 0", None, "design 2", None, "design 4", None]
    assert (said[0].prompt, said[0].reply, said[0].model, said[0].cost, said[0].input_tokens) == ("p", "r", "m", 0.5, 7)
    assert said[1].reason == "no code" and "no answer to request 3" in said[3].reason
    assert [answer.exhausted for answer in said] == [False] * 5 + [True]


async def test_what_was_not_judged_can_be_left_out(recorded, operator):
    store, run = recorded
    said = await answers(ReplayProposer(Recording.of(store.read(run)), judged_only=True), operator)
    assert [answer.candidate and answer.candidate.title for answer in said] == ["design 0", None, None, None, None, None]
    assert "no evaluation of" in said[2].reason and said[1].reason == "no code" and said[5].exhausted


@pytest.mark.parametrize(
    ("options", "words"), [({}, "needs the option 'run'"), ({"run": "x", "speed": 2}, "no option 'speed'"), ({"run": "nothing"}, "nothing")]
)
def test_wrong_options_get_a_sentence(recorded, operator, options, words):
    store, _ = recorded
    with pytest.raises(LabError, match=words):
        create(operator, TARGET, "cpp", options | ({"store": store.url} if options.get("run") == "nothing" else {}), 0)


def test_recording_of_another_operator_is_refused(recorded):
    store, run = recorded
    with pytest.raises(BadInput, match="recorded run is of rms_norm"):
        create(registry.load("operators", "softmax"), TARGET, "cpp", {"run": run, "store": store.url}, 0)
