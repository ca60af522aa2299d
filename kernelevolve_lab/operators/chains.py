"""Chains of small matrix products per sample, from recommendation models: WuKong's Optimized FM and InterFormer's PFFN.

Shapes and definitions: arXiv 2512.23236, sections 5.3.1 and 5.3.2.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from kernelevolve_lab.operators import draw
from kernelevolve_lab.operators.base import Operator, Tolerance, Work
from kernelevolve_lab.records import Case

if TYPE_CHECKING:
    import torch

    from kernelevolve_lab.operators.base import Tensors

PFFN_EPS = 1e-6
# Two products in a row: the error of the first passes through the second, and fp32 sums may be taken in any order and association.
TOLERANCE = Tolerance(floors={"float64": 1e-12, "float32": 5e-5, "float16": 8e-3, "bfloat16": 6e-2})


def _fm_case(b: int, n: int, d: int, k: int, dtype: str = "float32", distribution: str = "normal", held_out: bool = False) -> Case:
    name = f"{b}x{n}x{d}x{k}{'' if dtype == 'float32' else ' ' + dtype}"
    return Case(name=name, sizes={"b": b, "n": n, "d": d, "k": k}, dtype=dtype, distribution=distribution, held_out=held_out)


def _bndk(case: Case) -> tuple[int, int, int, int]:
    return int(case.sizes["b"]), int(case.sizes["n"]), int(case.sizes["d"]), int(case.sizes["k"])


def optimized_fm(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """x (x^T y) per sample, as the published baseline computes it: two batched products."""
    import torch

    return torch.bmm(x, torch.bmm(x.transpose(1, 2), y))


def optimized_fm_inputs(case: Case, generator: torch.Generator) -> Tensors:
    """x [b, n, d] of variance 1 / sqrt(n d), so that float16 does not overflow, and y [b, n, k]."""
    b, n, d, k = _bndk(case)
    dtype = draw.dtype_of(case.dtype)
    x = draw.floats((b, n, d), case.distribution, generator).mul_((n * d) ** -0.25).to(dtype)
    return x, draw.floats((b, n, k), "normal", generator, dtype)


def optimized_fm_work(case: Case) -> Work:
    """See `OPTIMIZED_FM.work_formula`."""
    b, n, d, k = _bndk(case)
    published, swapped = 4.0 * b * n * d * k, 2.0 * b * n * n * (d + k)
    return Work(flops=min(published, swapped), bytes=draw.itemsize(case.dtype) * float(b * n * (d + 2 * k)))


OPTIMIZED_FM = Operator(
    name="optimized_fm",
    title="Optimized FM of WuKong: X (Xᵀ Y)",
    family="chain",
    semantics="""\
