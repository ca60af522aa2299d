"""Mixed proposers: who is asked, and what happens when one has nothing more to offer."""

import pytest
from run_states import candidate, correct, request, state_of

from kernelevolve_lab import registry
from kernelevolve_lab.errors import BadInput
from kernelevolve_lab.proposers.base import Proposal
from kernelevolve_lab.proposers.mixed import Mixed, create
from kernelevolve_lab.records import Candidate


class Scripted:
    """Answers each request with a new candidate, at most `many`."""

    concurrency = 3

    def __init__(self, name: str, many: int = 10_000, template: str | None = None) -> None:
        self.name, self.many, self.template, self.asked, self.closed = name, many, template, 0, False

    async def propose(self, asked):
        self.asked += 1
        if self.asked > self.many:
            return Proposal(None, f"{self.name} is dry", exhausted=True)
        text = f"// {self.name} {self.asked}\n"
        return Proposal(Candidate(language="cpp", source=text, parents=asked.parents, proposer=self.name, template=self.template))

    async def close(self):
        self.closed = True


@pytest.fixture(scope="module")
def operator():
    return registry.load("operators", "rms_norm")


async def proposers(mixed, operator, state, count=40, **changes) -> list[str]:
    answers = [await mixed.propose(request(operator, state, index=index, seed=index * 7919 + 1, **changes)) for index in range(count)]
    return [answer.candidate.proposer if answer.candidate else "" for answer in answers]


async def test_drafts_alternate(operator):
    mixed = Mixed(Scripted("chat"), Scripted("schedule"))
    assert await proposers(mixed, operator, state_of(), 4) == ["chat", "schedule", "chat", "schedule"]
    assert mixed.concurrency == 3
    await mixed.close()


async def test_declared_constants_are_mostly_tuned(operator):
    values = ", ".join(map(str, range(8)))
    source = f"int A = 1;  // tune: A in {{{values}}}\nint B = 1;  // tune: B in {{{values}}}\n"
    parent = candidate(0, text=source)
    state = state_of(parent, correct(parent, 1.5, operator))
    said = await proposers(Mixed(Scripted("chat"), Scripted("schedule")), operator, state, parents=(parent.id,))
    assert 20 <= said.count("tuning") <= 36 and said.count("chat") == 40 - said.count("tuning")


async def test_parents_from_templates_go_both_ways(operator):
    parent = Candidate(language="cpp", source="// x\n", template="row_norm", proposer="schedule")
    state = state_of(parent, correct(parent, 1.5, operator))
    said = await proposers(Mixed(Scripted("chat"), Scripted("schedule")), operator, state, parents=(parent.id,))
    assert 10 <= said.count("chat") <= 30 and said.count("schedule") == 40 - said.count("chat")


@pytest.mark.parametrize(("share", "expected"), [(0.0, "schedule"), (1.0, "chat")])
async def test_share_decides(operator, share, expected):
    assert set(await proposers(Mixed(Scripted("chat"), Scripted("schedule"), share), operator, state_of())) == {expected}


async def test_run_goes_on_without_the_one_that_is_dry(operator):
    mixed = Mixed(Scripted("chat", many=2), Scripted("schedule", many=3))
    answers = [await mixed.propose(request(operator, index=index, seed=index)) for index in range(8)]
    made = [answer.candidate.proposer for answer in answers if answer.candidate]
    assert sorted(made) == ["chat", "chat", "schedule", "schedule", "schedule"]
    assert answers[-1].exhausted and "chat is dry" in answers[-1].reason and "schedule is dry" in answers[-1].reason
    assert not any(answer.exhausted for answer in answers[:5])


async def test_same_seed_same_choice(operator):
    parent = Candidate(language="cpp", source="// x\n", template="row_norm", proposer="schedule")
    state = state_of(parent, correct(parent, 1.5, operator))
    one, two = [await proposers(Mixed(Scripted("chat"), Scripted("schedule")), operator, state, parents=(parent.id,)) for _ in range(2)]
    assert one == two


def test_factory_joins_the_real_ones(operator):
    from run_states import TARGET

    options = {"model": "m", "base_url": "http://127.0.0.1:1/v1"}
    mixed = create(operator, TARGET, "cpp", options | {"model_share": 0.3}, 0)
    assert set(mixed._members) == {"chat", "schedule"}
    with pytest.raises(BadInput, match="model_share"):
        create(operator, TARGET, "cpp", options | {"model_share": 2}, 0)
