"""The text of a KernelBench task file: what it must define, and its size constants. Nothing here runs it."""

from __future__ import annotations

import ast
import operator
from collections.abc import Mapping

from kernelevolve_lab.errors import BadInput

_ARITHMETIC = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}


def check(source: str, where: str) -> ast.Module:
    """Parse a task file; raise `BadInput` unless it defines the class `Model` and the function `get_inputs`."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        line = f" (line {error.lineno})" if isinstance(error, SyntaxError) and error.lineno else ""
        message = error.msg if isinstance(error, SyntaxError) else str(error)
        raise BadInput(f"The task file {where} is not valid Python{line}: {message}.") from error
    classes = {node.name for node in tree.body if isinstance(node, ast.ClassDef)}
    functions = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    if "Model" not in classes:
        raise BadInput(f"The task file {where} defines no class Model; a KernelBench task has Model, get_inputs and get_init_inputs.")
    if "get_inputs" not in functions:
        raise BadInput(f"The task file {where} defines no function get_inputs, so that there is nothing to call Model on.")
    return tree


def _integer(node: ast.expr) -> int | None:
    """The value of integer arithmetic on literals, or None."""
    if isinstance(node, ast.Constant):
        return node.value if type(node.value) is int else None
    if isinstance(node, ast.BinOp) and type(node.op) in _ARITHMETIC:
        left, right = _integer(node.left), _integer(node.right)
        if left is None or right is None or (isinstance(node.op, (ast.FloorDiv, ast.Mod)) and right == 0):
            return None
        return _ARITHMETIC[type(node.op)](left, right)
    return None


def _assignments(tree: ast.Module) -> list[tuple[str, int, ast.expr]]:
    found = []
    for node in tree.body:
        if not (isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name)):
            continue
        name, value = node.targets[0].id, node.value
        parts = [(name, value)]
        if isinstance(value, (ast.Tuple, ast.List)):
            parts = [(f"{name}[{i}]", part) for i, part in enumerate(value.elts)]
        found += [(label, _integer(part), part) for label, part in parts if _integer(part) is not None]
    return found


def constants(tree: ast.Module) -> dict[str, int]:
    """The integer constants that the file assigns at top level, by name (`shape[0]` for a part of a tuple); of several assignments to
    one name the last."""
    return {name: value for name, value, _ in _assignments(tree)}


def rescaled(source: str, sizes: Mapping[str, int], tree: ast.Module | None = None) -> str:
    """The source with top-level integer constants replaced; raises `BadInput` for a name that is none."""
    tree = tree or ast.parse(source)
    known = constants(tree)
    for name, value in sizes.items():
        if name not in known:
            raise BadInput(f"The task has no integer constant '{name}' at top level; it has {', '.join(known) or 'none'}.")
        if value != known[name] and (type(value) is not int or value < 1):
            raise BadInput(f"The size {name} = {value!r} is not a positive integer.")
    lines = source.encode().splitlines(keepends=True)
    for name, value, node in reversed(_assignments(tree)):
        if name in sizes and sizes[name] != value:
            first, last = node.lineno - 1, node.end_lineno - 1
            head, tail = lines[first][: node.col_offset], lines[last][node.end_col_offset :]
            lines[first : last + 1] = [head + f"{sizes[name]}".encode() + tail]
    return b"".join(lines).decode()
