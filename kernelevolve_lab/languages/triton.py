"""Triton for NVIDIA GPUs: a Python module, whose kernels are compiled ahead for the shapes they are launched on.

The module is untrusted Python, so it is imported in a confined process of its own (`triton_ahead.py`), never in this one.
"""

import importlib.metadata
from importlib.util import find_spec

from kernelevolve_lab.errors import MissingTool
from kernelevolve_lab.languages import cubin
from kernelevolve_lab.languages.ahead import Ahead
from kernelevolve_lab.records import TargetSpec


class Triton(Ahead):
    """The language `triton`; see `languages.base.Language`. Every configuration of an autotuned kernel is compiled; a build fails when none
    does."""

    name = "triton"
    title = "Triton"
    process = "triton_ahead"
    code = ("triton_ahead.py",)
    emulated = True

    def supports(self, target: TargetSpec) -> bool:
        """True for NVIDIA's GPUs, also those that are not there: compiling needs none."""
        return target.vendor == "nvidia"

    def toolchain(self) -> dict[str, str]:
        """Triton's version and the disassembler; raises `MissingTool` without Triton."""
        return {"triton": self.version(), "nvdisasm": cubin.disassembler() or "absent"}

    def version(self) -> str:
        """Triton's; raises `MissingTool` without it."""
        if find_spec("triton") is None:
            raise MissingTool("Triton is not installed. Install it with: pip install triton (it has builds for Linux on x86-64 and ARM).")
        return importlib.metadata.version("triton")


TRITON = Triton()
