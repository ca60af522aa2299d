"""The least time that a case can take on a target, told the same way everywhere: in which level of memory its bytes live, what the
bandwidth of that level makes of them, or what its arithmetic takes where that is more."""

from __future__ import annotations

from dataclasses import dataclass

from kernelevolve_lab.errors import BadInput
from kernelevolve_lab.operators.base import Work
from kernelevolve_lab.records import TargetSpec
from kernelevolve_lab.targets.roofline import roof

_LEVELS = {"dram": "main memory", "gddr": "main memory", "hbm": "main memory (HBM)", "lpddr": "main memory (LPDDR)"}


@dataclass(frozen=True)
class Floor:
    """`seconds` at least, at `rate` (bytes/s of the memory `level`, or FLOP/s of the arithmetic unit `level`); `memory` says which."""

    seconds: float
    level: str
    rate: float
    memory: bool


def floor(target: TargetSpec, work: Work, dtype: str) -> Floor | None:
    """The floor of a case whose data is as near as its size allows, as the judge places kernels; None where the target's ceilings are not
    known or there is no work."""
    if work.bytes <= 0:
        return None
    try:
        bound = roof(target, dtype, 0, work.bytes)
    except BadInput:
        return None
    by_memory, by_compute = work.bytes / bound.bandwidth, work.flops / bound.compute
    if by_memory >= by_compute:
        return Floor(by_memory, level_name(bound.memory), bound.bandwidth, True)
    return Floor(by_compute, bound.unit, bound.compute, False)


def level_name(name: str) -> str:
    """What people call a memory level: `L3`, `main memory`."""
    return _LEVELS.get(name, name.upper())


def is_memory(name: str) -> bool:
    """Whether the roof of that name is a memory level's."""
    return name in _LEVELS or (name[:1] == "l" and name[1:].isdigit())
