"""Recorded runs: shown again at any speed, and driven again to the same course."""

import math
import time
from dataclasses import replace

import pytest
from scripted import OPERATOR, ScriptedJudge, ScriptedProposer, begin, config, improving, services

from kernelevolve_lab.engine.handle import RunHandle
from kernelevolve_lab.engine.policies.evolutionary import Evolutionary
from kernelevolve_lab.engine.policies.greedy import Greedy
from kernelevolve_lab.engine.policies.mcts import Mcts
from kernelevolve_lab.engine.recorded import recorded_services
from kernelevolve_lab.engine.replay import Replay
from kernelevolve_lab.errors import BadInput
from kernelevolve_lab.proposers.base import ProposalRequest
from kernelevolve_lab.proposers.replay import Recording
from kernelevolve_lab.records.events import SteeringAccepted
from kernelevolve_lab.records.run import Hint
from kernelevolve_lab.store import Store


def finished(store: Store, **budget) -> RunHandle:
    handle = begin(store, **budget)
    assert handle.wait(20)
    return handle


def recorded_run(store: Store, seconds: list[float]) -> RunHandle:
    """A run whose events lie so many seconds apart."""
    original = finished(store, candidates=3)
    log = [logged.event for logged in original.events()]
    times = [1000.0]
    for index in range(1, len(log)):
        times.append(times[-1] + (seconds[index - 1] if index <= len(seconds) else 0.0))
    store.insert_run("timed", list(zip(times, log, strict=True)))
    return RunHandle(store, "timed")


def test_everything_is_shown_and_labelled(store):
    run = finished(store)
    replay = Replay(run, math.inf)
    assert replay.wait(10) and not replay.is_driven and replay.progress == 1.0
    shown, real = replay.state, run.state
    assert shown.title == "Scripted (replay)" and real.title == "Scripted"
    assert shown.entries == real.entries and shown.best_id == real.best_id and shown.log[1:] == real.log[1:]
    assert replay.status == "finished" and replay.best.id == run.best.id
    assert [logged.seq for logged in replay.events()] == [logged.seq for logged in run.events()]


def test_events_keep_their_timing(store):
    replay = Replay(recorded_run(store, [0.0, 4.0]), speed=8.0)
    began = time.monotonic()
    assert len(replay.events()) == 2 and replay.status == "running"
    assert replay.wait(10)
    assert 0.45 <= time.monotonic() - began <= 3.0
    assert replay.state.updated_at - replay.state.started_at == 4.0


def test_long_silences_are_cut(store):
    replay = Replay(recorded_run(store, [3600.0]), speed=100.0)
    began = time.monotonic()
    assert replay.wait(10) and time.monotonic() - began < 3.0


def test_pause_resume_seek_stop(store):
    replay = Replay(recorded_run(store, [0.0, 10.0, 10.0]), speed=1.0)
    replay.pause()
    assert replay.status == "paused" and replay.is_driven
    replay.seek(0.75)
    assert len(replay.events()) == 3
    replay.seek(0.25)
    assert len(replay.events()) == 2 and replay.state.seq == 2
    replay.speed = math.inf
    replay.resume()
    assert replay.wait(10) and len(replay.events()) > 3
    replay.speed = 1.0
    replay.resume()
    assert len(replay.events()) == 2, "from the start again"
    replay.stop()
    assert replay.wait(10) and replay.status == "interrupted"


def test_a_pause_takes_no_time_of_the_run(store):
    replay = Replay(recorded_run(store, [2.0]), speed=2.0)
    replay.pause()
    before = replay.progress
    time.sleep(0.3)
    replay.resume()
    replay.pause()
    assert replay.progress - before < 0.1
    replay.stop()


def test_replay_cannot_be_steered(store):
    run = finished(store, candidates=3)
    replay = Replay(run, math.inf)
    replay.wait(10)
    length = len(run.events())
    for steer in (
        lambda: replay.reject(run.best.id, "no"),
        lambda: replay.pin(run.best.id),
        lambda: replay.hint("x"),
        lambda: replay.extend(candidates=1),
        lambda: replay.branch(run.best.id),
    ):
        with pytest.raises(BadInput):
            steer()
    assert len(run.events()) == length


@pytest.mark.parametrize("speed", [0, -1, math.nan, "8", None, True])
def test_speed_must_be_above_zero(store, speed):
    run = finished(store, candidates=1)
    with pytest.raises(BadInput, match="speed above zero"):
        Replay(run, speed)


@pytest.mark.parametrize("place", [-0.1, 1.1, math.nan])
def test_places_are_checked(store, place):
    replay = Replay(finished(store, candidates=1), math.inf)
    with pytest.raises(BadInput, match="between 0 and 1"):
        replay.seek(place)


