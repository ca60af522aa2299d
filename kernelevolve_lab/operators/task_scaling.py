"""Making a KernelBench task fit a small machine: what it moves and computes at given sizes, and which sizes fit a budget.

Footprints are taken on PyTorch's `meta` device, which knows shapes and holds no memory, so that a task of 16 GB is measured in
milliseconds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kernelevolve_lab.operators.kernelbench import Task

MAX_BYTES = 64 * 2**20
MAX_FLOPS = 4e9
SMALLEST_SCALED = 32  # Smaller constants are kernel widths, strides, heads, layers: they change what is computed, not how much.
SMALLEST_SIZE = 16


@dataclass(frozen=True)
class Footprint:
    """Bytes of inputs, state and outputs together, and FLOPs as PyTorch's counter counts them."""

    bytes: float
    flops: float


def footprint(task: Task, sizes: Mapping[str, int]) -> Footprint | None:
    """What the task moves and computes at these sizes, or None where it does not run at them."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    module = task.execute(sizes)
    try:
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            with torch.device("meta"):
                arguments = [_on_meta(value) for value in module.get_inputs()]
            model = _model_on_meta(task, module)
            with FlopCounterMode(display=False) as counter, torch.device("meta"):
                outputs = model(*arguments)
            moved = [*_tensors(arguments), *model.parameters(), *model.buffers(), *_tensors(outputs)]
            return Footprint(float(sum(t.numel() * t.element_size() for t in moved)), float(counter.get_total_flops()))
    except Exception:
        return None


def _on_meta(value: Any) -> Any:
    import torch

    return value.to("meta") if isinstance(value, torch.Tensor) else value


def _model_on_meta(task: Task, module: Any) -> Any:
    """Model built on the meta device, or where its constructor reads values, built on the CPU and moved."""
    import torch

    init_inputs = module.get_init_inputs() if hasattr(module, "get_init_inputs") else ()
    try:
        with torch.device("meta"):
            return module.Model(*init_inputs)
    except Exception:
        model = task.construct(module)[0]
    for part in model.modules():
        for name, value in vars(part).items():
            if isinstance(value, torch.Tensor):
                setattr(part, name, value.to("meta"))
    return model.to("meta")


def _tensors(value: Any) -> list[Any]:
    import torch
    from torch.utils import _pytree

    return [leaf for leaf in _pytree.tree_leaves(value) if isinstance(leaf, torch.Tensor)]


def _overrun(found: Footprint) -> tuple[float, float]:
    """How many times over budget bytes and FLOPs are; 1 where they fit."""
    return max(1.0, found.bytes / MAX_BYTES), max(1.0, found.flops / MAX_FLOPS)


def _smaller(sizes: Mapping[str, int], given: Mapping[str, int]) -> list[dict[str, int]]:
    """The sizes with one constant halved, the largest first; batches may shrink to 1."""
    trials = []
    for name, value in sorted(sizes.items(), key=lambda item: -item[1]):
        batch = "batch" in name.lower()
        if (given[name] >= SMALLEST_SCALED and value // 2 >= SMALLEST_SIZE) or (batch and value > 1):
            trials.append({**sizes, name: value // 2})
    return trials


def scaled(given: Mapping[str, int], measure: Callable[[Mapping[str, int]], Footprint | None]) -> dict[str, int]:
    """Constants halved, largest first, until the footprint fits the budget or no halving brings it nearer."""
    sizes = dict(given)
    found = measure(sizes)
    while found is not None and max(_overrun(found)) > 1:
        for trial in _smaller(sizes, given):
            smaller = measure(trial)
            if smaller is not None and any(new < 0.95 * old for new, old in zip(_overrun(smaller), _overrun(found), strict=True)):
                sizes, found = trial, smaller
                break
        else:
            break
    return sizes


def changed(sizes: Mapping[str, int], measure: Callable[[Mapping[str, int]], Footprint | None]) -> dict[str, int] | None:
    """The sizes with one constant smaller, so that inputs or outputs have other shapes; None where none can be."""
    found = measure(sizes)
    for name, value in sorted(sizes.items(), key=lambda item: ("batch" not in item[0].lower(), -item[1])):
        for smaller in (value * 3 // 4 + 1, value // 2):
            if value >= 4 and smaller < value:
                trial = {**sizes, name: smaller}
                there = measure(trial)
                if there is not None and found is not None and there.bytes != found.bytes:
                    return trial
    return None
