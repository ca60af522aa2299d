"""The schedule proposer over whole made-up runs: steered, repeatable, without duplicates, and nothing from what was rejected."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from dataclasses import replace

import pytest

from kernelevolve_lab import registry
from kernelevolve_lab.errors import LabError
from kernelevolve_lab.proposers.base import Proposal, ProposalRequest
from kernelevolve_lab.proposers.schedule import create
from kernelevolve_lab.proposers.schedule.proposer import Schedule
from kernelevolve_lab.records import Candidate, Evaluation, OperatorRef, Profile, Ratio, RunConfig, TargetSpec
from kernelevolve_lab.records import events as ev
from kernelevolve_lab.records.fold import RunFold
from kernelevolve_lab.records.run import Reject
from kernelevolve_lab.targets import resolve

pytestmark = pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
CPU = resolve("cpu").model_copy(update={"simd_bits": 512, "features": ("avx2", "avx512f"), "units": 2})


def proposer_for(operator: str = "rms_norm", seed: int = 0, target: TargetSpec = CPU) -> Schedule:
    return create(registry.load("operators", operator), target, "cpp", {}, seed)


def landscape(candidate: Candidate) -> float:
    """A made-up fitness with one best setting."""
    knobs = candidate.knobs
    best = {"keep": "scratch", "streaming": "both", "width": 512}
    score = sum(0.4 for name, value in best.items() if knobs.get(name) == value)
    return 1 + score - 0.15 * abs(math.log2(knobs["unroll"]) - 1) - 0.05 * abs(knobs["prefetch"] - 2)


class Run:
    """A made-up run: its log, and the proposer's answers written into it."""

    def __init__(self, operator: str = "rms_norm", proposer: Schedule | None = None, profile: Profile = "laptop") -> None:
        self.operator = registry.load("operators", operator)
        self.proposer = proposer or proposer_for(operator)
        self.fold = RunFold()
        ref = OperatorRef(kind="registered", name=operator, text=operator)
        config = RunConfig(operator=ref, target="cpu", language="cpp", profile=profile)
        self.log(ev.RunStarted(config=config, title=operator))

    @property
    def state(self):
        return self.fold.state

    def log(self, event: object) -> None:
        seq = self.state.seq + 1
        self.fold.apply(ev.Logged(run="r", seq=seq, time=float(seq), event=event))

    def ask(self, index: int = 0, **asked) -> Proposal:
        request = ProposalRequest(self.operator, CPU, "cpp", self.state, index, 1_000_003 * index + 17, **asked)
        return asyncio.run(self.proposer.propose(request))

    def judge(self, candidate: Candidate, fitness: float | None) -> None:
        self.log(ev.CandidateProposed(candidate=candidate, generation=0))
        self.evaluate(candidate, fitness)

    def evaluate(self, candidate: Candidate, fitness: float | None) -> None:
        found = {"candidate": candidate.id, "target": "cpu", "language": "cpp", "evidence": "measured"}
        if fitness is None:
            evaluation = Evaluation(**found, verdict="incorrect", reasons=("wrong",))
        else:
            speedup = Ratio(value=fitness, low=fitness, high=fitness, baseline="eager")
            evaluation = Evaluation(**found, verdict="correct", speedup=speedup, speedups=(speedup,))
        self.log(ev.EvaluationFinished(evaluation=evaluation))

    def go(self, count: int, drafts: int = 6, fitness: Callable[[Candidate], float | None] = landscape, start: int = 0) -> list[Candidate]:
        made = []
        for index in range(start, start + count):
            best = [entry.candidate.id for entry in self.state.ranked() if entry.correct and not entry.banned]
            proposal = self.ask(index, parents=() if index < drafts else tuple(best[: 1 + index % 2]))
            assert proposal.candidate is not None, proposal.reason
            self.judge(proposal.candidate, fitness(proposal.candidate))
            made.append(proposal.candidate)
        return made


