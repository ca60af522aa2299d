"""Operators from KernelBench task files (`Model`, `get_inputs`, `get_init_inputs`).

Loading one executes the file: do it in a sandboxed worker. Sizes are the file's own integer constants; the `laptop` cases have them halved
until inputs, weights, outputs and FLOPs fit a budget, the `gpu` cases have them as written. A held-out case has one of them changed.
Weights follow KernelBench's rule (seed 42 before each constructor) in their statistics; their values are drawn fresh and handed to both
sides as inputs. Inputs come from `get_inputs` under a secret seed and keep their dtypes.
"""

from __future__ import annotations

import linecache
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kernelevolve_lab.errors import BadInput
from kernelevolve_lab.operators import task_source
from kernelevolve_lab.operators.base import ModuleSpec, Operator, Work
from kernelevolve_lab.operators.function import TOLERANCE, seeded, split_constants
from kernelevolve_lab.operators.modules import ModuleReference, register_plain_tensors
from kernelevolve_lab.operators.task_scaling import Footprint, changed, footprint, scaled
from kernelevolve_lab.records import Case

if TYPE_CHECKING:
    import torch

    from kernelevolve_lab.operators.base import Tensors

SEED = 42  # KernelBench src/kernelbench/eval.py seeds with 42 before each constructor.
WORK_FORMULA = (
    "FLOPs: counted by torch.utils.flop_counter, which counts matrix products, convolutions and attention alone: element-wise work and "
    "reductions add none. Bytes: each input, weight and buffer read once and each output written once."
)


@dataclass(frozen=True)
class Instance:
    """A task at given sizes: the executed file and the reference built from it."""

    get_inputs: Callable[[], Any]
    init_inputs: tuple[object, ...]
    reference: ModuleReference
    shapes: tuple[tuple[int, ...], ...]


class Task:
    """A task file; builds an `Instance` for each set of sizes when it is first needed."""

    def __init__(self, source: str, name: str) -> None:
        self.source = source
        self.name = name
        self.tree = task_source.check(source, name)
        self.constants = task_source.constants(self.tree)
        self._instances: dict[tuple[tuple[str, int], ...], Instance] = {}

    def execute(self, sizes: Mapping[str, int]) -> types.ModuleType:
        """Run the file with these sizes in a namespace of its own."""
        text = task_source.rescaled(self.source, sizes, self.tree)
        file = f"<task {self.name} {len(self._instances)}>"
        linecache.cache[file] = (len(text), None, text.splitlines(keepends=True), file)
        module = types.ModuleType("task")
        try:
            exec(compile(text, file, "exec"), vars(module))
        except ImportError as error:
            raise BadInput(f"The task {self.name} imports '{error.name or error}', which is not installed here.") from error
        except (Exception, SystemExit) as error:
            raise BadInput(f"The task {self.name} fails when it is loaded: {type(error).__name__}: {error}") from error
        return module

    def construct(self, module: types.ModuleType) -> tuple[Any, tuple[object, ...]]:
        """Build `Model` as KernelBench does, and return it with its constructor's arguments."""
        import torch

        try:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(SEED)
                init_inputs = tuple(module.get_init_inputs()) if hasattr(module, "get_init_inputs") else ()
                torch.manual_seed(SEED)
                return module.Model(*init_inputs), init_inputs
        except Exception as error:
            hint = "; a task runs without network and sees no files" if isinstance(error, OSError) else ""
            raise BadInput(f"Model of the task {self.name} cannot be built: {type(error).__name__}: {error}{hint}") from error

    def instance(self, sizes: Mapping[str, Any]) -> Instance:
        """The task at these sizes."""
        import torch

        key = tuple(sorted(sizes.items()))
        if key not in self._instances:
            module = self.execute(sizes)
            arguments = self.arguments(module.get_inputs, torch.Generator().manual_seed(0))
            tensors, constants = split_constants(arguments)
            model, init_inputs = self.construct(module)
            if not isinstance(model, torch.nn.Module):
                raise BadInput(f"Model of the task {self.name} is no torch.nn.Module.")
            reference = ModuleReference(model, len(tensors), constants)
            own = dict(reference.module.named_parameters())
            state = (*(own[name] for name in reference.parameters), *reference.buffers.values())
            shapes = tuple(tuple(tensor.shape) for tensor in (*tensors, *state))
            self._instances[key] = Instance(module.get_inputs, init_inputs, reference, shapes)
        return self._instances[key]

    def arguments(self, get_inputs: Callable[[], Any], generator: torch.Generator) -> list[Any]:
        """What `get_inputs` returns under a seed from the generator."""
        try:
            arguments = seeded(get_inputs, generator)
        except Exception as error:
            raise BadInput(f"get_inputs of the task {self.name} fails: {type(error).__name__}: {error}") from error
        if not isinstance(arguments, (list, tuple)) or not arguments:
            raise BadInput(f"get_inputs of the task {self.name} must return a list of inputs.")
        return list(arguments)


