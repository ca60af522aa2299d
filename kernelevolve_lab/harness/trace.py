"""Which of PyTorch's operators ran: a dispatch trace, for the reference and for candidates alike.

A trace sees what reaches PyTorch's dispatcher, from Python or from an extension's C++. It does not see a library that is called directly.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from kernelevolve_lab.harness import policy

_UNINITIALISED = ("empty", "new_empty")


class Trace(TorchDispatchMode):
    """Counts operators as `namespace::name`, and follows memory that was allocated and that no operator has written."""

    def __init__(self, device: str) -> None:
        super().__init__()
        self._key = torch._C.DispatchKey.CUDA if device == "cuda" else torch._C.DispatchKey.CPU
        self._transparent = policy.torch_namespaces()
        self.counts: Counter[str] = Counter()
        self._blank: dict[int, torch.UntypedStorage] = {}  # held, so that an address stays the same memory
        self._made_outside = False

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        namespace, _, name = function.name().partition("::")
        name = name.partition(".")[0]
        self.counts[f"{namespace}::{name}"] += 1
        if namespace not in self._transparent:
            with self:  # an operator of the candidate's own: what it does inside counts, too
                return function.redispatch(torch._C.DispatchKeySet(self._key), *args, **kwargs)
        result = function(*args, **kwargs)
        if name.startswith(_UNINITIALISED):
            for storage in _storages(result):
                self._blank[storage.data_ptr()] = storage
        elif not function.is_view and name not in ("detach", "alias", "set_"):
            written = _written(function, args, kwargs)
            for storage in _storages(written):
                self._blank.pop(storage.data_ptr(), None)
            given = {id(leaf) for leaf in tree_leaves(written)}
            self.uses(leaf for leaf in tree_leaves((args, kwargs)) if id(leaf) not in given)
        return result

    def uses(self, values: Iterable[Any]) -> None:
        """Note that something reads these: what no operator wrote must have been written by code of the candidate's own."""
        self._made_outside |= any(storage.data_ptr() in self._blank for storage in _storages(list(values)) if storage.nbytes())

    @property
    def made_outside(self) -> bool:
        """Whether something was used that no operator had made."""
        return self._made_outside


def traced(function: Callable[..., Any], arguments: Iterable[Any]) -> tuple[Any, Trace]:
    """Call under a trace; returns what the function returned, and the trace."""
    given = tuple(arguments)
    device = next((tensor.device.type for tensor in given if isinstance(tensor, torch.Tensor)), "cpu")
    with torch.no_grad(), Trace(device) as trace:
        returned = function(*given)
    trace.uses(leaf for leaf in tree_leaves(returned) if isinstance(leaf, torch.Tensor))
    return returned, trace


def _written(function: Any, args: Any, kwargs: Any) -> list[Any]:
    arguments = [*zip(function._schema.arguments, args, strict=False)]
    arguments += [(argument, kwargs[argument.name]) for argument in function._schema.arguments if argument.name in kwargs]
    return [value for argument, value in arguments if argument.alias_info is not None and argument.alias_info.is_write]


def _storages(values: Any) -> list[torch.UntypedStorage]:
    tensors = [leaf for leaf in tree_leaves(values) if isinstance(leaf, torch.Tensor) and leaf.layout is torch.strided]
    return [tensor.untyped_storage() for tensor in tensors]