def test_the_first_drafts_are_the_defaults_and_what_templates_name() -> None:
    run = Run()
    template = run.proposer.templates["cpp/rms_norm"]
    first, second = run.go(2)
    assert first.knobs == template.space(CPU).default()
    assert second.knobs == template.space(CPU).default(template.drafts[0])
    assert first.template == "cpp/rms_norm" and first.proposer == "schedule" and first.parents == ()
    assert first.source == template.render(first.knobs, "rms_norm", CPU)
    assert first.title.startswith("RMS norm") and template.idea in first.notes


def test_drafts_take_turns_between_templates() -> None:
    run = Run("conv1d")
    assert len(run.proposer.templates) > 1
    made = run.go(len(run.proposer.templates), fitness=lambda candidate: 1.0)
    assert [candidate.template for candidate in made] == list(run.proposer.templates)


def test_later_drafts_differ_in_structure() -> None:
    made = Run().go(6)
    structural = [tuple(candidate.knobs.get(name) for name in ("keep", "streaming")) for candidate in made]
    assert len(set(structural)) == len(structural)


def test_independent_drafts_do_not_depend_on_what_was_found() -> None:
    def drawn(fitness: Callable[[Candidate], float | None]) -> list[Candidate]:
        run, made = Run("conv1d"), []
        for index in range(30):
            made.append(run.ask(index, memory="none").candidate)
            run.judge(made[-1], fitness(made[-1]))
        return made

    made = drawn(lambda candidate: float(candidate.knobs.get("tile", 1)))
    assert made == drawn(lambda candidate: 1.0) and len({candidate.id for candidate in made}) == 30
    assert all(candidate.parents == () for candidate in made)
    drafts = [setting for _, setting in proposer_for("conv1d").drafts]
    assert [candidate.knobs for candidate in made[: len(drafts)]] == drafts
    assert {candidate.template for candidate in made[len(drafts) :]} == set(proposer_for("conv1d").templates)


def test_it_finds_the_best_setting_sooner_than_chance() -> None:
    space = proposer_for().spaces["cpp/rms_norm"]
    every = [candidate_score(setting) for setting in space.settings()]
    made = Run().go(40)
    found = max(map(landscape, made))
    share_as_good = sum(score >= found - 1e-9 for score in every) / len(every)
    assert share_as_good <= 0.01  # 40 of some 400 settings at random would reach the best 1 % with a chance of about a third
    assert sum(map(landscape, made[20:])) / 20 > sum(map(landscape, made[:20])) / 20


def candidate_score(setting: dict) -> float:
    return landscape(Candidate(language="cpp", source="x", knobs=setting))


def test_nothing_is_proposed_twice_until_all_is_proposed() -> None:
    narrow = CPU.model_copy(update={"simd_bits": 128, "features": ()})  # leaves few settings
    run = Run(proposer=proposer_for(target=narrow))
    space = run.proposer.spaces["cpp/rms_norm"]
    total = len(list(space.settings()))
    names = set()
    for index in range(total):
        best = run.state.best_id
        proposal = run.ask(index, parents=(best,) if best else ())
        assert proposal.candidate is not None and proposal.candidate.id not in names
        names.add(proposal.candidate.id)
        run.judge(proposal.candidate, 1.0 if index < 3 else None)
    last = run.ask(total, parents=(run.state.best_id,))
    assert last.candidate is None and last.exhausted and "rms_norm" in last.reason


def test_pending_candidates_are_not_proposed_again() -> None:
    run = Run()
    pending = []
    for _ in range(5):
        proposal = run.ask(3, pending=tuple(pending))
        assert proposal.candidate.id not in pending
        pending.append(proposal.candidate.id)


def test_an_answer_depends_on_state_and_seed_alone() -> None:
    run = Run()
    run.go(14)
    other = Run(proposer=proposer_for())
    other.fold = run.fold
    for parents in ((), (run.state.best_id,), tuple(entry.candidate.id for entry in run.state.ranked()[:2])):
        assert run.ask(14, parents=parents) == other.ask(14, parents=parents)
    assert [c.id for c in Run().go(14)] == [entry for entry in run.state.entries]


