"""Modules as functions: a reference whose parameters and buffers are inputs like any other, so that every kernel can see them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from kernelevolve_lab.errors import BadInput

if TYPE_CHECKING:
    import torch
    from torch import nn

    from kernelevolve_lab.operators.base import Tensors


def flat_outputs(value: Any) -> Any:
    """A reference's result as a tensor or a tuple of tensors, containers taken apart in order; raises `BadInput` for anything else."""
    import torch
    from torch.utils import _pytree

    if isinstance(value, torch.Tensor):
        return value
    leaves = [leaf for leaf in _pytree.tree_leaves(value) if leaf is not None]
    strangers = {type(leaf).__name__ for leaf in leaves if not isinstance(leaf, torch.Tensor)}
    if strangers or not leaves:
        raise BadInput(f"The reference returns {', '.join(sorted(strangers)) or 'nothing'}; it must return tensors alone.")
    return leaves[0] if len(leaves) == 1 else tuple(leaves)


def with_constants(tensors: Sequence[Any], constants: Mapping[int, object]) -> list[Any]:
    """The argument list: the tensors in order, each constant inserted at its position."""
    arguments = list(tensors)
    for position in sorted(constants):
        arguments.insert(position, constants[position])
    return arguments


@contextmanager
def default_dtype(dtype: torch.dtype):
    """Make tensors that are created inside without a dtype have this one."""
    import torch

    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


class FunctionReference:
    """A function of tensors, with the constants among its arguments bound."""

    def __init__(self, function: Any, constants: Mapping[int, object]) -> None:
        self.function = function
        self.constants = dict(constants)

    def __call__(self, *inputs: torch.Tensor) -> torch.Tensor | Tensors:
        return flat_outputs(self.function(*with_constants(inputs, self.constants)))


class ModuleReference:
    """A module as a function of its arguments followed by its state: parameters, buffers and tensors kept as plain attributes, by name.

    It takes the module over: the values of its parameters are dropped, only their statistics are kept, to draw fresh ones.
    """

    def __init__(self, module: nn.Module, arguments: int, constants: Mapping[int, object]) -> None:
        import torch

        self.module = module.cpu().requires_grad_(False)
        self.arguments = arguments
        self.constants = dict(constants)
        register_plain_tensors(self.module)
        self.parameters: dict[str, tuple[float, float]] = {}
        for name, parameter in self.module.named_parameters():
            values = parameter.detach()
            self.parameters[name] = _mean_and_spread(values)
            parameter.data = torch.zeros((), dtype=values.dtype).expand(values.shape)
        self.buffers = {name: buffer.detach().clone() for name, buffer in self.module.named_buffers()}
        self.written = _running_statistics(self.module)

    @property
    def state(self) -> tuple[str, ...]:
        """The names of the inputs after the arguments."""
        return (*self.parameters, *self.buffers)

    def fresh_state(self, generator: torch.Generator) -> Tensors:
        """Parameters drawn anew with the mean and the spread that the constructor gave them, so that no candidate can know them (those
        that it made constant get a spread of 0.1); buffers as constructed, since they may be tables."""
        from kernelevolve_lab.operators import draw

        drawn: list[torch.Tensor] = []
        own = dict(self.module.named_parameters())
        for name, (mean, spread) in self.parameters.items():
            values = draw.floats(tuple(own[name].shape), "normal", generator)
            drawn.append(values.mul_(spread or 0.1).add_(mean).to(own[name].dtype))
        return (*drawn, *(buffer.clone() for buffer in self.buffers.values()))

    def __call__(self, *inputs: torch.Tensor) -> torch.Tensor | Tensors:
        import torch
        from torch.func import functional_call

        arguments = tuple(with_constants(inputs[: self.arguments], self.constants))
        given = dict(zip(self.state, inputs[self.arguments :], strict=True))
        state = {name: tensor.clone() if name in self.written else tensor for name, tensor in given.items()}
        if any(tensor.dtype == torch.float64 for tensor in inputs):
            with default_dtype(torch.float64):
                return flat_outputs(functional_call(self.module, state, arguments))
        return flat_outputs(functional_call(self.module, state, arguments))


def _mean_and_spread(values: torch.Tensor) -> tuple[float, float]:
    if values.numel() == 0:
        return 0.0, 0.0
    wide = values.float()
    return float(wide.mean()), float(wide.std()) if values.numel() > 1 else 0.0


def register_plain_tensors(module: nn.Module) -> None:
    """Make buffers of tensors kept as plain attributes (initial hidden states, masks), so that they are state like the rest."""
    import torch

    for part in module.modules():
        for name, value in list(vars(part).items()):
            if isinstance(value, torch.Tensor):
                delattr(part, name)
                part.register_buffer(name, value, persistent=False)


def _running_statistics(module: nn.Module) -> frozenset[str]:
    """The names of buffers that normalisation layers in training mode write to; inputs must stay as they are, so they are copied."""
    from torch.nn.modules.batchnorm import _NormBase

    return frozenset(
        f"{prefix}.{name}" if prefix else name
        for prefix, part in module.named_modules()
        if isinstance(part, _NormBase) and part.training
        for name, _ in part.named_buffers(recurse=False)
    )
