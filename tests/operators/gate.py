"""The judge's gate, for these tests: as it is, and restated for whole outputs."""

import math

import torch

from kernelevolve_lab.harness import numerics
from kernelevolve_lab.operators.base import Operator


def outputs(value):
    return value if isinstance(value, tuple) else (value,)


def widened(inputs):
    return tuple(tensor.double() if tensor.is_floating_point() else tensor for tensor in inputs)


def golden(operator: Operator, inputs):
    return outputs(operator.reference(*widened(inputs)))


def error(got: torch.Tensor, expected: torch.Tensor) -> float:
    """Largest absolute error over the root mean square of the golden."""
    got, expected = got.double(), expected.double()
    if not bool(torch.isfinite(got).all()):
        return math.inf
    scale = float(expected.square().mean().sqrt())
    worst = float((got - expected).abs().max())
    return worst / scale if scale else math.inf if worst else 0.0


def gate(operator: Operator, reference_output: torch.Tensor, expected: torch.Tensor) -> float:
    """What the error of a candidate's output may be; integers must be exact."""
    if not reference_output.is_floating_point():
        return 0.0
    floor = operator.tolerance.floors[str(reference_output.dtype).removeprefix("torch.")]
    return max(floor, operator.tolerance.factor * error(reference_output, expected))


def judged(operator: Operator, got: torch.Tensor, reference_output: torch.Tensor, expected: torch.Tensor) -> numerics.Found:
    """What the judge finds of a candidate's output."""
    floors = dict(operator.tolerance.floors)
    want = numerics.golden([reference_output], [expected], operator.tolerance.factor, floors)[0]
    return numerics.compare(got.to(want.dtype).contiguous(), want)
