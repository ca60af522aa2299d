"""Meta's MTIA: published specifications only. There is no public driver, so none is ever present."""

from pathlib import Path

from kernelevolve_lab.records import TargetSpec
from kernelevolve_lab.targets import published
from kernelevolve_lab.targets.base import Progress


def names() -> tuple[str, ...]:
    """`mtia:1`, `mtia:2i`, `mtia:300`."""
    return published.names("mtia")


def spec(name: str) -> TargetSpec:
    """The specification of one generation."""
    return published.spec(name, present=False)


def measure(spec: TargetSpec, cache: Path, refresh: bool = False, progress: Progress | None = None) -> TargetSpec:
    """The target as it is: its ceilings are the published ones."""
    return spec
