"""From what a person names to an `OperatorRef`, and from a ref back to the `Operator`.

`ref_of` never runs anything: a task file is only parsed. `load` of a `task` or `pickled` ref runs the code in it, so it belongs in a
sandboxed worker.
"""

from __future__ import annotations

from kernelevolve_lab import registry
from kernelevolve_lab.errors import BadInput, UnknownName
from kernelevolve_lab.operators.base import Operator
from kernelevolve_lab.records import OperatorRef


def load(ref: OperatorRef) -> Operator:
    """The operator that a ref names."""
    operator = registry.load("operators", ref.text)
    if not isinstance(operator, Operator):
        raise BadInput(f"'{ref.text}' is registered as an operator, but it is a {type(operator).__name__}.")
    return operator


def ref_of(thing: object, inputs: object = None, name: str | None = None) -> OperatorRef:
    """A ref to a registered name."""
    if isinstance(thing, str):
        if thing not in registry.names("operators"):
            raise UnknownName(registry.unknown("operators", thing))
        return OperatorRef(kind="registered", name=thing, text=thing)
    raise BadInput(f"An operator is a registered name, not a {type(thing).__name__}.")
