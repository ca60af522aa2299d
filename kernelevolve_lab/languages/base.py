"""What a language is: how a source becomes something that a worker can call, and what can be read off it without running it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

from kernelevolve_lab.languages.process import Sandbox
from kernelevolve_lab.records import Diagnostic, Scalar, TargetSpec, TensorSpec

KERNELS = "kernels"
"""The folder beside a Python artifact with what was compiled ahead, in the form of Triton's own cache: copied to where TRITON_CACHE_DIR
points, the first launch finds its kernel."""


@dataclass(frozen=True)
class Workload:
    """Shapes and dtypes of one call's inputs, in the operator's order, for languages that compile per shape.

    The other fields say how a `ModelNew` is built and called, as `operators.base.ModuleSpec` does: constructor arguments (plain Python
    data), how many of the inputs are arguments of the call (the rest are the module's state; None: all are arguments), and values inserted
    among them by position.
    """

    inputs: tuple[TensorSpec, ...]
    init_inputs: tuple[object, ...] = ()
    arguments: int | None = None
    constants: Mapping[int, object] = field(default_factory=dict)


@dataclass(frozen=True)
class Build:
    """The outcome of a build. `artifact` is what the worker loads (a shared library or a Python module), None when the build failed;
    `seconds` is wall time, near 0 on a cache hit (`cached`). `metrics` are static metrics by name."""

    artifact: Path | None
    diagnostics: tuple[Diagnostic, ...]
    seconds: float
    cached: bool = False
    metrics: dict[str, Scalar] | None = None

    @property
    def ok(self) -> bool:
        return self.artifact is not None


class Language(Protocol):
    """One language, registered in the entry-point group `kernelevolve_lab.languages`.

    `binding` says how a worker calls the artifact: `native` (`extern "C" kernel` of a shared library, through `kel.h`) or `python` (a
    module with `kernel` or `ModelNew`, which must be loaded under the name `candidate`). `suffix` is the file suffix, `lexer` what Pygments
    calls the language. `emulated` says whether candidates for a target that is not here can be run by emulation, for correctness only.
    """

    name: str
    title: str
    suffix: str
    lexer: str
    binding: Literal["native", "python"]
    emulated: bool

    def supports(self, target: TargetSpec) -> bool:
        """Whether kernels in this language can be built for that target."""

    def toolchain(self) -> dict[str, str]:
        """Compilers and versions found; raises `MissingTool` with the way out when the language cannot be built here."""

    def build(
        self,
        source: str,
        target: TargetSpec,
        cache: Path,
        timeout: float = 60.0,
        *,
        sandbox: Sandbox | None = None,
        workloads: Sequence[Workload] = (),
    ) -> Build:
        """Compile one source; nothing of it runs in this process. Builds are cached under `cache` by content, flags and toolchain, and
        are safe in parallel.

        `sandbox` confines the compiler: it turns a command, and the folder that must stay writable, into the command to run. `workloads`
        are the visible cases, for languages that compile kernels for the shapes they are launched on; the others ignore them.
        """

    def guide(self) -> str:
        """What to know to write a kernel in this language here: the contract and a worked example, as markdown."""
