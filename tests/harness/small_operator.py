"""A small operator with a float and an integer output, and kernels for it."""

from __future__ import annotations

from kernelevolve_lab.harness.settings import JudgeSettings
from kernelevolve_lab.operators.base import Operator, Work
from kernelevolve_lab.records import Case

FAST = JudgeSettings(compiled=False, case_seconds=0.1, call_seconds=2.0, max_rounds=15, final_case_seconds=3.0)

HEAD = '#include "kel.h"\n#include <cmath>\n'
KERNEL = 'extern "C" void kernel(const kel::Tensor* in, kel::Tensor* out, kel::Stream stream) {\n'
GOOD_BODY = """
    const float* x = in[0].ptr<float>();
    const float* y = in[1].ptr<float>();
    float* sum = out[0].ptr<float>();
    std::int64_t* greater = out[1].ptr<std::int64_t>();
    const long n = in[0].numel();
    #pragma omp parallel for num_threads(stream.threads)
    for (long i = 0; i < n; ++i) {
        sum[i] = std::sqrt(std::fabs(x[i])) + 2.0f * y[i];
        greater[i] = x[i] > y[i];
    }
"""
GOOD = HEAD + KERNEL + GOOD_BODY + "}\n"


def _reference(x, y):
    return x.abs().sqrt() + 2 * y, (x > y).long()


def _inputs(case, generator):
    import torch

    shape = (case.sizes["rows"], case.sizes["cols"])
    shift = 1.0 if case.distribution == "shifted" else 0.0
    return tuple(torch.randn(shape, generator=generator) + shift for _ in range(2))


def _case(rows: int, cols: int, distribution: str = "normal", held_out: bool = False) -> Case:
    return Case(name=f"{rows}x{cols}", sizes={"rows": rows, "cols": cols}, distribution=distribution, held_out=held_out)


SMALL = Operator(
    name="small",
    title="A small operator",
    family="elementwise",
    semantics="sqrt(|x|) + 2 y, and x > y as int64",
    input_names=("x", "y"),
    reference=_reference,
    make_inputs=_inputs,
    cases={"laptop": (_case(256, 512), _case(64, 1024, "shifted"), _case(123, 457, held_out=True))},
    work=lambda case: Work(4.0 * case.sizes["rows"] * case.sizes["cols"], 20.0 * case.sizes["rows"] * case.sizes["cols"]),
    work_formula="four operations and 20 bytes an element",
    distributions=("normal", "shifted"),
)
