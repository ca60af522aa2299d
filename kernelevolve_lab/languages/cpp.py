"""C++ for the CPU: one translation unit against `kel.h`, built by g++ or clang++ with OpenMP into a shared library."""

import hashlib
import shutil
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Literal

from kernelevolve_lab.languages import build_cache, diagnostics, static_metrics
from kernelevolve_lab.languages.base import Build, Workload
from kernelevolve_lab.languages.process import Sandbox, run
from kernelevolve_lab.languages.toolchain import Compiler, cpu_identity, find_compiler
from kernelevolve_lab.records import TargetSpec

HERE = Path(__file__).parent
HEADER = HERE / "kel.h"
SOURCE_NAME = "candidate.cpp"
ARTIFACT_NAME = "kernel.so"
LAYOUT = "3"  # of what a cache entry holds; raise it when that changes

# Contraction and quiet floating point change no result that a kernel may rely on, and vectorise more; reassociation, NaN and infinity
# stay as written, because -ffast-math for all would make kernels wrong that are right (a kernel can ask for it, see the guide).
FLAGS = (
    "-std=c++20",
    "-O3",
    "-march=native",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-ffp-contract=fast",
    "-fopenmp",
    "-fPIC",
    "-shared",
    "-fvisibility=hidden",
    "-Wall",
    "-fdiagnostics-color=never",
    "-fno-diagnostics-show-caret",
    "-fmessage-length=0",
    # A symbol that nobody defines is a build failure here and not a crash of the worker.
    "-Wl,-z,defs",
    "-Wl,--require-defined=kernel",
)
BY_KIND = {
    "gcc": ("-fmax-errors=10", "-fno-semantic-interposition", "-ftemplate-depth=256"),
    "clang": ("-ferror-limit=10", "-ftemplate-depth=256"),
}
# Compilers tuned for the first AVX-512 processors vectorise by 256 bits. Where AVX-512 no longer slows the clock (Ice Lake and Zen 4 on,
# which have VBMI), 512 made a softmax of 1024 columns 1.3 times as fast and rows of 33 columns 0.8 times.
WIDE_FEATURE = "avx512vbmi"
WIDE = ("-mprefer-vector-width=512",)


class Cpp:
    """The language `cpp`; see `languages.base.Language`."""

    name = "cpp"
    title = "C++ with OpenMP"
    suffix = ".cpp"
    lexer = "cpp"
    binding: Literal["native", "python"] = "native"
    emulated = False

    def supports(self, target: TargetSpec) -> bool:
        """True for the CPU of this machine."""
        return target.vendor == "cpu" and target.present

    def toolchain(self) -> dict[str, str]:
        """The compiler and the disassembler, with versions; raises `MissingTool` when there is no compiler."""
        compiler = find_compiler()
        return {"compiler": compiler.version, "compiler_path": compiler.path, "objdump": shutil.which("objdump") or "absent"}

    def flags(self, compiler: Compiler, target: TargetSpec) -> tuple[str, ...]:
        """The compiler's options, in order."""
        wide = WIDE if WIDE_FEATURE in target.features else ()
        return (*FLAGS, *BY_KIND[compiler.kind], *wide)

    def key(self, source: str, compiler: Compiler, target: TargetSpec) -> str:
        """The content address of a build: source, options, compiler, header and instruction sets of this CPU."""
        parts = (source, *self.flags(compiler, target), compiler.path, compiler.version, _header_hash(), cpu_identity(), LAYOUT)
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

        A failed build is an ordinary outcome (`Build.ok` is False, with at least one error among the diagnostics). Raises `MissingTool`
        without a compiler and `BadInput` for text that is not UTF-8. `sandbox` confines the compiler, which reads untrusted text: with
        it `#include` and `.incbin` reach no more than the sandbox shows. Builds that ran out of time are not cached.
        """
        compiler = find_compiler()
        text = build_cache.encoded(source, "C++")

        def make(scratch: Path) -> build_cache.Made:
            (scratch / SOURCE_NAME).write_bytes(text)
            shutil.copyfile(HEADER, scratch / HEADER.name)
            outcome = run([compiler.path, *self.flags(compiler, target), SOURCE_NAME, "-o", ARTIFACT_NAME], scratch, timeout, sandbox)
            messages = diagnostics.of_compiler(outcome, source, SOURCE_NAME, timeout)
            artifact = scratch / ARTIFACT_NAME
            if outcome.status != 0 or outcome.timed_out or not artifact.is_file():
                return build_cache.Made([], messages, {}, lasting=not outcome.timed_out)
            return build_cache.Made([artifact], messages, static_metrics.of_library(artifact, scratch, sandbox))

        return build_cache.through(cache / self.name / self.key(source, compiler, target), ARTIFACT_NAME, make)

    def guide(self) -> str:
        """What to know to write a C++ kernel here, as markdown."""
        return (HERE / "guide_cpp.md").read_text()


@cache
def _header_hash() -> str:
    return hashlib.sha256(HEADER.read_bytes()).hexdigest()


CPP = Cpp()
