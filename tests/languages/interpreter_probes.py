"""Probes of Triton's interpreter, as it comes and corrected: `python interpreter_probes.py` writes {probe: [upstream, corrected]} as JSON,
each a largest error against PyTorch, or the name of the exception."""

import json
import os
import sys

os.environ["TRITON_INTERPRET"] = "1"

import torch
import triton
import triton.language as tl
from triton.language.extra import libdevice

H100 = {"title": "NVIDIA H100", "arch": "sm_90a", "units": 132, "memory_bytes": 80 * 10**9, "l2_bytes": 50 << 20}
PROBES = {}


def probe(function):
    PROBES[function.__name__] = function
    return function


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def worst(got, want):
    return float((got.double() - want.double()).abs().max())


@triton.jit
def arithmetic(x, y, z, N: tl.constexpr):
    i = tl.arange(0, N)
    a = tl.load(x + i)
    b = tl.load(y + i)
    tl.store(z + i, tl.where(a > b, a * b + a, -b - a / 2))


@probe
def bf16_arithmetic():
    x, y = draw(1024).bfloat16(), draw(1024, seed=1).bfloat16()
    z = torch.empty_like(x)
    arithmetic[(1,)](x, y, z, N=1024)
    return worst(z, torch.where(x > y, x * y + x, -y - x / 2))


@triton.jit
def cast(x, y, N: tl.constexpr):
    i = tl.arange(0, N)
    tl.store(y + i, tl.load(x + i).to(y.dtype.element_ty))


def cast_to(dtype, scale=1.0):
    x = draw(4096) * scale
    x[:3] = torch.tensor([0.0, -0.0, 1e-3])
    y = torch.empty(4096, dtype=dtype)
    cast[(1,)](x, y, N=4096)
    most = torch.finfo(dtype).max
    return worst(y, x.clamp(-most, most).to(dtype))


@probe
def bf16_cast():
    return cast_to(torch.bfloat16)


@probe
def fp8_e4m3_cast():
    return cast_to(torch.float8_e4m3fn)


@probe
def fp8_e5m2_cast():
    return cast_to(torch.float8_e5m2)


@probe
def fp8_saturates():
    return cast_to(torch.float8_e4m3fn, 400.0)


@triton.jit
def product(a, b, c, N: tl.constexpr, K: tl.constexpr, PRECISION: tl.constexpr):
    i, k = tl.arange(0, N), tl.arange(0, K)
    left, right = tl.load(a + i[:, None] * K + k[None, :]), tl.load(b + k[:, None] * N + i[None, :])
    tl.store(c + i[:, None] * N + i[None, :], tl.dot(left, right, input_precision=PRECISION))


def product_of(dtype, precision="ieee"):
    a, b, c = draw(64, 32).to(dtype), draw(32, 64, seed=1).to(dtype), torch.empty(64, 64)
    product[(1,)](a, b, c, N=64, K=32, PRECISION=precision)
    return worst(c, a.double() @ b.double())


@probe
def bf16_dot():
    return product_of(torch.bfloat16)


@probe
def fp8_dot():
    return product_of(torch.float8_e4m3fn)


@probe
def exact_fp32_dot():
    return product_of(torch.float32)


@probe
def tf32_dot():
    return product_of(torch.float32, "tf32")


@triton.jit
def reduce(x, y, z, N: tl.constexpr):
    i = tl.arange(0, N)
    value = tl.load(x + i)
    tl.store(y, tl.sum(value, axis=0))
    tl.store(y + 1, tl.max(value, axis=0))
    tl.store(z + i, tl.cumsum(value, axis=0))


@probe
def bf16_reduce():
    x, y, z = draw(256).bfloat16(), torch.empty(2).bfloat16(), torch.empty(256).bfloat16()
    reduce[(1,)](x, y, z, N=256)
    wide = x.float()
    return max(worst(y, torch.stack([wide.sum(), wide.max()])) / 4, worst(z, wide.cumsum(0)) / 4)


@triton.autotune([triton.Config({"N": 256}), triton.Config({"N": 512})], key=["n"])
@triton.jit
def tuned(x, y, n, N: tl.constexpr):
    i = tl.program_id(0) * N + tl.arange(0, N)
    tl.store(y + i, 2 * tl.load(x + i, mask=i < n), mask=i < n)


@probe
def autotune():
    x, y = draw(1000), torch.empty(1000)
    tuned[lambda meta: (triton.cdiv(1000, meta["N"]),)](x, y, 1000)
    return worst(y, 2 * x)


@triton.jit
def library(x, y, N: tl.constexpr):
    i = tl.arange(0, N)
    value = tl.load(x + i)
    tl.store(y + i, libdevice.tanh(value) + libdevice.erf(value) + libdevice.pow(libdevice.abs(value), 1.5))


@probe
def libdevice_functions():
    x, y = draw(256), torch.empty(256)
    library[(1,)](x, y, N=256)
    return worst(y, x.tanh() + x.erf() + x.abs().pow(1.5))


def ran(function):
    try:
        return function()
    except Exception as error:
        return type(error).__name__


def main() -> None:
    upstream = {name: ran(function) for name, function in PROBES.items()}
    from kernelevolve_lab.languages import absent_gpu, triton_interpreter

    triton_interpreter.install(H100)
    tuned.cache.clear()
    with absent_gpu.on_host():
        json.dump({name: [upstream[name], ran(function)] for name, function in PROBES.items()}, sys.stdout)


if __name__ == "__main__":
    main()
