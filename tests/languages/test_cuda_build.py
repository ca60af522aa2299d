import re
from pathlib import Path

import pytest
from cuda_sources import HALVES, SCALE, SPILLING

from kernelevolve_lab.errors import BadInput, MissingTool
from kernelevolve_lab.harness.sandbox import compiler_sandbox
from kernelevolve_lab.languages import abi, nvcc
from kernelevolve_lab.languages.base import Build
from kernelevolve_lab.languages.cuda import CUDA
from kernelevolve_lab.targets import resolve

needs_nvcc = pytest.mark.skipif(not nvcc.available(), reason="there is no nvcc")


def build(source: str, cache: Path, target: str = "nvidia:h100", **options: object) -> Build:
    return CUDA.build(source, resolve(target), cache, **options)


def example() -> str:
    return next(block for block in re.findall(r"```c\+\+\n(.*?)```", CUDA.guide(), re.S) if block.startswith("#include"))


@needs_nvcc
def test_the_guides_example_builds_confined_and_can_be_loaded(tmp_path: Path) -> None:
    built = build(example(), tmp_path, sandbox=compiler_sandbox)
    assert built.ok and built.diagnostics == () and not built.cached
    assert built.metrics["kernel"] == "softmax_short" and built.metrics["kernels"] == 2 and built.metrics["threads"] == 128
    assert built.metrics["shuffles"] == 10 and built.metrics["special"] >= 32 and built.metrics["occupancy_limit"] == "registers"
    assert "softmax_long" in built.metrics["other_kernels"]
    abi.load(built.artifact)
    assert build(example(), tmp_path, sandbox=compiler_sandbox).cached


@needs_nvcc
@pytest.mark.parametrize("target", ["nvidia:a100", "nvidia:b200"])
def test_the_header_serves_device_code_of_every_generation(target: str, tmp_path: Path) -> None:
    built = build(HALVES, tmp_path, target)
    assert built.ok and built.diagnostics == () and built.metrics["kernels"] == 2
    assert built.metrics["kernel"].startswith("widen<kel::") and built.metrics["shared_bytes"] == 256


@needs_nvcc
@pytest.mark.parametrize(
    ("old", "new", "line", "message"),
    [
        ("2.0f * x[i]", "2.0f * undefined[i]", 5, 'identifier "undefined" is undefined'),
        ("stream.cuda()", "stream.hip()", 10, "has no member"),
        ('extern "C" void kernel', "void other", 0, "does not define extern"),
        ("const long n = inputs", "void elsewhere(); elsewhere(); const long n = inputs", 0, "undefined reference to `elsewhere"),
        (
            "    if (i < n)",
            "    __shared__ float big[99999]; big[i] = x[i]; __syncthreads(); if (big[i / 2] < n)",
            0,
            "too much shared data",
        ),
        ('#include "kel.h"', '#include "kel.h"\n#include "absent.h"', 2, "absent.h"),
    ],
    ids=["device", "host", "no kernel", "link", "shared", "include"],
)
def test_errors_say_where(old: str, new: str, line: int, message: str, tmp_path: Path) -> None:
    source = SCALE.replace(old, new)
    built = build(source, tmp_path)
    assert not built.ok and built.artifact is None
    error = built.diagnostics[0]
    assert error.severity == "error" and message in error.message and error.line == line, built.diagnostics
    assert not line or error.source_line == source.splitlines()[line - 1]


@needs_nvcc
def test_spills_are_told(tmp_path: Path) -> None:
    built = build(SPILLING, tmp_path)
    (note,) = built.diagnostics
    assert built.ok and note.severity == "note" and re.search(r"spill spills registers: \d+ bytes of stores", note.message)
    assert built.metrics["registers"] == 32 and built.metrics["stack_bytes"] > 0
    assert built.metrics["local_stores"] > 0 and built.metrics["local_loads"] > 0
    assert built.metrics["shared_bytes"] == 4000 and built.metrics["occupancy"] == 1.0


@needs_nvcc
def test_an_architecture_that_nvcc_does_not_know_is_a_missing_tool(tmp_path: Path) -> None:
    target = resolve("nvidia:h100").model_copy(update={"arch": "sm_999a"})
    with pytest.raises(MissingTool, match="does not know the architecture sm_999a"):
        CUDA.build(SCALE, target, tmp_path)


def test_without_nvcc_it_says_the_way_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_HOME", str(tmp_path))
    with pytest.raises(MissingTool, match=r"no CUDA compiler \(nvcc\) in .*CUDA_HOME.*Install the CUDA toolkit"):
        CUDA.toolchain()


@needs_nvcc
def test_text_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="not UTF-8"):
        build("// \ud800", tmp_path)


def test_which_targets() -> None:
    assert CUDA.supports(resolve("nvidia:b200")) and not CUDA.supports(resolve("cpu"))
