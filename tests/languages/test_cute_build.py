"""Builds of CuTe DSL modules for GPUs that are not here."""

import re
from pathlib import Path

import pytest
from cute_sources import COPY, DYNAMIC, MODEL, PLAIN, SHARED

from kernelevolve_lab.errors import MissingTool
from kernelevolve_lab.harness.sandbox import compiler_sandbox
from kernelevolve_lab.languages.base import Build, Workload
from kernelevolve_lab.languages.cute import CUTE
from kernelevolve_lab.records import TensorSpec
from kernelevolve_lab.targets import resolve

try:
    CUTE.toolchain()
except MissingTool as missing:
    pytest.skip(str(missing), allow_module_level=True)


def call(*shapes: tuple[int, ...], dtype: str = "float32", **more: object) -> Workload:
    return Workload(tuple(TensorSpec(shape=shape, dtype=dtype) for shape in shapes), **more)


def build(source: str, cache: Path, *workloads: Workload, target: str = "nvidia:h100") -> Build:
    return CUTE.build(source, resolve(target), cache, workloads=workloads, sandbox=compiler_sandbox, timeout=300)


def examples() -> list[str]:
    return [block for block in re.findall(r"```python\n(.*?)```", CUTE.guide(), re.S) if "@cute.kernel" in block]


def test_the_guides_elementwise_example(tmp_path: Path) -> None:
    built = build(examples()[0], tmp_path, call((64, 1024), dtype="bfloat16"), call((3, 1667)))
    assert built.ok and built.diagnostics == ()
    metrics = built.metrics
    assert metrics["kernel"] == "silu_kernel" and metrics["kernels"] == 1 and metrics["variants"] == 2
    assert metrics["widest_load_bits"] == metrics["widest_store_bits"] == 128
    assert metrics["programs"] == 64 * 1024 // 8 // 256 and metrics["threads"] == 256 and metrics["stack_bytes"] == 0
    again = build(examples()[0], tmp_path, call((64, 1024), dtype="bfloat16"), call((3, 1667)))
    assert again.cached and again.metrics == metrics and again.artifact.read_text() == examples()[0]


@pytest.mark.parametrize(("target", "shape"), [("nvidia:h100", (64, 1000)), ("nvidia:a100", (3, 33)), ("nvidia:b200", (5, 8192))])
def test_the_guides_row_reduction(target: str, shape: tuple[int, int], tmp_path: Path) -> None:
    built = build(examples()[1], tmp_path, call(shape), target=target)
    assert built.ok and built.diagnostics == ()
    metrics = built.metrics
    assert metrics["programs"] == shape[0] and metrics["shuffles"] >= 10 and metrics["special"] > 0
    assert metrics["stack_bytes"] == 0 and metrics["widest_load_bits"] == (128 if shape[1] % 4 == 0 else 32)


def test_a_grid_that_compiled_host_code_works_out(tmp_path: Path) -> None:
    built = build(DYNAMIC, tmp_path, call((40_001,)))
    assert built.ok and built.diagnostics == () and built.metrics["programs"] == 313 and built.metrics["threads"] == 128


def test_shared_memory_counts_what_the_launch_adds_and_must_fit(tmp_path: Path) -> None:
    built = build(SHARED.replace("WORDS", "128"), tmp_path, call((1024,)))
    assert built.ok and built.metrics["shared_bytes"] == 512 and built.metrics["barriers"] > 0
    built = build(SHARED.replace("WORDS", "100_000"), tmp_path, call((1024,)))
    assert not built.ok and "400000 bytes of shared memory" in built.diagnostics[0].message


def test_a_module_is_built_and_called_as_the_task_says(tmp_path: Path) -> None:
    built = build(MODEL, tmp_path, call((64,), (64,), init_inputs=(64,), arguments=1, constants={1: 2}))
    assert built.ok and built.diagnostics == () and built.metrics["variants"] == 1 and built.metrics["programs"] == 1


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("y[i] = x[i] + nothing", "'nothing' is not defined"),
        ("y[i, 0] = x[i]", "congruent"),
        ("y[i] = x[i] + 'text'", "TypeError"),
    ],
    ids=["name", "index", "type"],
)
def test_an_error_of_the_language_has_its_line(body: str, message: str, tmp_path: Path) -> None:
    built = build(COPY.replace("BODY", body), tmp_path, call((1000,)))
    assert not built.ok
    error = built.diagnostics[0]
    assert error.severity == "error" and message in error.message and error.source_line.strip() == body
    assert str(tmp_path) not in error.message and "\x1b" not in error.message


def test_what_the_assembler_refuses_is_an_error(tmp_path: Path) -> None:
    body = """from cutlass._mlir.dialects import llvm
        llvm.inline_asm(None, [], "nothing.known;", "", has_side_effects=True, is_align_stack=False, asm_dialect=0)
        y[i] = x[i]"""
    built = build(COPY.replace("BODY", body), tmp_path, call((1000,)))
    assert not built.ok and "ptxas" in built.diagnostics[0].message


@pytest.mark.parametrize(
    ("source", "line", "message"),
    [
        ("x = 1\nimport no_such_module\n", 2, "ModuleNotFoundError"),
        ("import cutlass\n", 0, "neither a function kernel"),
        ("def kernel(x:\n", 1, "SyntaxError"),
    ],
    ids=["import", "contract", "syntax"],
)
def test_a_module_that_cannot_be_loaded(source: str, line: int, message: str, tmp_path: Path) -> None:
    built = build(source, tmp_path, call((100,)))
    assert not built.ok and built.artifact is None
    error = built.diagnostics[0]
    assert (error.severity, error.line) == ("error", line) and message in error.message


def test_host_code_that_fails_is_a_warning_for_it_may_be_the_stand_in(tmp_path: Path) -> None:
    built = build(PLAIN.replace("return y", "return y.no_such_thing"), tmp_path, call((100,)))
    (warning,) = built.diagnostics
    assert built.ok and warning.severity == "warning" and "no_such_thing" in warning.source_line
    assert built.metrics["kernel"] == "copy_kernel"