class TaskReference:
    """The reference of a task at any of its cases' sizes, told apart by the shapes of the inputs."""

    def __init__(self, task: Task, sizes: list[Mapping[str, Any]]) -> None:
        self.task = task
        self.sizes = sizes
        self._by_shapes: dict[tuple[tuple[int, ...], ...], ModuleReference] = {}

    def __call__(self, *inputs: torch.Tensor) -> torch.Tensor | Tensors:
        return self.at(tuple(tuple(tensor.shape) for tensor in inputs))(*inputs)

    def at(self, shapes: tuple[tuple[int, ...], ...]) -> ModuleReference:
        """The reference whose inputs have these shapes."""
        for sizes in self.sizes:
            if shapes in self._by_shapes:
                break
            instance = self.task.instance(sizes)
            self._by_shapes[instance.shapes] = instance.reference
        if shapes not in self._by_shapes:
            raise BadInput(f"No case of the task {self.task.name} has inputs of the shapes {shapes}.")
        return self._by_shapes[shapes]


class TaskInputs:
    """Draws `get_inputs` under a fresh seed, changes the distribution where asked, and appends fresh weights."""

    def __init__(self, task: Task) -> None:
        self.task = task

    def __call__(self, case: Case, generator: torch.Generator) -> Tensors:
        instance = self.task.instance(case.sizes)
        tensors, _ = split_constants(self.task.arguments(instance.get_inputs, generator))
        arguments = tuple(_redistributed(tensor.contiguous(), case.distribution, generator) for tensor in tensors)
        return (*arguments, *instance.reference.fresh_state(generator))


