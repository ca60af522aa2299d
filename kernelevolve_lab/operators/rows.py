"""Operators that reduce along rows: softmax, RMSNorm with residual add, LayerNorm."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kernelevolve_lab.operators import draw
from kernelevolve_lab.operators.base import Operator, Tolerance, Work
from kernelevolve_lab.records import Case

if TYPE_CHECKING:
    import torch

    from kernelevolve_lab.operators.base import Tensors

SOFTMAX_SCALE = 0.125
RMS_NORM_EPS = 1e-6
LAYER_NORM_EPS = 1e-5
ZERO_ROW = 64
# A plain loop that adds a row of 4096 values in float32 one after the other may be off by 1e-4 (4096 times half an ulp); half precision is
# off by far more.
TOLERANCE = Tolerance(floors={"float64": 1e-12, "float32": 1e-4, "float16": 4e-3, "bfloat16": 3e-2})
# Single precision is held as tightly as in the other rows: exp in half precision is off by 1e-3, a cubic polynomial by 2e-4.
SOFTMAX_TOLERANCE = Tolerance(floors={"float64": 1e-11, "float32": 1e-4, "float16": 2e-2, "bfloat16": 8e-2})
# How widely scale * x spreads: narrow enough that no row is a single one among zeros, but for `large`, which float32's exp cannot hold.
SOFTMAX_SPREAD = {"normal": 1.0, "shifted": 1.0, "heavy_tailed": 0.25, "ties": 0.5, "large": 0.25, "ragged": 1.0}


def _case(name: str, rows: int, cols: int, dtype: str = "float32", distribution: str = "normal", held_out: bool = False) -> Case:
    return Case(name=name, sizes={"rows": rows, "cols": cols}, dtype=dtype, distribution=distribution, held_out=held_out)


def _sizes(case: Case) -> tuple[int, int, int]:
    return int(case.sizes["rows"]), int(case.sizes["cols"]), draw.itemsize(case.dtype)


def softmax(x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Softmax along rows of `SOFTMAX_SCALE * x`, over the columns where `mask` is true."""
    import torch

    return torch.softmax((x * SOFTMAX_SCALE).masked_fill(~mask, float("-inf")), dim=-1)


