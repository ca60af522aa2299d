import json
import re
from pathlib import Path

import pytest
from triton_sources import BY_VALUE, ENTRY, MODEL, PRODUCT, SCALE, TUNED, WRONG_TYPE

from kernelevolve_lab.errors import BadInput
from kernelevolve_lab.harness.sandbox import compiler_sandbox
from kernelevolve_lab.languages.base import KERNELS, Build, Workload
from kernelevolve_lab.languages.triton import TRITON
from kernelevolve_lab.records import TensorSpec
from kernelevolve_lab.targets import resolve

pytest.importorskip("triton")


def call(*shapes: tuple[int, ...], dtype: str = "float32", **more: object) -> Workload:
    return Workload(tuple(TensorSpec(shape=shape, dtype=dtype) for shape in shapes), **more)


def build(source: str, cache: Path, *workloads: Workload, target: str = "nvidia:h100", **options: object) -> Build:
    return TRITON.build(source, resolve(target), cache, workloads=workloads, **options)


def example() -> str:
    return next(block for block in re.findall(r"```python\n(.*?)```", TRITON.guide(), re.S) if "@triton.jit" in block)


@pytest.mark.parametrize(("target", "shape", "dtype"), [("nvidia:a100", (64, 100), "float32"), ("nvidia:b200", (7, 4096), "bfloat16")])
def test_the_guides_example_compiles_for_other_generations(target: str, shape: tuple[int, int], dtype: str, tmp_path: Path) -> None:
    built = build(example(), tmp_path, call(shape, dtype=dtype), target=target)
    assert built.ok and built.diagnostics == ()
    assert built.metrics["kernel"] == "softmax_rows" and built.metrics["registers"] > 0 and built.metrics["special"] > 0


def test_a_confined_build_compiles_every_shape_and_keeps_kernels_that_triton_finds(tmp_path: Path) -> None:
    workloads = call((64, 1024), dtype="float16"), call((3, 5000))
    built = build(example(), tmp_path, *workloads, sandbox=compiler_sandbox)
    assert built.ok and built.diagnostics == () and not built.cached
    assert built.metrics["kernels"] == 1 and built.metrics["variants"] == 2
    assert built.metrics["widest_load_bits"] == 128 and built.metrics["programs"] == 64 and built.metrics["threads"] == 128
    assert built.artifact.read_text() == example()
    groups = list((built.artifact.parent / KERNELS).glob("*/__grp__*.json"))
    assert len(groups) == 2
    for group in groups:
        assert all(Path(path).is_file() for path in json.loads(group.read_text())["child_paths"].values())
    again = build(example(), tmp_path, *workloads, sandbox=compiler_sandbox)
    assert again.cached and again.artifact == built.artifact and again.metrics == built.metrics


def test_a_compile_error_has_its_line(tmp_path: Path) -> None:
    built = build(WRONG_TYPE, tmp_path, call((100,)))
    assert not built.ok
    error = built.diagnostics[0]
    assert error.severity == "error" and "undefined" in error.message
    assert error.source_line.strip().startswith("tl.store") and WRONG_TYPE.splitlines()[error.line - 1] == error.source_line


@pytest.mark.parametrize(
    ("source", "line", "message"),
    [
        ("import torch\ndef kernel(x:\n    return x\n", 2, "SyntaxError"),
        ("x = 1\nimport no_such_module\n", 2, "ModuleNotFoundError"),
        (SCALE, 0, "neither a function kernel"),
        ("import os\nos._exit(7)\n", 0, "status 7"),
        ("import os\nos.symlink('/etc/hostname', 'result.json')\nos._exit(0)\n", 0, "status 0"),
    ],
    ids=["syntax", "import", "contract", "exit", "link"],
)
def test_a_module_that_cannot_be_loaded(source: str, line: int, message: str, tmp_path: Path) -> None:
    built = build(source, tmp_path, call((100,)))
    assert not built.ok and built.artifact is None
    error = built.diagnostics[0]
    assert (error.severity, error.line) == ("error", line) and message in error.message


def test_every_configuration_is_compiled_and_one_that_fails_is_left_out(tmp_path: Path) -> None:
    built = build(TUNED, tmp_path, call((5000,)))
    assert built.ok and built.metrics["autotune_configs"] == 3 and built.metrics["variants"] == 2
    (warning,) = built.diagnostics
    assert warning.severity == "warning" and "BLOCK=1000" in warning.message and "power of 2" in warning.message
    assert built.metrics["autotune"].count("registers,") == 2 and built.metrics["threads"] == 64


def test_a_module_is_built_and_called_as_the_task_says(tmp_path: Path) -> None:
    workload = call((64, 8), (8,), init_inputs=(8, 3.0), arguments=1, constants={1: 0.5})
    built = build(MODEL, tmp_path, workload)
    assert built.ok and built.diagnostics == () and built.metrics["programs"] == 1


def test_a_launch_by_value_is_left_to_the_first_call(tmp_path: Path) -> None:
    built = build(BY_VALUE, tmp_path, call((100,)))
    assert built.ok and built.metrics["kernels"] == 0
    (note,) = built.diagnostics
    assert note.severity == "note" and "inputs' values" in note.message and ".item()" in note.source_line


def test_host_code_that_fails_is_a_warning_for_it_may_be_the_stand_in(tmp_path: Path) -> None:
    built = build(SCALE + ENTRY.replace("n = x.numel()", "n = x.no_such_thing"), tmp_path, call((100,)))
    (warning,) = built.diagnostics
    assert built.ok and warning.severity == "warning" and "no_such_thing" in warning.source_line


def test_more_shared_memory_than_there_is_fails_the_build(tmp_path: Path) -> None:
    built = build(PRODUCT.replace("STAGES", "9"), tmp_path, call((128, 4096), (4096, 128), dtype="float16"))
    assert not built.ok and "shared memory" in built.diagnostics[0].message and str(227 << 10) in built.diagnostics[0].message


def test_products_use_the_tensor_cores_of_the_generation(tmp_path: Path) -> None:
    built = build(PRODUCT.replace("STAGES", "3"), tmp_path, call((128, 4096), (4096, 128), dtype="float16"))
    assert built.metrics["tensor"] > 0 and "HGMMA" in built.metrics["tensor_shapes"] and built.metrics["async_copies"] > 0


def test_text_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="not UTF-8"):
        build("# \ud800", tmp_path)


def test_which_targets() -> None:
    assert TRITON.supports(resolve("nvidia:h100")) and not TRITON.supports(resolve("cpu"))
