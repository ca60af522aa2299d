"""A judged candidate to export, and a process in which what was exported runs on its own."""

import subprocess
import sys
from pathlib import Path

from kernelevolve_lab import registry
from kernelevolve_lab.export.base import ExportRequest
from kernelevolve_lab.operators.base import Operator
from kernelevolve_lab.records import (
    Candidate,
    CaseResult,
    ErrorStats,
    Evaluation,
    Evidence,
    OperatorRef,
    Ratio,
    RunConfig,
    TensorSpec,
    Verdict,
)
from kernelevolve_lab.records.run_state import Entry, RunState

KERNEL = """\
#include "kel.h"
#include <cmath>

extern "C" void kernel(const kel::Tensor* inputs, kel::Tensor* outputs, kel::Stream stream) {
    const float *x = inputs[0].ptr<float>(), *weight = inputs[1].ptr<float>(), *bias = inputs[2].ptr<float>();
    float* y = outputs[0].ptr<float>();
    const std::int64_t rows = inputs[0].size(0), cols = inputs[0].size(1);
    #pragma omp parallel for num_threads(stream.threads)
    for (std::int64_t r = 0; r < rows; ++r) {
        double sum = 0, square = 0;
        for (std::int64_t c = 0; c < cols; ++c) sum += x[r * cols + c];
        const double mean = sum / cols;
        for (std::int64_t c = 0; c < cols; ++c) square += (x[r * cols + c] - mean) * (x[r * cols + c] - mean);
        const double scale = 1 / std::sqrt(square / cols + 1e-5);
        for (std::int64_t c = 0; c < cols; ++c) y[r * cols + c] = float((x[r * cols + c] - mean) * scale * weight[c] + bias[c]);
    }
}
"""


PYTHON_KERNEL = """\
import torch


def kernel(x, weight, bias):
    mean = x.mean(-1, keepdim=True)
    scale = torch.rsqrt((x - mean).square().mean(-1, keepdim=True) + 1e-5)
    return (x - mean) * scale * weight + bias
"""

TRITON_KERNEL = """\
import torch
import triton
import triton.language as tl


@triton.jit
def body(x_ptr, w_ptr, b_ptr, y_ptr, cols, BLOCK: tl.constexpr):
    row = tl.program_id(0)
    offsets = tl.arange(0, BLOCK)
    mask = offsets < cols
    x = tl.load(x_ptr + row * cols + offsets, mask=mask, other=0.0)
    mean = tl.sum(x, 0) / cols
    centred = tl.where(mask, x - mean, 0.0)
    scale = tl.rsqrt(tl.sum(centred * centred, 0) / cols + 1e-5)
    w, b = tl.load(w_ptr + offsets, mask=mask), tl.load(b_ptr + offsets, mask=mask)
    tl.store(y_ptr + row * cols + offsets, centred * scale * w + b, mask=mask)


def kernel(x, weight, bias):
    y = torch.empty_like(x)
    body[(x.shape[0],)](x, weight, bias, y, x.shape[1], BLOCK=triton.next_power_of_2(x.shape[1]))
    return y
"""


def request(
    out: Path, source: str = KERNEL, verdict: Verdict = Verdict.CORRECT, language: str = "cpp", target: str = "cpu"
) -> ExportRequest:
    """A judged LayerNorm candidate; the numbers are made up, as only their being written out matters here."""
    operator: Operator = registry.load("operators", "layer_norm")
    candidate = Candidate(language=language, source=source, title='plain "two pass"')
    case = operator.held_out("laptop")[0]
    rows, cols = case.sizes["rows"], case.sizes["cols"]
    specs = tuple(TensorSpec(shape=shape, dtype="float32") for shape in ((rows, cols), (cols,), (cols,)))
    result = CaseResult(case=case, inputs=specs, verdict=verdict, error=ErrorStats(candidate=1e-7, reference=1e-7, gate=1e-5))
    correct = verdict is Verdict.CORRECT
    ratio = Ratio(value=1.25, low=1.21, high=1.29, baseline="torch.compile") if correct else None
    evaluation = Evaluation(
        candidate=candidate.id,
        target=target,
        language=language,
        verdict=verdict,
        evidence=Evidence.MEASURED,
        reasons=() if correct else ("wrong",),
        speedup=ratio,
        speedups=(ratio,) if ratio else (),
        cases=(result,),
    )
    config = RunConfig(operator=OperatorRef(kind="registered", name="layer_norm", text="layer_norm"), target=target, language=language)
    return ExportRequest(Entry(candidate, order=1, generation=0, evaluation=evaluation), RunState(run="r1", config=config), out)


def run_alone(path: Path, code: str, cache: Path) -> subprocess.CompletedProcess[str]:
    """Run code beside the file, in a process where this package cannot be imported."""
    blocked = "import sys; sys.modules['kernelevolve_lab'] = None\n"
    return subprocess.run(
        [sys.executable, "-c", blocked + code],
        cwd=path.parent,
        env={"PATH": "/usr/bin:/bin", "XDG_CACHE_HOME": str(cache), "HOME": str(cache)},
        capture_output=True,
        text=True,
    )
