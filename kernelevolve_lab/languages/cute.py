"""CuTe DSL (NVIDIA's `nvidia-cutlass-dsl`, 4.x) for NVIDIA GPUs: a Python module, whose kernels are compiled ahead for the shapes that
they are launched on.

The module is untrusted Python, so it is imported in a confined process of its own (`cute_ahead.py`), never in this one. CuTe DSL must not
share a process with FlyDSL either: both bring LLVM's bindings, and the second import aborts.
"""

import importlib.metadata
import sys
from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from kernelevolve_lab.errors import MissingTool
from kernelevolve_lab.languages import ahead, build_cache, cubin, diagnostics, occupancy
from kernelevolve_lab.languages.base import Build, Workload
from kernelevolve_lab.languages.process import Sandbox
from kernelevolve_lab.records import TargetSpec

HERE = Path(__file__).parent
PACKAGE = "nvidia-cutlass-dsl"
OLDEST = 80
"""The oldest compute capability, times ten, that CuTe DSL compiles for."""
HOW = f"Install it with: pip install '{PACKAGE}>=4.8' (it has builds for Linux on x86-64 and ARM)."
LAYOUT = "1"  # of what a cache entry holds; raise it when that changes


class Cute:
    """The language `cute`; see `languages.base.Language`."""

    name = "cute"
    title = "CuTe DSL"
    suffix = ".py"
    lexer = "python"
    binding: Literal["native", "python"] = "python"
    emulated = False

    def supports(self, target: TargetSpec) -> bool:
        """True for NVIDIA's GPUs from Ampere on, also those that are not there: compiling needs none."""
        return target.vendor == "nvidia" and occupancy.capability(target.arch) >= OLDEST

    def toolchain(self) -> dict[str, str]:
        """CuTe DSL's version and the disassembler; raises `MissingTool` without CuTe DSL."""
        return {PACKAGE: _version(), "nvdisasm": cubin.disassembler() or "absent"}

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
        """Import the module in a process of its own and call it with fake tensors of each workload's shapes; CuTe DSL compiles there what
        is called.

        Without workloads only the import and the contract are checked. A failed build is an ordinary outcome. What was compiled is looked
        at and not kept: on a GPU the module compiles again, in its first call. Raises `MissingTool` without CuTe DSL, `BadInput` for text
        that is not UTF-8. Builds that ran out of time are not cached.
        """
        _version()
        build_cache.encoded(source, "CuTe DSL")
        wrong = diagnostics.of_python(source)
        if wrong is not None:
            return Build(None, (wrong,), 0.0)
        place = cache / self.name / self.key(source, target, workloads)
        return ahead.build("cute_ahead", place, source, target, timeout, sandbox, workloads)

    def guide(self) -> str:
        """What to know to write a CuTe DSL kernel here, as markdown."""
        return (HERE / "guide_cute.md").read_text()


def _version() -> str:
    """CuTe DSL's version. Its packages lie in a folder of their own, which a line of a `.pth` file puts on the path."""
    try:
        version = importlib.metadata.version(PACKAGE)
    except importlib.metadata.PackageNotFoundError:
        raise MissingTool(f"CuTe DSL is not installed. {HOW}") from None
    if find_spec("cutlass") is None:
        raise MissingTool(f"CuTe DSL {version} is installed without its libraries. {HOW}")
    return version


@cache
def _own_code() -> str:
    return ahead.code_address("cute_ahead.py", "absent_cuda.py")


CUTE = Cute()
