"""Products of matrices: matmul, and conv1d, which is one in disguise."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from kernelevolve_lab.operators import draw
from kernelevolve_lab.operators.base import Operator, Tolerance, Work
from kernelevolve_lab.records import Case

if TYPE_CHECKING:
    import torch

    from kernelevolve_lab.operators.base import Tensors

CONV1D_WIDTH = 3
CONV1D_PADDING = 1
TOLERANCE = Tolerance(floors={"float64": 1e-12, "float32": 2e-5, "float16": 4e-3, "bfloat16": 3e-2})


def _matmul_case(name: str, m: int, n: int, k: int, dtype: str = "float32", distribution: str = "normal", held_out: bool = False) -> Case:
    return Case(name=name, sizes={"m": m, "n": n, "k": k}, dtype=dtype, distribution=distribution, held_out=held_out)


def _mnk(case: Case) -> tuple[int, int, int]:
    return int(case.sizes["m"]), int(case.sizes["n"]), int(case.sizes["k"])


def matmul(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """a [m, k] times b [k, n]."""
    import torch

    return torch.matmul(a, b)


def matmul_inputs(case: Case, generator: torch.Generator) -> Tensors:
    """a [m, k] in the case's distribution, b [k, n] normal."""
    m, n, k = _mnk(case)
    dtype = draw.dtype_of(case.dtype)
    return draw.floats((m, k), case.distribution, generator, dtype), draw.floats((k, n), "normal", generator, dtype)


def matmul_work(case: Case) -> Work:
    """See `MATMUL.work_formula`."""
    m, n, k = _mnk(case)
    return Work(flops=2.0 * m * n * k, bytes=draw.itemsize(case.dtype) * float(m * k + k * n + m * n))


MATMUL = Operator(
    name="matmul",
    title="Matrix product",
    family="gemm",
    semantics="""\
c = a b.
Inputs, both contiguous, row-major and of one floating-point dtype: a [m, k]; b [k, n].
Output: c [m, n] of the same dtype. For float16 and bfloat16 sums are to be kept in float32.
Inputs are finite. No dimension need be a multiple of anything; m may be much smaller than n and k.""",
    input_names=("a", "b"),
    reference=matmul,
    make_inputs=matmul_inputs,
    cases={
        "laptop": (
            _matmul_case("square", 1024, 1024, 1024),
            _matmul_case("flat", 64, 4096, 2048, distribution="shifted"),
            _matmul_case("odd", 517, 773, 1389, distribution="heavy_tailed", held_out=True),
        ),
        "emulated": (
            _matmul_case("square fp16", 128, 128, 128, "float16"),
            _matmul_case("flat", 16, 256, 192, distribution="shifted"),
            _matmul_case("odd", 67, 93, 129, "bfloat16", "heavy_tailed", held_out=True),
        ),
        "gpu": (
            _matmul_case("8192 bf16", 8192, 8192, 8192, "bfloat16"),
            _matmul_case("4096 fp16", 4096, 4096, 4096, "float16", "shifted"),
            _matmul_case("4096 fp32", 4096, 4096, 4096),
            _matmul_case("odd", 2053, 4099, 1531, "bfloat16", "heavy_tailed", held_out=True),
        ),
    },
    work=matmul_work,
    work_formula="FLOPs: 2 m n k. Bytes: read a and b, write c, each once: itemsize (m k + k n + m n).",
    distributions=("normal", "shifted", "heavy_tailed", "ties"),
    tolerance=TOLERANCE,
)


def _conv1d_case(
    batch: int, c_in: int, c_out: int, length: int, dtype: str = "float32", distribution: str = "normal", held_out: bool = False
) -> Case:
    return Case(
        name=f"{batch}x{c_in}x{c_out}x{length}{'' if dtype == 'float32' else ' ' + dtype}",
        sizes={"batch": batch, "c_in": c_in, "c_out": c_out, "length": length},
        dtype=dtype,
        distribution=distribution,
        held_out=held_out,
    )