out[s] = x[s] (x[s]^T y[s]) for each sample s.
Inputs, both contiguous, row-major and of one floating-point dtype: x [b, n, d]; y [b, n, k].
Output: out [b, n, k] of the same dtype. For float16 and bfloat16 sums are to be kept in float32; the product in the middle may be kept in
either precision. Either association is allowed: (x x^T) y gives the same result within the tolerance, and n is much smaller than d and k.
Inputs are finite. No dimension need be a multiple of anything.""",
    input_names=("x", "y"),
    reference=optimized_fm,
    make_inputs=optimized_fm_inputs,
    cases={
        "laptop": (
            _fm_case(24, 24, 224, 2198),
            _fm_case(64, 48, 224, 448, distribution="shifted"),
            _fm_case(37, 27, 101, 1031, distribution="heavy_tailed", held_out=True),
        ),
        "emulated": (
            _fm_case(4, 24, 64, 128, "float16"),
            _fm_case(2, 40, 48, 96, distribution="shifted"),
            _fm_case(3, 27, 41, 77, "bfloat16", "heavy_tailed", held_out=True),
        ),
        "gpu": (
            _fm_case(1024, 24, 224, 2198, "float16"),
            _fm_case(1024, 40, 224, 448, "float16", "shifted"),
            _fm_case(1024, 48, 224, 448, "bfloat16"),
            _fm_case(1024, 24, 224, 2198),
            _fm_case(509, 27, 101, 1031, "float16", "heavy_tailed", held_out=True),
        ),
    },
    work=optimized_fm_work,
    work_formula="FLOPs: the cheaper association, min(4 b n d k for x (x^T y), 2 b n^2 (d + k) for (x x^T) y). "
    "Bytes: read x and y, write out, each once: itemsize b n (d + 2 k).",
    distributions=("normal", "shifted", "heavy_tailed", "ties"),
    tolerance=TOLERANCE,
)


def pffn(
    x: torch.Tensor, w1: torch.Tensor, b1: torch.Tensor, g1: torch.Tensor, w2: torch.Tensor, b2: torch.Tensor, g2: torch.Tensor
) -> torch.Tensor:
    """RMSNorm(RMSNorm(GELU(x w1 + b1)) w2 + b2) with weights per sample."""
    import torch
    import torch.nn.functional as F

    hidden = F.gelu(torch.baddbmm(b1, x, w1), approximate="tanh")
    hidden = F.rms_norm(hidden, (hidden.shape[-1],), g1, PFFN_EPS)
    out = torch.baddbmm(b2, hidden, w2)
    return F.rms_norm(out, (out.shape[-1],), g2, PFFN_EPS)


def pffn_inputs(case: Case, generator: torch.Generator) -> Tensors:
    """x [b, n, d]; w1 [b, d, k], w2 [b, k, d] of variance 1 / fan-in; b1 [b, 1, k], b2 [b, 1, d]; g1 [k], g2 [d]."""
    b, n, d, k = _bndk(case)
    dtype = draw.dtype_of(case.dtype)
    x = draw.floats((b, n, d), case.distribution, generator, dtype)
    w1 = draw.floats((b, d, k), "normal", generator).div_(math.sqrt(d)).to(dtype)
    w2 = draw.floats((b, k, d), "normal", generator).div_(math.sqrt(k)).to(dtype)
    b1 = draw.floats((b, 1, k), "normal", generator, dtype)
    b2 = draw.floats((b, 1, d), "normal", generator, dtype)
    return x, w1, b1, draw.gain(k, generator, dtype), w2, b2, draw.gain(d, generator, dtype)


def pffn_work(case: Case) -> Work:
    """See `PFFN.work_formula`."""
    b, n, d, k = _bndk(case)
    elements = 2 * b * n * d + 2 * b * d * k + b * (k + d) + k + d
    return Work(flops=b * n * (4.0 * d * k + 14.0 * k + 5.0 * d), bytes=draw.itemsize(case.dtype) * float(elements))


PFFN = Operator(
    name="pffn",
    title="Personalized FFN of InterFormer",
    family="chain",
    semantics=f"""\
For each sample s:  h = gelu(x[s] w1[s] + b1[s]);  h = rms(h) * g1;  o = h w2[s] + b2[s];  out[s] = rms(o) * g2.
gelu is the tanh form: 0.5 u (1 + tanh(sqrt(2/pi) (u + 0.044715 u^3))). rms(v) = v / sqrt(mean(v*v along the last dimension) + eps),
eps = {PFFN_EPS}, a constant of the operator.
Inputs, all contiguous, row-major and of one floating-point dtype, in this order: x [b, n, d]; w1 [b, d, k]; b1 [b, 1, k]; g1 [k];
w2 [b, k, d]; b2 [b, 1, d]; g2 [d]. Weights and biases differ from sample to sample, g1 and g2 are shared.
Output: out [b, n, d] of the same dtype. For float16 and bfloat16 sums and statistics are to be kept in float32; values in between may be
kept in either precision. Inputs are finite. No dimension need be a multiple of anything.""",
    input_names=("x", "w1", "b1", "g1", "w2", "b2", "g2"),
    reference=pffn,
    make_inputs=pffn_inputs,
    cases={
        "laptop": (
            _fm_case(16, 200, 256, 160),
            _fm_case(24, 150, 96, 192, distribution="shifted"),
            _fm_case(11, 211, 104, 97, distribution="heavy_tailed", held_out=True),
        ),
        "emulated": (
            _fm_case(2, 50, 64, 48, "float16"),
            _fm_case(3, 40, 48, 80, distribution="shifted"),
            _fm_case(2, 53, 40, 37, "bfloat16", "heavy_tailed", held_out=True),
        ),
        "gpu": (
            _fm_case(1024, 200, 256, 160, "float16"),
            _fm_case(1024, 200, 192, 96, "float16", "shifted"),
            _fm_case(1024, 400, 256, 160, "bfloat16"),
            _fm_case(1024, 150, 96, 192, "float16"),
            _fm_case(1024, 200, 192, 96),
            _fm_case(509, 211, 104, 97, "float16", "heavy_tailed", held_out=True),
        ),
    },
    work=pffn_work,
    work_formula="FLOPs: b n (4 d k for the products + 14 k for bias, GELU (9) and RMSNorm (4) + 5 d for bias and RMSNorm). "
    "Bytes: read every input, write out, each once.",
    distributions=("normal", "shifted", "heavy_tailed", "ties"),
    tolerance=TOLERANCE,
)
