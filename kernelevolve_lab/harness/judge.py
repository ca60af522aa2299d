"""The judge: builds a candidate, finds out whether it is right and how fast it is, and says so in an `Evaluation`.

Three roles that share nothing but sealed memory and small messages. The judge (this process; it never imports torch) holds seeds, budgets,
statistics and verdicts. The reference worker knows the operator and what outputs must be. A candidate runs in a process of its own,
which sees inputs that it cannot write, outputs that hold nothing of use, and no clock that counts alone.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kernelevolve_lab import paths, registry
from kernelevolve_lab.errors import BadInput, LabError
from kernelevolve_lab.harness import devices, environment, sandbox, statistics, tripwires
from kernelevolve_lab.harness.diagnosis import diagnose
from kernelevolve_lab.harness.locks import Cancelled, MachineLock
from kernelevolve_lab.harness.native import NativeWorker, build_host
from kernelevolve_lab.harness.policy import policy_for
from kernelevolve_lab.harness.pool import InputPool
from kernelevolve_lab.harness.python_worker import PythonWorker, Zygote, ZygoteKeeper
from kernelevolve_lab.harness.reference import InputSet, Reference, ReferenceFailed, task_cache
from kernelevolve_lab.harness.session import Arenas, Session
from kernelevolve_lab.harness.settings import JudgeSettings
from kernelevolve_lab.harness.timing import time_baseline
from kernelevolve_lab.harness.trial import Bench, Trial
from kernelevolve_lab.harness.workers import CandidateFailed, Worker
from kernelevolve_lab.harness.works import Works
from kernelevolve_lab.languages.base import KERNELS, Build, Language, Workload
from kernelevolve_lab.records import (
    Candidate,
    CaseResult,
    Diagnosis,
    Evaluation,
    Evidence,
    Flag,
    OperatorRef,
    Profile,
    Ratio,
    TargetSpec,
    Verdict,
)
from kernelevolve_lab.records.events import BaselineCase

EAGER, COMPILED, AUTOTUNED = "eager", "torch.compile", "max-autotune"
NOISY_WIDTH = 0.2
"""An interval wider than this part of its value is flagged as noisy."""


class EvaluationCancelled(Exception):
    """`evaluate` stopped because its `cancelled` said so; there is no evaluation."""


class Judge:
    """Judges candidates for one operator on one target. A context manager; blocking; may be called from several threads.

    `seed` fixes which further distributions are checked when; inputs always come from secret seeds. Where the target is not here, nothing
    is timed: candidates in a language that can be emulated are checked for correctness, the others are built and no more.
    """

    def __init__(
        self,
        operator: OperatorRef,
        target: TargetSpec,
        *,
        profile: Profile = "laptop",
        seed: int | None = None,
        cache: Path | None = None,
        unsandboxed: bool = False,
        settings: JudgeSettings | None = None,
    ):
        self.operator = operator
        self.target = target
        self.profile = profile
        self.settings = settings or JudgeSettings.for_device(devices.device_of(target))
        self.cache = cache or paths.cache_dir()
        self.confined = not unsandboxed
        self.threads = self.settings.thread_count()
        self.device = devices.device_of(target)
        self.emulated = not target.present
        self._rng = np.random.default_rng(seed)
        self._lock = MachineLock(self.cache / devices.lock_name(self.device))
        self._judging = threading.RLock()
        self._works: Works | None = None
        self._closing = False

    def __enter__(self) -> Judge:
        self.open()
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def open(self, progress: Callable[[str], None] = lambda text: None) -> None:
        """Start the reference worker, draw first inputs and prove that trivial answers fail the gate.

        Raises a `LabError` when the sandbox cannot be had, when the operator cannot be loaded or run, or when it lets zeros, its mean or a
        copy of an input pass.
        """
        with self._judging:
            if self._works is not None:
                return
            if self.confined:
                sandbox.bubblewrap()
            progress("starting the reference worker")
            try:
                self._works = self._start(progress)
            except ReferenceFailed as error:
                raise BadInput(f"The operator '{self.operator.name}' cannot be judged: {error}.") from error

    def close(self) -> None:
        """End all workers and free all memory. May be called while another thread is judging, which then raises
        `EvaluationCancelled`."""
        self._closing = True
        works = self._works
        if works is not None:
            works.reference.close()  # whoever waits for it stops waiting
        with self._judging:
            if self._works is not None:
                self._works.close()
                self._works = None
            self._closing = False

    def baselines(self, name: str) -> tuple[BaselineCase, ...]:
        """A baseline's times on the visible cases, measured alone (speedups always come from paired measurements instead).

        `torch.compile` is compiled at the first call, which takes a while; where it cannot be, the answer is empty and `baseline_note`
        says why.
        """
        with self._judging:
            works = self._opened()
            if self.emulated:
                return ()
            if name == COMPILED:
                self._compile(works)
            return tuple(
                BaselineCase(
                    case=case,
                    name=name,
                    timing=statistics.timing(works.baselines[case.name][name]),
                    inputs=works.inputs[case.name],
                )
                for case in works.visible
                if name in works.baselines[case.name]
            )

    @property
    def main_baseline(self) -> str:
        """What the main speedup is measured against: `torch.compile`, or `eager` where the reference cannot be compiled."""
        return EAGER if self._opened().not_compiled else COMPILED

    @property
    def baseline_note(self) -> str:
        """Why `torch.compile` is no baseline here; empty if it is."""
        if self.emulated:
            return f"{self.target.title} is not here, so nothing is timed"
        return self._opened().not_compiled or ""

    def language(self, name: str) -> Language:
        """The language of that name; raises a `LabError` when there is none or it does not serve the target."""
        language: Language = registry.load("languages", name)
        if not language.supports(self.target):
            raise BadInput(f"The language '{name}' does not serve the target '{self.target.name}'.")
        return language

    def build(self, candidate: Candidate) -> Build:
        """Compile a candidate (builds are cached). Several may build at once; on a CPU none beside a measurement, which waits for a GPU
        do not disturb."""
        works = self._works
        given: dict[str, Any] = {"workloads": tuple(Workload(works.inputs[case.name]) for case in works.visible) if works else ()}
        if self.confined:
            given["sandbox"] = sandbox.compiler_sandbox
        with self._lock.building() if self.device == "cpu" else contextlib.nullcontext():
            return self.language(candidate.language).build(candidate.source, self.target, self.cache / "builds", **given)

    def evaluate(
        self,
        candidate: Candidate,
        build: Build | None = None,
        *,
        final: bool = False,
        cancelled: Callable[[], bool] = lambda: False,
    ) -> Evaluation:
        """Judge a candidate; `final` measures longer, under every distribution, with all timed outputs checked.

        Whatever the candidate does ends in a verdict; trouble of our own is tried once more and then reported as `infra_error`. Raises
        `EvaluationCancelled` when `cancelled` said so, and a `LabError` when the language or the judge cannot be used at all.
        """
        if build is None:
            build = self.build(candidate)
        with self._judging:
            began = time.perf_counter()
            works = self._opened()
            if not build.ok:
                reasons = tuple(d.message for d in build.diagnostics if d.severity == "error")[:3] or ("the build failed",)
                return self._evaluation(candidate, build, began, None, Verdict.BUILD_FAILED, reasons, final)
            language = self.language(candidate.language)
            if self.emulated and not language.emulated:
                reason = f"it was built for {self.target.title}, which is not here, and {language.title} cannot be emulated"
                return self._evaluation(candidate, build, began, None, Verdict.UNSUPPORTED, (reason,), final)
            for attempt in range(2):
                try:
                    if not self.emulated:
                        self._compile(works)
                    if final and self.settings.autotuned:
                        self._autotune(works)
                    if final:
                        works.pool.renew()
                    trial = self._trial(self._works_for(works, build, language), build, language, final, cancelled)
                    trial.run()
                    works.evaluations += 1
                    if works.evaluations % self.settings.refresh_every == 0:
                        works.pool.refresh()
                    return self._evaluation(candidate, build, began, trial, trial.verdict, tuple(trial.reasons), final)
                except Cancelled:
                    raise EvaluationCancelled from None
                except (ReferenceFailed, OSError) as error:
                    if self._closing:
                        raise EvaluationCancelled from None
                    if attempt == 1:
                        return self._evaluation(candidate, build, began, None, Verdict.INFRA_ERROR, (f"the judge failed: {error}",), final)
                    works.close()
                    self._works = works = self._start(lambda text: None)
            raise AssertionError("unreachable")

    def _opened(self) -> Works:
        if self._works is None:
            raise LabError("The judge is not open; call open() or use it in a with statement.")
        return self._works

    def _start(self, progress: Callable[[str], None]) -> Works:
        cache = task_cache(self.cache, self.operator)
        reference = Reference(threads=self.threads, cache=cache, confined=self.confined, device=self.device)
        zygote = ZygoteKeeper(self._start_zygote)
        try:
            description = reference.open(self.operator, self.profile)
            pool = InputPool(reference, description.cases, self.settings)
            works = Works(reference, description, pool, Arenas(reference), zygote, 0, {})
            if self.device != "cpu" or self.emulated:
                zygote.start_ahead()  # every candidate will need it
            for case in description.cases:
                progress(f"drawing inputs of '{case.name}'" if not case.held_out else "drawing inputs of a held-out case")
                drawn = reference.draw(case, golden=True, trivial=not case.held_out)
                pool.adopt(drawn)
                works.arena_size = max(works.arena_size, drawn.arena_size)
                works.inputs[case.name] = tuple(place.spec for place in drawn.inputs)
                works.baselines[case.name] = {EAGER: time_baseline(reference, [drawn], EAGER)}
                self._prove_gate(works, drawn)
        except BaseException:
            zygote.close()
            reference.close()
            raise
        return works

    def _start_zygote(self) -> Zygote:
        emulate = self.target if self.emulated else None
        return Zygote(self.device, threads=self.threads, confined=self.confined, emulate=emulate)

    def _prove_gate(self, works: Works, drawn: InputSet) -> None:
        passing = [name for name, excess in drawn.trivial.items() if excess <= 1.0]
        if not passing:
            return
        text = f"case '{drawn.case.name}' of the operator '{works.description.name}' lets a trivial answer pass: {', '.join(passing)}"
        if self.operator.kind == "registered":
            raise BadInput(f"{text[0].upper()}{text[1:]}. Change its inputs or tighten its tolerance.")
        works.degenerate = text

    def _compile(self, works: Works) -> None:
        if works.not_compiled is not None:
            return
        if not self.settings.compiled:
            works.not_compiled = "torch.compile is no baseline here (switched off in the settings)"
            return
        why = ""
        # Held-out cases are timed against eager alone: they tell whether a gain carries over, and compiling is the longest wait of a run.
        for case in works.visible:
            drawn = works.pool.check(case, case.distribution)
            with self._lock.building():
                why = works.reference.compile(drawn)
            if why:
                break
            with self._lock.measuring():
                works.baselines[case.name] = {COMPILED: time_baseline(works.reference, [drawn], COMPILED), **works.baselines[case.name]}
        if why:
            for times in works.baselines.values():
                times.pop(COMPILED, None)
        works.not_compiled = f"torch.compile is no baseline here ({why})" if why else ""

    def _autotune(self, works: Works) -> None:
        """Compile the reference with torch.compile's longest search, as a third baseline of final rounds."""
        if works.autotuned or works.not_compiled:
            return
        works.autotuned = True
        for case in works.visible:
            drawn = works.pool.check(case, case.distribution)
            with self._lock.measuring():  # it measures what it compiles
                if works.reference.compile(drawn, AUTOTUNED):
                    continue
                works.baselines[case.name][AUTOTUNED] = time_baseline(works.reference, [drawn], AUTOTUNED)

    def _trial(self, works: Works, build: Build, language: Language, final: bool, cancelled: Callable[[], bool]) -> Trial:
        bench = Bench(
            reference=works.reference,
            pool=works.pool,
            lock=self._lock,
            settings=self.settings,
            visible=works.visible,
            held_out=works.held_out,
            distributions=works.description.distributions,
            baselines={
                case: {name: float(np.median(times)) for name, times in by_name.items()} for case, by_name in works.baselines.items()
            },
            work=works.description.work,
            target=self.target,
            threads=self.threads,
            rng=self._rng,
            policy=policy_for(self.operator, self.settings.torch_mode),
            timed=not self.emulated,
        )
        return Trial(bench, lambda: self._session(works, build, language), final, cancelled)

    def _works_for(self, works: Works, build: Build, language: Language) -> Works:
        """The works with which that candidate is judged. A `ModelNew` that keeps some of the reference's state under names of its own gets
        it by KernelBench's rule alone, the seed before the constructor; so the reference must have those values, too."""
        if language.binding != "python" or not works.description.modules:
            return works
        case = works.visible[0]
        try:
            session = self._session(works, build, language)
        except CandidateFailed:
            return works  # the trial finds out, and says so
        try:
            session.workload(works.pool.check(case, case.distribution), 0)
            lacking = session.lacking
        except CandidateFailed:
            return works
        finally:
            session.close()
        return works.constructed(lacking, self.settings) if lacking else works

    def _session(self, works: Works, build: Build, language: Language) -> Session:
        assert build.artifact is not None
        limits = {"threads": self.threads, "heap_bytes": self.settings.heap_bytes, "load_seconds": self.settings.load_seconds}
        worker: Worker
        if language.binding == "python" or self.device != "cpu":
            zygote = self._opened().zygote.get()
            kernels = build.artifact.with_name(KERNELS)
            given = {"kernels": kernels} if self.device != "cpu" and kernels.is_dir() else {}
            worker = PythonWorker(zygote, build.artifact.read_bytes(), **limits, **given)
        else:
            worker = NativeWorker(build_host(self.cache), build.artifact, confined=self.confined, **limits)
        return Session(worker, works.arenas, works.arena_size, works.description.modules, self.settings.load_seconds)

    def _evaluation(
        self, candidate: Candidate, build: Build, began: float, trial: Trial | None, verdict: Verdict, reasons: tuple[str, ...], final: bool
    ) -> Evaluation:
        works = self._opened()
        flags: tuple[Flag, ...] = ()
        stages, metrics = {"build": build.seconds}, dict(build.metrics or {})
        cases: tuple[CaseResult, ...] = ()
        speedups: tuple[Ratio, ...] = ()
        diagnosis = None
        if trial is not None:
            flags = tuple(trial.flags)
            stages |= trial.seconds
            metrics |= trial.metrics
            found = [trial.results[case.name] for case in works.description.cases if case.name in trial.results]
            cases = tuple(result.model_copy(update={"inputs": works.inputs[result.case.name]}) for result in found)
            if verdict is Verdict.CORRECT:
                speedups = tuple(ratio for name in (COMPILED, AUTOTUNED, EAGER) if (ratio := trial.overall(name)) is not None)
                diagnosis = None if self.emulated else self._diagnose(trial, cases, speedups, build)
                wide = next((r for r in speedups if r.high - r.low > NOISY_WIDTH * r.value), None)
                if wide is not None:
                    flags = (*flags, Flag.NOISY)
                    reasons = (*reasons, f"timings were noisy: the speedup lies between {wide.low:.2f}x and {wide.high:.2f}x")
        hits = tripwires.tripped(candidate.source, registry.load("languages", candidate.language))
        if verdict is Verdict.CORRECT and (why := tripwires.suspicion(hits)):
            flags, reasons = tuple(dict.fromkeys((*flags, Flag.SUSPICIOUS))), (*reasons, why)
        if works.degenerate:
            flags, reasons = (*flags, Flag.DEGENERATE_TASK), (*reasons, works.degenerate)
        spent = sum(seconds for name, seconds in stages.items() if name != "build")
        stages["overhead"] = max(0.0, time.perf_counter() - began - spent)
        return Evaluation(
            candidate=candidate.id,
            target=self.target.name,
            language=candidate.language,
            verdict=verdict,
            evidence=self._evidence(trial),
            flags=flags,
            reasons=reasons,
            speedup=speedups[0] if speedups else None,
            speedups=speedups,
            cases=cases,
            diagnostics=(*build.diagnostics, *(hit.diagnostic() for hit in hits)),
            diagnosis=diagnosis,
            metrics=metrics,
            stage_seconds={name: round(value, 4) for name, value in stages.items()},
            environment=environment.snapshot(self.threads, self.confined, {"torch": works.description.versions["torch"]}),
            final=final,
        )

    def _evidence(self, trial: Trial | None) -> Evidence:
        if not self.emulated:
            return Evidence.MEASURED
        return Evidence.COMPILED if trial is None else Evidence.EMULATED

    def _diagnose(self, trial: Trial, cases: Sequence[CaseResult], speedups: Sequence[Ratio], build: Build) -> Diagnosis | None:
        shown = [result for result in cases if not result.case.held_out]
        used = {name: float(np.median(timing.processor)) / self.threads for name, timing in trial.timings.items()}
        return diagnose(shown, self.threads, used, speedups[0].baseline if speedups else EAGER, build.metrics or {})
