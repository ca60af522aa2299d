"""The fold over a run's events, and what must hold whatever the events are."""

import itertools

from hypothesis import given, settings
from hypothesis import strategies as st

from kernelevolve_lab.records import (
    Budget,
    Candidate,
    Case,
    CaseResult,
    Evaluation,
    Evidence,
    Flag,
    OperatorRef,
    Ratio,
    RunConfig,
    Verdict,
    events,
)
from kernelevolve_lab.records.events import Logged
from kernelevolve_lab.records.fold import LOG_LINES, RunFold
from kernelevolve_lab.records.run import Appeal, Branch, Enqueue, Extend, Hint, Overrule, Pause, Pin, Reject, Resume, Stop
from kernelevolve_lab.records.run_state import Occasion, RunState, Status

CONFIG = RunConfig(
    operator=OperatorRef(kind="registered", name="op", text="op"), target="cpu", language="cpp", budget=Budget(candidates=10, seconds=60)
)


def candidate(n: int, parents: tuple[str, ...] = ()) -> Candidate:
    return Candidate(language="cpp", source=f"n={n}", parents=parents)


def evaluation(id: str, speed: float | None, evidence: Evidence = Evidence.MEASURED, final: bool = False) -> Evaluation:
    common = {"candidate": id, "target": "cpu", "language": "cpp", "evidence": evidence, "final": final}
    if speed is None:
        return Evaluation(verdict=Verdict.INCORRECT, reasons=("wrong",), **common)
    return Evaluation(verdict=Verdict.CORRECT, speedup=Ratio(value=speed, low=speed, high=speed, baseline="eager"), **common)


class Log:
    """Builds a log with times of one's choice."""

    def __init__(self) -> None:
        self.items: list[Logged] = []
        self.say(0.0, events.RunStarted(config=CONFIG, title="Op"))

    def say(self, now: float, event: events.Event) -> int:
        self.items.append(Logged(run="r", seq=len(self.items) + 1, time=now, event=event))
        return len(self.items)

    def steer(self, now: float, command: object) -> int:
        return self.say(now, events.SteeringAccepted(command=command))

    def judge(self, now: float, n: int, speed: float | None, parents: tuple[str, ...] = (), **more) -> str:
        made = candidate(n, parents)
        self.say(now, events.CandidateProposed(candidate=made, index=n))
        self.say(now, events.EvaluationStarted(candidate=made.id))
        self.say(now, events.EvaluationFinished(evaluation=evaluation(made.id, speed, **more)))
        return made.id

    @property
    def state(self) -> RunState:
        return RunFold(self.items).state


@st.composite
def logs(draw: st.DrawFn) -> list[Logged]:
    """Any run that the loop and a person could make: candidates with parents among the earlier, evaluations, commands, ends."""
    log, now, known, index = Log(), 0.0, [], itertools.count()
    for _ in range(draw(st.integers(0, 40))):
        now += draw(st.floats(0, 10))
        some = st.sampled_from(known) if known else st.just("000000000000")
        match draw(st.integers(0, 9)):
            case 0 | 1 | 2:
                parents = tuple(draw(st.lists(some, max_size=2, unique=True))) if known else ()
                made = candidate(draw(st.integers(0, 12)), parents)
                log.say(now, events.CandidateProposed(candidate=made, index=next(index), cost=0.5))
                known = list({*known, made.id})
            case 3 | 4 if known:
                id = draw(some)
                log.say(now, events.EvaluationStarted(candidate=id))
                speed = draw(st.none() | st.floats(0.1, 9))
                found = evaluation(id, speed, draw(st.sampled_from(Evidence)))
                appeals = [r.seq for r in log.state.requests if isinstance(r.command, Appeal) and r.command.candidate == id]
                log.say(now, events.EvaluationFinished(evaluation=found, appeal=draw(st.none() | st.sampled_from(appeals or [None]))))
            case 5:
                log.say(now, events.ProposalFailed(proposer="p", reason="no", index=next(index), cost=0.25))
            case 6 if known:
                log.steer(now, Reject(candidate=draw(some), reason="bad"))
            case 7:
                commands = [
                    Hint(text="h"),
                    Pause(),
                    Resume(),
                    Stop(),
                    Extend(candidates=3),
                    Pin(candidate=draw(some)),
                    Branch(candidate=draw(some)),
                    Appeal(candidate=draw(some), reason="again"),
                    Overrule(candidate=draw(some), flag=Flag.SUSPICIOUS, reason="it is fine"),
                ]
                log.steer(now, draw(st.sampled_from([*commands, Enqueue(source="s", language="cpp")])))
            case 8:
                for request in log.state.pending_requests:
                    log.say(now, events.SteeringApplied(request=request.seq, note="done"))
            case 9:
                log.say(
                    now,
                    draw(
                        st.sampled_from([events.RunResumed(), events.RunEnded(outcome="finished", reason="done"), events.Noted(text="n")])
                    ),
                )
    return log.items


