"""Appeals against verdicts: judged again by a judge of its own, with every verdict kept, and flags that a person overrules."""

import dataclasses
import threading

import pytest
import scripted
from scripted import ScriptedJudge, ScriptedProposer

from kernelevolve_lab.engine.handle import RunHandle, open_run
from kernelevolve_lab.engine.services import Services
from kernelevolve_lab.errors import BadInput
from kernelevolve_lab.records import Evaluation, Flag, Verdict
from kernelevolve_lab.records.events import EvaluationFinished
from kernelevolve_lab.records.run_state import Occasion, Status
from kernelevolve_lab.store import Store
from kernelevolve_lab.store.bundle import export_run, import_run


@pytest.fixture
def store(tmp_path) -> Store:
    return Store.open(str(tmp_path / "store.db"))


class Court:
    """Makes judges, each told apart, that all answer by the same script until it is changed."""

    def __init__(self) -> None:
        self.judges: list[ScriptedJudge] = []
        self.answer = None
        self.hold = threading.Event()
        self.hold.set()

    def services(self, proposer: ScriptedProposer | None = None) -> Services:
        return dataclasses.replace(scripted.services(proposer=proposer), make_judge=self.make)

    def make(self, config, target) -> ScriptedJudge:
        court = self

        class Judge(ScriptedJudge):
            def evaluate(self, candidate, build=None, *, final=False, cancelled=lambda: False) -> Evaluation:
                court.hold.wait(10)
                found = super().evaluate(candidate, build, final=final, cancelled=cancelled)
                return found if court.answer is None or cancelled() else court.answer(found)

        self.judges.append(Judge())
        return self.judges[-1]


def begin(store: Store, court: Court, **budget) -> RunHandle:
    run = store.create_run(scripted.config(**{"candidates": 4, **budget}), "Scripted")
    handle = RunHandle(store, run, court.services())
    handle._drive()
    return handle


def incorrect(found: Evaluation) -> Evaluation:
    return Evaluation(
        candidate=found.candidate,
        target=found.target,
        language=found.language,
        verdict=Verdict.INCORRECT,
        evidence=found.evidence,
        reasons=("it is wrong after all",),
        final=found.final,
    )


def test_an_appeal_in_a_run_that_has_ended_is_heard_by_a_judge_of_its_own(store: Store) -> None:
    court = Court()
    run = begin(store, court)
    assert run.wait(20)
    best, ended = run.best, run.state
    court.answer = incorrect
    run.appeal(best.id, "I do not believe it")
    assert run.wait(20)
    state = run.state
    entry = state.entries[best.id]
    assert len(court.judges) == 2 and court.judges[1].opened and court.judges[1].closed
    assert court.judges[1].finals == [best.id], "it is judged with the settings of a finalist"
    assert entry.evaluation.verdict is Verdict.INCORRECT
    assert [(j.evaluation.verdict, j.occasion, j.reason) for j in entry.history] == [
        (Verdict.CORRECT, Occasion.PROPOSED, ""),
        (Verdict.CORRECT, Occasion.FINALIST, ""),
        (Verdict.INCORRECT, Occasion.APPEAL, "I do not believe it"),
    ]
    assert state.best_id != best.id, "what turned out wrong leads no longer"
    assert (state.status, state.outcome, state.judged) == (Status.ENDED, ended.outcome, ended.judged)
    assert state.active_seconds == ended.active_seconds, "the run's clock stands"
    assert "incorrect, before correct" in state.requests[-1].note


def test_an_appeal_goes_before_the_next_candidate_while_the_search_goes_on(store: Store) -> None:
    court = Court()
    run = begin(store, court, candidates=8)
    while run.state.judged < 2:
        threading.Event().wait(0.01)
    court.hold.clear()
    first = next(iter(run.state.entries.values()))
    run.appeal(first.id, "look again")
    court.hold.set()
    assert run.wait(20)
    log = [item.event for item in run.events()]
    [again] = [i for i, event in enumerate(log) if isinstance(event, EvaluationFinished) and event.appeal is not None]
    after = [event for event in log[again + 1 :] if isinstance(event, EvaluationFinished) and not event.evaluation.final]
    assert after, "the search went on"
    assert run.state.entries[first.id].history[1].occasion is Occasion.APPEAL
    assert run.state.judged == 8 and not run.state.pending_requests


def test_a_verdict_stands_when_the_judge_fails_on_appeal(store: Store) -> None:
    court = Court()
    run = begin(store, court)
    run.wait(20)
    best = run.best
    court.answer = lambda found: incorrect(found).model_copy(update={"verdict": Verdict.INFRA_ERROR})
    run.appeal(best.id, "again")
    assert run.wait(20)
    entry = run.state.entries[best.id]
    assert entry.evaluation == best.evaluation and entry.history == best.history and not entry.judging
    assert "so its verdict stands (correct)" in run.state.requests[-1].note


def test_a_stop_ends_an_appeal_that_waits(store: Store) -> None:
    court = Court()
    run = begin(store, court, candidates=50)
    while run.state.judged < 1:
        threading.Event().wait(0.01)
    court.hold.clear()
    first = next(iter(run.state.entries.values()))
    run.appeal(first.id, "again")
    run.stop()
    court.hold.set()
    assert run.wait(20)
    assert run.state.outcome == "stopped" and not run.state.pending_requests


def test_the_history_survives_a_file(store: Store, tmp_path) -> None:
    court = Court()
    run = begin(store, court)
    run.wait(20)
    run.appeal(run.best.id, "once more")
    run.wait(20)
    path = export_run(store, run.id, tmp_path / "run.kevrun")
    other = Store.open(str(tmp_path / "other.db"))
    assert other.state(import_run(other, path)).entries == run.state.entries


def test_what_cannot_be_appealed_is_said(store: Store) -> None:
    court = Court()
    run = begin(store, court)
    run.wait(20)
    with pytest.raises(BadInput, match="needs a reason"):
        run.appeal(run.best.id, "  ")
    with pytest.raises(BadInput, match="no flag 'suspicious'; its flags: none"):
        run.overrule(run.best.id, "suspicious", "I looked")


def flagged(found: Evaluation) -> Evaluation:
    return found.model_copy(update={"flags": (Flag.SUSPICIOUS,), "reasons": ("it reads a clock",)})


def test_a_person_overrules_a_flag_and_never_a_verdict(store: Store) -> None:
    court = Court()
    court.answer = flagged
    run = begin(store, court)
    run.wait(20)
    best = run.best
    with pytest.raises(BadInput, match="needs a reason"):
        run.overrule(best.id, "suspicious", "")
    run.overrule(best.id, "suspicious", "the clock tunes a block size")
    entry = open_run(run.id, store).state.entries[best.id]
    assert entry.overruling(Flag.SUSPICIOUS).reason == "the clock tunes a block size"
    assert entry.evaluation == best.evaluation, "the record of the judge is untouched"
    assert not run.state.pending_requests
    court.answer = incorrect
    run.appeal(best.id, "sure?")
    run.wait(20)
    with pytest.raises(BadInput, match="no person can make it so"):
        run.overrule(best.id, "suspicious", "it is fine")
