"""One candidate before the judge: load, check, time, weigh. Produces the `Evaluation`."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from kernelevolve_lab.errors import BadInput
from kernelevolve_lab.harness import probes, statistics
from kernelevolve_lab.harness.correctness import Checked, check
from kernelevolve_lab.harness.locks import Cancelled, MachineLock
from kernelevolve_lab.harness.policy import Policy
from kernelevolve_lab.harness.pool import InputPool
from kernelevolve_lab.harness.reference import InputSet, Reference
from kernelevolve_lab.harness.session import Session
from kernelevolve_lab.harness.settings import JudgeSettings
from kernelevolve_lab.harness.timing import CaseTiming, Limits, ReferenceContender, time_case
from kernelevolve_lab.harness.workers import CandidateCheats, CandidateFailed
from kernelevolve_lab.operators.base import Work
from kernelevolve_lab.records import Case, CaseResult, Flag, Ratio, RooflinePoint, Scalar, TargetSpec, Verdict
from kernelevolve_lab.targets import roofline

ABOVE_ROOF = 1.3
"""A fraction of the measured roof that noise in the ceilings does not explain."""


CLEARLY_SLOWER = 0.9
"""A held-out case is timed in few rounds; only an interval wholly below this counts as slower."""
FRESH_SETS = 5
"""Input sets that no candidate has seen, for the replay probe."""


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
    work: Mapping[str, Work]
    target: TargetSpec
    threads: int
    rng: np.random.Generator
    policy: Policy


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
    _session: Session | None = None
    _estimates: dict[str, float] = field(default_factory=dict)

    def run(self) -> None:
        """Judge. Raises `Cancelled`, and `ReferenceFailed` for trouble that is not the candidate's."""
        where: Case | None = None
        try:
            with self._stage("correctness"):
                self._session = session = self.start()
                for where in self.bench.visible:
                    if self.verdict is Verdict.CORRECT:
                        self._check_visible(session, where)
            with self._stage("timing"):
                for where in self.bench.visible:
                    if self.verdict is Verdict.CORRECT:
                        self._time(session, where)
            for where in self.bench.held_out:
                if self.verdict is Verdict.CORRECT:
                    self._judge_held_out(session, where)
        except CandidateFailed as failure:
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

    def _judge_held_out(self, session: Session, case: Case) -> None:
        """A kernel that is right for the shapes it was told and wrong, or no faster, for another is correct, but specialised."""
        try:
            with self._stage("correctness"):
                checked = self._check(session, case, case.distribution)
            self.results[case.name] = CaseResult(case=case, verdict=Verdict.CORRECT, error=checked.error)
            if checked.ok:
                with self._stage("timing"):
                    self._time(session, case)
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
        if not checked.deterministic:
            self.metrics["deterministic"] = False
        if checked.ok and distribution == case.distribution:
            self._trace(session, drawn, case)
        return checked

    def _trace(self, session: Session, drawn: InputSet, case: Case) -> None:
        """See what a Python candidate has PyTorch do for it; raises `CandidateCheats` where the policy forbids that."""
        found = session.trace(drawn, self._timeout(case))
        if found is None or not self.bench.policy.computing(found.counts):
            return
        reference = self.bench.reference.operators(drawn) if self.bench.policy.mode == "replace" else {}
        if offence := self.bench.policy.offence(found, reference):
            raise CandidateCheats(offence)

    def _time(self, session: Session, case: Case) -> None:
        sets = self.bench.pool.timing(case)
        limits = Limits.of(self.bench.settings, self.final)
        if case.held_out:
            limits = Limits(5, 7, limits.seconds / 4, limits.precision, limits.clear_loss, False)
        with self.bench.lock.measuring(self.cancelled):
            contenders = {
                name: (ReferenceContender(self.bench.reference, name), seconds) for name, seconds in self.bench.baselines[case.name].items()
            }
            timing = time_case(
                session,
                self.bench.reference,
                sets,
                contenders,
                self._estimates[case.name],
                limits,
                self.bench.settings,
                self._timeout(case),
                self.cancelled,
            )
            if not timing.wrong and not case.held_out:
                self._probe(session, case, sets, timing)
        if self.verdict is not Verdict.CORRECT:
            return
        if timing.wrong:
            self._fail(case, Verdict.INCORRECT, timing.wrong)
            return
        self.timings[case.name] = timing
        measured = {"candidate": timing.candidate, **timing.baselines}
        times = {name: statistics.timing(timing.undisturbed(values), self.bench.rng) for name, values in measured.items()}
        speedups = tuple(statistics.median_ratio(timing.ratios(name), name, self.bench.rng) for name in timing.baselines)
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
                "either the work is not done or the operator's count of it is wrong",
            )
        return point

    def _probe(self, session: Session, case: Case, sets: list[InputSet], timing: CaseTiming) -> None:
        """Look for what the results do not show; whatever is found is cheating, or wrong."""
        seconds, timeout = float(np.median(timing.candidate)), self._timeout(case)
        found = probes.second_witness(session, sets, seconds, self.bench.settings.witness_share, timeout)
        found = found or timing.works_between() or probes.works_on(session, sets[0], seconds, timeout)
        if not found and (self.final or _seems_to_replay(timing)):
            found = self._probe_replays(session, case, sets[:3])
        if found:
            self._fail(case, Verdict.CHEATING, found)
            return
        golden = [drawn for drawn in sets if drawn.has_golden]
        if len(golden) > 1 and (self.final or case is self.bench.visible[0]):
            found = probes.stale_addresses(session, self.bench.reference, golden[0], golden[1], timeout)
            if found:
                self._fail(case, Verdict.INCORRECT, found)

    def _probe_replays(self, session: Session, case: Case, seen: list[InputSet]) -> str:
        found = ""
        for _ in range(3):  # on a busy machine one comparison can be bad luck, three in a row are not
            fresh = [self.bench.reference.draw(case, golden=False) for _ in range(FRESH_SETS)]
            try:
                found = probes.replays(session, seen, fresh, self._timeout(case))
            finally:
                self.bench.reference.drop(fresh)
            for drawn in fresh:
                session.forget(drawn)
            if not found:
                return ""
        return found

    def overall(self, baseline: str) -> Ratio | None:
        """The speedup over the visible cases against a baseline."""
        timings = [self.timings[case.name] for case in self.bench.visible if case.name in self.timings]
        if len(timings) < len(self.bench.visible) or not all(baseline in timing.baselines for timing in timings):
            return None
        return statistics.geometric_mean([timing.ratios(baseline) for timing in timings], baseline, self.bench.rng)

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
