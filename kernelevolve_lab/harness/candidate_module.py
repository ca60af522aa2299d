"""From a candidate's text to what is called: its `kernel`, or KernelBench's `ModelNew` with the weights put in."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Callable
from typing import Any

import torch
from torch.utils import _pytree

from kernelevolve_lab.operators.base import ModuleSpec
from kernelevolve_lab.operators.modules import with_constants

Entry = Callable[..., Any]
_is_contiguous = torch._C.TensorBase.is_contiguous


def load(source: str, folder: str) -> Entry:
    """Run the module's text as `candidate.py` in that folder, and return what is called where no `ModelNew` is bound."""
    path = os.path.join(folder, "candidate.py")
    with open(path, "w") as file:
        file.write(source)
    spec = importlib.util.spec_from_file_location("candidate", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["candidate"] = module
    spec.loader.exec_module(module)
    kernel = getattr(module, "kernel", None)
    if callable(kernel):
        return lambda *inputs: _plain(kernel(*inputs))
    if callable(getattr(module, "ModelNew", None)):
        return _no_module
    raise AttributeError("the module defines neither a function kernel(*inputs) nor a class ModelNew")


def _no_module(*inputs: Any) -> Any:
    raise TypeError("this operator's reference is no nn.Module, so ModelNew cannot be built for it; define kernel(*inputs)")


def model_entry(spec: ModuleSpec, device: torch.device) -> tuple[Entry, dict[str, tuple[int, ...]]] | None:
    """How to call the loaded candidate's `ModelNew` on an operator's inputs, and the shapes of the state that it has, by name; None where
    it has no `ModelNew`.

    Built as KernelBench does: same seed right before the constructor. In each call the parameters of the reference's names and shapes
    get the values that are among the inputs, in place of their own (buffers get copies, since a layer may write to them).
    """
    made = getattr(sys.modules["candidate"], "ModelNew", None)
    if not callable(made):
        return None
    torch.manual_seed(spec.seed)
    model = made(*spec.init_inputs).to(device).train(spec.training)
    parameters, buffers = dict(model.named_parameters()), dict(model.named_buffers())
    plain = {
        f"{prefix}.{name}" if prefix else name: (vars(part), name)
        for prefix, part in model.named_modules()
        for name, value in vars(part).items()
        if isinstance(value, torch.Tensor)
    }
    first, count, constants = spec.arguments, len(spec.state), dict(spec.constants)
    shapes: dict[str, tuple[int, ...]] = {name: tuple(tensor.shape) for name, tensor in (*parameters.items(), *buffers.items())}
    shapes |= {name: tuple(holder[key].shape) for name, (holder, key) in plain.items()}

    def entry(*inputs: torch.Tensor) -> Any:
        for name, value in zip(spec.state, inputs[first : first + count], strict=True):
            if shapes.get(name) != tuple(value.shape):
                continue
            if name in parameters:
                parameters[name].data = value
            elif name in buffers:
                buffers[name].data = value.clone()
            else:
                holder, key = plain[name]
                holder[key] = value
        return _plain(model(*with_constants(inputs[:first], constants)))

    return entry, shapes


def _plain(returned: Any) -> Any:
    """What was returned as one tensor or a flat tuple, dense and row-major as outputs are."""
    if type(returned) is torch.Tensor:
        return returned if _is_contiguous(returned) else returned.contiguous()
    leaves = [leaf for leaf in _pytree.tree_leaves(returned) if leaf is not None]
    return tuple(leaf.contiguous() if type(leaf) is torch.Tensor and not _is_contiguous(leaf) else leaf for leaf in leaves)
