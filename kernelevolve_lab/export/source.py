"""Functions of an operator, cut out so that they run on their own."""

from __future__ import annotations

import ast
import builtins
import inspect
import re
import textwrap
from collections.abc import Callable, Mapping
from types import FunctionType, ModuleType
from typing import Any

from kernelevolve_lab.errors import BadInput

CONSTANTS = (bool, int, float, str, bytes, tuple, dict, type(None))
OWN = "kernelevolve_lab"


def self_contained(functions: Mapping[str, Callable[..., Any]]) -> str:
    """Python source that defines each function under its name in the mapping, with every module-level function, class and constant that it
    uses; other modules are imported, functions reached through a module of this package are taken along.

    Raises `BadInput` when a source cannot be had, or uses a global that cannot be written down.
    """
    parts: dict[str, str] = {}
    for name, function in functions.items():
        _collect(function, parts)
        if function.__name__ != name:
            parts[f"{name} ="] = f"{name} = {function.__name__}"
    imports = sorted(text for text in parts.values() if text.startswith(("import ", "from ")))
    bodies = [text for text in parts.values() if not text.startswith(("import ", "from "))]
    return "\n\n\n".join(["\n".join(imports)] * bool(imports) + bodies)


def _collect(thing: Any, parts: dict[str, str]) -> None:
    """Add the source of a function or class, and before it what it uses."""
    name = getattr(thing, "__name__", type(thing).__name__)
    if name in parts:
        return
    if not isinstance(thing, (FunctionType, type)):
        raise BadInput(f"'{name}' is not a plain function or class, so it cannot be exported; write it with def.")
    try:
        text = textwrap.dedent(inspect.getsource(thing)).rstrip()
    except (OSError, TypeError) as error:
        raise BadInput(f"The source of '{name}' cannot be read, so it cannot be exported; define it in a file or cell.") from error
    tree = ast.parse(text)
    if not isinstance(tree.body[0], (ast.FunctionDef, ast.ClassDef)):
        raise BadInput(f"'{name}' is not a plain function or class, so it cannot be exported; write it with def.")
    scope = _globals_of(thing)
    parts[name] = ""
    for used in sorted(_names(tree)):
        if used in parts or used not in scope or hasattr(builtins, used):
            continue
        value = scope[used]
        if isinstance(value, ModuleType) and value.__name__.startswith(OWN):
            for attribute in sorted(_attributes(tree, used)):
                _add(attribute, getattr(value, attribute), name, parts)
            text = re.sub(rf"\b{used}\.(?=\w)", "", text)
        else:
            _add(used, value, name, parts)
    del parts[name]  # put the definition last: what it uses must stand above it where that is a default or a decorator
    parts[name] = text


def _add(name: str, value: Any, user: str, parts: dict[str, str]) -> None:
    if isinstance(value, ModuleType):
        parts[name] = f"import {value.__name__}" + (f" as {name}" if value.__name__ != name else "")
    elif isinstance(value, (FunctionType, type)) and not (value.__module__ or "").startswith("torch"):
        _collect(value, parts)
    elif isinstance(value, CONSTANTS):
        parts[name] = f"{name} = {value!r}"
    elif hasattr(value, "__module__") and hasattr(value, "__name__"):
        parts[name] = f"from {value.__module__} import {value.__name__}" + (f" as {name}" if value.__name__ != name else "")
    else:
        raise BadInput(f"'{user}' uses the global '{name}', a {type(value).__name__} that cannot be exported; pass it as an input.")


def _globals_of(thing: FunctionType | type) -> dict[str, Any]:
    if isinstance(thing, FunctionType):
        return {**thing.__globals__, **inspect.getclosurevars(thing).nonlocals}
    module = inspect.getmodule(thing)
    return vars(module) if module else {}


def _names(tree: ast.AST) -> set[str]:
    """The names that code uses; those in annotations alone need not exist, since their evaluation is postponed."""
    annotated: set[ast.AST] = set()
    for node in ast.walk(tree):
        for field in ("annotation", "returns"):
            if getattr(node, field, None) is not None:
                annotated |= set(ast.walk(getattr(node, field)))
    return {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and node not in annotated}


def _attributes(tree: ast.AST, module: str) -> set[str]:
    return {n.attr for n in ast.walk(tree) if isinstance(n, ast.Attribute) and isinstance(n.value, ast.Name) and n.value.id == module}
