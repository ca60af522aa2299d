"""Element-wise chains: bias add and GELU."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kernelevolve_lab.operators import draw
from kernelevolve_lab.operators.base import Operator, Tolerance, Work
from kernelevolve_lab.records import Case

if TYPE_CHECKING:
    import torch

    from kernelevolve_lab.operators.base import Tensors


def _case(name: str, rows: int, cols: int, dtype: str = "float32", distribution: str = "normal", held_out: bool = False) -> Case:
    return Case(name=name, sizes={"rows": rows, "cols": cols}, dtype=dtype, distribution=distribution, held_out=held_out)


def bias_gelu(x: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """GELU in its tanh form of `x + bias`."""
    import torch.nn.functional as F

    return F.gelu(x + bias, approximate="tanh")


def bias_gelu_inputs(case: Case, generator: torch.Generator) -> Tensors:
    """x [rows, cols], bias [cols]; under `shifted` the bias moves x back to both sides of 0, where GELU bends."""
    rows, cols = int(case.sizes["rows"]), int(case.sizes["cols"])
    dtype = draw.dtype_of(case.dtype)
    x = draw.floats((rows, cols), case.distribution, generator, dtype)
    bias = draw.gain(cols, generator, dtype)
    if case.distribution == "shifted":
        bias = bias - 2.0
    return x, bias


def bias_gelu_work(case: Case) -> Work:
    """See `BIAS_GELU.work_formula`."""
    rows, cols = int(case.sizes["rows"]), int(case.sizes["cols"])
    return Work(flops=10.0 * rows * cols, bytes=draw.itemsize(case.dtype) * (2.0 * rows * cols + cols))


BIAS_GELU = Operator(
    name="bias_gelu",
    title="Bias add and GELU (tanh form)",
    family="elementwise",
    semantics="""\
u = x + bias (bias along the last dimension); y = 0.5 u (1 + tanh(sqrt(2/pi) (u + 0.044715 u^3))): the tanh form of GELU, not the erf form.
Inputs, all contiguous, row-major and of one floating-point dtype: x [rows, cols]; bias [cols].
Output: y [rows, cols] of the same dtype. For float16 and bfloat16, u is rounded to the dtype, the rest is computed in float32.
Inputs are finite and may be large (thousands): tanh must saturate, not overflow. Neither dimension need be a multiple of anything.""",
    input_names=("x", "bias"),
    reference=bias_gelu,
    make_inputs=bias_gelu_inputs,
    cases={
        "laptop": (
            _case("4096x1024", 4096, 1024),
            _case("1024x4096", 1024, 4096, distribution="heavy_tailed"),
            _case("odd", 2011, 2053, distribution="shifted", held_out=True),
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
    work=bias_gelu_work,
    work_formula="FLOPs: 10 rows cols (bias add 1, polynomial 4, scale 1, tanh counted as one, 1 + tanh, product with u, halving). "
    "Bytes: read x and bias, write y, each once: itemsize (2 rows cols + cols).",
    distributions=("normal", "shifted", "heavy_tailed", "large", "ties"),
    tolerance=Tolerance(floors={"float64": 1e-12, "float32": 1e-5, "float16": 4e-3, "bfloat16": 3e-2}),
)
