"""What runs while a judge is open: the reference worker, the pool of inputs, the arenas, and the zygote of candidates in Python."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from kernelevolve_lab.errors import BadInput
from kernelevolve_lab.harness import devices, operator_counter
from kernelevolve_lab.harness.forking import Zygote, ZygoteKeeper
from kernelevolve_lab.harness.locks import MachineLock
from kernelevolve_lab.harness.policy import policy_for
from kernelevolve_lab.harness.pool import InputPool
from kernelevolve_lab.harness.reference import Description, InputSet, Reference, task_cache
from kernelevolve_lab.harness.session import Arenas
from kernelevolve_lab.harness.settings import JudgeSettings
from kernelevolve_lab.harness.timing import time_baseline
from kernelevolve_lab.records import Case, OperatorRef, Profile, TargetSpec, TensorSpec

EAGER, COMPILED, AUTOTUNED = "eager", "torch.compile", "max-autotune"


@dataclass(frozen=True)
class Order:
    """What is to be judged, on what, and how."""

    operator: OperatorRef
    target: TargetSpec
    profile: Profile
    settings: JudgeSettings
    cache: Path
    confined: bool

    @property
    def device(self) -> str:
        """Where candidates run: "cpu", "cuda:0", …"""
        return devices.device_of(self.target)

    @property
    def emulated(self) -> bool:
        """Whether the target is not here."""
        return not self.target.present

    @property
    def threads(self) -> int:
        """The threads that candidates and baselines get."""
        return self.settings.thread_count()


@dataclass
class Works:
    """What runs while a judge is open."""

    reference: Reference
    description: Description
    pool: InputPool
    arenas: Arenas
    zygote: ZygoteKeeper
    arena_size: int
    inputs: dict[str, tuple[TensorSpec, ...]]
    baselines: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    evaluations: int = 0
    degenerate: str = ""
    not_compiled: str | None = None
    autotuned: bool = False
    _pools: dict[tuple[str, ...], InputPool] = field(default_factory=dict)

    @classmethod
    def start(cls, order: Order, progress: Callable[[str], None]) -> Works:
        """Start the reference worker, draw first inputs, time the reference and prove that trivial answers fail the gate."""
        cache = task_cache(order.cache, order.operator)
        reference = Reference(threads=order.threads, cache=cache, confined=order.confined, device=order.device)
        zygote = ZygoteKeeper(lambda: _zygote(order))
        try:
            description = reference.open(order.operator, order.profile)
            pool = InputPool(reference, description.cases, order.settings)
            works = cls(reference, description, pool, Arenas(reference), zygote, 0, {})
            if order.device != "cpu" or order.emulated:
                zygote.start_ahead()  # every candidate will need it
            for case in description.cases:
                progress(f"drawing inputs of '{case.name}'" if not case.held_out else "drawing inputs of a held-out case")
                drawn = reference.draw(case, golden=True, trivial=not case.held_out)
                pool.adopt(drawn)
                works.arena_size = max(works.arena_size, drawn.arena_size)
                works.inputs[case.name] = tuple(place.spec for place in drawn.inputs)
                works.baselines[case.name] = {EAGER: time_baseline(reference, [drawn], EAGER)}
                works._prove_gate(order, drawn)
        except BaseException:
            zygote.close()
            reference.close()
            raise
        return works

    def _prove_gate(self, order: Order, drawn: InputSet) -> None:
        passing = [name for name, excess in drawn.trivial.items() if excess <= 1.0]
        if not passing:
            return
        text = f"case '{drawn.case.name}' of the operator '{self.description.name}' lets a trivial answer pass: {', '.join(passing)}"
        if order.operator.kind == "registered":
            raise BadInput(f"{text[0].upper()}{text[1:]}. Change its inputs or tighten its tolerance.")
        self.degenerate = text

    def compile(self, settings: JudgeSettings, lock: MachineLock) -> None:
        """Compile the reference and time it, once; `not_compiled` says why that is no baseline, if it is none."""
        if self.not_compiled is not None:
            return
        if not settings.compiled:
            self.not_compiled = "torch.compile is no baseline here (switched off in the settings)"
            return
        why = ""
        # Held-out cases are timed against eager alone: they tell whether a gain carries over, and compiling is the longest wait of a run.
        for case in self.visible:
            drawn = self.pool.check(case, case.distribution)
            with lock.building():
                why = self.reference.compile(drawn)
            if why:
                break
            with lock.measuring():
                self.baselines[case.name] = {COMPILED: time_baseline(self.reference, [drawn], COMPILED), **self.baselines[case.name]}
        if why:
            for times in self.baselines.values():
                times.pop(COMPILED, None)
        self.not_compiled = f"torch.compile is no baseline here ({why})" if why else ""

    def autotune(self, lock: MachineLock) -> None:
        """Compile the reference with torch.compile's longest search, as a third baseline of final rounds."""
        if self.autotuned or self.not_compiled:
            return
        self.autotuned = True
        for case in self.visible:
            drawn = self.pool.check(case, case.distribution)
            with lock.measuring():  # it measures what it compiles
                if self.reference.compile(drawn, AUTOTUNED):
                    continue
                self.baselines[case.name][AUTOTUNED] = time_baseline(self.reference, [drawn], AUTOTUNED)

    def constructed(self, names: tuple[str, ...], settings: JudgeSettings) -> Works:
        """These works with another pool of inputs: there the state of these names has the values that the constructor gave it."""
        reference = self.reference.constructing(names)
        if names not in self._pools:
            self._pools[names] = InputPool(reference, self.description.cases, settings)
        return replace(self, reference=reference, pool=self._pools[names])

    @property
    def visible(self) -> tuple[Case, ...]:
        """The cases that proposers are told."""
        return tuple(case for case in self.description.cases if not case.held_out)

    @property
    def held_out(self) -> tuple[Case, ...]:
        """The cases that they are not."""
        return tuple(case for case in self.description.cases if case.held_out)

    def close(self) -> None:
        """End all workers and free all memory."""
        self.zygote.close()
        self.reference.close()
        for pool in (self.pool, *self._pools.values()):
            pool.close()
        self.arenas.close()


def _zygote(order: Order) -> Zygote:
    emulate = order.target if order.emulated else None
    anything = policy_for(order.operator, order.settings.torch_mode).mode == "allow"
    counter = None if anything else operator_counter.library(order.cache)
    return Zygote(order.device, threads=order.threads, confined=order.confined, emulate=emulate, counter=counter)