@settings(max_examples=60, deadline=None)
@given(logs(), st.data())
def test_folding_in_pieces_with_snapshots_between_is_folding_at_once(log: list[Logged], data: st.DataObject) -> None:
    fold = RunFold()
    for item in log:
        fold.apply(item)
        if data.draw(st.booleans()):
            assert fold.state.seq == item.seq
    assert fold.state == RunFold(log).state


@settings(max_examples=60, deadline=None)
@given(logs())
def test_a_snapshot_never_changes(log: list[Logged]) -> None:
    fold = RunFold()
    kept = []
    for item in log:
        fold.apply(item)
        kept.append((fold.state, repr(fold.state)))
    assert all(repr(state) == before for state, before in kept)


@settings(max_examples=60, deadline=None)
@given(logs())
def test_every_verdict_stays_in_the_history_and_the_last_one_counts(log: list[Logged]) -> None:
    told: dict[str, list[Evaluation]] = {}
    for item in log:
        if isinstance(item.event, events.EvaluationFinished):
            told.setdefault(item.event.evaluation.candidate, []).append(item.event.evaluation)
    for entry in RunFold(log).state.entries.values():
        assert [judged.evaluation for judged in entry.history] == told.get(entry.id, [])
        assert entry.evaluation == (entry.history[-1].evaluation if entry.history else None)
        assert all(judged.reason == ("again" if judged.occasion is Occasion.APPEAL else "") for judged in entry.history)


@settings(max_examples=80, deadline=None)
@given(logs())
def test_bans_are_closed_and_the_best_is_the_best_of_the_rest(log: list[Logged]) -> None:
    state = RunFold(log).state
    for entry in state.entries.values():
        parents = [state.entries[p] for p in entry.candidate.parents if p in state.entries]
        assert entry.banned == (entry.rejected is not None or any(p.banned for p in parents))
    eligible = [e for e in state.entries.values() if e.correct and not e.banned]
    assert (state.best is None) == (not eligible)
    if state.best:
        rank = list(Evidence).index
        strongest = min(rank(e.evaluation.evidence) for e in eligible)
        assert rank(state.best.evaluation.evidence) == strongest
        assert state.best.fitness == max(e.fitness for e in eligible if rank(e.evaluation.evidence) == strongest)


@settings(max_examples=60, deadline=None)
@given(logs())
def test_counts_agree_with_the_log(log: list[Logged]) -> None:
    state = RunFold(log).state
    assert state.judged == sum(e.evaluation is not None for e in state.entries.values())
    spent = sum(getattr(item.event, "cost", 0.0) for item in log)
    assert state.cost == spent
    answered = {item.event.index for item in log if getattr(item.event, "index", None) is not None}
    assert answered == set(range(state.next_index)) | state.answered_ahead
    assert state.next_index not in answered
    assert 0.0 <= state.active_seconds <= log[-1].time - log[0].time + 1e-9


def test_answers_out_of_order_leave_the_lowest_open_request_next() -> None:
    log = Log()
    for index in (0, 2, 3):
        log.say(1, events.CandidateProposed(candidate=candidate(index), index=index))
    assert (log.state.next_index, log.state.answered_ahead) == (1, {2, 3})
    log.say(1, events.ProposalFailed(proposer="p", reason="no", index=1))
    assert (log.state.next_index, log.state.answered_ahead) == (4, frozenset())


def test_the_clock_stands_while_nobody_drives() -> None:
    log = Log()
    log.say(10, events.Noted(text="last words of a process that is killed at 10"))
    log.steer(500, Hint(text="given while it was dead"))
    assert log.state.active_seconds == 10
    log.say(1000, events.RunResumed())
    assert log.state.active_seconds == 10
    log.say(1005, events.Noted(text="x"))
    assert log.state.active_seconds == 15
    assert log.state.active(1007) == 17


def test_the_clock_stands_from_the_moment_a_pause_takes_effect() -> None:
    log = Log()
    pause = log.steer(10, Pause())
    assert log.state.status is Status.PAUSED
    log.say(14, events.Noted(text="the evaluation in progress ends"))
    log.say(15, events.SteeringApplied(request=pause))
    assert log.state.active_seconds == 15
    assert log.state.active(90) == 15
    resume = log.steer(100, Resume())
    log.say(101, events.SteeringApplied(request=resume))
    log.say(103, events.Noted(text="x"))
    assert log.state.active_seconds == 17
    assert log.state.status is Status.RUNNING


def test_the_clock_stands_after_the_end() -> None:
    log = Log()
    log.say(10, events.RunEnded(outcome="finished", reason="done"))
    log.steer(50, Hint(text="x"))
    log.say(60, events.SteeringApplied(request=3))
    assert (log.state.active_seconds, log.state.active(99)) == (10, 10)


