"""Where a measured time stands under the roofline of a target (Williams, Waterman, Patterson 2009, doi:10.1145/1498765.1498785).

Pure functions of a `TargetSpec` and numbers.
"""

import math
from dataclasses import dataclass

from kernelevolve_lab.errors import BadInput
from kernelevolve_lab.records import Ceiling, RooflinePoint, TargetSpec

# Types narrower than float32 may be widened and computed there, so their roof is at least float32's. Integers have no roof of their own
# on most machines and share float32's, whose units do integer work at the same rate or less.
_WIDENED = ("float32",)
_OWN_ONLY = ("float32", "float64")


@dataclass(frozen=True)
class Roof:
    """The two bounds that hold for one workload: `bandwidth` in bytes/s and `compute` in FLOP/s, each with what it is called.

    `memory` is the level that takes most of the time when data moves at `bandwidth`, which may be a blend of levels.
    """

    memory: str
    bandwidth: float
    unit: str
    compute: float

    @property
    def ridge(self) -> float:
        """The intensity in FLOP/byte at which both bounds are equal."""
        return self.compute / self.bandwidth

    def seconds(self, flops: float, bytes: float) -> float:
        """The least time that the workload can take."""
        return max(flops / self.compute, bytes / self.bandwidth)


def place(
    target: TargetSpec, flops: float, bytes: float, seconds: float, dtype: str, threads: int = 0, working_set: float | None = None
) -> RooflinePoint:
    """Where a run of `seconds` stands that did `flops` useful operations and moved `bytes` useful bytes.

    The roof is chosen by `roof`. `fraction` is the least time that the roof allows over the time taken: 1 is as fast as this machine can,
    and above 1 says that the data came from a faster level than was assumed. Raises `BadInput` for times that are not positive and
    for a target without known ceilings.
    """
    if not (seconds > 0 and math.isfinite(seconds)) or flops < 0 or bytes < 0 or flops + bytes <= 0:
        raise BadInput(f"A roofline point needs a positive time and some work; got {flops:g} FLOP and {bytes:g} bytes in {seconds:g} s.")
    bound = roof(target, dtype, threads, working_set)
    by_compute = flops / bound.compute > bytes / bound.bandwidth
    return RooflinePoint(
        intensity=flops / bytes if bytes else math.inf,
        flops_per_second=flops / seconds,
        bytes_per_second=bytes / seconds,
        fraction=bound.seconds(flops, bytes) / seconds,
        bound_by=bound.unit if by_compute else bound.memory,
    )


def roof(target: TargetSpec, dtype: str, threads: int = 0, working_set: float | None = None) -> Roof:
    """The roof for one dtype and number of threads (0: the whole device).

    Bandwidth is main memory's when `working_set` is not given (cold caches). Otherwise each cache level, private caches of all threads
    together, holds as much of those bytes as it can and the next level the rest: the best that a run with warm caches can meet, without a
    step where the working set outgrows a level.

    Compute is the fastest unit for the dtype (`bfloat16` and `bfloat16-amx`, say). For a number of threads that was not measured, one
    thread's value is scaled, and bounded by the whole device's.
    """
    memory, bandwidth = _bandwidth(target, threads, working_set)
    units = [name for name in _compute_names(target) if name == dtype or name.startswith(f"{dtype}-")]
    if dtype not in _OWN_ONLY or not units:
        units += [name for name in _WIDENED if name not in units]
    compute = [(value, name) for name in units if (value := _value(target, "compute", name, threads)) is not None]
    if bandwidth is None or not compute:
        raise BadInput(f"The ceilings of target '{target.name}' for {dtype} and {memory} are not known; measure the target first.")
    value, name = max(compute)
    return Roof(memory=memory, bandwidth=bandwidth, unit=name, compute=value)


def main_memory(target: TargetSpec) -> str:
    """The name of the slowest memory level with a known bandwidth: `dram`, `hbm` or `lpddr`."""
    known = [c for c in target.ceilings if c.kind == "bandwidth"]
    return min(known, key=lambda c: c.value if c.threads == 0 else math.inf).name if known else "dram"


def _bandwidth(target: TargetSpec, threads: int, working_set: float | None) -> tuple[str, float | None]:
    """The level that takes most of the time, and the rate at which the working set moves at best."""
    last = main_memory(target)
    rate = _value(target, "bandwidth", last, threads)
    if working_set is None or working_set <= 0 or rate is None:
        return last, rate
    seconds: dict[str, float] = {}
    used, held = min(threads, target.units) if threads else target.units, 0.0
    for level in sorted(target.caches, key=lambda level: level.level):
        faster = _value(target, "bandwidth", f"l{level.level}", threads)
        capacity = min(working_set, level.bytes * math.ceil(used / level.shared_by))
        if faster is not None and capacity > held:
            seconds[f"l{level.level}"] = (capacity - held) / max(faster, rate)
            held = capacity
    if held < working_set:
        seconds[last] = (working_set - held) / rate
    return max(seconds, key=lambda name: seconds[name]), working_set / sum(seconds.values())


def _compute_names(target: TargetSpec) -> list[str]:
    return sorted({c.name for c in target.ceilings if c.kind == "compute"})


def _value(target: TargetSpec, kind: str, name: str, threads: int) -> float | None:
    def best(count: int) -> Ceiling | None:
        return target.ceiling(kind, name, count)

    whole = best(0)
    if threads == 0 or threads >= target.units:
        return whole.value if whole else None
    if exact := best(threads):
        return exact.value
    one = best(1)
    if one is None:
        return whole.value if whole else None
    return min(one.value * threads, whole.value) if whole else one.value * threads
