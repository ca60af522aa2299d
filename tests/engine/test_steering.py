"""Steering a search while it runs: what a person asks for, and when it takes hold."""

import time
from collections.abc import Callable

import pytest
from scripted import PATIENCE, ScriptedJudge, ScriptedProposer, begin, improving, kinds, until

from kernelevolve_lab.engine.handle import RunHandle
from kernelevolve_lab.errors import MissingTool
from kernelevolve_lab.proposers.base import ProposalRequest
from kernelevolve_lab.records import events
from kernelevolve_lab.records.run import Extend
from kernelevolve_lab.store import Store


def test_nothing_comes_of_a_rejected_candidate_any_more(store: Store) -> None:
    judge = ScriptedJudge(take=0.01)
    proposer = ScriptedProposer()
    run = begin(store, judge, proposer, candidates=60)
    until(lambda: run.state.judged > 15 and run.best and run.best.candidate.parents)
    victim = run.best.id
    run.reject(victim[:8], "it reads past the end")
    at = next(item.seq for item in run.events() if item.event.kind == "steering_accepted")
    run.wait(PATIENCE)
    state = run.state
    assert state.entries[victim].rejected == "it reads past the end"
    assert state.best_id not in {entry.id for entry in state.entries.values() if entry.banned}
    late = [item.event.candidate for item in run.events(after=at) if item.event.kind == "candidate_proposed"]
    assert len(late) > 10
    assert not [candidate for candidate in late if state.entries[candidate.id].banned]
    taken_up = [item.event.candidate for item in run.events(after=at) if item.event.kind == "evaluation_started"]
    assert not [id for id in taken_up if state.entries[id].banned]
    assert state.judged == 60


def test_a_rejection_ends_the_evaluation_of_the_candidate(store: Store) -> None:
    run = begin(
        store, None, ScriptedProposer(lambda request: f"speed=1 n={request.index} take={60 if request.index == 2 else 0}"), candidates=6
    )
    slow = until(lambda: next((entry for entry in run.state.entries.values() if entry.judging and "take=60" in entry.source), None))
    run.reject(slow.id, "hangs")
    assert run.wait(PATIENCE)
    assert run.state.judged == 6
    assert run.state.entries[slow.id].evaluation is None


def test_what_a_person_enqueues_is_judged_before_what_waits(store: Store) -> None:
    judge = ScriptedJudge(take=0.1)
    run = begin(store, judge, candidates=30)
    until(lambda: run.state.judged >= 2)
    mine = run.enqueue("speed=50 mine=1", title="by hand")
    waiting = until(lambda: mine in run.state.entries)
    assert waiting
    until(lambda: run.state.entries[mine].evaluation)
    order = [item.event.candidate for item in run.events() if item.event.kind == "evaluation_started"]
    proposed = next(item.seq for item in run.events() if item.event.kind == "candidate_proposed" and item.event.candidate.id == mine)
    started_after = [item.event.candidate for item in run.events(after=proposed) if item.event.kind == "evaluation_started"]
    assert started_after[0] == mine and mine in order
    assert run.best.id == mine and run.best.candidate.title == "by hand"
    assert run.state.entries[mine].index is None
    again = run.enqueue("speed=50 mine=1")
    assert again == mine
    until(lambda: not run.state.pending_requests)
    assert "in this run already" in run.state.requests[-1].note
    run.stop()
    run.wait(PATIENCE)


def test_a_branch_is_the_next_to_be_expanded(store: Store) -> None:
    judge, proposer = ScriptedJudge(take=0.05), ScriptedProposer()
    run = begin(store, judge, proposer, candidates=40)
    until(lambda: run.state.judged >= 6)
    worst = min((entry for entry in run.state.entries.values() if entry.correct), key=lambda entry: entry.fitness)
    run.branch(worst.id)
    until(lambda: not run.state.pending_requests)
    child = [entry for entry in run.state.children(worst.id) if entry.index is not None]
    assert child and child[-1].id in run.state.requests[-1].note
    run.stop()
    run.wait(PATIENCE)


def test_a_hint_reaches_the_proposer(store: Store) -> None:
    proposer = ScriptedProposer()
    run = begin(store, ScriptedJudge(take=0.03), proposer, candidates=30)
    run.hint("try software prefetch")
    until(lambda: proposer.requests[-1:] and proposer.requests[-1].state.hints)
    run.stop()
    run.wait(PATIENCE)
    assert proposer.requests[-1].state.hints == ("try software prefetch",)


