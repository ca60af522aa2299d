"""One candidate before the judge: load, check, time, weigh. Produces the `Evaluation`."""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from kernelevolve_lab.errors import BadInput
from kernelevolve_lab.harness import contention, empty_visit, probes, statistics
from kernelevolve_lab.harness.cold import Flusher
from kernelevolve_lab.harness.correctness import Checked, check, explain
from kernelevolve_lab.harness.locks import Cancelled, MachineLock
from kernelevolve_lab.harness.memory import NAN_POISON
from kernelevolve_lab.harness.policy import Policy
from kernelevolve_lab.harness.pool import InputPool
from kernelevolve_lab.harness.reference import InputSet, Reference
from kernelevolve_lab.harness.session import Session
from kernelevolve_lab.harness.settings import JudgeSettings
from kernelevolve_lab.harness.timing import CaseTimer, CaseTiming, Limits, ReferenceContender, TimedVisit
from kernelevolve_lab.harness.watch import foreign_code
from kernelevolve_lab.harness.workers import CandidateCheats, CandidateFailed, CandidateWrong
from kernelevolve_lab.operators.base import Work
from kernelevolve_lab.records import Case, CaseResult, Flag, Ratio, RooflinePoint, Scalar, TargetSpec, Verdict
from kernelevolve_lab.targets import roofline

ABOVE_ROOF = 1.3
"""A fraction of the measured roof that noise in the ceilings does not explain."""
CLEARLY_SLOWER = 0.9
"""A held-out case is timed in few rounds; only an interval wholly below this counts as slower."""


@dataclass
class Bench:
    """What a trial needs of its judge. `baselines` gives by case name the expected seconds of each baseline, the main one first; where not
    `timed`, correctness is all that is judged."""

    reference: Reference
    pool: InputPool
    lock: MachineLock
    settings: JudgeSettings
    visible: Sequence[Case]
    held_out: Sequence[Case]
    distributions: Sequence[str]
    baselines: Mapping[str, dict[str, float]]
    work: Mapping[str, Work]
    target: TargetSpec
    threads: int
    rng: np.random.Generator
    policy: Policy
    timed: bool = True


