"""From what a person names to an `OperatorRef`, and from a ref back to the `Operator`.

`ref_of` never runs a task file, it only parses it. `load` runs the code in a `task` or `pickled` ref, so it belongs in a sandboxed worker.
"""

from __future__ import annotations

import base64
import functools
import sys
import sysconfig
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kernelevolve_lab import registry
from kernelevolve_lab.errors import BadInput, UnknownName
from kernelevolve_lab.operators.base import Operator
from kernelevolve_lab.records import OperatorRef


def load(ref: OperatorRef) -> Operator:
    """The operator that a ref names. Runs the code of `task` and `pickled` refs; raises a `LabError` where it cannot be loaded."""
    if ref.kind == "registered":
        operator = registry.load("operators", ref.text)
        if not isinstance(operator, Operator):
            raise BadInput(f"'{ref.text}' is registered as an operator, but it is a {type(operator).__name__}.")
        return operator
    if ref.kind == "task":
        from kernelevolve_lab.operators.kernelbench import from_task

        return from_task(ref.text, ref.name)
    return _unpickled(ref)


def ref_of(thing: Any, inputs: Any = None, name: str | None = None, sizes: Mapping[str, int] | None = None) -> OperatorRef:
    """A ref to a registered name; a KernelBench task file (a path); or a function or `nn.Module` with example `inputs` (see
    `function.from_callable`). `sizes` overrides integer constants of a task file by name.

    Raises `UnknownName` with near names, or `BadInput` saying what is wrong with the file, the function or its inputs.
    """
    if isinstance(thing, OperatorRef):
        return thing
    if isinstance(thing, str) and thing in registry.names("operators"):
        return OperatorRef(kind="registered", name=name or thing, text=thing)
    if isinstance(thing, Path) or (isinstance(thing, str) and _looks_like_path(thing)):
        return _task_ref(Path(thing).expanduser(), name, sizes or {})
    if isinstance(thing, str):
        raise UnknownName(registry.unknown("operators", thing))
    if isinstance(thing, Operator):
        return _pickled(thing, name or thing.name)
    if callable(thing) and not isinstance(thing, type):
        from kernelevolve_lab.operators.function import from_callable

        operator = from_callable(thing, inputs, name)
        return _pickled(operator, operator.name)
    raise BadInput(
        f"An operator is a registered name, a path of a task file, or a function or nn.Module with inputs=…; not a {type(thing).__name__}"
        f"{': make an instance of it' if isinstance(thing, type) else ''}."
    )


def _looks_like_path(text: str) -> bool:
    return text.endswith(".py") or "/" in text or "\\" in text or Path(text).is_file()


def _task_ref(path: Path, name: str | None, sizes: Mapping[str, int]) -> OperatorRef:
    from kernelevolve_lab.operators.task_source import check, rescaled

    try:
        source = path.read_bytes().decode()
    except FileNotFoundError:
        raise BadInput(f"There is no task file {path}.") from None
    except IsADirectoryError:
        raise BadInput(f"{path} is a folder; a task is one Python file with Model, get_inputs and get_init_inputs.") from None
    except OSError as error:
        raise BadInput(f"The task file {path} cannot be read: {error.strerror or error}.") from error
    except UnicodeDecodeError as error:
        raise BadInput(f"The task file {path} is not UTF-8 text (byte {error.start}); save it as UTF-8.") from error
    tree = check(source, str(path))
    if sizes:
        source = rescaled(source, sizes, tree)
    return OperatorRef(kind="task", name=name or path.stem, text=source)


def _pickled(operator: Operator, name: str) -> OperatorRef:
    """A ref that carries the operator itself, with every function that no installed package has by value."""
    import cloudpickle

    modules = [module for module in list(sys.modules.values()) if _is_the_users_own(module)]
    for module in modules:
        cloudpickle.register_pickle_by_value(module)
    try:
        text = base64.b64encode(cloudpickle.dumps(operator)).decode()
    except Exception as error:
        raise BadInput(
            f"{name} cannot be sent to another process: {error}. Use a function of tensors that holds no open files or locks."
        ) from error
    finally:
        for module in modules:
            cloudpickle.unregister_pickle_by_value(module)
    return OperatorRef(kind="pickled", name=name, text=text)


@functools.cache
def _installed_folders() -> tuple[Path, ...]:
    paths = sysconfig.get_paths()
    return (*{Path(paths[key]).resolve() for key in ("stdlib", "platstdlib", "purelib", "platlib")}, Path(__file__).parents[1])


def _is_the_users_own(module: Any) -> bool:
    """Whether a loaded module comes from a file that other processes need not find: not installed, not of this package."""
    file = getattr(module, "__file__", None)
    if not isinstance(file, str) or getattr(module, "__name__", "") == "__main__" or sys.modules.get(module.__name__) is not module:
        return False
    path = Path(file).resolve()
    return path.suffix == ".py" and not any(path.is_relative_to(folder) for folder in _installed_folders())


def _unpickled(ref: OperatorRef) -> Operator:
    import pickle

    try:
        operator = pickle.loads(base64.b64decode(ref.text))
    except Exception as error:
        raise BadInput(f"The operator '{ref.name}' of this run cannot be loaded here: {type(error).__name__}: {error}") from error
    if not isinstance(operator, Operator):
        raise BadInput(f"What '{ref.name}' carries is no operator but a {type(operator).__name__}.")
    return operator
