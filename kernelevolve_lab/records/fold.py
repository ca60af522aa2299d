"""The one fold over a run's events.

`RunFold` eats logged events in order and hands out immutable `RunState` snapshots; a snapshot is built only when asked for and shared until
the next event. Folding the same log always gives an equal state, whoever does it.

The clock of a run counts the seconds in which it was driven: it stands from the moment the loop went idle on a pause until it went on, and
between the last event of a process that was killed and the resumption. A person's command does not tell whether anybody drives the run, so
the time up to it counts only once the loop says something after it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from types import MappingProxyType

from kernelevolve_lab.records import events
from kernelevolve_lab.records.hardware import Evidence
from kernelevolve_lab.records.run import Appeal, Branch, Enqueue, Extend, Hint, Overrule, Pause, Pin, Reject, Resume, Stop
from kernelevolve_lab.records.run_state import Entry, Judgement, LogLine, Occasion, Overruling, Request, RunState, Status

LOG_LINES = 500
RECENT_FAILURES = 10

_EVIDENCE_RANK = {evidence: rank for rank, evidence in enumerate(reversed(Evidence))}


def _better(entry: Entry, best: Entry | None) -> bool:
    """Better evidence wins whatever the numbers say: a modelled time is never weighed against a measured one. A kernel that is right on the
    visible shapes alone is never the best."""
    if not entry.correct or entry.banned or entry.fitness <= 0.0 or entry.evaluation.wrong_elsewhere:
        return False
    if best is None:
        return True
    rank, best_rank = _EVIDENCE_RANK[entry.evaluation.evidence], _EVIDENCE_RANK[best.evaluation.evidence]
    return (rank, entry.secured) > (best_rank, best.secured)


class RunFold:
    """Eats events; `state` is the snapshot after the last one."""

    def __init__(self, logged: Iterable[events.Logged] = ()) -> None:
        self._state = RunState()
        self._entries: dict[str, Entry] = {}
        self._children: dict[str, list[str]] = {}
        self._requests: dict[int, Request] = {}
        self._log: list[LogLine] = []
        self._stale = False
        for item in logged:
            self.apply(item)

    @property
    def state(self) -> RunState:
        if self._stale:
            self._state = replace(
                self._state,
                entries=MappingProxyType(dict(self._entries)),
                requests=tuple(self._requests.values()),
                log=tuple(self._log),
            )
            self._stale = False
        return self._state

    def apply(self, logged: events.Logged) -> None:
        """Take one event in; events must come in order of `seq`, without gaps."""
        if logged.seq != self._state.seq + 1:
            raise ValueError(f"event {logged.seq} of run {logged.run} came after event {self._state.seq}")
        self._set(run=logged.run, seq=logged.seq, updated_at=logged.time)
        if not isinstance(logged.event, events.RunResumed | events.SteeringAccepted):
            self._tick(logged.time)
        getattr(self, f"_{logged.event.kind}")(logged, logged.event)
        self._stale = True

    def _tick(self, now: float) -> None:
        if self._state.clock_from is not None:
            self._set(active_seconds=self._state.active(now), clock_from=max(now, self._state.clock_from))

    def _set(self, **changes) -> None:
        self._state = replace(self._state, **changes)

    def _say(self, logged: events.Logged, text: str, level: str = "info") -> None:
        self._log.append(LogLine(logged.seq, logged.time, level, text))
        del self._log[:-LOG_LINES]

    def _run_started(self, logged: events.Logged, event: events.RunStarted) -> None:
        self._set(
            status=Status.RUNNING,
            clock_from=logged.time,
            config=event.config,
            title=event.title,
            budget=event.config.budget,
            started_at=logged.time,
        )
        self._say(logged, f"Run started: {event.title} on {event.config.target} in {event.config.language}.")

    def _run_resumed(self, logged: events.Logged, event: events.RunResumed) -> None:
        for key, entry in self._entries.items():
            if entry.judging:
                self._entries[key] = replace(entry, judging=False)
        for seq, request in self._requests.items():
            if request.note is None and isinstance(request.command, Pause | Resume | Stop):
                self._requests[seq] = replace(request, note="The run was resumed after it.")
        since_best = 0 if self._state.status is Status.ENDED else self._state.since_best
        self._set(status=Status.RUNNING, clock_from=logged.time, outcome="", reason="", phase="", since_best=since_best)
        self._say(logged, f"Run resumed. {event.reason}".strip())

    def _phase_changed(self, logged: events.Logged, event: events.PhaseChanged) -> None:
        self._set(phase=event.phase)
        self._say(logged, event.phase)

    def _target_measured(self, logged: events.Logged, event: events.TargetMeasured) -> None:
        self._set(target=event.target)

    def _baselines_measured(self, logged: events.Logged, event: events.BaselinesMeasured) -> None:
        kept = {(b.case.name, b.name): b for b in (*self._state.baselines, *event.baselines)}
        self._set(baselines=tuple(kept.values()))

    def _candidate_proposed(self, logged: events.Logged, event: events.CandidateProposed) -> None:
        self._spend(event)
        candidate = event.candidate
        if candidate.id in self._entries:
            return
        banned = any(self._entries[p].banned for p in candidate.parents if p in self._entries)
        for parent in candidate.parents:
            self._children.setdefault(parent, []).append(candidate.id)
        self._entries[candidate.id] = Entry(
            candidate,
            len(self._entries) + 1,
            event.generation,
            event.index,
            banned=banned,
            prompt=event.prompt,
            reply=event.reply,
            model=event.model,
            cost=event.cost,
            proposed_at=logged.time,
        )

    def _proposal_failed(self, logged: events.Logged, event: events.ProposalFailed) -> None:
        self._spend(event)
        self._set(
            failed_proposals=self._state.failed_proposals + 1,
            failures=(*self._state.failures, event.reason)[-RECENT_FAILURES:],
        )
        self._say(logged, f"No candidate from {event.proposer}: {event.reason}", "warning")

    def _model_replied(self, logged: events.Logged, event: events.ModelReplied) -> None:
        said = {**self._state.replies, event.index: (*self._state.replies.get(event.index, ()), event)}
        self._set(
            replies=MappingProxyType(said),
            cost=self._state.cost + event.cost,
            input_tokens=self._state.input_tokens + event.input_tokens,
            output_tokens=self._state.output_tokens + event.output_tokens,
        )

    def _spend(self, event: events.CandidateProposed | events.ProposalFailed) -> None:
        """Count what the request cost beyond the replies that were counted as they came."""
        others = dict(self._state.replies)
        counted = others.pop(event.index, ())
        self._set(
            replies=MappingProxyType(others),
            cost=self._state.cost + event.cost - sum(reply.cost for reply in counted),
            input_tokens=self._state.input_tokens + event.input_tokens - sum(reply.input_tokens for reply in counted),
            output_tokens=self._state.output_tokens + event.output_tokens - sum(reply.output_tokens for reply in counted),
        )
        if event.index is not None:
            following, ahead = self._state.next_index, {*self._state.answered_ahead, event.index}
            while following in ahead:
                ahead.discard(following)
                following += 1
            self._set(next_index=following, answered_ahead=frozenset(index for index in ahead if index > following))

    def _evaluation_started(self, logged: events.Logged, event: events.EvaluationStarted) -> None:
        self._entries[event.candidate] = replace(self._entries[event.candidate], judging=True)

    def _evaluation_finished(self, logged: events.Logged, event: events.EvaluationFinished) -> None:
        evaluation = event.evaluation
        before = self._entries[evaluation.candidate]
        judgement = self._judgement(logged, event, before)
        entry = replace(before, evaluation=evaluation, judging=False, judged_at=logged.time, history=(*before.history, judgement))
        self._entries[evaluation.candidate] = entry
        if before.evaluation is None:
            self._set(judged=self._state.judged + 1)
        best = self._state.best_id
        if best == evaluation.candidate:
            self._elect()
        elif _better(entry, self._entries.get(best)):
            self._set(best_id=evaluation.candidate, since_best=0)
            won = evaluation.speedup
            said = f"{won.value:.2f}x [{won.low:.2f}, {won.high:.2f}] over {won.baseline}"
            self._say(logged, f"New best: {evaluation.candidate}, {said}.")
        elif before.evaluation is None:
            self._set(since_best=self._state.since_best + 1)

    def _judgement(self, logged: events.Logged, event: events.EvaluationFinished, before: Entry) -> Judgement:
        """The verdict as it stands in the candidate's history."""
        if event.appeal is None:
            return Judgement(event.evaluation, logged.time, Occasion.FINALIST if before.evaluation else Occasion.PROPOSED)
        request = self._requests.get(event.appeal)
        reason = request.command.reason if request and isinstance(request.command, Appeal) else ""
        return Judgement(event.evaluation, logged.time, Occasion.APPEAL, reason)

    def _elect(self) -> None:
        best: Entry | None = None
        for entry in self._entries.values():
            if _better(entry, best):
                best = entry
        self._set(best_id=best.candidate.id if best else None)

    def _steering_accepted(self, logged: events.Logged, event: events.SteeringAccepted) -> None:
        command = event.command
        self._requests[logged.seq] = Request(logged.seq, command, event.author)
        match command:
            case Reject():
                if command.candidate in self._entries:
                    self._entries[command.candidate] = replace(self._entries[command.candidate], rejected=command.reason)
                    self._ban(command.candidate)
                self._say(logged, f"{command.candidate} rejected: {command.reason}")
            case Pin():
                if command.candidate in self._entries:
                    self._entries[command.candidate] = replace(self._entries[command.candidate], pinned=command.pinned)
            case Hint():
                self._set(hints=(*self._state.hints, command.text))
                self._say(logged, f"Hint: {command.text}")
            case Pause():
                if self._state.status is Status.RUNNING:
                    self._set(status=Status.PAUSED)
                    self._say(logged, "Paused.")
            case Resume():
                if self._state.status is Status.PAUSED:
                    self._set(status=Status.RUNNING)
                    self._say(logged, "Going on.")
            case Extend():
                self._set(budget=self._state.budget.extended(command), since_best=0)
            case Appeal():
                self._say(logged, f"Appeal against the verdict on {command.candidate}: {command.reason}")
            case Overrule():
                self._overrule(logged, command)
            case Enqueue() | Branch() | Stop():
                pass

    def _overrule(self, logged: events.Logged, command: Overrule) -> None:
        entry = self._entries.get(command.candidate)
        if entry is not None:
            others = tuple(said for said in entry.overrulings if said.flag is not command.flag)
            said = Overruling(command.flag, command.reason, logged.time)
            self._entries[command.candidate] = replace(entry, overrulings=(*others, said))
        self._say(logged, f"The flag '{command.flag}' of {command.candidate} was overruled by a person: {command.reason}")

    def _ban(self, rejected: str) -> None:
        """Ban a rejected candidate and all that descends from it, and elect the best of the others."""
        waiting = [rejected]
        while waiting:
            key = waiting.pop()
            if key in self._entries and not self._entries[key].banned:
                self._entries[key] = replace(self._entries[key], banned=True, judging=False)
                waiting += self._children.get(key, ())
        self._elect()

    def _steering_applied(self, logged: events.Logged, event: events.SteeringApplied) -> None:
        request = self._requests.get(event.request)
        if request is not None:
            self._requests[event.request] = replace(request, note=event.note)
            if isinstance(request.command, Appeal) and request.command.candidate in self._entries:
                self._entries[request.command.candidate] = replace(self._entries[request.command.candidate], judging=False)
            if self._state.status is not Status.ENDED:
                match request.command:
                    case Pause():
                        self._set(clock_from=None)
                    case Resume() if self._state.clock_from is None:
                        self._set(clock_from=logged.time)
            if event.note:
                self._say(logged, event.note)

    def _budget_changed(self, logged: events.Logged, event: events.BudgetChanged) -> None:
        self._set(budget=event.budget)

    def _lesson_learned(self, logged: events.Logged, event: events.LessonLearned) -> None:
        self._set(lessons=(*self._state.lessons, event))
        self._say(logged, f"Lesson: {event.text}")

    def _noted(self, logged: events.Logged, event: events.Noted) -> None:
        self._say(logged, event.text, event.level)

    def _run_ended(self, logged: events.Logged, event: events.RunEnded) -> None:
        self._set(status=Status.ENDED, clock_from=None, outcome=event.outcome, reason=event.reason, phase="")
        self._say(logged, f"Run {event.outcome}: {event.reason}")
