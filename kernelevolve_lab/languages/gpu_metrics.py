"""Static metrics of compiled GPU kernels as the flat names of `Build.metrics`, the same for every language of NVIDIA's GPUs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kernelevolve_lab.languages import cubin, occupancy
from kernelevolve_lab.languages.occupancy import Occupancy
from kernelevolve_lab.records import Scalar

MAX_TEXT = 1200


@dataclass(frozen=True)
class Kernel:
    """One compiled kernel of one configuration, or (`compiled` False) one that did not compile.

    Sizes are in bytes: `stack` of local memory a thread, `shared` a block, `code` of machine code. `threads` a block, 0 when the launch
    alone says; `programs` the grid of its first launch; `workload` the number of the workload it was compiled for.
    """

    name: str
    compiled: bool
    config: str = ""
    workload: int = 0
    programs: tuple[int, ...] = ()
    registers: int = 0
    stack: int = 0
    shared: int = 0
    threads: int = 0
    code: int = 0
    mix: cubin.Mix | None = None
    occupancy: Occupancy | None = None

    @classmethod
    def of(cls, entry: Mapping[str, Any], arch: str) -> Kernel:
        """From an object of what compiles ahead writes; raises `KeyError`, `TypeError` or `ValueError` when it is none."""
        name, config = str(entry["name"])[:80], str(entry["config"])[:200]
        found = entry.get("kernel")
        if found is None:
            return cls(name, compiled=False, config=config)
        sizes = {key: int(found[key]) for key in ("registers", "stack", "shared", "threads", "code")}
        mix = None
        if found["mix"] is not None:
            told = found["mix"]
            counts = ({str(k)[:60]: int(v) for k, v in told[name].items()} for name in ("kinds", "tensor_shapes"))
            mix = cubin.Mix(int(told["instructions"]), *counts, int(told["widest_load"]), int(told["widest_store"]))
        fits = occupancy.occupancy(arch, sizes["threads"], sizes["registers"], sizes["shared"]) if sizes["threads"] > 0 else None
        programs = tuple(int(extent) for extent in entry["programs"])
        return cls(name, True, config, int(entry["workload"]), programs, **sizes, mix=mix, occupancy=fits)


def flat(kernels: Sequence[Kernel], configs: Mapping[str, int]) -> dict[str, Scalar]:
    """The metrics of a build by name.

    Of the main kernel (the one with the most instructions of the first workload, in its first configuration): `kernel`, `registers`
    (a thread), `stack_bytes` (a thread; spills are in it), `shared_bytes` and `threads` (a block), `code_bytes`, `programs` (blocks of its
    launch), `occupancy` (0 to 1), `occupancy_limit`, `instructions`, counts by the names of `cubin.KINDS`, `tensor_shapes`,
    `widest_load_bits`, `widest_store_bits`. Of all: `kernels` (how many functions), `variants` (how many compiled), `other_kernels` and
    `autotune` as text, `autotune_configs`.
    """
    done = [kernel for kernel in kernels if kernel.compiled]
    names = list(dict.fromkeys(kernel.name for kernel in kernels))
    metrics: dict[str, Scalar] = {"kernels": len(names), "variants": len(done)}
    if sum(configs.values()):
        metrics["autotune_configs"] = sum(configs.values())
    if not done:
        return metrics
    first = {}
    for kernel in done:
        first.setdefault(kernel.name, kernel)
    main = max(first.values(), key=lambda kernel: (-kernel.workload, kernel.mix.instructions if kernel.mix else kernel.code))
    metrics |= {
        "kernel": main.name,
        "registers": main.registers,
        "stack_bytes": main.stack,
        "shared_bytes": main.shared,
        "threads": main.threads,
        "code_bytes": main.code,
    }
    if main.programs:
        metrics["programs"] = math.prod(main.programs)
    if main.occupancy is not None:
        metrics |= {"occupancy": main.occupancy.fraction, "occupancy_limit": main.occupancy.limiter}
    if main.mix is not None:
        metrics |= {"instructions": main.mix.instructions, **main.mix.kinds}
        metrics["tensor_shapes"] = _joined(f"{name} {count}" for name, count in sorted(main.mix.tensor_shapes.items()))
        metrics |= {"widest_load_bits": main.mix.widest_load, "widest_store_bits": main.mix.widest_store}
    others = [_line(kernel) for name, kernel in first.items() if name != main.name]
    if others:
        metrics["other_kernels"] = _joined(others)
    tuned = [f"{kernel.config}: {_line(kernel)}" for kernel in done if kernel.config and kernel.workload == main.workload]
    if tuned:
        metrics["autotune"] = _joined(tuned)
    return metrics


def _line(kernel: Kernel) -> str:
    occupied = f", occupancy {kernel.occupancy.fraction:.2f} by {kernel.occupancy.limiter}" if kernel.occupancy else ""
    spilled = f", {kernel.stack} bytes of stack" if kernel.stack else ""
    return f"{kernel.name} {kernel.registers} registers, {kernel.shared} bytes of shared memory{spilled}{occupied}"


def _joined(parts: Any) -> str:
    text = "; ".join(parts)
    return text if len(text) <= MAX_TEXT else text[: MAX_TEXT - 1] + "…"
