"""Triton for NVIDIA GPUs: a Python module, whose kernels are compiled ahead for the shapes they are launched on.

The module is untrusted Python, so it is imported in a confined process of its own (`triton_ahead.py`), never in this one.
"""

import importlib.metadata
import sys
from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from kernelevolve_lab.errors import MissingTool
from kernelevolve_lab.languages import ahead, build_cache, cubin, diagnostics
from kernelevolve_lab.languages.base import Build, Workload
from kernelevolve_lab.languages.process import Sandbox
from kernelevolve_lab.records import TargetSpec

HERE = Path(__file__).parent
LAYOUT = "1"  # of what a cache entry holds; raise it when that changes


class Triton:
    """The language `triton`; see `languages.base.Language`."""

    name = "triton"
    title = "Triton"
    suffix = ".py"
    lexer = "python"
    binding: Literal["native", "python"] = "python"
    emulated = True

    def supports(self, target: TargetSpec) -> bool:
        """True for NVIDIA's GPUs, also those that are not there: compiling needs none."""
        return target.vendor == "nvidia"

    def toolchain(self) -> dict[str, str]:
        """Triton's version and the disassembler; raises `MissingTool` without Triton."""
        return {"triton": _version(), "nvdisasm": cubin.disassembler() or "absent"}

    def key(self, source: str, target: TargetSpec, workloads: Sequence[Workload]) -> str:
        """The content address of a build: source, shapes, target, versions and the code that compiles."""
        versions = (_version(), importlib.metadata.version("torch"), sys.version)
        return build_cache.address(source, repr(tuple(workloads)), target.arch, str(target.units), *versions, _own_code(), LAYOUT)

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
        """Import the module in a process of its own, call it with fake tensors of each workload's shapes, and compile what it launches.

        Without workloads only the import and the contract are checked. A failed build is an ordinary outcome. Every configuration of an
        autotuned kernel is compiled; the build fails when none does. Raises `MissingTool` without Triton, `BadInput` for text that is not
        UTF-8. Builds that ran out of time are not cached.
        """
        _version()
        build_cache.encoded(source, "Triton")
        wrong = diagnostics.of_python(source)
        if wrong is not None:
            return Build(None, (wrong,), 0.0)
        place = cache / self.name / self.key(source, target, workloads)
        return ahead.build("triton_ahead", place, source, target, timeout, sandbox, workloads)

    def guide(self) -> str:
        """What to know to write a Triton kernel here, as markdown."""
        return (HERE / "guide_triton.md").read_text()


@cache
def _version() -> str:
    if find_spec("triton") is None:
        raise MissingTool("Triton is not installed. Install it with: pip install triton (it has builds for Linux on x86-64 and ARM).")
    return importlib.metadata.version("triton")


@cache
def _own_code() -> str:
    return ahead.code_address("triton_ahead.py")


TRITON = Triton()
