"""What a candidate's process is to the judge, whatever language it runs, and the ways in which it can fail."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import ClassVar, Protocol

from kernelevolve_lab.harness.memory import Placed
from kernelevolve_lab.harness.policy import Traced
from kernelevolve_lab.records import Verdict


class CandidateFailed(Exception):
    """The candidate's process did not do what it was asked; the text says why, for people."""

    verdict: ClassVar[Verdict] = Verdict.CRASHED


class CandidateCrashed(CandidateFailed):
    """It ended."""


class CandidateHung(CandidateFailed):
    """It did not answer in time, and was ended."""

    verdict = Verdict.TIMED_OUT


class CandidateWrong(CandidateFailed):
    """It returned something that cannot be the outputs: of another type, dtype or shape, or memory that is not its own."""

    verdict = Verdict.INCORRECT


class CandidateCheats(CandidateFailed):
    """It did what only makes sense as a trick, or what the policy forbids."""

    verdict = Verdict.CHEATING


class SandboxFailed(OSError):
    """The sandbox could not start the process: our trouble, not the candidate's."""


@dataclass(frozen=True)
class Visit:
    """What one visit took: nanoseconds of each call by the worker's own clock, of the whole by the judge's, and of processor time that all
    threads of the process used meanwhile. `operators` counts the calls of PyTorch's operators, None where nobody counts them."""

    reported: tuple[int, ...]
    witnessed: int
    processor: int
    operators: Mapping[str, int] | None = None


class Worker(Protocol):
    """One candidate's process. Every method may raise `CandidateFailed`; after that only `close` makes sense.

    Regions are shared memory that was lent to it; a workload is a call made ready: where in them its inputs lie, and where its outputs go.
    """

    longest_visit: int
    """The most calls that a visit should have."""

    call_overhead: float
    """Seconds that the host spends on each call outside its clock: copying arguments, collecting times."""

    unsteadiness: float | None
    """Seconds by which visits differ in what they cost beside their calls; None where a device adds to that."""

    @property
    def candidate_pid(self) -> int:
        """The process, as the kernel says."""

    def map(self, fd: int, size: int, writable: bool) -> tuple[int, int]:
        """Lend shared memory; returns the region and its address there (as the process says)."""

    def unmap(self, region: int) -> None:
        """Take a region away again."""

    def define(self, inputs: Sequence[Placed], input_region: int, outputs: Sequence[Placed], output_region: int) -> int:
        """Prepare the arguments of a call; returns the workload."""

    def undefine(self, workload: int) -> None:
        """Let a workload's number be used again."""

    def call(self, calls: Sequence[tuple[int, int]], timeout: float) -> Visit:
        """Call back to back: for each call the workload, and how many pages behind their places its outputs go. When it returns, they lie
        there; of calls with the same place, those of the last."""

    def watched(self, calls: Sequence[tuple[int, int]], timeout: float) -> tuple[Visit, list[int] | None]:
        """The same, and the program counters of its threads at random moments, which the process cannot notice; None where nobody looks."""

    def bind(self, workload: int, module: str, timeout: float) -> tuple[str, ...]:
        """Have a workload call the candidate's `ModelNew`, if it has one, built as this text of a `ModuleSpec` says; returns the names of
        the reference's state that it has under no such name."""

    def trace(self, workload: int, timeout: float) -> Traced | None:
        """Call once, untimed, and say which of PyTorch's operators ran; None for a process that has no PyTorch. The outputs lie where
        those of a call would."""

    def steady(self, calls: int) -> AbstractContextManager[None]:
        """Meanwhile a visit costs the same beside its calls as one of so many calls does, whatever the number of its own."""

    def ping(self) -> int:
        """Nanoseconds of a question without a call, by the judge's clock."""

    def cpu_nanoseconds(self) -> int:
        """Processor time that all threads of the process have used so far."""

    def frozen(self) -> AbstractContextManager[None]:
        """Stop all threads of the process meanwhile, so that what it has written by now is what is looked at."""

    def close(self) -> None:
        """End the process and all that it started."""