def test_a_pause_or_stop_from_before_a_resumption_is_void() -> None:
    log = Log()
    log.steer(1, Pause())
    log.steer(2, Stop())
    hint = log.steer(3, Hint(text="kept"))
    log.say(9, events.RunResumed())
    assert [request.seq for request in log.state.pending_requests] == [hint]
    assert log.state.status is Status.RUNNING


def test_rejecting_the_best_makes_the_next_one_best_and_stops_its_judging() -> None:
    log = Log()
    first = log.judge(1, 1, 2.0)
    second = log.judge(2, 2, 3.0)
    child = candidate(3, (second,))
    log.say(3, events.CandidateProposed(candidate=child))
    log.say(3, events.EvaluationStarted(candidate=child.id))
    assert log.state.best_id == second and log.state.entries[child.id].judging
    log.steer(4, Reject(candidate=second, reason="it reads past the end"))
    state = log.state
    assert state.best_id == first
    assert state.entries[second].rejected == "it reads past the end"
    assert state.entries[child.id].banned and not state.entries[child.id].judging


def test_a_ban_reaches_a_candidate_that_named_its_parent_before_that_was_proposed() -> None:
    log = Log()
    parent = candidate(1)
    child = log.judge(1, 2, 2.0, parents=(parent.id,))
    log.say(2, events.CandidateProposed(candidate=parent))
    log.steer(3, Reject(candidate=parent.id, reason="no"))
    assert log.state.entries[child].banned


def test_a_finalist_measured_lower_gives_the_lead_back() -> None:
    log = Log()
    first = log.judge(1, 1, 2.0)
    second = log.judge(2, 2, 3.0)
    log.say(3, events.EvaluationFinished(evaluation=evaluation(second, 1.5, final=True)))
    assert log.state.best_id == first
    assert log.state.judged == 2


def test_a_kernel_that_is_wrong_elsewhere_is_never_the_best() -> None:
    log = Log()
    sound = log.judge(1, 1, 1.5)
    fast = log.judge(2, 2, 9.0)
    result = CaseResult(case=Case(name="odd", sizes={}, held_out=True), verdict=Verdict.INCORRECT, reason="wrong")
    log.say(3, events.EvaluationFinished(evaluation=evaluation(fast, 9.0).model_copy(update={"cases": (result,)})))
    assert log.state.best_id == sound


def test_a_modelled_time_leads_only_until_something_was_measured() -> None:
    log = Log()
    modelled = log.judge(1, 1, 9.0, evidence=Evidence.MODELLED)
    assert log.state.best_id == modelled
    measured = log.judge(2, 2, 1.1)
    assert log.state.best_id == measured
    log.judge(3, 3, 99.0, evidence=Evidence.MODELLED)
    assert log.state.best_id == measured
    assert log.state.ranked()[0].id == measured


def test_extending_adds_to_the_bounds_that_there_are_and_forgives_the_stall() -> None:
    log = Log()
    for n in range(4):
        log.judge(n, n, None)
    assert log.state.since_best == 4
    log.steer(5, Extend(candidates=5, seconds=10, cost=1))
    budget = log.state.budget
    assert (budget.candidates, budget.seconds, budget.cost) == (15, 70, None)
    assert log.state.since_best == 0


def test_a_verdict_written_before_there_were_appeals_is_read() -> None:
    finished = events.EvaluationFinished(evaluation=evaluation(candidate(1).id, 2.0))
    old = finished.model_dump(mode="json", exclude={"appeal"})
    assert events.EvaluationFinished.model_validate(old) == finished


def test_overruling_a_flag_again_keeps_the_last_word() -> None:
    log = Log()
    only = log.judge(1, 1, 2.0)
    for now, reason in ((2, "first look"), (3, "second look")):
        log.steer(now, Overrule(candidate=only, flag=Flag.NOISY, reason=reason))
    log.steer(4, Overrule(candidate=only, flag=Flag.SUSPICIOUS, reason="read it"))
    entry = log.state.entries[only]
    assert [(said.flag, said.reason, said.at) for said in entry.overrulings] == [
        (Flag.NOISY, "second look", 3),
        (Flag.SUSPICIOUS, "read it", 4),
    ]
    assert entry.correct and entry.fitness == 2.0 and log.state.best_id == only


def test_events_out_of_order_are_refused() -> None:
    log = Log()
    fold = RunFold(log.items)
    for seq in (1, 3):
        try:
            fold.apply(log.items[0].model_copy(update={"seq": seq}))
        except ValueError as error:
            assert str(seq) in str(error)
        else:
            raise AssertionError("accepted")


def test_the_log_for_people_is_bounded() -> None:
    log = Log()
    for n in range(LOG_LINES + 50):
        log.say(n, events.Noted(text=f"line {n}"))
    lines = log.state.log
    assert len(lines) == LOG_LINES
    assert lines[-1].text == f"line {LOG_LINES + 49}"