def test_unfinished_run_can_be_replayed(store):
    run = store.create_run(config(), "Scripted")
    store.append(run, SteeringAccepted(command=Hint(text="x")))
    replay = Replay(RunHandle(store, run), math.inf)
    assert replay.wait(10) and replay.status == "interrupted" and replay.state.hints == ("x",)


def course(handle: RunHandle) -> list[str]:
    """All that a run logged, byte for byte, but for times and the run's own id."""
    lines = []
    for logged in handle.events():
        event = logged.event.model_copy(update={"seconds": 0.0}) if hasattr(logged.event, "seconds") else logged.event
        lines.append(f"{logged.seq} {event.model_dump_json()}".replace(handle.id, "RUN"))
    return lines


def test_recording_drives_the_same_course(store):
    """The same recording gives the same candidates, evaluations and winner, however often it is driven."""
    original = finished(store, candidates=8, seed=11)
    recording = Recording.of(original.events())

    def again() -> RunHandle:
        handle = RunHandle(store, store.create_run(original.state.config, "Scripted"), recorded_services(recording, services()))
        handle._drive()
        assert handle.wait(20) and handle.status == "finished", handle.state.log
        return handle

    one, two = again(), again()
    assert course(one) == course(two)
    evaluations = [[line.split(" ", 1)[1] for line in course(handle) if '"evaluation_finished"' in line] for handle in (original, one, two)]
    assert evaluations[0] == evaluations[1] == evaluations[2] and evaluations[0]
    for handle in (one, two):
        assert list(handle.state.entries) == list(original.state.entries)
        assert handle.best.id == original.best.id
        assert [entry.candidate for entry in handle.state.entries.values()] == [e.candidate for e in original.state.entries.values()]


@pytest.mark.parametrize("policy", [Greedy(), Mcts(), Evolutionary()], ids=lambda policy: policy.name)
def test_a_steered_recording_drives_the_same_course_under_every_policy(store, policy):
    """A person hints, pins, enqueues, branches and rejects, which takes candidates from the judge that wait for it; driven again, the
    recording gives what it judged, and what it did not judge is not made up."""

    def script(request: ProposalRequest) -> str:
        best = request.state.best
        match request.index:
            case 4:
                original.hint("wider vectors")
                original.pin(best.id)
            case 7:
                original.enqueue("speed=1.01 n=person", language="cpp", parents=(best.id,))
                original.branch(best.id)
            case 10:
                original.reject(next(iter(request.state.entries)), "it reads past the end")
        return improving(request)

    steered = replace(services(ScriptedJudge(take=0.05), ScriptedProposer(script), policy), lookahead=2)
    original = RunHandle(store, store.create_run(config(candidates=16, seed=5), "Steered"), steered)
    original._drive()
    assert original.wait(30) and original.status == "finished", original.state.log
    recorded = [logged.event.kind for logged in original.events()]
    assert recorded.count("steering_accepted") == recorded.count("steering_applied") == 5
    assert any(entry.rejected for entry in original.state.entries.values())
    recording = Recording.of(original.events())

    def again() -> RunHandle:
        handle = RunHandle(store, store.create_run(original.state.config, "Steered"), recorded_services(recording, services(policy=policy)))
        handle._drive()
        assert handle.wait(30) and handle.status == "finished", handle.state.log
        return handle

    one, two = again(), again()
    assert course(one) == course(two)
    for entry in one.state.entries.values():
        known = original.state.entries[entry.id]
        assert entry.candidate == known.candidate and entry.evaluation.speedup in (
            recording.first.get(entry.id).speedup,
            known.evaluation.speedup,
        )
    judged = {key for key, entry in original.state.entries.items() if key in recording.first and entry.index is not None}
    assert set(one.state.entries) <= judged and len(one.state.entries) >= 10


def test_recorded_judge_does_not_invent(store):
    recording = Recording.of(finished(store, candidates=3).events())
    judge = recorded_services(recording).make_judge(config(), None)
    stranger = next(iter(recording.answers.values())).candidate.model_copy(update={"id": "0" * 12})
    assert judge.evaluate(stranger, cancelled=lambda: False).verdict.value == "infra_error"
    assert not judge.build(stranger).ok


def test_empty_recording_is_refused():
    with pytest.raises(BadInput, match="empty"):
        Recording.of([])


def test_scripted_operator_is_what_the_recording_is_of(store):
    assert Recording.of(finished(store, candidates=1).events()).config.operator.name == OPERATOR.name
