from pathlib import Path

import pytest
from cpp_sources import DOUBLE, EXP, SPILLING

from kernelevolve_lab.languages import static_metrics
from kernelevolve_lab.languages.cpp import CPP
from kernelevolve_lab.languages.loops import Instruction, in_loops, innermost_loops
from kernelevolve_lab.records import TargetSpec
from kernelevolve_lab.targets import resolve

pytestmark = pytest.mark.skipif(resolve("cpu").arch != "x86_64", reason="static metrics are read for x86-64 only")


@pytest.fixture(scope="module")
def cpu() -> TargetSpec:
    return resolve("cpu")


def test_a_vectorised_loop_shows_its_width_and_its_mix(cpu: TargetSpec, tmp_path: Path) -> None:
    metrics = CPP.build(DOUBLE, cpu, tmp_path).metrics
    assert metrics["hot_loop_vector_bits"] == cpu.simd_bits
    assert metrics["hot_loop_function"].startswith("kernel._omp_fn") or "kernel" in metrics["hot_loop_function"]
    assert metrics["hot_loop_vector_fp"] >= 1 and metrics["hot_loop_scalar_fp"] == 0
    assert metrics["hot_loop_loads"] == metrics["hot_loop_stores"] >= 1
    assert metrics["hot_loop_spill_loads"] == metrics["hot_loop_spill_stores"] == 0
    assert metrics["calls_in_loops"] == "" and metrics["code_bytes"] > 100


def test_a_reduction_that_may_not_be_reordered_is_scalar(cpu: TargetSpec, tmp_path: Path) -> None:
    ordered = """#include "kel.h"
extern "C" void kernel(const kel::Tensor* inputs, kel::Tensor* outputs, kel::Stream) {
    const float* x = inputs[0].ptr<const float>();
    float sum = 0;
    PRAGMA
    for (std::int64_t i = 0; i < inputs[0].numel(); ++i) sum += x[i];
    outputs[0].ptr<float>()[0] = sum;
}
"""
    scalar = CPP.build(ordered.replace("PRAGMA", ""), cpu, tmp_path).metrics
    assert scalar["hot_loop_scalar_fp"] >= 1 and scalar["hot_loop_vector_bits"] == 0
    vector = CPP.build(ordered.replace("PRAGMA", '_Pragma("omp simd reduction(+ : sum)")'), cpu, tmp_path).metrics
    assert vector["hot_loop_scalar_fp"] == 0 and vector["hot_loop_vector_bits"] == cpu.simd_bits and vector["hot_loop_add"] >= 1


def test_spills_show(cpu: TargetSpec, tmp_path: Path) -> None:
    metrics = CPP.build(SPILLING, cpu, tmp_path).metrics
    assert metrics["hot_loop_spill_loads"] >= 8 and metrics["hot_loop_spill_stores"] >= 4
    assert metrics["hot_loop_vector_bits"] == cpu.simd_bits


def test_a_call_into_libm_shows(cpu: TargetSpec, tmp_path: Path) -> None:
    metrics = CPP.build(EXP, cpu, tmp_path).metrics
    assert metrics["calls_in_loops"] == "expf 1" and metrics["hot_loop_call"] == 1 and metrics["hot_loop_vector_bits"] == 0


def test_streaming_stores_and_gathers_show(cpu: TargetSpec, tmp_path: Path) -> None:
    if "avx512f" not in cpu.features:
        pytest.skip("the source uses AVX-512")
    source = """#include "kel.h"
#include <immintrin.h>
extern "C" void kernel(const kel::Tensor* inputs, kel::Tensor* outputs, kel::Stream) {
    const float* x = inputs[0].ptr<const float>();
    const int* at = inputs[1].ptr<const int>();
    float* y = outputs[0].ptr<float>();
    for (std::int64_t i = 0; i < inputs[1].numel(); i += 16)
        _mm512_stream_ps(y + i, _mm512_mul_ps(_mm512_set1_ps(2), _mm512_i32gather_ps(_mm512_loadu_si512(at + i), x, 4)));
}
"""
    metrics = CPP.build(source, cpu, tmp_path).metrics
    assert metrics["hot_loop_streaming_stores"] == metrics["hot_loop_gather"] == metrics["hot_loop_stores"] == 1