def test_children_name_their_parents_and_what_changed() -> None:
    run = Run()
    run.go(6)
    parent = run.state.best.candidate
    for index in range(6, 16):
        child = run.ask(index, parents=(parent.id,)).candidate
        assert child.parents == (parent.id,) and child.template == parent.template
        changed = {name for name in child.knobs.keys() | parent.knobs.keys() if child.knobs.get(name) != parent.knobs.get(name)}
        assert 1 <= len(changed) <= 4 and child.notes.startswith("Changed: ")
        assert all(f"{name} " in child.notes for name in changed)


def test_two_parents_of_one_template_may_be_crossed() -> None:
    run = Run()
    made = run.go(6)
    first, second = made[1], made[5]
    crossed = [child for index in range(40) if len((child := run.ask(index, parents=(first.id, second.id)).candidate).parents) == 2]
    assert crossed
    for child in crossed:
        assert child.parents == (first.id, second.id)
        assert all(value in (first.knobs.get(name), second.knobs.get(name)) for name, value in child.knobs.items())


def test_clean_slate_and_parents_without_a_template_give_fresh_settings() -> None:
    run = Run()
    run.go(6)
    person = Candidate(language="cpp", source="// mine\n")
    run.judge(person, 9.0)
    assert run.ask(6, parents=(person.id,)).candidate.parents == ()
    assert run.ask(6, parents=("unknown",)).candidate.parents == ()
    assert run.ask(6, parents=(run.state.ranked()[1].candidate.id,), memory="clean_slate").candidate.parents == ()


def test_nothing_descends_from_a_rejected_candidate() -> None:
    run = Run()
    run.go(12)
    rejected = run.state.best_id
    run.log(ev.SteeringAccepted(command=Reject(candidate=rejected, reason="too clever"), author="someone"))
    banned = {name for name, entry in run.state.entries.items() if entry.banned}
    for index in range(12, 30):
        asked = (rejected, *sorted(banned), run.state.best_id)[index % 2 :][:3]
        proposal = run.ask(index, parents=asked)
        assert not banned & set(proposal.candidate.parents)
        assert proposal.candidate.id not in banned
        run.judge(proposal.candidate, landscape(proposal.candidate))


def test_failures_and_rejections_count_against_a_setting() -> None:
    def wide_fails(candidate: Candidate) -> float | None:
        return None if candidate.knobs["width"] == 512 else landscape(candidate)

    run = Run()
    run.go(24, fitness=wide_fails)
    fresh = [run.ask(index, parents=(), memory="clean_slate").candidate for index in range(24, 44)]
    assert sum(candidate.knobs["width"] != 512 for candidate in fresh) >= 18  # two thirds of all settings are narrower


def test_an_operator_or_language_without_a_template_is_refused_in_one_sentence() -> None:
    softmax = registry.load("operators", "softmax")
    mine = replace(softmax, name="my_function")
    for operator, language in ((mine, "cpp"), (softmax, "fortran"), (replace(softmax, semantics="something else"), "cpp")):
        with pytest.raises(LabError) as raised:
            create(operator, CPU, language, {}, 0)
        message = str(raised.value)
        assert f"no template for '{operator.name}' in {language}" in message and "manual" in message and "chat" in message


def test_a_run_takes_the_templates_that_compute_its_dtypes() -> None:
    assert Run().ask().candidate is not None  # float32 alone
    run = Run(profile="gpu")
    proposal = run.ask()
    assert proposal.candidate is None and proposal.exhausted and "bfloat16" in proposal.reason
    h100 = resolve("nvidia:h100")
    proposer = create(run.operator, h100, "triton", {}, 0)
    request = ProposalRequest(run.operator, h100, "triton", run.state, 0, 17)
    assert asyncio.run(proposer.propose(request)).candidate.template == "triton/rms_norm"


def test_a_narrow_cpu_gets_narrow_vectors() -> None:
    narrow = CPU.model_copy(update={"simd_bits": 256, "features": ("avx2",)})
    proposer = proposer_for(target=narrow)
    assert all(setting["width"] <= 256 for _, setting in proposer.drafts)
