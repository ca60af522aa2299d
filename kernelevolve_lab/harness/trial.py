"""One candidate before the judge: load, check, time, weigh. Produces the `Evaluation`."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from kernelevolve_lab.harness import probes, statistics
from kernelevolve_lab.harness.correctness import Checked, check
from kernelevolve_lab.harness.locks import Cancelled, MachineLock
from kernelevolve_lab.harness.native import CandidateFailed, CandidateHung
from kernelevolve_lab.harness.pool import InputPool
from kernelevolve_lab.harness.reference import InputSet, Reference
from kernelevolve_lab.harness.session import Session
from kernelevolve_lab.harness.settings import JudgeSettings
from kernelevolve_lab.harness.timing import CaseTiming, Limits, ReferenceContender, time_case
from kernelevolve_lab.records import Case, CaseResult, Flag, Ratio, Scalar, Verdict


@dataclass
class Bench:
    """What a trial needs of its judge. `baselines` gives by case name the expected seconds of each baseline, the main one first."""

    reference: Reference
    pool: InputPool
    lock: MachineLock
    settings: JudgeSettings
    visible: Sequence[Case]
    held_out: Sequence[Case]
    distributions: Sequence[str]
    baselines: Mapping[str, dict[str, float]]
    rng: np.random.Generator


@dataclass
class Trial:
    """The course of one judgement; `run` fills the results in."""

    bench: Bench
    start: Callable[[], Session]
    final: bool
    cancelled: Callable[[], bool]
    verdict: Verdict = Verdict.CORRECT
    reasons: list[str] = field(default_factory=list)
    flags: list[Flag] = field(default_factory=list)
    results: dict[str, CaseResult] = field(default_factory=dict)
    timings: dict[str, CaseTiming] = field(default_factory=dict)
    metrics: dict[str, Scalar] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=lambda: {"correctness": 0.0, "timing": 0.0})

    def run(self) -> None:
        """Judge. Raises `Cancelled`, and `ReferenceFailed` for trouble that is not the candidate's."""
        session = None
        where: Case | None = None
        try:
            began = time.perf_counter()
            session = self.start()
            estimates: dict[str, float] = {}
            for case in self.bench.visible:
                where = case
                estimates[case.name] = self._check_visible(session, case)
                if self.verdict is not Verdict.CORRECT:
                    return
            for case in self.bench.held_out:
                where = case
                estimates[case.name] = self._check_held_out(session, case)
                if self.verdict is not Verdict.CORRECT:
                    return
            self.seconds["correctness"] = time.perf_counter() - began
            began = time.perf_counter()
            for case in (*self.bench.visible, *self.bench.held_out):
                where = case
                if self.results[case.name].verdict is Verdict.CORRECT:
                    self._time(session, case, estimates[case.name])
                if self.verdict is not Verdict.CORRECT:
                    return
            self.seconds["timing"] = time.perf_counter() - began
            self._weigh_held_out()
        except CandidateFailed as failure:
            self._fail(where, Verdict.TIMED_OUT if isinstance(failure, CandidateHung) else Verdict.CRASHED, str(failure))
        finally:
            if session is not None:
                session.close()

    def _check_visible(self, session: Session, case: Case) -> float:
        others = [name for name in self.bench.distributions if name != case.distribution]
        if not self.final:
            others = list(self.bench.rng.permutation(others))[: self.bench.settings.distribution_samples]
        checked = self._check(session, case, case.distribution)
        for distribution in others:
            if checked.ok:
                again = self._check(session, case, distribution)
                if not again.ok:
                    self._fail(case, Verdict.INCORRECT, f"under the distribution '{distribution}': {again.reason}", again)
                    return checked.seconds
        if checked.ok:
            self.results[case.name] = CaseResult(case=case, verdict=Verdict.CORRECT, error=checked.error)
        else:
            self._fail(case, Verdict.INCORRECT, checked.reason, checked)
        return checked.seconds

    def _check_held_out(self, session: Session, case: Case) -> float:
        """A kernel that is right for the shapes it was told and wrong for another is correct for what it was told, but specialised."""
        try:
            checked = self._check(session, case, case.distribution)
        except CandidateFailed as failure:
            verdict = Verdict.TIMED_OUT if isinstance(failure, CandidateHung) else Verdict.CRASHED
            self._fail(case, verdict, f"at a shape that it was not told: {failure}")
            return 0.0
        reason = "" if checked.ok else f"wrong at a shape that it was not told: {checked.reason}"
        verdict = Verdict.CORRECT if checked.ok else Verdict.INCORRECT
        self.results[case.name] = CaseResult(case=case, verdict=verdict, reason=reason, error=checked.error)
        if not checked.ok:
            self._flag(Flag.SPECIALISED, f"It is {reason}")
        return checked.seconds

    def _check(self, session: Session, case: Case, distribution: str) -> Checked:
        if self.cancelled():
            raise Cancelled
        drawn = self.bench.pool.check(case, distribution)
        checked = check(session, self.bench.reference, drawn, self._timeout(case), self.bench.rng)
        if not checked.deterministic:
            self.metrics["deterministic"] = False
        return checked

    def _time(self, session: Session, case: Case, estimate: float) -> None:
        sets = self.bench.pool.timing(case)
        limits = Limits.of(self.bench.settings, self.final)
        if case.held_out:
            limits = Limits(5, 7, limits.seconds / 4, limits.precision, limits.clear_loss, False)
        with self.bench.lock.measuring(self.cancelled):
            contenders = {
                name: (ReferenceContender(self.bench.reference, name), seconds) for name, seconds in self.bench.baselines[case.name].items()
            }
            timing = time_case(
                session, self.bench.reference, sets, contenders, estimate, limits, self.bench.settings, self._timeout(case), self.cancelled
            )
            if not timing.wrong and not case.held_out:
                self._probe(session, case, sets, timing)
        if self.verdict is not Verdict.CORRECT:
            return
        if timing.wrong:
            self._fail(case, Verdict.INCORRECT, timing.wrong)
            return
        self.timings[case.name] = timing
        times = {"candidate": statistics.timing(timing.candidate, self.bench.rng)}
        times |= {name: statistics.timing(values, self.bench.rng) for name, values in timing.baselines.items()}
        speedups = tuple(statistics.median_ratio(timing.ratios(name), name, self.bench.rng) for name in timing.baselines)
        self.results[case.name] = self.results[case.name].model_copy(update={"times": times, "speedups": speedups})

    def _probe(self, session: Session, case: Case, sets: list[InputSet], timing: CaseTiming) -> None:
        """Look for what the results do not show; whatever is found is cheating, or wrong."""
        seconds, timeout = float(np.median(timing.candidate)), self._timeout(case)
        found = probes.second_witness(session, sets, seconds, self.bench.settings.witness_share, timeout)
        found = found or probes.works_on(session, sets[0], seconds, timeout)
        if not found and (self.final or _seems_to_replay(timing)):
            fresh = [self.bench.reference.draw(case, golden=False) for _ in range(3)]
            found = probes.replays(session, sets[:3], fresh, timeout)
            self.bench.reference.drop(fresh)
        if found:
            self._fail(case, Verdict.CHEATING, found)
            return
        golden = [drawn for drawn in sets if drawn.has_golden]
        if len(golden) > 1:
            found = probes.stale_addresses(session, self.bench.reference, golden[0], golden[1], timeout)
            if found:
                self._fail(case, Verdict.INCORRECT, found)

    def overall(self, baseline: str) -> Ratio | None:
        """The speedup over the visible cases against a baseline."""
        timings = [self.timings[case.name] for case in self.bench.visible if case.name in self.timings]
        if len(timings) < len(self.bench.visible) or not all(baseline in timing.baselines for timing in timings):
            return None
        return statistics.geometric_mean([timing.ratios(baseline) for timing in timings], baseline, self.bench.rng)

    def _weigh_held_out(self) -> None:
        """Flag a kernel whose gain does not carry over: slower than the baseline at a shape it was not told, though faster where it was."""
        for case in self.bench.held_out:
            timing = self.timings.get(case.name)
            if timing is None or not timing.baselines:
                continue
            main = next(iter(timing.baselines))
            visible, here = self.overall(main), self.results[case.name].speedups[0]
            if visible is not None and visible.low > 1.0 and here.high < 1.0:
                self._flag(
                    Flag.SPECIALISED,
                    f"It is slower than {main} at a shape that it was not told ({here.value:.2f}x), though faster at those that it was "
                    f"({visible.value:.2f}x)",
                )

    def _timeout(self, case: Case) -> float:
        expected = max(self.bench.baselines.get(case.name, {}).values(), default=0.0)
        return max(self.bench.settings.call_seconds, self.bench.settings.call_factor * expected)

    def _fail(self, case: Case | None, verdict: Verdict, reason: str, checked: Checked | None = None) -> None:
        self.verdict = verdict
        self.reasons.append(f"{_called(case)}: {reason}" if case is not None else reason)
        if case is not None:
            error = checked.error if checked is not None else None
            self.results[case.name] = CaseResult(case=case, verdict=verdict, reason=reason, error=error)

    def _flag(self, flag: Flag, reason: str) -> None:
        if flag not in self.flags:
            self.flags.append(flag)
        self.reasons.append(reason)


def _seems_to_replay(timing: CaseTiming) -> bool:
    if min(len(timing.fresh), len(timing.repeated)) < 3:
        return False
    return float(np.median(timing.repeated)) < 0.75 * float(np.median(timing.fresh))


def _called(case: Case) -> str:
    return "a held-out case" if case.held_out else f"case '{case.name}'"
