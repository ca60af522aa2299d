"""The schedule proposer: kernels from templates in files, their choices searched with Optuna. It needs no key and no network."""

from __future__ import annotations

from collections.abc import Mapping

from kernelevolve_lab.operators.base import Operator
from kernelevolve_lab.proposers.schedule.proposer import Schedule
from kernelevolve_lab.records import Scalar, TargetSpec


def create(operator: Operator, target: TargetSpec, language: str, options: Mapping[str, Scalar], seed: int) -> Schedule:
    """The registered factory; it has no options. Raises `BadInput` where no template serves that operator, target and language."""
    return Schedule(operator, target, language, seed)
