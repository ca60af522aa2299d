"""Targets: where a kernel runs, what that hardware can do at most, and how close a measured time comes."""

import difflib

from kernelevolve_lab import registry
from kernelevolve_lab.errors import UnknownName
from kernelevolve_lab.records import TargetSpec
from kernelevolve_lab.targets.base import TargetFamily


def names() -> tuple[str, ...]:
    """The full names of all targets, this machine's CPU first."""
    found = [name for family in registry.names("targets") for name in registry.load("targets", family).names()]
    return tuple(sorted(found, key=lambda name: (name != "cpu", name)))


def resolve(name: str) -> TargetSpec:
    """The specification of a target, with what is detected about this machine; measures nothing.

    Raises `UnknownName` with near names when there is no such target.
    """
    family = name.partition(":")[0]
    if family in registry.names("targets"):
        found: TargetFamily = registry.load("targets", family)
        if name in found.names():
            return found.spec(name)
    known = names()
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.4)
    hint = f"did you mean {' or '.join(repr(n) for n in near)}?" if near else f"known: {', '.join(known)}."
    raise UnknownName(f"There is no target named '{name}'; {hint}")
