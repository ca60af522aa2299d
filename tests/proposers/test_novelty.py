"""Twins are found, and nothing else is taken for one."""

import pytest

from kernelevolve_lab.proposers.novelty import fingerprint

CPP = """#include "kel.h"
#include <immintrin.h>
// sums a row
static inline float total(const float* x, std::int64_t n) {
    float sum = 0.0f;  /* one chain */
#pragma omp simd reduction(+ : sum)
    for (std::int64_t i = 0; i < n; ++i) sum += x[i];
    return sum;
}
extern "C" void kernel(const kel::Tensor* inputs, kel::Tensor* outputs, kel::Stream stream) {
    const std::int64_t rows = inputs[0].size(0);
    for (std::int64_t r = 0; r < rows; ++r) outputs[0].ptr<float>()[r] = total(inputs[0].ptr<const float>() + r * 8, 8);
    __m512 v = _mm512_min_ps(_mm512_setzero_ps(), _mm512_setzero_ps());
}
"""
TRITON = """import torch
import triton
import triton.language as tl


@triton.jit
def _add(x, y, out, n, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(out + at, tl.load(x + at, mask=at < n) + tl.load(y + at, mask=at < n), mask=at < n)


def kernel(a, b):
    out = torch.empty_like(a)  # the result
    _add[(triton.cdiv(a.numel(), 1024),)](a, b, out, a.numel(), BLOCK=1024)
    return out
"""


@pytest.mark.parametrize(
    "other",
    [
        CPP.replace("// sums a row\n", "").replace("/* one chain */", "// another remark"),
        CPP.replace("    ", "\t").replace("{\n", "{\n\n"),
        CPP.replace("total(", "row_sum(").replace("sum", "accumulator").replace("rows", "count"),
        CPP.replace("r * 8, 8", "r*8,8"),
    ],
    ids=["comments", "blanks", "names", "spacing"],
)
def test_what_differs_in_words_alone_is_a_twin(other: str) -> None:
    assert other != CPP
    assert fingerprint("cpp", other) == fingerprint("cpp", CPP)


@pytest.mark.parametrize(
    "change",
    [
        ("_mm512_min_ps", "_mm512_max_ps"),
        ("0.0f", "1.0f"),
        ("reduction(+ : sum)", "reduction(+ : sum) aligned(x : 64)"),
        ("#pragma omp simd reduction(+ : sum)\n", ""),
        ("sum += x[i]", "sum -= x[i]"),
        ("x[i]", "x[n]"),
        ("std::int64_t i", "std::int32_t i"),
        ("float sum = 0.0f;", "float sum = 0.0f;  // tune: sum in {0, 1}"),
    ],
)
def test_what_computes_or_compiles_otherwise_is_none(change: tuple[str, str]) -> None:
    other = CPP.replace(*change)
    assert other != CPP
    assert fingerprint("cpp", other) != fingerprint("cpp", CPP)


def test_python_twins() -> None:
    renamed = TRITON.replace("at", "offsets").replace("_add", "_sum").replace("# the result", "").replace("foffsets", "fat")
    assert fingerprint("triton", renamed.replace("floffsets", "float")) == fingerprint("triton", TRITON)


@pytest.mark.parametrize("change", [("1024", "2048"), ("+ tl.load", "- tl.load"), ("empty_like", "zeros_like"), ("at < n", "n < at")])
def test_python_others(change: tuple[str, str]) -> None:
    assert fingerprint("triton", TRITON.replace(*change)) != fingerprint("triton", TRITON)


def test_indentation_counts_in_python() -> None:
    one = "def kernel(x):\n    for i in x:\n        x = i\n    return x\n"
    other = "def kernel(x):\n    for i in x:\n        x = i\n        return x\n"
    assert fingerprint("triton", one) != fingerprint("triton", other)


def test_languages_are_apart_and_nonsense_has_a_fingerprint_too() -> None:
    assert fingerprint("cpp", CPP) != fingerprint("cuda", CPP)
    assert fingerprint("triton", "def kernel(:") != fingerprint("triton", "def kernel(;")
