"""What a language is: how a source becomes something that a worker can call, and what can be read off it without running it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from kernelevolve_lab.languages.process import Sandbox
from kernelevolve_lab.records import Diagnostic, Scalar, TargetSpec


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
    module with `kernel` or `ModelNew`). `suffix` is the file suffix, `lexer` what Pygments calls the language.
    """

    name: str
    title: str
    suffix: str
    lexer: str
    binding: Literal["native", "python"]

    def supports(self, target: TargetSpec) -> bool:
        """Whether kernels in this language can be built for that target."""

    def toolchain(self) -> dict[str, str]:
        """Compilers and versions found; raises `MissingTool` with the way out when the language cannot be built here."""

    def build(self, source: str, target: TargetSpec, cache: Path, timeout: float = 60.0, *, sandbox: Sandbox | None = None) -> Build:
        """Compile one source, never run it; builds are cached under `cache` by content, flags and toolchain, and safe in parallel.

        `sandbox` confines the compiler: it turns a command, and the folder that must stay writable, into the command to run.
        """

    def guide(self) -> str:
        """What to know to write a kernel in this language here: the contract and a worked example, as markdown."""
