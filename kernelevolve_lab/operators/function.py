"""An operator from a Python function or module of the user's, with example inputs.

Shapes, dtypes and ranges of the inputs come from the examples; values are drawn fresh for every call. FLOPs are counted by PyTorch's own
counter while the reference runs on the examples.
"""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from kernelevolve_lab.errors import BadInput
from kernelevolve_lab.operators.base import ModuleSpec, Operator, Tolerance, Work
from kernelevolve_lab.operators.likeness import DISTRIBUTIONS, Likeness
from kernelevolve_lab.operators.modules import FunctionReference, ModuleReference
from kernelevolve_lab.records import Case

if TYPE_CHECKING:
    import torch

    from kernelevolve_lab.operators.base import Tensors

WORK_FORMULA = (
    "FLOPs: counted by torch.utils.flop_counter on the example inputs, which counts matrix products, convolutions and attention alone: "
    "element-wise work and reductions add none. Bytes: each input read once and each output written once."
)
# The reference is not known beforehand and may chain reductions, so that an honest reordering can be off by more than for a single one.
TOLERANCE = Tolerance(floors={"float64": 1e-11, "float32": 5e-5, "float16": 8e-3, "bfloat16": 6e-2})


class Examples:
    """Draws inputs like the example tensors of a case; `case.sizes["example"]` says which set."""

    def __init__(self, sets: Sequence[Tensors]) -> None:
        self.sets = tuple(tuple(Likeness.of(tensor) for tensor in tensors) for tensors in sets)

    def __call__(self, case: Case, generator: torch.Generator) -> Tensors:
        return tuple(example.draw(case.distribution, generator) for example in self.sets[int(case.sizes["example"])])


class Drawn:
    """Draws inputs by calling the user's own function under a seed taken from the generator."""

    def __init__(self, draw: Callable[[], Any]) -> None:
        self.draw = draw

    def __call__(self, case: Case, generator: torch.Generator) -> Tensors:
        return split_constants(seeded(self.draw, generator))[0]


class WithState:
    """Inputs of a module: what `arguments` draws, then the module's parameters and buffers."""

    def __init__(self, arguments: Callable[[Case, torch.Generator], Tensors], reference: ModuleReference) -> None:
        self.arguments = arguments
        self.reference = reference

    def __call__(self, case: Case, generator: torch.Generator) -> Tensors:
        return (*self.arguments(case, generator), *self.reference.fresh_state(generator))


class CountedWork:
    """The work counted for each example set."""

    def __init__(self, counted: Sequence[Work]) -> None:
        self.counted = tuple(counted)

    def __call__(self, case: Case) -> Work:
        return self.counted[int(case.sizes["example"])]


class SameModule:
    """The same `ModuleSpec` for every case."""

    def __init__(self, spec: ModuleSpec) -> None:
        self.spec = spec

    def __call__(self, case: Case) -> ModuleSpec:
        return self.spec


def seeded(draw: Callable[[], Any], generator: torch.Generator) -> Any:
    """Call `draw` with torch's global random state set from the generator, and put the state back."""
    import torch

    seed = int(torch.randint(0, 2**62, (), generator=generator))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return draw()


def split_constants(arguments: Any) -> tuple[Tensors, dict[int, object]]:
    """Tensors among the arguments in order, and the other values by position."""
    import torch

    if isinstance(arguments, torch.Tensor):
        return (arguments,), {}
    if not isinstance(arguments, (tuple, list)):
        raise BadInput(f"Example inputs must be a tensor or a tuple of arguments, not a {type(arguments).__name__}.")
    constants = {i: value for i, value in enumerate(arguments) if not isinstance(value, torch.Tensor)}
    for i, value in constants.items():
        if not isinstance(value, (bool, int, float, str, type(None), tuple, list)):
            raise BadInput(f"Example argument {i + 1} is a {type(value).__name__}; arguments are tensors or plain Python values.")
    return tuple(value for value in arguments if isinstance(value, torch.Tensor)), constants