@dataclass
class Trial:
    """The course of one judgement; `run` fills the results in."""

    bench: Bench
    start: Callable[[], Session]
    idle: Callable[[InputSet], Session]
    final: bool
    cancelled: Callable[[], bool]
    verdict: Verdict = Verdict.CORRECT
    reasons: list[str] = field(default_factory=list)
    flags: list[Flag] = field(default_factory=list)
    results: dict[str, CaseResult] = field(default_factory=dict)
    timings: dict[str, CaseTiming] = field(default_factory=dict)
    metrics: dict[str, Scalar] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=lambda: {"correctness": 0.0, "timing": 0.0})
    _session: Session | None = None
    _estimates: dict[str, float] = field(default_factory=dict)
    _met: set[str] = field(default_factory=set)  # cases for which the process has made a call

    def run(self) -> None:
        """Judge. Raises `Cancelled`, and `ReferenceFailed` for trouble that is not the candidate's."""
        where: Case | None = None
        try:
            with self._stage("correctness"):
                self._session = self.start()
                self.metrics["threads_at_start"] = contention.threads(self._session.worker.candidate_pid)
                for where in self.bench.visible:
                    if self.verdict is Verdict.CORRECT:
                        self._check_visible(self._session, where)
            with self._stage("timing"):
                for where in self.bench.visible if self.bench.timed else ():
                    if self.verdict is Verdict.CORRECT:
                        self._time(where)
            for where in self.bench.held_out:
                if self.verdict is Verdict.CORRECT:
                    self._judge_held_out(where)
            self.metrics["threads_at_end"] = contention.threads(self._session.worker.candidate_pid)
        except CandidateFailed as failure:
            if self.verdict is Verdict.CORRECT:  # what was found before is what counts
                self._fail(where, failure.verdict, str(failure))
        finally:
            if self._session is not None:
                self._session.close()

    @contextlib.contextmanager
    def _stage(self, name: str) -> Iterator[None]:
        began = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] += time.perf_counter() - began

    def _check_visible(self, session: Session, case: Case) -> None:
        others = [name for name in self.bench.distributions if name != case.distribution]
        if not self.final:
            others = list(self.bench.rng.permutation(others))[: self.bench.settings.distribution_samples]
        checked = self._check(session, case, case.distribution)
        for distribution in others:
            if checked.ok:
                again = self._check(session, case, distribution, twice=self.final)
                if not again.ok:
                    self._fail(case, Verdict.INCORRECT, f"under the distribution '{distribution}': {again.reason}", again)
                    return
        if checked.ok:
            self.results[case.name] = CaseResult(case=case, verdict=Verdict.CORRECT, error=checked.error)
        else:
            self._fail(case, Verdict.INCORRECT, checked.reason, checked)

    def _judge_held_out(self, case: Case) -> None:
        """A kernel that is right for the shapes it was told and wrong, or no faster, for another is correct, but specialised."""
        try:
            with self._stage("correctness"):
                checked = self._check(self._open_session, case, case.distribution)
            self.results[case.name] = CaseResult(case=case, verdict=Verdict.CORRECT, error=checked.error)
            if checked.ok:
                if self.bench.timed:
                    with self._stage("timing"):
                        self._time(case)
                    self._weigh_held_out(case)
                return
            verdict, reason = Verdict.INCORRECT, checked.reason
        except CandidateFailed as failure:
            verdict, reason = failure.verdict, str(failure)
        error = self.results[case.name].error if case.name in self.results else None
        self.results[case.name] = CaseResult(case=case, verdict=verdict, reason=reason, error=error)
        self._flag(Flag.SPECIALISED, f"at a shape that it was not told, it is {verdict.replace('_', ' ')}: {reason}")

    def _check(self, session: Session, case: Case, distribution: str, twice: bool = True) -> Checked:
        if self.cancelled():
            raise Cancelled
        drawn = self.bench.pool.check(case, distribution)
        session.make_room(drawn)
        checked = check(session, self.bench.reference, drawn, self._timeout(case), self.bench.rng, twice)
        self._estimates[case.name] = checked.seconds
        self._met.add(case.name)
        if not checked.deterministic:
            self.metrics["deterministic"] = False
        if checked.ok and distribution == case.distribution:
            self._trace(session, drawn, case)
        return checked

    def _trace(self, session: Session, drawn: InputSet, case: Case) -> None:
        """See what a Python candidate has PyTorch do for it, and that it does its work then, too; raises `CandidateCheats` where the policy
        forbids what it does, `CandidateWrong` where its outputs are not what they were a call before."""
        session.arenas[0].poison(drawn.outputs, NAN_POISON)
        found = session.trace(drawn, self._timeout(case))
        if found is None:
            return
        self.metrics["operators_counted"] = found.reached is not None
        if found.returned:
            with session.worker.frozen():
                again = self.bench.reference.compare(drawn, session.shown[0], NAN_POISON)
            if not again.ok:
                raise CandidateWrong(f"right in two calls and wrong in the next, whose use of PyTorch was traced: {explain(again)}")
        if not self.bench.policy.computing(found.counts):
            return
        reference = self.bench.reference.operators(drawn) if self.bench.policy.mode == "replace" else {}
        if offence := self.bench.policy.offence(found, reference):
            raise CandidateCheats(offence)

    @property
    def _open_session(self) -> Session:
        assert self._session is not None
        return self._session

    def _renew(self, case: Case) -> Session:
        """The candidate in a new process, which has made one call for the case but has seen no set that it will be timed with, if there is
        another."""
        self._open_session.close()
        self._session = session = self.start()
        drawn = self.bench.pool.check(case, case.distribution)
        session.make_room(drawn)
        session.call([drawn], 0, self._timeout(case))
        self._met = {case.name}
        return session

    def _meet(self, case: Case) -> None:
        """Let the process make a call for the case, if it has made none: the first one loads code and finds memory."""
        if case.name not in self._met:
            drawn = self.bench.pool.check(case, case.distribution)
            self._open_session.make_room(drawn)
            self._open_session.call([drawn], 0, self._timeout(case))
            self._met.add(case.name)

    def _time(self, case: Case) -> None:
        sets = self.bench.pool.timing(case)
        self._meet(case)
        limits = Limits.of(self.bench.settings, self.final)
        if case.held_out:
            limits = Limits(5, 6, limits.seconds / 4, limits.precision, limits.clear_loss)
        with self.bench.lock.measuring(self.cancelled):
            contenders = {
                name: (ReferenceContender(self.bench.reference, name), seconds) for name, seconds in self.bench.baselines[case.name].items()
            }
            timer = CaseTimer(
                self._open_session,
                lambda: self._renew(case),
                self.bench.reference,
                sets,
                contenders,
                self._estimates[case.name],
                limits,
                self.bench.settings,
                self._timeout(case),
            )
            timing = timer.run(self.cancelled)
            if not timing.wrong and not case.held_out:
                self._probe(case, sets, timing)
            if limits.cold_rounds and not timing.wrong and self.verdict is Verdict.CORRECT:
                timer.session = self._open_session
                if self.bench.reference.device != "cpu":
                    timer.run_cold(self.bench.reference.flush)
                else:
                    with Flusher(self.bench.target) as flusher:
                        timer.run_cold(flusher.flush)
        for drawn in sets:
            if self._open_session.address(drawn):
                self._open_session.forget(drawn)
        if self.verdict is not Verdict.CORRECT:
            return
        if timing.wrong:
            self._fail(case, Verdict.INCORRECT, timing.wrong)
            return
        self.timings[case.name] = timing
        measured = {"candidate": timing.candidate, **timing.baselines}
        times = {name: statistics.timing(timing.undisturbed(values)) for name, values in measured.items()}
        times |= {f"{name}, cold": statistics.timing(values, "cold") for name, values in timing.cold.items()}
        speedups = tuple(statistics.paired_ratio(timing.ratios(name), name) for name in timing.baselines)
        point = self._place(case, times["candidate"].median)
        self.results[case.name] = self.results[case.name].model_copy(update={"times": times, "speedups": speedups, "roofline": point})

    def _place(self, case: Case, seconds: float) -> RooflinePoint | None:
        """Where the time stands under the roofline, None where no ceilings are known; flags what no honest kernel can do."""
        work = self.bench.work[case.name]
        if not any(c.kind == "bandwidth" for c in self.bench.target.ceilings):
            return None
        try:
            point = roofline.place(self.bench.target, work.flops, work.bytes, seconds, case.dtype, self.bench.threads, work.bytes)
        except BadInput:
            return None
        if point.fraction > ABOVE_ROOF:
            self._flag(
                Flag.SUSPICIOUS,
                f"case '{case.name}' ran at {point.fraction:.0%} of what this machine was measured to reach ({point.bound_by}); "
                "it has an algorithm with fewer operations, or the work is not done, or the operator's count of it is wrong",
            )
        return point

    def _probe(self, case: Case, sets: list[InputSet], timing: CaseTiming) -> None:
        """Look for what the results do not show; whatever is found is cheating, or wrong."""
        session, seconds, timeout = self._open_session, float(np.median(timing.candidate)), self._timeout(case)
        found = probes.second_witness(session, sets, timing.visits, self.bench.settings.witness_share, timeout)
        if not found and session.worker.unsteadiness is not None:
            found = probes.hides(timing.visits, session.worker.unsteadiness, functools.partial(self._beside_empty, case, sets, timeout))
            session = self._open_session
        found = found or timing.works_out_of_turn() or probes.works_on(session, sets[0], seconds, timeout)
        if not found and (self.final or case is self.bench.visible[0]):
            calls = max(1, min(session.worker.longest_visit, round(self.bench.settings.visit_seconds / max(seconds, 1e-7))))
            found = foreign_code(session, sets, calls, self.bench.policy, timeout)
        if not found and timing.seems_to_replay:
            found = probes.replays(lambda: self._renew(case), sets, timeout)
        if found:
            self._fail(case, Verdict.CHEATING, found)
            return
        if self.final or case is self.bench.visible[0]:
            found = probes.stale_addresses(self._open_session, self.bench.reference, sets[0], sets[1], timeout)
            if found:
                self._fail(case, Verdict.INCORRECT, found)

    def _beside_empty(self, case: Case, sets: list[InputSet], timeout: float, calls: int) -> tuple[list[TimedVisit], list[TimedVisit]]:
        with contextlib.closing(self.idle(max(sets, key=lambda drawn: drawn.arena_size))) as idle:
            return empty_visit.beside(self._renew(case), idle, sets, calls, timeout)

    def overall(self, baseline: str) -> Ratio | None:
        """The speedup over the visible cases against a baseline."""
        timings = [self.timings[case.name] for case in self.bench.visible if case.name in self.timings]
        if len(timings) < len(self.bench.visible) or not all(baseline in timing.baselines for timing in timings):
            return None
        return statistics.geometric_mean([timing.ratios(baseline) for timing in timings], baseline)

    def _weigh_held_out(self, case: Case) -> None:
        """Flag a kernel whose gain does not carry over: slower than the baseline at a shape it was not told, though faster where it was."""
        timing = self.timings.get(case.name)
        if timing is None:
            return
        main = next(iter(timing.baselines))
        visible, here = self.overall(main), self.results[case.name].speedups[0]
        if visible is not None and visible.low > 1.0 and here.high < CLEARLY_SLOWER:
            was, told = f"({here.value:.2f}x)", f"({visible.value:.2f}x)"
            self._flag(Flag.SPECIALISED, f"slower than {main} at a shape that it was not told {was}, though faster at those it was {told}")

    def _timeout(self, case: Case) -> float:
        expected = max(self.bench.baselines.get(case.name, {}).values(), default=0.0)
        return max(self.bench.settings.call_seconds, self.bench.settings.call_factor * expected)

    def _fail(self, case: Case | None, verdict: Verdict, reason: str, checked: Checked | None = None) -> None:
        self.verdict = verdict
        self.reasons.append(f"{_called(case)}: {reason}" if case is not None else reason)
        if case is not None:
            error = checked.error if checked is not None else None
            self.results[case.name] = CaseResult(case=case, verdict=verdict, reason=reason, error=error)
        if verdict is Verdict.CHEATING:  # who cheats in one case has no result in any
            told = f"it was found to cheat in {_called(case)}" if case is not None else reason
            for name, result in self.results.items():
                if result.verdict is Verdict.CORRECT:
                    self.results[name] = CaseResult(case=result.case, verdict=verdict, reason=told, error=result.error)

    def _flag(self, flag: Flag, reason: str) -> None:
        if flag not in self.flags:
            self.flags.append(flag)
        self.reasons.append(reason)


def _called(case: Case) -> str:
    return "a held-out case" if case.held_out else f"case '{case.name}'"
