"""What registers targets: a family, one file a vendor, named by an entry point of the group `kernelevolve_lab.targets`."""

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from kernelevolve_lab.records import TargetSpec

Progress = Callable[[str], None]
"""Is told in a few words what long work is doing now."""


class TargetFamily(Protocol):
    """The targets of one vendor; a module with these three functions is one.

    The entry point's name is the part of the target's name before the colon: `nvidia` holds `nvidia:h100`, `cpu` holds `cpu`. A family
    with a function `here() -> str`, the full name of the target that this machine has, may be named without a colon.
    """

    def names(self) -> tuple[str, ...]:
        """The full names of the targets of this family."""

    def spec(self, name: str) -> TargetSpec:
        """The specification of one of them, with what can be detected of it on this machine; measures nothing."""

    def measure(self, spec: TargetSpec, cache: Path, refresh: bool = False, progress: Progress | None = None) -> TargetSpec:
        """The specification with ceilings measured on this machine put first; unchanged when the target is not here. Results are kept
        under `cache` for this host, and measured again when `refresh` is set."""
