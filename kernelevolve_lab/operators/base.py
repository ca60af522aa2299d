"""What an operator is: the thing to be computed, how its inputs are made, and how hard it is on the machine.

A registered operator is a module-level `Operator` in a file of this folder (or of another package) named by an entry point of the group
`kernelevolve_lab.operators`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from kernelevolve_lab.records import Case, Profile

if TYPE_CHECKING:
    import torch

    Tensors = tuple[torch.Tensor, ...]


@dataclass(frozen=True)
class Tolerance:
    """The correctness gate of an operator: error beside the element and the RMS of its row must not pass max(`floors[dtype]`, `factor` x
    the reference's own error in that row). Integer and boolean outputs must be exact."""

    factor: float = 4.0
    floors: Mapping[str, float] = field(default_factory=lambda: {"float64": 1e-12, "float32": 2e-6, "float16": 2e-3, "bfloat16": 1.6e-2})


@dataclass(frozen=True)
class Work:
    """What one call must do at least: `flops` (a multiply-add is two) and `bytes` (each input read once, each output written once)."""

    flops: float
    bytes: float


@dataclass(frozen=True)
class ModuleSpec:
    """How to run a candidate that is a module of the same construction as the reference (`class ModelNew(nn.Module)`) on an operator's
    inputs: after `torch.manual_seed(seed)` build `ModelNew(*init_inputs)`, put it in the mode that `training` says, and call it with the
    first `arguments` inputs, with each value of `constants` inserted at its position.

    The inputs after those are the module's parameters and buffers, named by `state` in order: copy each over the candidate's own of that
    name where the shapes are equal. `init_inputs` and `constants` are plain Python data.
    """

    arguments: int
    init_inputs: tuple[object, ...] = ()
    constants: Mapping[int, object] = field(default_factory=dict)
    state: tuple[str, ...] = ()
    training: bool = True
    seed: int = 42


@dataclass(frozen=True)
class Operator:
    """One operator.

    `reference(*inputs)` is PyTorch and returns a tensor or a tuple of tensors; called with float64 inputs it is the golden.
    `make_inputs(case, generator)` draws fresh inputs on the CPU; every distribution named in `distributions` must be accepted in
    `case.distribution`. `cases[profile]` has visible and held-out cases. `work(case)` counts by the formulas spelled out in
    `work_formula`. `semantics` tells a kernel author exactly what to compute: argument order, shapes, dtypes, edge cases.
    `input_names` name the inputs in order; `family` groups operators that are optimised alike (`row`, `elementwise`, `gemm`, `chain`,
    `search`, `jagged`, `other`). `module(case)` says how a `ModelNew` candidate is run; None where the reference is no module.
    `constructed(case)` gives by name the state that the module's constructor made; None where the module came built.
    `allocate(*inputs)` makes the empty outputs where their shapes depend on values; None where shapes follow from shapes.
    """

    name: str
    title: str
    family: str
    semantics: str
    input_names: tuple[str, ...]
    reference: Callable[..., torch.Tensor | Tensors]
    make_inputs: Callable[[Case, torch.Generator], Tensors]
    cases: Mapping[Profile, tuple[Case, ...]]
    work: Callable[[Case], Work]
    work_formula: str
    distributions: tuple[str, ...]
    tolerance: Tolerance = field(default_factory=Tolerance)
    module: Callable[[Case], ModuleSpec] | None = None
    constructed: Callable[[Case], Mapping[str, torch.Tensor]] | None = None
    allocate: Callable[..., Tensors] | None = None

    def visible(self, profile: Profile) -> tuple[Case, ...]:
        """The cases that proposers are told."""
        return tuple(case for case in self.cases[profile] if not case.held_out)

    def held_out(self, profile: Profile) -> tuple[Case, ...]:
        """The cases that only the judge knows."""
        return tuple(case for case in self.cases[profile] if case.held_out)