def _redistributed(tensor: torch.Tensor, distribution: str, generator: torch.Generator) -> torch.Tensor:
    """`given`: as it is. `signed`: U[0, 1) becomes U[-1, 1). `heavy_tailed`: that, with one value in 512 times 32. What does not look
    like U[0, 1) stays as it is."""
    import torch

    if distribution == "given" or not tensor.is_floating_point() or tensor.numel() < 2:
        return tensor
    low, high = tensor.aminmax()
    if low < 0 or high > 1 or low == high:
        return tensor
    tensor = tensor * 2 - 1
    if distribution == "heavy_tailed":
        tensor.view(-1)[torch.randint(0, tensor.numel(), (max(1, tensor.numel() // 512),), generator=generator)] *= 32
    return tensor


def from_task(source: str, name: str) -> Operator:
    """The operator of a task file. Executes it; raises `BadInput` saying what is wrong with it."""
    import torch

    task = Task(source, name)
    measured: dict[tuple[tuple[str, int], ...], Footprint | None] = {}

    def measure(sizes: Mapping[str, int]) -> Footprint | None:
        key = tuple(sorted(sizes.items()))
        if key not in measured:
            measured[key] = footprint(task, sizes)
        return measured[key]

    small = scaled(task.constants, measure)
    cases = {"laptop": _cases(task, small, measure), "gpu": _cases(task, task.constants, measure)}
    cases["emulated"] = cases["laptop"]
    reference = TaskReference(task, [case.sizes for case in (*cases["laptop"], *cases["gpu"])])
    make_inputs = TaskInputs(task)
    first = cases["laptop"][0]
    distributions = _accepted(reference, make_inputs, first, name)
    instance = task.instance(first.sizes)
    example = make_inputs(first, torch.Generator().manual_seed(0))
    names = (*(f"input{i}" for i in range(instance.reference.arguments)), *instance.reference.state)

    def work(case: Case) -> Work:
        found = measure(case.sizes)
        if found is None:
            raise BadInput(f"The work of the task {name} at {case.name} cannot be counted.")
        return Work(flops=found.flops, bytes=found.bytes)

    def module(case: Case) -> ModuleSpec:
        at = task.instance(case.sizes)
        return ModuleSpec(
            at.reference.arguments, at.init_inputs, at.reference.constants, at.reference.state, at.reference.module.training, SEED
        )

    def constructed(case: Case) -> dict[str, torch.Tensor]:
        model, _ = task.construct(task.execute(case.sizes))
        register_plain_tensors(model)
        return {name: tensor.detach() for name, tensor in (*model.named_parameters(), *model.named_buffers())}

    return Operator(
        name=name,
        title=f"{name} ({first.name})" if small != task.constants else name,
        family="other",
        semantics=_semantics(source, names, example, instance, first),
        input_names=names,
        reference=reference,
        make_inputs=make_inputs,
        cases={
            profile: tuple(
                case.model_copy(update={"distribution": distributions[-1] if case.held_out else "given"}) for case in cases[profile]
            )
            for profile in cases
        },
        work=work,
        work_formula=WORK_FORMULA,
        distributions=distributions,
        tolerance=TOLERANCE,
        module=module,
        constructed=constructed,
    )


def _cases(task: Task, sizes: Mapping[str, int], measure: Callable[[Mapping[str, int]], Footprint | None]) -> tuple[Case, ...]:
    """The visible case at these sizes and a held-out one with one size changed (or, where none can be, the same sizes)."""
    other = changed(sizes, measure) or dict(sizes)
    given = {name: task.constants[name] for name, value in sizes.items() if value != task.constants[name]}
    return (
        Case(name=_sizes_name(task, sizes), sizes=dict(sizes), scaled_from=given),
        Case(name=f"held out: {_sizes_name(task, other)}", sizes=dict(other), held_out=True, scaled_from=given),
    )


def _sizes_name(task: Task, sizes: Mapping[str, int]) -> str:
    """Which constants differ from the file's."""
    differ = [f"{key} {task.constants[key]} → {value}" for key, value in sizes.items() if value != task.constants[key]]
    return f"scaled: {', '.join(differ)}" if differ else "as written"


def _accepted(reference: TaskReference, make_inputs: TaskInputs, case: Case, name: str) -> tuple[str, ...]:
    """The distributions on which the golden is finite; the file's own must be among them."""
    import torch

    accepted = []
    for distribution in ("given", "signed", "heavy_tailed"):
        inputs = make_inputs(case.model_copy(update={"distribution": distribution}), torch.Generator().manual_seed(1))
        wide = tuple(tensor.double() if tensor.is_floating_point() else tensor for tensor in inputs)
        try:
            with torch.no_grad():
                golden = reference(*wide)
        except BadInput:
            raise
        except Exception as error:
            if distribution == "given":
                raise BadInput(f"Model of the task {name} fails on its own inputs in float64: {type(error).__name__}: {error}") from error
            continue
        if all(bool(torch.isfinite(output).all()) for output in (golden if isinstance(golden, tuple) else (golden,))):
            accepted.append(distribution)
        elif distribution == "given":
            raise BadInput(
                f"Model of the task {name} returns values that are not finite on its own inputs, so that no kernel could be judged."
            )
    return tuple(accepted)


def _semantics(source: str, names: tuple[str, ...], inputs: Tensors, instance: Instance, case: Case) -> str:
    lines = [
        "Compute what `Model` of this KernelBench task computes, in training mode as constructed.",
        "",
        "```python",
        source.strip(),
        "```",
        "",
    ]
    lines.append(f"Sizes of the first case: {', '.join(f'{key} = {value}' for key, value in case.sizes.items())} ({case.name}).")
    lines.append(
        "Inputs in order, all contiguous and row-major (shapes of that case): what get_inputs returns, then the module's state by name."
    )
    for i, (name, tensor) in enumerate(zip(names, inputs, strict=True)):
        kind = "" if i < instance.reference.arguments else " (state of Model)"
        lines.append(f"{name} {list(tensor.shape)} {str(tensor.dtype).removeprefix('torch.')}{kind}")
    lines += [f"Constant: argument {i + 1} = {value!r}." for i, value in sorted(instance.reference.constants.items())]
    lines.append(
        "A `class ModelNew(nn.Module)` with Model's constructor and forward is accepted as it is; its state is overwritten by name."
    )
    return "\n".join(lines)