def softmax_inputs(case: Case, generator: torch.Generator) -> Tensors:
    """x [rows, cols], so that scale * x is `SOFTMAX_SPREAD` times the distribution; mask [rows, cols] bool: a quarter dropped at random, or
    under `ragged` all columns from a length on, 1 in every 64th row."""
    import torch

    rows, cols, _ = _sizes(case)
    ragged = case.distribution == "ragged"
    x = draw.floats((rows, cols), "normal" if ragged else case.distribution, generator, draw.dtype_of(case.dtype))
    x.mul_(SOFTMAX_SPREAD[case.distribution] / SOFTMAX_SCALE)
    if ragged:
        lengths = torch.randint(max(1, cols // 8), cols + 1, (rows, 1), generator=generator)
        lengths[::64] = 1
        return x, torch.arange(cols) < lengths
    pool = torch.rand(min(rows * cols, draw.POOL), generator=generator) < 0.75
    mask = draw.spread_out(pool, (rows, cols), generator)
    mask[torch.arange(rows), torch.randint(0, cols, (rows,), generator=generator)] = True
    return x, mask


def softmax_work(case: Case) -> Work:
    """See `SOFTMAX.work_formula`."""
    rows, cols, size = _sizes(case)
    return Work(flops=5.0 * rows * cols, bytes=rows * cols * (2.0 * size + 1))


SOFTMAX = Operator(
    name="softmax",
    title="Scaled, masked softmax along rows",
    family="row",
    semantics=f"""\
y = softmax(scale * x) along the last dimension, over the columns that the mask keeps; scale = {SOFTMAX_SCALE} is a
constant of the operator.
Inputs, all contiguous and row-major: x [rows, cols] floating point; mask [rows, cols] bool (one byte, 0 or 1), 1 = keep.
Output: y [rows, cols], dtype of x; y = exp(scale*x - m) / sum over kept columns of exp(scale*x - m), m the largest scale*x that is kept;
exactly 0 where the mask is 0.
Every row keeps at least one column; which columns are kept is arbitrary and differs from row to row. x is finite and may be large
(thousands): subtract the maximum. Rows may hold equal maxima. cols need not be a multiple of anything.""",
    input_names=("x", "mask"),
    reference=softmax,
    make_inputs=softmax_inputs,
    cases={
        "laptop": (
            _case("long rows", 1024, 4096),
            _case("short rows", 16384, 256, distribution="heavy_tailed"),
            _case("ragged", 2039, 1031, distribution="ragged", held_out=True),
        ),
        "emulated": (
            _case("64x256 fp16", 64, 256, "float16"),
            _case("24x1031", 24, 1031, distribution="heavy_tailed"),
            _case("ragged", 37, 129, "bfloat16", "ragged", held_out=True),
        ),
        "gpu": (
            _case("8192x4096 bf16", 8192, 4096, "bfloat16"),
            _case("8192x4096 fp16", 8192, 4096, "float16", "heavy_tailed"),
            _case("8192x4096 fp32", 8192, 4096),
            _case("ragged", 4099, 3001, "bfloat16", "ragged", held_out=True),
        ),
    },
    work=softmax_work,
    work_formula="FLOPs: 5 rows cols (scale, maximum, exp as one, sum, divide). Bytes: read x and the mask (1 byte) and write y, once: "
    "rows cols (2 itemsize + 1).",
    distributions=("normal", "shifted", "heavy_tailed", "ties", "large", "ragged"),
    tolerance=SOFTMAX_TOLERANCE,
)


def rms_norm(x: torch.Tensor, residual: torch.Tensor, weight: torch.Tensor) -> Tensors:
    """(RMSNorm(x + residual) * weight, x + residual)."""
    import torch.nn.functional as F

    hidden = x + residual
    return F.rms_norm(hidden, (hidden.shape[-1],), weight, RMS_NORM_EPS), hidden


def rms_norm_inputs(case: Case, generator: torch.Generator) -> Tensors:
    """x, residual [rows, cols], weight [cols]; the residual is normal, so that no input equals an output. Under `small` it is small as
    well, and every 64th row of both is zero."""
    rows, cols, _ = _sizes(case)
    dtype = draw.dtype_of(case.dtype)
    small = case.distribution == "small"
    x = draw.floats((rows, cols), case.distribution, generator, dtype)
    residual = draw.floats((rows, cols), "small" if small else "normal", generator, dtype)
    if small:
        x[::ZERO_ROW] = residual[::ZERO_ROW] = 0.0
    return x, residual, draw.gain(cols, generator, dtype)


def rms_norm_work(case: Case) -> Work:
    """See `RMS_NORM.work_formula`."""
    rows, cols, size = _sizes(case)
    return Work(flops=5.0 * rows * cols + 4.0 * rows, bytes=size * (4.0 * rows * cols + cols))


RMS_NORM = Operator(
    name="rms_norm",
    title="RMSNorm with residual add",
    family="row",
    semantics=f"""\
h = x + residual; y = h / sqrt(mean(h*h along the row) + eps) * weight; eps = {RMS_NORM_EPS} is a constant of the operator.
Inputs, all contiguous, row-major and of one floating-point dtype: x [rows, cols]; residual [rows, cols]; weight [cols].
Outputs, of the same dtype: first y [rows, cols], then h [rows, cols].
For float16 and bfloat16, h is rounded to the dtype before the mean is taken; sums are to be kept in float32.
Inputs are finite and may be small or zero, so that eps counts. cols need not be a multiple of anything.""",
    input_names=("x", "residual", "weight"),
    reference=rms_norm,
    make_inputs=rms_norm_inputs,
    cases={
        "laptop": (
            _case("4096x1024", 4096, 1024),
            _case("1024x4096", 1024, 4096, distribution="heavy_tailed"),
            _case("odd", 1531, 2051, distribution="shifted", held_out=True),
        ),
        "emulated": (
            _case("64x256 fp16", 64, 256, "float16"),
            _case("24x1031", 24, 1031, distribution="heavy_tailed"),
            _case("odd", 37, 129, "bfloat16", "shifted", held_out=True),
        ),
        "gpu": (
            _case("8192x4096 bf16", 8192, 4096, "bfloat16"),
            _case("8192x4096 fp16", 8192, 4096, "float16", "heavy_tailed"),
            _case("8192x4096 fp32", 8192, 4096),
            _case("odd", 4099, 3001, "bfloat16", "shifted", held_out=True),
        ),
    },
    work=rms_norm_work,
    work_formula="FLOPs: per element one add, one multiply-add, two multiplies (5), per row 4 for mean, eps, root, reciprocal. "
    "Bytes: read x, residual and weight, write y and h, each once: itemsize (4 rows cols + cols).",
    distributions=("normal", "shifted", "heavy_tailed", "small", "ties"),
    tolerance=TOLERANCE,
)


def layer_norm(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """LayerNorm along rows with affine weights."""
    import torch.nn.functional as F

    return F.layer_norm(x, (x.shape[-1],), weight, bias, LAYER_NORM_EPS)


def layer_norm_inputs(case: Case, generator: torch.Generator) -> Tensors:
    """x [rows, cols], weight [cols], bias [cols]; under `small` every 64th row of x is zero."""
    rows, cols, _ = _sizes(case)
    dtype = draw.dtype_of(case.dtype)
    x = draw.floats((rows, cols), case.distribution, generator, dtype)
    if case.distribution == "small":
        x[::ZERO_ROW] = 0.0
    return x, draw.gain(cols, generator, dtype), draw.gain(cols, generator, dtype)


def layer_norm_work(case: Case) -> Work:
    """See `LAYER_NORM.work_formula`."""
    rows, cols, size = _sizes(case)
    return Work(flops=8.0 * rows * cols + 5.0 * rows, bytes=size * (2.0 * rows * cols + 2.0 * cols))


LAYER_NORM = Operator(
    name="layer_norm",
    title="LayerNorm with affine weights",
    family="row",
    semantics=f"""\
y = (x - mean) / sqrt(var + eps) * weight + bias along the last dimension; var is the biased variance (divide by cols);
eps = {LAYER_NORM_EPS} is a constant of the operator.
Inputs, all contiguous, row-major and of one floating-point dtype: x [rows, cols]; weight [cols]; bias [cols].
Output: y [rows, cols] of the same dtype. For float16 and bfloat16 statistics are to be kept in float32.
Inputs are finite; their mean may be several times their spread; rows may be small or zero, so that eps counts. cols need not be a
multiple of anything.""",
    input_names=("x", "weight", "bias"),
    reference=layer_norm,
    make_inputs=layer_norm_inputs,
    cases={
        "laptop": (
            _case("8192x1024", 8192, 1024),
            _case("2048x4096", 2048, 4096, distribution="shifted"),
            _case("odd", 3067, 2051, distribution="heavy_tailed", held_out=True),
        ),
        "emulated": (
            _case("64x256 fp16", 64, 256, "float16"),
            _case("24x1031", 24, 1031, distribution="shifted"),
            _case("odd", 37, 129, "bfloat16", "heavy_tailed", held_out=True),
        ),
        "gpu": (
            _case("8192x4096 bf16", 8192, 4096, "bfloat16"),
            _case("8192x4096 fp16", 8192, 4096, "float16", "shifted"),
            _case("8192x4096 fp32", 8192, 4096),
            _case("odd", 4099, 3001, "bfloat16", "heavy_tailed", held_out=True),
        ),
    },
    work=layer_norm_work,
    work_formula="FLOPs: per element sum 1, subtract 1, square and add 2, subtract, scale, multiply, add 4 (8 in all), per row 5. "
    "Bytes: read x, weight and bias, write y, each once: itemsize (2 rows cols + 2 cols).",
    distributions=("normal", "shifted", "heavy_tailed", "large", "small", "ties"),
    tolerance=TOLERANCE,
)
