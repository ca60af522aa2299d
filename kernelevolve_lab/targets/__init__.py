"""Targets: where a kernel runs, what that hardware can do at most, and how close a measured time comes."""

import difflib
from pathlib import Path

from kernelevolve_lab import registry
from kernelevolve_lab.errors import UnknownName
from kernelevolve_lab.records import Profile, TargetSpec
from kernelevolve_lab.targets.base import Progress, TargetFamily


def names() -> tuple[str, ...]:
    """The full names of all targets, this machine's CPU first."""
    found = [name for family in registry.names("targets") for name in registry.load("targets", family).names()]
    return tuple(sorted(found, key=lambda name: (name != "cpu", name)))


def resolve(name: str) -> TargetSpec:
    """The specification of a target, with what is detected about this machine; measures nothing.

    A family's bare name (`nvidia`) is the first of its targets that this machine has. Raises `UnknownName` with near names when there is
    no such target.
    """
    family = name.partition(":")[0]
    if family in registry.names("targets"):
        found: TargetFamily = registry.load("targets", family)
        if name in found.names():
            return found.spec(name)
        if name == family and hasattr(found, "here"):
            return found.spec(found.here())
    known = names()
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.4)
    hint = f"did you mean {' or '.join(repr(n) for n in near)}?" if near else f"known: {', '.join(known)}."
    raise UnknownName(f"There is no target named '{name}'; {hint}")


def profile(spec: TargetSpec) -> Profile:
    """The size of cases that suits a target: an absent one can only be emulated."""
    if not spec.present:
        return "emulated"
    return "laptop" if spec.vendor == "cpu" else "gpu"


def measure(spec: TargetSpec, cache: Path, refresh: bool = False, progress: Progress | None = None) -> TargetSpec:
    """The target with ceilings measured on this machine put before the published ones; unchanged when it is not present.

    What was measured is kept under `cache` for this host until `refresh` is set. `progress` gets a line of text at each step; an
    exception that it raises stops the measurement.
    """
    family: TargetFamily = registry.load("targets", spec.name.partition(":")[0])
    return family.measure(spec, cache, refresh, progress) if spec.present else spec