def _conv1d_sizes(case: Case) -> tuple[int, int, int, int]:
    return int(case.sizes["batch"]), int(case.sizes["c_in"]), int(case.sizes["c_out"]), int(case.sizes["length"])


def conv1d(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """Convolution of width 3, stride 1, padding 1, with bias."""
    import torch.nn.functional as F

    return F.conv1d(x, weight, bias, padding=CONV1D_PADDING)


def conv1d_inputs(case: Case, generator: torch.Generator) -> Tensors:
    """x [batch, c_in, length], weight [c_out, c_in, 3] of variance 1 / (3 c_in), bias [c_out]."""
    import torch

    batch, c_in, c_out, length = _conv1d_sizes(case)
    dtype = draw.dtype_of(case.dtype)
    x = draw.floats((batch, c_in, length), case.distribution, generator, dtype)
    weight = torch.randn(c_out, c_in, CONV1D_WIDTH, generator=generator).div_(math.sqrt(CONV1D_WIDTH * c_in)).to(dtype)
    return x, weight, draw.gain(c_out, generator, dtype)


def conv1d_work(case: Case) -> Work:
    """See `CONV1D.work_formula`."""
    batch, c_in, c_out, length = _conv1d_sizes(case)
    elements = batch * c_in * length + c_out * c_in * CONV1D_WIDTH + c_out + batch * c_out * length
    flops = 2.0 * batch * c_out * (CONV1D_WIDTH * length - 2 * CONV1D_PADDING) * c_in + float(batch * c_out * length)
    return Work(flops=flops, bytes=draw.itemsize(case.dtype) * float(elements))


CONV1D = Operator(
    name="conv1d",
    title="1-D convolution, width 3, with bias",
    family="gemm",
    semantics=f"""\
y[b, o, l] = bias[o] + sum over c and t of weight[o, c, t] * x[b, c, l + t - {CONV1D_PADDING}]; x counts as 0 outside 0 <= l < length.
Width {CONV1D_WIDTH}, stride 1, padding {CONV1D_PADDING}, dilation 1, one group; a cross-correlation, as in PyTorch (the
weight is not flipped).
Inputs, all contiguous, row-major and of one floating-point dtype: x [batch, c_in, length]; weight [c_out, c_in, {CONV1D_WIDTH}];
bias [c_out].
Output: y [batch, c_out, length] of the same dtype. For float16 and bfloat16 sums are to be kept in float32.
Inputs are finite. No dimension need be a multiple of anything.""",
    input_names=("x", "weight", "bias"),
    reference=conv1d,
    make_inputs=conv1d_inputs,
    cases={
        "laptop": (
            _conv1d_case(64, 96, 96, 200),
            _conv1d_case(32, 64, 64, 512, distribution="shifted"),
            _conv1d_case(47, 80, 72, 173, distribution="heavy_tailed", held_out=True),
        ),
        "emulated": (
            _conv1d_case(4, 32, 32, 50, "float16"),
            _conv1d_case(2, 24, 40, 128, distribution="shifted"),
            _conv1d_case(3, 20, 28, 43, "bfloat16", "heavy_tailed", held_out=True),
        ),
        # The production shape and two neighbours of Table 3 of arXiv 2512.23236; the width is not published there.
        "gpu": (
            _conv1d_case(2048, 96, 96, 200, "float16"),
            _conv1d_case(2048, 96, 96, 200, "bfloat16", "shifted"),
            _conv1d_case(2048, 96, 96, 200),
            _conv1d_case(64, 96, 96, 200, "float16"),
            _conv1d_case(509, 80, 72, 173, "float16", "heavy_tailed", held_out=True),
        ),
    },
    work=conv1d_work,
    work_formula="FLOPs: 2 batch c_out c_in (3 length - 2), taps in the padding left out, plus batch c_out length for the bias. "
    "Bytes: read x, weight and bias, write y, each once.",
    distributions=("normal", "shifted", "heavy_tailed", "ties"),
    tolerance=TOLERANCE,
)
