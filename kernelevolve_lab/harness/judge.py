"""The judge: builds a candidate, finds out whether it is right and how fast it is, and says so in an `Evaluation`.

Three roles that share nothing but sealed memory and small messages. The judge (this process; it never imports torch) holds seeds, budgets,
statistics and verdicts. The reference worker knows the operator and what outputs must be. A candidate runs in a process of its own,
which sees inputs that it cannot write, outputs that hold nothing of use, and no clock that counts alone.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from kernelevolve_lab import paths, registry
from kernelevolve_lab.errors import BadInput, LabError
from kernelevolve_lab.harness import devices, finding, sandbox, statistics
from kernelevolve_lab.harness.locks import Cancelled, MachineLock
from kernelevolve_lab.harness.policy import Policy, policy_for
from kernelevolve_lab.harness.processes import Processes
from kernelevolve_lab.harness.reference import ReferenceFailed
from kernelevolve_lab.harness.settings import LONGEST_SOURCE, JudgeSettings
from kernelevolve_lab.harness.trial import Bench, Trial
from kernelevolve_lab.harness.works import COMPILED, EAGER, Order, Works
from kernelevolve_lab.languages.base import Build, Language, Workload
from kernelevolve_lab.records import Candidate, Diagnostic, Evaluation, OperatorRef, Profile, TargetSpec, Verdict
from kernelevolve_lab.records.events import BaselineCase


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
        self._order = Order(operator, target, profile, self.settings, self.cache, self.confined)
        self.threads, self.device, self.emulated = self._order.threads, self._order.device, self._order.emulated
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
                self._works = Works.start(self._order, progress)
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
                works.compile(self.settings, self._lock)
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
        if len(candidate.source) > LONGEST_SOURCE:
            why = f"the source has {len(candidate.source):,} characters; at most {LONGEST_SOURCE:,} are taken"
            return Build(None, (Diagnostic(severity="error", message=why),), 0.0)
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

            def told(verdict: Verdict, reasons: tuple[str, ...], trial: Trial | None = None) -> Evaluation:
                return finding.evaluation(self._order, works, candidate, build, began, verdict, reasons, trial=trial, final=final)

            if not build.ok:
                reasons = tuple(d.message for d in build.diagnostics if d.severity == "error")[:3] or ("the build failed",)
                return told(Verdict.BUILD_FAILED, reasons)
            language = self.language(candidate.language)
            if self.emulated and not language.emulated:
                reason = f"it was built for {self.target.title}, which is not here, and {language.title} cannot be emulated"
                return told(Verdict.UNSUPPORTED, (reason,))
            for attempt in range(2):
                try:
                    if not self.emulated:
                        works.compile(self.settings, self._lock)
                    if final and self.settings.autotuned:
                        works.autotune(self._lock)
                    if final:
                        works.pool.renew()
                    trial = self._try(works, build, language, final, cancelled)
                    works.evaluations += 1
                    if works.evaluations % self.settings.refresh_every == 0:
                        works.pool.refresh()
                    return told(trial.verdict, tuple(trial.reasons), trial=trial)
                except Cancelled:
                    raise EvaluationCancelled from None
                except (ReferenceFailed, OSError) as error:
                    if self._closing:
                        raise EvaluationCancelled from None
                    if attempt == 1:
                        return told(Verdict.INFRA_ERROR, (f"the judge failed: {error}",))
                    works.close()
                    self._works = works = Works.start(self._order, lambda text: None)
            raise AssertionError("unreachable")

    def _opened(self) -> Works:
        if self._works is None:
            raise LabError("The judge is not open; call open() or use it in a with statement.")
        return self._works

    def _try(self, works: Works, build: Build, language: Language, final: bool, cancelled: Callable[[], bool]) -> Trial:
        policy = policy_for(self.operator, self.settings.torch_mode)
        with contextlib.closing(Processes(self._order, build, language, policy)) as processes:
            works = processes.works_for(works)
            bench = self._bench(works, policy)
            trial = Trial(bench, lambda: processes.start(works), lambda drawn: processes.idle(works, drawn), final, cancelled)
            trial.run()
        return trial

    def _bench(self, works: Works, policy: Policy) -> Bench:
        return Bench(
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
            policy=policy,
            timed=not self.emulated,
        )
