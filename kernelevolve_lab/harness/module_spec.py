"""A `ModuleSpec` as text, for the way from the reference worker to the process of a candidate. Plain data in, plain data out."""

from __future__ import annotations

import json
from typing import Any

from kernelevolve_lab.operators.base import ModuleSpec

_PLAIN = (bool, int, float, str, type(None))


def to_text(spec: ModuleSpec) -> str:
    """The spec as JSON; raises `TypeError` for arguments that are not plain data."""
    return json.dumps(
        {
            "arguments": spec.arguments,
            "init_inputs": [_packed(value) for value in spec.init_inputs],
            "constants": [[position, _packed(value)] for position, value in spec.constants.items()],
            "state": list(spec.state),
            "training": spec.training,
            "seed": spec.seed,
        }
    )


def from_text(text: str) -> ModuleSpec:
    """The spec again."""
    found = json.loads(text)
    return ModuleSpec(
        arguments=found["arguments"],
        init_inputs=tuple(_unpacked(value) for value in found["init_inputs"]),
        constants={position: _unpacked(value) for position, value in found["constants"]},
        state=tuple(found["state"]),
        training=found["training"],
        seed=found["seed"],
    )


def _packed(value: Any) -> Any:
    """JSON has neither tuples nor keys that are no text, so containers say what they are."""
    if isinstance(value, _PLAIN):
        return value
    if isinstance(value, (tuple, list)):
        return {type(value).__name__ if type(value) in (tuple, list) else "list": [_packed(item) for item in value]}
    if isinstance(value, dict):
        return {"dict": [[_packed(key), _packed(item)] for key, item in value.items()]}
    raise TypeError(f"a {type(value).__name__} is not plain data")


def _unpacked(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    ((kind, items),) = value.items()
    if kind == "dict":
        return {_unpacked(key): _unpacked(item) for key, item in items}
    return (tuple if kind == "tuple" else list)(_unpacked(item) for item in items)