def test_without_objdump_a_note_says_so(cpu: TargetSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(static_metrics.shutil, "which", lambda name: None)
    assert "objdump is absent" in static_metrics.of_library(tmp_path / "kernel.so", tmp_path)["note"]


def test_a_file_that_is_no_library_gives_a_note(tmp_path: Path) -> None:
    (tmp_path / "kernel.so").write_text("no library")
    assert static_metrics.of_library(tmp_path / "kernel.so", tmp_path) == {"note": "objdump could not read the machine code"}


def code(*lines: str) -> list[Instruction]:
    """`mnemonic` or `mnemonic goal`, at addresses 0, 1, 2 ..."""
    found = []
    for address, line in enumerate(lines):
        mnemonic, _, goal = line.partition(" ")
        found.append(Instruction(address, mnemonic, goal, goal=int(goal) if goal else -1))
    return found


def addresses(instructions) -> list[int]:
    return [i.address for i in instructions]


def test_only_the_innermost_of_nested_loops_counts() -> None:
    nested = code("mov", "mov", "add", "jne 2", "add", "jne 1", "ret")
    assert [addresses(loop) for loop in innermost_loops(nested)] == [[2, 3]]
    assert addresses(in_loops(nested)) == [1, 2, 3, 4, 5]


def test_a_jump_back_from_cold_code_is_no_loop() -> None:
    assert innermost_loops(code("test", "jne 4", "mov", "ret", "call", "jmp 2")) == []


def test_a_loop_with_a_block_out_of_line_has_it_in_its_body() -> None:
    split = code("mov", "cmp", "je 5", "jne 1", "ret", "div", "jmp 3")
    assert [addresses(loop) for loop in innermost_loops(split)] == [[1, 2, 3, 5, 6]]


def test_code_without_loops_or_without_anything() -> None:
    assert innermost_loops([]) == [] and innermost_loops(code("ret")) == []
    assert static_metrics.of_disassembly("") == {"code_bytes": 0, "calls_in_loops": ""}


ROWS = """#include "kel.h"
HELPERS
extern "C" void kernel(const kel::Tensor* inputs, kel::Tensor* outputs, kel::Stream stream) {
    const float* x = inputs[0].ptr<const float>();
    float* y = outputs[0].ptr<float>();
    const std::int64_t cols = inputs[0].size(-1), rows = inputs[0].numel() / cols;
#pragma omp parallel for num_threads(stream.threads)
    for (std::int64_t r = 0; r < rows; ++r) {
        const float* in = x + r * cols;
        float* out = y + r * cols;
        BODY
    }
    REST
}
"""
PLAIN = "for (std::int64_t i = 0; i < cols; ++i) out[i] = in[i] * 2.0f + 1.0f;"


def rows(helpers: str = "", body: str = PLAIN, rest: str = "") -> str:
    return ROWS.replace("HELPERS", helpers).replace("BODY", body).replace("REST", rest)


def test_a_remainder_after_the_parallel_loop_is_not_the_hot_loop(cpu: TargetSpec, tmp_path: Path) -> None:
    """Its one round does more, but nothing is around it."""
    rest = (
        "for (std::int64_t i = rows * cols; i < inputs[0].numel(); ++i) { float v = x[i]; v = v * v + 1; v = v * v + v; y[i] = v * v + 2; }"
    )
    metrics = CPP.build(rows(rest=rest), cpu, tmp_path).metrics
    assert "_omp_fn" in metrics["hot_loop_function"] and metrics["hot_loop_vector_fp"] == 1


def test_a_function_that_the_kernel_does_not_reach_is_not_the_hot_loop(cpu: TargetSpec, tmp_path: Path) -> None:
    """The compiler keeps a copy of what it inlined, and of what nobody calls."""
    helpers = """
void row(const float* in, float* out, std::int64_t n) { for (std::int64_t i = 0; i < n; ++i) out[i] = in[i] * 2.0f + in[i] * in[i]; }
void other(const float* a, float* b, std::int64_t n) {
    for (std::int64_t i = 0; i < n; ++i) b[i] = (a[i] * a[i] + 3.0f) * (a[i] - 1.0f) * (b[i] * b[i] + a[i]);
}
"""
    metrics = CPP.build(rows(helpers, "row(in, out, cols);"), cpu, tmp_path).metrics
    assert "_omp_fn" in metrics["hot_loop_function"]


def test_a_helper_that_is_called_in_the_loop_is_the_hot_loop(cpu: TargetSpec, tmp_path: Path) -> None:
    loop = PLAIN.replace("cols", "n")
    helpers = f"__attribute__((noinline)) static void row(const float* in, float* out, std::int64_t n) {{ {loop} }}"
    metrics = CPP.build(rows(helpers, "row(in, out, cols);"), cpu, tmp_path).metrics
    assert "row" in metrics["hot_loop_function"]


def test_the_vector_loop_wins_over_its_scalar_tail(cpu: TargetSpec, tmp_path: Path) -> None:
    body = """
        std::int64_t i = 0;
        typedef float V __attribute__((vector_size(32), aligned(4), may_alias));
        for (; i + 8 <= cols; i += 8) *(V*)(out + i) = *(const V*)(in + i) * 2.0f;
        for (; i < cols; ++i) { asm volatile(""); out[i] = in[i] * 2.0f + in[i] * in[i] - 3.0f * in[i]; }
"""
    metrics = CPP.build(rows(body=body), cpu, tmp_path).metrics
    assert metrics["hot_loop_vector_bits"] == 256 and metrics["hot_loop_scalar_fp"] == 0


def test_vectors_of_integers_show(cpu: TargetSpec, tmp_path: Path) -> None:
    source = """#include "kel.h"
extern "C" void kernel(const kel::Tensor* inputs, kel::Tensor* outputs, kel::Stream stream) {
    const std::int64_t* x = inputs[0].ptr<const std::int64_t>();
    std::int64_t* y = outputs[0].ptr<std::int64_t>();
    const std::int64_t n = inputs[0].numel();
#pragma omp parallel for num_threads(stream.threads)
    for (std::int64_t i = 0; i < n; ++i) y[i] = (x[i] >> 3) + (x[i] & 255);
}
"""
    metrics = CPP.build(source, cpu, tmp_path).metrics
    assert metrics["hot_loop_vector_bits"] == cpu.simd_bits and metrics["hot_loop_vector_int"] >= 2 and metrics["hot_loop_vector_fp"] == 0
