import re
from pathlib import Path

import numpy as np

from kernelevolve_lab.languages import abi
from kernelevolve_lab.languages.cpp import CPP, FLAGS, WIDE
from kernelevolve_lab.languages.toolchain import find_compiler
from kernelevolve_lab.targets import resolve


def example() -> str:
    return next(block for block in re.findall(r"```c\+\+\n(.*?)```", CPP.guide(), re.S) if block.startswith("#include"))


def test_the_worked_example_builds_without_warnings_and_vectorises(tmp_path: Path) -> None:
    cpu = resolve("cpu")
    build = CPP.build(example(), cpu, tmp_path)
    assert build.ok and build.diagnostics == ()
    if cpu.arch == "x86_64":
        assert build.metrics["hot_loop_vector_bits"] == cpu.simd_bits and build.metrics["calls_in_loops"] == ""


def test_the_worked_example_is_right(tmp_path: Path) -> None:
    kernel = abi.load(CPP.build(example(), resolve("cpu"), tmp_path).artifact)
    generator = np.random.default_rng(0)
    for rows, columns in ((1, 1), (37, 129), (300, 1000), (0, 5), (5, 0)):
        x = (4 * generator.standard_normal((rows, columns))).astype(np.float32)
        y = np.full_like(x, np.nan)
        inputs, outputs = ([abi.tensor(a.ctypes.data, a.shape, "float32")] for a in (x, y))
        kernel(abi.array(inputs), abi.array(outputs), abi.Stream(None, 2, 0))
        golden = np.exp(x.astype(np.float64) - x.max(axis=1, keepdims=True, initial=-np.inf))
        golden /= golden.sum(axis=1, keepdims=True)
        np.testing.assert_allclose(y, golden, rtol=3e-6, atol=1e-30)


def test_exp_of_the_example_is_as_good_as_it_says(tmp_path: Path) -> None:
    function = example().split('extern "C"')[0]
    source = (
        function
        + """extern "C" void kernel(const kel::Tensor* inputs, kel::Tensor* outputs, kel::Stream) {
    for (std::int64_t i = 0; i < inputs[0].numel(); ++i) outputs[0].ptr<float>()[i] = exp_nonpositive(inputs[0].ptr<float>()[i]);
}
"""
    )
    x = -np.linspace(0, 86, 400_001, dtype=np.float32)
    y = np.empty_like(x)
    inputs, outputs = ([abi.tensor(a.ctypes.data, a.shape, "float32")] for a in (x, y))
    abi.load(CPP.build(source, resolve("cpu"), tmp_path).artifact)(abi.array(inputs), abi.array(outputs), abi.Stream(None, 1, 0))
    golden = np.exp(x.astype(np.float64))
    assert np.abs(y / golden - 1).max() < 1.3e-7


def test_the_guide_names_the_flags_that_change_results() -> None:
    guide = CPP.guide()
    for flag in ("-O3", "-march=native", "-fopenmp", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast"):
        assert flag in FLAGS and flag in guide
    assert WIDE[0] in guide and not any("fast-math" in flag for flag in FLAGS)


def test_the_pragma_for_short_rows_works(tmp_path: Path) -> None:
    cpu = resolve("cpu")
    pragma = re.search(r"`(#pragma GCC target\([^`]*)`", CPP.guide())[1]
    metrics = CPP.build(f"{pragma}\n{example()}", cpu, tmp_path).metrics
    if cpu.simd_bits == 512 and find_compiler().kind == "gcc":
        assert metrics["hot_loop_vector_bits"] == 256
