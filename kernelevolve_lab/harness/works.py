"""What runs while a judge is open."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from kernelevolve_lab.harness.pool import InputPool
from kernelevolve_lab.harness.python_worker import ZygoteKeeper
from kernelevolve_lab.harness.reference import Description, Reference
from kernelevolve_lab.harness.session import Arenas
from kernelevolve_lab.harness.settings import JudgeSettings
from kernelevolve_lab.records import Case, TensorSpec


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
