"""What registers targets: a family, one file a vendor, named by an entry point of the group `kernelevolve_lab.targets`."""

from typing import Protocol

from kernelevolve_lab.records import TargetSpec


class TargetFamily(Protocol):
    """The targets of one vendor; a module with these two functions is one.

    The entry point's name is the part of the target's name before the colon: `nvidia` holds `nvidia:h100`, `cpu` holds `cpu`.
    """

    def names(self) -> tuple[str, ...]:
        """The full names of the targets of this family."""

    def spec(self, name: str) -> TargetSpec:
        """The specification of one of them, with what can be detected of it on this machine; measures nothing."""
