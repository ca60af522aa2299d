"""The judge's bench: builds ahead, one evaluation at a time, and the finalists measured again."""

import asyncio
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from kernelevolve_lab.engine.appeal import first_appeal, heard, judge_again
from kernelevolve_lab.engine.lanes import Lane
from kernelevolve_lab.engine.log import RunLog
from kernelevolve_lab.engine.services import Judge
from kernelevolve_lab.errors import LabError, NothingJudged
from kernelevolve_lab.languages.base import Build
from kernelevolve_lab.records import Candidate, Evaluation, Evidence, RunConfig, TargetSpec, Verdict
from kernelevolve_lab.records.events import BaselinesMeasured, EvaluationFinished, EvaluationStarted, Noted
from kernelevolve_lab.records.run_state import Entry, Request, RunState

FINALISTS = 3
MOST_FINALS = 2 * FINALISTS
INFRA_ERRORS = 3
CLOSING_SECONDS = 5.0


@dataclass
class _Judging:
    """The evaluation in progress."""

    candidate: Candidate
    final: bool
    future: asyncio.Future
    cancelled: threading.Event
    appeal: Request | None = None
    since: float = field(default_factory=time.monotonic)


class Bench:
    """The judge of one drive, with what it works on. All blocking calls go through two lanes: `judge_lane`, one thread in which everything
    that measures takes its turn, and a few threads for builds."""

    def __init__(self, log: RunLog, config: RunConfig, judge_lane: Lane, build_lane: Lane, build_threads: int) -> None:
        self._log, self._config = log, config
        self._judge_lane, self._build_lane, self._build_threads = judge_lane, build_lane, build_threads
        self._judge: Judge | None = None
        self._compiling: asyncio.Future | None = None
        self._builds: dict[str, asyncio.Future] = {}
        self._judging: _Judging | None = None
        self._retried: set[str] = set()
        self._finals: set[str] = set()
        self._infra_errors = 0
        self.evaluation_seconds = 1.0

    @property
    def tasks(self) -> set[asyncio.Future]:
        """What to wait for."""
        building = {future for future in self._builds.values() if not future.done()}
        return building | {future for future in (self._compiling, self._judging and self._judging.future) if future}

    @property
    def judging(self) -> bool:
        """Whether a candidate is being judged."""
        return self._judging is not None

    @property
    def compiling(self) -> bool:
        """Whether the baseline is being compiled and timed."""
        return self._compiling is not None

    @property
    def busy(self) -> bool:
        """Whether something is being judged or measured."""
        return self.judging or self.compiling

    def open(self, judge: Judge, progress: Callable[[str], None]) -> asyncio.Future:
        """Start the judge; it is closed by `close` even if that fails half-way."""
        self._judge = judge
        return self._judge_lane.run(judge.open, progress)

    def measure_eager(self) -> asyncio.Future:
        """Time the operator in PyTorch as it is written."""
        return self._judge_lane.run(self._judge.baselines, "eager")

    def compile_baseline(self) -> None:
        """Begin to compile and time the operator under torch.compile. Evaluations wait for it, since a speedup is a ratio to it."""
        self._compiling = self._judge_lane.run(self._judge.baselines, "torch.compile")

    def build_ahead(self, queue: list[Entry]) -> None:
        """Build what is judged next, and forget builds that nobody waits for."""
        wanted = [entry.candidate for entry in queue[: self._build_threads + 1]]
        for candidate in wanted:
            if candidate.id not in self._builds:
                self._builds[candidate.id] = self._build_lane.run(self._judge.build, candidate)
        waiting = {entry.id for entry in queue}
        for key in [key for key in self._builds if key not in waiting]:
            self._builds.pop(key).cancel()

    def judge_next(self, queue: list[Entry]) -> None:
        """Take up the first candidate whose build is there; what a person enqueued is not overtaken."""
        if self.busy:
            return
        for entry in queue:
            build = self._builds.get(entry.id)
            if build is not None and build.done():
                self._take_up(entry.candidate, build if build.exception() is None else None, final=False)
                return
            if entry.index is None:
                return

    def judge_finalist(self, state: RunState) -> bool:
        """Take up the next finalist; return whether there is one, or one being judged.

        The leader is measured once more, because whoever leads after many noisy comparisons owes part of the lead to luck, and so are
        those behind it whose interval reaches its own; and as long as that brings down the leader, the next one is, too.
        """
        if self.judging:
            return True
        leaders = [
            entry for entry in state.ranked() if not entry.banned and entry.fitness > 0 and entry.evaluation.evidence is Evidence.MEASURED
        ]
        open_ones = [entry for entry in leaders if not entry.evaluation.final and entry.id not in self._finals]
        level = [entry for entry in leaders[:FINALISTS] if entry.evaluation.speedup.high >= leaders[0].evaluation.speedup.low]
        due = [entry for entry in level if entry in open_ones] if len(self._finals) < FINALISTS else []
        if not due and leaders[:1] == open_ones[:1] and len(self._finals) < MOST_FINALS:
            due = open_ones[:1]
        if not due:
            return False
        if self.compiling:
            return True
        self._finals.add(due[0].id)
        self._take_up(due[0].candidate, None, final=True)
        return True

    def hear_appeal(self, state: RunState, make_judge: Callable[[RunConfig, TargetSpec], Judge]) -> bool:
        """Take up the oldest appeal, with a judge of its own; return whether there is one, or something being judged."""
        request = first_appeal(state)
        if request is None or self.busy:
            return self.judging or request is not None
        candidate = state.entries[request.command.candidate].candidate
        self._log.append(EvaluationStarted(candidate=candidate.id))
        cancelled, target = threading.Event(), self._judge.target
        future = self._judge_lane.run(judge_again, lambda: make_judge(self._config, target), candidate, cancelled.is_set)
        self._judging = _Judging(candidate, True, future, cancelled, appeal=request)
        return True

    def _take_up(self, candidate: Candidate, build: asyncio.Future | None, *, final: bool) -> None:
        started = EvaluationStarted(candidate=candidate.id)
        if not self._log.decide(lambda state: [] if state.entries[candidate.id].banned else [started]):
            return
        cancelled = threading.Event()
        ready: Build | None = build.result() if build is not None else None
        future = self._judge_lane.run(self._judge.evaluate, candidate, ready, final=final, cancelled=cancelled.is_set)
        self._judging = _Judging(candidate, final, future, cancelled)

    def drop_banned(self, state: RunState) -> None:
        """Cancel the evaluation of a candidate that was rejected, or that descends from one."""
        if self._judging and not self._judging.appeal and state.entries[self._judging.candidate.id].banned:
            self._judging.cancelled.set()

    def cancel(self) -> None:
        """Cancel whatever is being judged."""
        if self._judging:
            self._judging.cancelled.set()

    def collect(self) -> None:
        """Write down what the judge has found; raise `NothingJudged` when it keeps failing."""
        if self._compiling is not None and self._compiling.done():
            error = self._compiling.exception()
            if error is not None:
                raise error
            if compiled := self._compiling.result():
                self._log.append(BaselinesMeasured(baselines=compiled))
            else:
                text = f"torch.compile is no baseline in this run: {self._judge.baseline_note}"
                self._log.append(Noted(text=text, level="warning"))
            self._compiling = None
        judging = self._judging
        if judging is None or not judging.future.done():
            return
        self._judging = None
        error = judging.future.exception()
        evaluation = self._failed(judging.candidate, error) if error else judging.future.result()
        if judging.cancelled.is_set() and evaluation.verdict is Verdict.INFRA_ERROR:
            return
        if judging.appeal is not None:
            self._log.append(*heard(self._log.state, judging.appeal, evaluation))
            return
        if self._log.state.entries[judging.candidate.id].banned:
            return
        if evaluation.verdict is Verdict.INFRA_ERROR:
            self._again_or_record(judging, evaluation)
            return
        self._infra_errors = 0
        if not judging.final:
            self.evaluation_seconds += 0.2 * (time.monotonic() - judging.since - self.evaluation_seconds)
        self._record(judging.candidate, evaluation)

    def _again_or_record(self, judging: _Judging, evaluation: Evaluation) -> None:
        reasons = "; ".join(evaluation.reasons)
        if judging.final:
            self._log.append(Noted(text=f"{judging.candidate.id} could not be measured again: {reasons}", level="warning"))
        elif judging.candidate.id not in self._retried:
            self._retried.add(judging.candidate.id)
            self._log.append(Noted(text=f"Judging {judging.candidate.id} failed and is tried once more: {reasons}", level="warning"))
        else:
            self._infra_errors += 1
            self._record(judging.candidate, evaluation)
            if self._infra_errors >= INFRA_ERRORS:
                raise NothingJudged(f"The judge failed on {self._infra_errors} candidates in a row: {reasons}")

    def _record(self, candidate: Candidate, evaluation: Evaluation) -> None:
        self._log.append(EvaluationFinished(evaluation=evaluation))
        if (build := self._builds.pop(candidate.id, None)) is not None:
            build.cancel()

    def _failed(self, candidate: Candidate, error: BaseException) -> Evaluation:
        reason = str(error) if isinstance(error, LabError) else f"{type(error).__name__}: {error}"
        return Evaluation(
            candidate=candidate.id,
            target=self._config.target,
            language=candidate.language,
            verdict=Verdict.INFRA_ERROR,
            evidence=Evidence.COMPILED,
            reasons=(reason,),
        )

    async def settle(self) -> None:
        """Cancel the evaluation; if it was just done, keep what was found."""
        self.cancel()
        if self._judging is not None:
            await asyncio.wait({self._judging.future}, timeout=CLOSING_SECONDS)
        self.collect()

    async def close(self) -> None:
        """Cancel the evaluation and close the judge."""
        self.cancel()
        if self._judging is not None:
            await asyncio.wait({self._judging.future}, timeout=CLOSING_SECONDS)
        if self._judge is not None:
            # Its own thread may be held up by a compilation that cannot be interrupted.
            lane = self._build_lane if self.busy else self._judge_lane
            await asyncio.wait({lane.run(self._judge.close)}, timeout=CLOSING_SECONDS)
