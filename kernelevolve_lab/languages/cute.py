"""CuTe DSL (NVIDIA's `nvidia-cutlass-dsl`, 4.x) for NVIDIA GPUs: a Python module, whose kernels are compiled ahead for the shapes that
they are launched on.

The module is untrusted Python, so it is imported in a confined process of its own (`cute_ahead.py`), never in this one. CuTe DSL must not
share a process with FlyDSL either: both bring LLVM's bindings, and the second import aborts.
"""

import importlib.metadata
from importlib.util import find_spec

from kernelevolve_lab.errors import MissingTool
from kernelevolve_lab.languages import cubin, occupancy
from kernelevolve_lab.languages.ahead import Ahead
from kernelevolve_lab.records import TargetSpec

PACKAGE = "nvidia-cutlass-dsl"
OLDEST = 80
"""The oldest compute capability, times ten, that CuTe DSL compiles for."""
HOW = f"Install it with: pip install '{PACKAGE}>=4.8' (it has builds for Linux on x86-64 and ARM)."


class Cute(Ahead):
    """The language `cute`; see `languages.base.Language`. What a build compiled is looked at and not kept: on a GPU the module compiles
    again, in its first call."""

    name = "cute"
    title = "CuTe DSL"
    process = "cute_ahead"
    code = ("cute_ahead.py", "absent_cuda.py")
    emulated = False

    def supports(self, target: TargetSpec) -> bool:
        """True for NVIDIA's GPUs from Ampere on, also those that are not there: compiling needs none."""
        return target.vendor == "nvidia" and occupancy.capability(target.arch) >= OLDEST

    def toolchain(self) -> dict[str, str]:
        """CuTe DSL's version and the disassembler; raises `MissingTool` without CuTe DSL."""
        return {PACKAGE: self.version(), "nvdisasm": cubin.disassembler() or "absent"}

    def version(self) -> str:
        """CuTe DSL's; raises `MissingTool` without it. Its packages lie in a folder of their own, which a line of a `.pth` file puts on the
        path."""
        try:
            version = importlib.metadata.version(PACKAGE)
        except importlib.metadata.PackageNotFoundError:
            raise MissingTool(f"CuTe DSL is not installed. {HOW}") from None
        if find_spec("cutlass") is None:
            raise MissingTool(f"CuTe DSL {version} is installed without its libraries. {HOW}")
        return version


CUTE = Cute()