def test_a_pause_finishes_the_evaluation_and_stops_the_clock(store: Store) -> None:
    run = begin(store, ScriptedJudge(take=0.2), candidates=1000)
    until(lambda: any(entry.judging for entry in run.state.entries.values()) and run.state.judged)
    judging = next(entry.id for entry in run.state.entries.values() if entry.judging)
    run.pause()
    until(lambda: run.state.clock_from is None)
    state = run.state
    assert run.status == "paused" and state.entries[judging].evaluation is not None
    time.sleep(0.6)
    assert run.state == state
    run.resume()
    until(lambda: run.state.judged > state.judged)
    assert run.state.active_seconds < state.active_seconds + 0.6
    run.stop()
    assert run.wait(PATIENCE)


def test_a_stop_does_not_wait_for_the_evaluation(store: Store) -> None:
    run = begin(store, None, ScriptedProposer(lambda request: f"speed=1 n={request.index} take=600"))
    until(lambda: any(entry.judging for entry in run.state.entries.values()))
    began = time.monotonic()
    run.stop()
    assert run.wait(PATIENCE)
    assert time.monotonic() - began < 5
    assert (run.status, run.state.reason, run.state.judged) == ("stopped", "A person stopped it.", 0)


def test_a_stop_is_heard_while_the_judge_starts(store: Store) -> None:
    class Slow(ScriptedJudge):
        def open(self, progress: Callable[[str], None]) -> None:
            time.sleep(3)

    run = begin(store, Slow())
    until(lambda: run.state.phase == "starting the judge")
    run.stop()
    until(lambda: run.state.outcome == "stopped")
    assert run.wait(PATIENCE)


def test_an_extension_while_it_runs_and_after_it_ended(store: Store) -> None:
    judge = ScriptedJudge(take=0.02)
    run = begin(store, judge, candidates=5)
    run.extend(candidates=2)
    run.wait(PATIENCE)
    assert run.state.judged == 7
    run.extend(candidates=3)
    assert run.is_driven
    assert run.wait(PATIENCE)
    assert (run.status, run.state.judged) == ("finished", 10)
    assert len(judge.judged) == len(set(judge.judged)) == 10


def test_an_extension_between_the_last_look_and_the_end_is_not_lost(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = store.append_all

    def late(run: str, new: list, **more: object) -> list:
        if new[0].kind == "run_ended" and not store.state(run).requests:
            plain(run, [events.SteeringAccepted(command=Extend(candidates=2))])
        return plain(run, new, **more)

    monkeypatch.setattr(store, "append_all", late)
    run = begin(store, candidates=4)
    assert run.wait(PATIENCE)
    assert (run.status, run.state.judged) == ("finished", 6)


def test_an_extension_of_a_run_that_cannot_be_driven_fails_once(store: Store) -> None:
    class Broken(ScriptedJudge):
        def open(self, progress: Callable[[str], None]) -> None:
            raise MissingTool("No sandbox.")

    run = begin(store, Broken(), candidates=4)
    run.wait(PATIENCE)
    run.extend(candidates=3)
    assert run.wait(PATIENCE)
    assert kinds(run).count("run_ended") == 2


def test_a_stopped_run_is_resumed_where_it_was(store: Store) -> None:
    judge = ScriptedJudge(take=0.05)
    run = begin(store, judge, candidates=12)
    until(lambda: run.state.judged >= 3)
    run.stop()
    run.wait(PATIENCE)
    run.resume()
    run.wait(PATIENCE)
    assert (run.status, run.state.judged, len(run.state.entries)) == ("finished", 12, 12)
    finished = [item.event.evaluation for item in run.events() if item.event.kind == "evaluation_finished"]
    assert len([evaluation for evaluation in finished if not evaluation.final]) == 12


def test_steering_from_a_handle_that_does_not_drive(store: Store) -> None:
    run = begin(store, ScriptedJudge(take=0.05), candidates=1000)
    other = RunHandle(Store.open(store.url), run.id[:-2])
    until(lambda: other.state.judged >= 3)
    other.pin(other.best.id)
    other.extend(candidates=1)
    other.pause()
    until(lambda: run.status == "paused")
    other.resume()
    other.stop()
    assert other.wait(PATIENCE) and run.wait(PATIENCE)
    assert run.state.outcome == "stopped"
    assert all(request.note for request in run.state.requests)


def test_answers_of_a_parent_rejected_meanwhile_are_refused(store: Store) -> None:
    proposer = ScriptedProposer(take=0.0)

    def script(request: ProposalRequest) -> str:
        if request.parents and not run.state.requests:
            run.reject(request.parents[0], "while its child was being written")
        return improving(request)

    proposer.script = script
    run = begin(store, None, proposer, candidates=12)
    assert run.wait(PATIENCE)
    assert "was rejected meanwhile" in " ".join(run.state.failures)
    assert run.state.judged == 12
