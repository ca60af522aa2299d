"""CUDA C++ for NVIDIA GPUs: one translation unit against `kel.h`, host code in the same file, built by nvcc into a shared library."""

import os
import re
import shutil
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Literal

from kernelevolve_lab.errors import MissingTool
from kernelevolve_lab.languages import build_cache, cubin, diagnostics, gpu_metrics, occupancy
from kernelevolve_lab.languages.base import Build, Workload
from kernelevolve_lab.languages.nvcc import HOW, Nvcc, find_nvcc
from kernelevolve_lab.languages.process import Sandbox, run
from kernelevolve_lab.records import Diagnostic, TargetSpec

HERE = Path(__file__).parent
HEADER = HERE / "kel.h"
SOURCE_NAME = "candidate.cu"
ARTIFACT_NAME = "kernel.so"
LAYOUT = "1"  # of what a cache entry holds; raise it when that changes

FLAGS = (
    "-std=c++20",
    "-O3",
    "-shared",
    "-lineinfo",
    "-Xptxas=-v",
    "-Xcompiler=-fPIC,-fvisibility=hidden,-fdiagnostics-color=never,-fno-diagnostics-show-caret",
    # A symbol that nobody defines is a build failure here and not a crash of the worker.
    "-Xlinker=-z,defs,--require-defined=kernel",
    # Its machine code stays as a file, to be read.
    "--keep",
)

_ENTRY = re.compile(r"Compiling entry function '(?P<name>\S+)'")
_SPILLS = re.compile(r"(?P<stores>\d+) bytes spill stores, (?P<loads>\d+) bytes spill loads")


class Cuda:
    """The language `cuda`; see `languages.base.Language`."""

    name = "cuda"
    title = "CUDA C++"
    suffix = ".cu"
    lexer = "cuda"
    binding: Literal["native", "python"] = "native"
    emulated = False

    def supports(self, target: TargetSpec) -> bool:
        """True for NVIDIA's GPUs, also those that are not there: compiling needs none."""
        return target.vendor == "nvidia"

    def toolchain(self) -> dict[str, str]:
        """The compiler and the disassembler; raises `MissingTool` when there is no nvcc."""
        compiler = find_nvcc()
        return {"nvcc": compiler.version, "nvcc_path": compiler.path, "nvdisasm": cubin.disassembler() or "absent"}

    def flags(self, target: TargetSpec) -> tuple[str, ...]:
        """The compiler's options, in order. The code is for this architecture alone, with all of its own instructions (`sm_90a`)."""
        host = os.environ.get("CXX", "").strip()
        return (*FLAGS, f"-gencode=arch={target.arch.replace('sm_', 'compute_')},code={target.arch}", *(("-ccbin", host) if host else ()))

    def key(self, source: str, compiler: Nvcc, target: TargetSpec) -> str:
        """The content address of a build: source, options, compiler and header."""
        parts = (source, *self.flags(target), compiler.path, compiler.version, HEADER.read_text(), _own_code(), LAYOUT)
        return build_cache.address(*parts)

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
        """Compile one source; never runs it.

        A failed build is an ordinary outcome. Raises `MissingTool` without an nvcc that knows the target's architecture and `BadInput` for
        text that is not UTF-8. `sandbox` confines the compiler, which reads untrusted text. Builds that ran out of time are not cached.
        """
        compiler = find_nvcc()
        text = build_cache.encoded(source, "CUDA")

        def make(scratch: Path) -> build_cache.Made:
            (scratch / SOURCE_NAME).write_bytes(text)
            shutil.copyfile(HEADER, scratch / HEADER.name)
            outcome = run([compiler.path, *self.flags(target), SOURCE_NAME, "-o", ARTIFACT_NAME], scratch, timeout, sandbox)
            if "Unsupported gpu architecture" in outcome.errors:
                raise MissingTool(f"nvcc {compiler.version} does not know the architecture {target.arch} of {target.name}. {HOW}")
            messages = diagnostics.of_compiler(outcome, source, SOURCE_NAME, timeout)
            artifact = scratch / ARTIFACT_NAME
            if outcome.status != 0 or outcome.timed_out or not artifact.is_file():
                return build_cache.Made([], messages, {}, lasting=not outcome.timed_out)
            machine = scratch / Path(SOURCE_NAME).with_suffix(".cubin")
            names = _demangled(machine, target.arch, scratch, sandbox)
            metrics = gpu_metrics.flat(_kernels(machine, names, target.arch, scratch, sandbox), {})
            messages = (*messages, *_spills(outcome.errors, names))[: diagnostics.MAX_DIAGNOSTICS]
            return build_cache.Made([artifact], messages, metrics)

        return build_cache.through(cache / self.name / self.key(source, compiler, target), ARTIFACT_NAME, make)

    def guide(self) -> str:
        """What to know to write a CUDA C++ kernel here, as markdown."""
        return (HERE / "guide_cuda.md").read_text()


@cache
def _own_code() -> str:
    return build_cache.address(*((HERE / name).read_text() for name in ("cuda.py", "cubin.py", "gpu_metrics.py", "occupancy.toml")))


def _demangled(machine: Path, arch: str, scratch: Path, sandbox: Sandbox | None) -> dict[str, str]:
    """The kernels of a cubin by their names in it, with their names in the source where `c++filt` (binutils) can tell."""
    try:
        names = list(cubin.resources(machine.read_bytes(), arch))
    except (OSError, ValueError):
        return {}
    program = shutil.which("c++filt")
    if program is None or not names:
        return {name: name for name in names}
    ran = run([program, "--no-params", *names], scratch, 10.0, sandbox)
    told = ran.output.splitlines()
    if ran.status != 0 or len(told) != len(names):
        return {name: name for name in names}
    return dict(zip(names, (text.removeprefix("void ")[:80] for text in told), strict=True))


def _kernels(machine: Path, names: dict[str, str], arch: str, scratch: Path, sandbox: Sandbox | None) -> list[gpu_metrics.Kernel]:
    """Static metrics of each kernel; shared memory is the static part, for the dynamic one is known at the launch alone."""
    if not names:
        return []
    mixes = cubin.mixes(machine, scratch, sandbox)
    kernels = []
    for name, own in cubin.resources(machine.read_bytes(), arch).items():
        fits = occupancy.occupancy(arch, own.threads, own.registers, own.shared) if own.threads else None
        sizes = {"registers": own.registers, "stack": own.stack, "shared": own.shared, "threads": own.threads, "code": own.code}
        kernels.append(gpu_metrics.Kernel(names[name], True, **sizes, mix=mixes.get(name), occupancy=fits))
    return kernels


def _spills(text: str, names: dict[str, str]) -> list[Diagnostic]:
    found, kernel = [], ""
    for line in text.splitlines():
        if entry := _ENTRY.search(line):
            kernel = names.get(entry["name"], entry["name"])
        elif (spills := _SPILLS.search(line)) and kernel and (spills["stores"], spills["loads"]) != ("0", "0"):
            message = f"{kernel} spills registers: {spills['stores']} bytes of stores, {spills['loads']} bytes of loads a thread"
            found.append(Diagnostic(severity="note", message=message, file="compiler"))
    return found


CUDA = Cuda()