def counted_work(reference: Callable[..., Any], inputs: Tensors) -> Work:
    """Run the reference once and count: FLOPs by PyTorch's counter, bytes from the inputs and outputs."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter, torch.no_grad():
        outputs = reference(*inputs)
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    moved = sum(tensor.numel() * tensor.element_size() for tensor in (*inputs, *outputs))
    return Work(flops=float(counter.get_total_flops()), bytes=float(moved))


def from_callable(thing: Any, inputs: Any, name: str | None = None) -> Operator:
    """The operator that computes what a function or `nn.Module` computes.

    `inputs` is one example (a tensor or a tuple of arguments; values that are no tensors become constants of the operator), a list of
    examples (the last is held out), or a function without arguments that returns a fresh example. Raises `BadInput` where they do not fit.
    """
    import torch

    is_module = isinstance(thing, torch.nn.Module)
    label = name or getattr(thing, "__name__", None) or type(thing).__name__
    sets, draw = _example_sets(inputs, label)
    tensors = [split_constants(arguments)[0] for arguments in sets]
    constants = split_constants(sets[0])[1]
    if any(repr(split_constants(arguments)[1]) != repr(constants) for arguments in sets):
        raise BadInput(f"The example inputs of {label} differ in values that are no tensors; make one operator for each.")
    if not tensors[0]:
        raise BadInput(f"The example inputs of {label} hold no tensor, so there is nothing to compute on.")

    reference: Callable[..., Any] = FunctionReference(thing, constants)
    make_inputs: Callable[[Case, torch.Generator], Tensors] = Drawn(draw) if draw else Examples(tensors)
    if is_module:
        reference = ModuleReference(_copy_of(thing, label), len(tensors[0]), constants)
        make_inputs = WithState(make_inputs, reference)
    distributions = ("drawn",) if draw else tuple(DISTRIBUTIONS)
    generator = torch.Generator().manual_seed(0)
    cases = _cases(tensors, distributions)
    distributions = _accepted(reference, make_inputs, cases[0], distributions, generator, label)
    cases = _cases(tensors, distributions)
    work = []
    for index in range(len(sets)):
        case = next(case for case in cases if case.sizes["example"] == index)
        work.append(counted_work(reference, make_inputs(case, generator)))

    names = _argument_names(thing.forward if is_module else thing, constants, len(tensors[0]))
    spec = None
    if is_module:
        spec = SameModule(ModuleSpec(len(tensors[0]), (), constants, reference.state, thing.training))
        names += reference.state
    return Operator(
        name=label,
        title=label,
        family="other",
        semantics=_semantics(_source(thing), names, constants, make_inputs(cases[0], generator), len(tensors[0])),
        input_names=names,
        reference=reference,
        make_inputs=make_inputs,
        cases={"laptop": cases, "gpu": cases, "emulated": cases},
        work=CountedWork(work),
        work_formula=WORK_FORMULA,
        distributions=distributions,
        tolerance=TOLERANCE,
        module=spec,
    )


def _copy_of(module: Any, label: str) -> Any:
    """The module once more. Not by `deepcopy`, which leaves functions kept as attributes bound to the layers of the original."""
    import cloudpickle

    try:
        return cloudpickle.loads(cloudpickle.dumps(module))
    except Exception as error:
        raise BadInput(f"{label} cannot be copied ({error}); it must not hold open files, locks or the like.") from error


def _example_sets(inputs: Any, label: str) -> tuple[list[Any], Callable[[], Any] | None]:
    import torch

    if inputs is None:
        raise BadInput(f"{label} needs example inputs: pass inputs=(tensor, ...), a list of such tuples, or a function that returns one.")
    if callable(inputs) and not isinstance(inputs, torch.Tensor):
        try:
            return [seeded(inputs, torch.Generator().manual_seed(0))], inputs
        except Exception as error:
            raise BadInput(f"The function that makes the inputs of {label} fails: {type(error).__name__}: {error}") from error
    if isinstance(inputs, list) and inputs and all(isinstance(item, (tuple, list)) for item in inputs):
        return list(inputs), None
    return [inputs], None


def _cases(tensors: Sequence[Tensors], distributions: Sequence[str]) -> tuple[Case, ...]:
    """One visible case per example set but the last of several, which is held out; of a single one the last distribution is."""
    cases = []
    for index, example in enumerate(tensors):
        floating = [tensor for tensor in example if tensor.is_floating_point()]
        dtype = str((floating or example)[0].dtype).removeprefix("torch.")
        shapes = {f"input {i + 1}": "x".join(map(str, tensor.shape)) or "scalar" for i, tensor in enumerate(example)}
        last = len(tensors) > 1 and index == len(tensors) - 1
        case = Case(
            name=f"example {index + 1}", sizes={"example": index, **shapes}, dtype=dtype, distribution=distributions[0], held_out=last
        )
        cases.append(case)
    if len(tensors) == 1:
        held_out = {"name": "example 1, held out", "distribution": distributions[-1], "held_out": True}
        cases.append(cases[0].model_copy(update=held_out))
    return tuple(cases)


def _accepted(
    reference: Callable[..., Any],
    make_inputs: Callable[[Case, torch.Generator], Tensors],
    case: Case,
    distributions: Sequence[str],
    generator: torch.Generator,
    label: str,
) -> tuple[str, ...]:
    """The distributions that the reference can take: it runs, and a float64 golden is finite. The first must be among them."""
    import torch

    accepted = []
    for distribution in distributions:
        inputs = make_inputs(case.model_copy(update={"distribution": distribution}), generator)
        wide = tuple(tensor.double() if tensor.is_floating_point() else tensor for tensor in inputs)
        try:
            with torch.no_grad():
                reference(*inputs)
                golden = reference(*wide)
        except BadInput:
            raise
        except Exception as error:
            if not accepted:
                raise BadInput(f"{label} fails on inputs like the example: {type(error).__name__}: {error}") from error
            continue
        if all(bool(torch.isfinite(output).all()) for output in (golden if isinstance(golden, tuple) else (golden,))):
            accepted.append(distribution)
        elif not accepted:
            raise BadInput(f"{label} returns values that are not finite on inputs like the example, so that no kernel could be judged.")
    return tuple(accepted)


def _argument_names(function: Any, constants: dict[int, object], count: int) -> tuple[str, ...]:
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        parameters = []
    positional = [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    names = [name for i, name in enumerate(positional) if i not in constants]
    return tuple(names[i] if i < len(names) else f"input{i}" for i in range(count))


def _source(thing: Any) -> str:
    """The Python text of a function or of a module's class (not of one of PyTorch's own), and what a module prints as."""
    import torch

    subject = thing if inspect.isroutine(thing) else type(thing)
    try:
        text = "" if subject.__module__.startswith("torch.") else textwrap.dedent(inspect.getsource(subject)).strip()
    except (OSError, TypeError):
        text = ""
    if isinstance(thing, torch.nn.Module):
        text += "\n\n" + "\n".join(f"# {line}" for line in repr(thing).splitlines())
    return text.strip()


def _semantics(source: str, names: Sequence[str], constants: dict[int, object], inputs: Tensors, arguments: int) -> str:
    lines = ["Compute what this PyTorch reference computes.", ""]
    if source:
        lines += ["```python", source, "```", ""]
    lines.append("Inputs in order, all contiguous and row-major (shapes of the first case):")
    for i, (name, tensor) in enumerate(zip(names, inputs, strict=True)):
        kind = "" if i < arguments else " (state of the module)"
        lines.append(f"{name} {list(tensor.shape)} {str(tensor.dtype).removeprefix('torch.')}{kind}")
    lines += [f"Constant of the operator: argument {i + 1} = {value!r}." for i, value in sorted(constants.items())]
    lines.append("Outputs: what the reference returns, containers taken apart in order.")
    return "\n".join(lines)
