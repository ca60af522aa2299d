"""Making a KernelBench task fit a small machine: what it moves and computes at given sizes, and which sizes fit a budget.

Footprints are taken on PyTorch's `meta` device, which knows shapes and holds no memory, so that a task of 16 GB is measured in
milliseconds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kernelevolve_lab.errors import BadInput

if TYPE_CHECKING:
    from kernelevolve_lab.operators.kernelbench import Task

MAX_BYTES = 64 * 2**20
MAX_FLOPS = 4e9
SMALLEST_SCALED = 32  # Smaller constants are kernel widths, strides, heads, layers: they change what is computed, not how much.
SMALLEST_SIZE = 16
MAX_RUN_BYTES = 2 * 2**30


@dataclass(frozen=True)
class Footprint:
    """Bytes of inputs, state and outputs together, bytes of the largest tensor in between, and FLOPs as PyTorch's counter counts them."""

    bytes: float
    largest: float
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
            state = [*model.parameters(), *model.buffers()]
            recurrent = _shapes_alone_of_recurrences(model)
            largest = _largest_result()
            with FlopCounterMode(display=False) as counter, torch.device("meta"), largest:
                outputs = model(*arguments)
            moved = sum(t.numel() * t.element_size() for t in (*_tensors(arguments), *state, *_tensors(outputs)))
            return Footprint(float(moved), float(largest.bytes), float(counter.get_total_flops() + sum(recurrent)))
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


def _shapes_alone_of_recurrences(model: Any) -> list[float]:
    """Make the recurrent layers of a throw-away model return shapes without stepping through the sequence, which takes seconds on the
    meta device; the list fills with their FLOPs: 2 per weight of the matrices and step."""
    import torch

    flops: list[float] = []

    def stub(layer: Any) -> Callable[..., Any]:
        def forward(x: torch.Tensor, hx: Any = None) -> Any:
            weights = sum(w.numel() for name, w in layer.named_parameters() if name.startswith("weight"))
            flops.append(2.0 * weights * x.numel() / x.shape[-1])
            directions = 2 if layer.bidirectional else 1
            width = layer.proj_size or layer.hidden_size
            batch = x.shape[1 - layer.batch_first : 2 - layer.batch_first] if x.dim() == 3 else ()
            hidden = x.new_empty(layer.num_layers * directions, *batch, width)
            cell = x.new_empty(layer.num_layers * directions, *batch, layer.hidden_size)
            out = x.new_empty(*x.shape[:-1], directions * width)
            return out, (hidden, cell) if layer.mode == "LSTM" else hidden

        return forward

    for part in model.modules():
        if isinstance(part, torch.nn.RNNBase):
            part.forward = stub(part)
    return flops


def _tensors(value: Any) -> list[Any]:
    import torch
    from torch.utils import _pytree

    return [leaf for leaf in _pytree.tree_leaves(value) if isinstance(leaf, torch.Tensor)]


def _largest_result() -> Any:
    """A mode that notes the bytes of the largest tensor that any operation inside makes."""
    from torch.utils._python_dispatch import TorchDispatchMode

    class Largest(TorchDispatchMode):
        bytes = 0

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            result = func(*args, **(kwargs or {}))
            self.bytes = max(self.bytes, *(t.untyped_storage().nbytes() for t in _tensors(result)), 0)
            return result

    return Largest()


def _overrun(found: Footprint) -> tuple[float, float, float]:
    """How many times over budget the bytes moved, the largest tensor and the FLOPs are; 1 where they fit."""
    return max(1.0, found.bytes / MAX_BYTES), max(1.0, found.largest / MAX_BYTES), max(1.0, found.flops / MAX_FLOPS)


def _smaller(sizes: Mapping[str, int], given: Mapping[str, int]) -> list[dict[str, int]]:
    """The sizes with one constant halved, the largest first; then with all constants of one value halved, which may have to agree.
    Batches may shrink to 1."""

    def scalable(name: str, value: int) -> bool:
        batch = "batch" in name.lower()
        return (given[name] >= SMALLEST_SCALED and value // 2 >= SMALLEST_SIZE) or (batch and value > 1)

    names = [name for name, value in sorted(sizes.items(), key=lambda item: -item[1]) if scalable(name, value)]
    alone = [{**sizes, name: sizes[name] // 2} for name in names]
    together = [
        {**sizes, **{name: value // 2 for name in names if sizes[name] == value}}
        for value in sorted({sizes[name] for name in names}, reverse=True)
        if sum(sizes[name] == value for name in names) > 1
    ]
    return alone + together


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
    if found is not None and found.bytes > MAX_RUN_BYTES:
        raise BadInput(
            f"The task needs {found.bytes / 2**30:.1f} GiB for inputs, weights and outputs even with its sizes halved as far as they go, "
            f"and more than {MAX_RUN_BYTES / 2**30:.0f} GiB is not tried; write smaller sizes into the file."
        )
    return sizes


def changed(sizes: Mapping[str, int], measure: Callable[[Mapping[str, int]], Footprint | None]) -> dict[str, int] | None:
    """The sizes with one constant changed, so that inputs or outputs have other shapes; batches first; None where none can be."""
    found = measure(sizes)
    batches_first = sorted(sizes.items(), key=lambda item: ("batch" not in item[0].lower(), -item[1]))
    alone = [((name,), value) for name, value in batches_first]
    together = [(tuple(name for name in sizes if sizes[name] == value), value) for value in dict.fromkeys(v for _, v in batches_first)]
    for names, value in (*alone, *(group for group in together if len(group[0]) > 1)):
        for other in (value * 3 // 4 + 1, value // 2, value + 1):
            if 1 <= other != value:
                trial = {**sizes, **dict.fromkeys(names, other)}
                there = measure(trial)
                if there is not None and found is not None and there.bytes != found.bytes:
                    return trial
    return None
