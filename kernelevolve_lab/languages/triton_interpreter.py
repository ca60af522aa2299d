"""Triton's interpreter put right, so that what it computes on the CPU is what a GPU would compute, but for rounding.

`install` corrects, in this process, what the interpreter of Triton 3.6 to 3.9 gets wrong; each correction has a test of the upstream
behaviour that fails when upstream is mended, so that the correction can go.

- bfloat16 is kept as 16-bit integers, and arithmetic, products and reductions compute on those; casts to it truncate. Here they
  compute in float32 and round to nearest even.
- Casts to float8 do not round to nearest even, nor saturate as NVIDIA's do.
- `tl.dot` of float32 is exact, whatever `input_precision` says; a GPU rounds the operands to TF32 by default.
- `@triton.autotune` asks for a GPU. Here the first configuration is taken, untimed.
- `libdevice` functions are not there. Here those with a NumPy or PyTorch equal are.

Not shown by the interpreter at all: races, shared memory, effects of `num_warps` and `num_stages`; inline assembly fails. A pointer out of
bounds may end the process. Reductions and products in half precision accumulate in float32, which is no less exact than a GPU.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any

import numpy as np

from kernelevolve_lab.languages import absent_gpu

Array = np.ndarray


def widen(bits: Array) -> Array:
    """float32 of bfloat16 bits (uint16)."""
    return (np.ascontiguousarray(bits).astype(np.uint32) << 16).view(np.float32).reshape(np.shape(bits))


def narrow(values: Array) -> Array:
    """bfloat16 bits (uint16) of float32, rounded to nearest even."""
    values = np.ascontiguousarray(values, dtype=np.float32).reshape(np.shape(values))
    bits = values.view(np.uint32)
    rounded = ((bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)).astype(np.uint16)
    return np.where(np.isnan(values), np.uint16(0x7FC0), rounded)


def to_tf32(values: Array) -> Array:
    """float32 rounded to the ten fraction bits of TF32, to nearest even; infinity and NaN stay."""
    bits = np.ascontiguousarray(values, dtype=np.float32).view(np.uint32)
    rounded = (bits + np.uint32(0xFFF) + ((bits >> np.uint32(13)) & np.uint32(1))) & np.uint32(0xFFFFE000)
    return np.where(np.isfinite(values), rounded.view(np.float32).reshape(np.shape(values)), values)


def install(target: Mapping[str, Any]) -> None:
    """Correct the interpreter of this process, which must run under `TRITON_INTERPRET=1`; `target` as in `absent_gpu.describe`."""
    if os.environ.get("TRITON_INTERPRET") != "1":
        raise RuntimeError("Triton's interpreter is corrected only in a process that was started with TRITON_INTERPRET=1")
    absent_gpu.stand_in(target)
    _arithmetic()
    _casts()
    _dot()
    _reductions()
    _libdevice()


def _is_bf16(handle: Any) -> bool:
    import triton.language as tl

    return getattr(handle, "dtype", None) is not None and handle.dtype.scalar == tl.bfloat16


def _wide(handle: Any) -> Any:
    """A handle of float32 for one of bfloat16; any other as it is."""
    import triton.language as tl
    from triton.runtime.interpreter import TensorHandle

    return TensorHandle(widen(handle.data), tl.float32) if _is_bf16(handle) else handle


def _arithmetic() -> None:
    import triton.language as tl
    from triton.runtime.interpreter import InterpreterBuilder, TensorHandle

    def corrected(original: Callable[..., Any], operands: int) -> Callable[..., Any]:
        @wraps(original)
        def compute(builder: Any, *args: Any) -> Any:
            # Choosing among values moves bits and needs no arithmetic.
            if not any(map(_is_bf16, args[:operands])) or np.where in args:
                return original(builder, *args)
            done = original(builder, *map(_wide, args[:operands]), *args[operands:])
            return TensorHandle(narrow(done.data), tl.bfloat16) if done.data.dtype == np.float32 else done

        return compute

    for name, operands in (("binary_op", 2), ("unary_op", 1), ("ternary_op", 3), ("create_fma", 3), ("create_rsqrt", 1), ("create_erf", 1)):
        setattr(InterpreterBuilder, name, corrected(getattr(InterpreterBuilder, name), operands))


def _casts() -> None:
    import torch
    import triton.language as tl
    from triton.runtime.interpreter import InterpreterBuilder, TensorHandle

    float8 = {
        tl.float8e4nv: torch.float8_e4m3fn,
        tl.float8e5: torch.float8_e5m2,
        tl.float8e4b8: torch.float8_e4m3fnuz,
        tl.float8e5b16: torch.float8_e5m2fnuz,
    }
    plain, between = InterpreterBuilder.cast_impl, InterpreterBuilder.create_fp_to_fp

    def cast(builder: Any, source: Any, to: Any) -> Any:
        if to.scalar == tl.bfloat16:
            return source if _is_bf16(source) else TensorHandle(narrow(source.data.astype(np.float32)), tl.bfloat16)
        source = _wide(source)
        return source if source.dtype.scalar == to.scalar else plain(builder, source, to)

    def convert(builder: Any, source: Any, to: Any, rounding: Any) -> Any:
        of, into = source.dtype.scalar, to.scalar
        if of in float8:
            values = torch.from_numpy(np.ascontiguousarray(source.data)).view(float8[of]).float().numpy().reshape(source.data.shape)
            source = TensorHandle(values, tl.float32)
            return source if into == tl.float32 else convert(builder, source, to, rounding)
        if into in float8:
            most = torch.finfo(float8[into]).max  # NVIDIA's conversions saturate (PTX ISA: cvt.satfinite)
            values = torch.from_numpy(np.ascontiguousarray(_wide(source).data, dtype=np.float32)).clamp(-most, most).to(float8[into])
            return TensorHandle(values.view(torch.uint8).numpy().reshape(source.data.shape), into)
        if tl.bfloat16 in (of, into):
            return cast(builder, source, to)
        return between(builder, source, to, rounding)

    InterpreterBuilder.cast_impl, InterpreterBuilder.create_fp_to_fp = cast, convert


def _dot() -> None:
    import triton.language as tl
    from triton._C.libtriton import ir
    from triton.runtime.interpreter import InterpreterBuilder, TensorHandle

    original = InterpreterBuilder.create_dot

    def dot(builder: Any, a: Any, b: Any, d: Any, input_precision: Any, *rest: Any) -> Any:
        kinds = {a.dtype.scalar, b.dtype.scalar}
        if not all(kind.is_floating() for kind in kinds) or tl.float64 in kinds:
            return original(builder, a, b, d, input_precision, *rest)
        left, right = (builder.create_fp_to_fp(x, tl.float32, None).data if x.dtype.scalar != tl.float32 else x.data for x in (a, b))
        if kinds == {tl.float32} and input_precision == ir.INPUT_PRECISION.TF32:
            left, right = to_tf32(left), to_tf32(right)
        total = np.matmul(left, right) + _wide(d).data.astype(np.float32)
        return TensorHandle(narrow(total) if _is_bf16(d) else total.astype(d.data.dtype), d.dtype.scalar)

    InterpreterBuilder.create_dot = dot


def _reductions() -> None:
    import triton.language as tl
    from triton.runtime.interpreter import ReduceOps, ScanOps, TensorHandle

    def corrected(original: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(original)
        def apply(operation: Any, values: Any) -> Any:
            narrowed = [value.dtype.scalar == tl.bfloat16 for value in values]
            if not any(narrowed):
                return original(operation, values)
            wide = tuple(
                operation.to_tensor(widen(value.handle.data), tl.float32) if small else value
                for value, small in zip(values, narrowed, strict=True)
            )
            done = original(operation, wide)
            if isinstance(done, list | tuple):
                return [back(result) if small else result for result, small in zip(done, narrowed, strict=False)]
            return back(done) if narrowed[0] else done

        return apply

    def back(result: Any) -> Any:
        if result.dtype.scalar != tl.float32:
            return result
        kind = tl.block_type(tl.bfloat16, result.type.shape) if result.type.is_block() else tl.bfloat16
        return tl.core.tensor(TensorHandle(narrow(result.handle.data), tl.bfloat16), kind)

    for reduction in (ReduceOps, ScanOps):
        reduction.apply_impl = corrected(reduction.apply_impl)


def _of_torch(name: str) -> Callable[..., Array]:
    def call(*values: Array) -> Array:
        import torch

        return getattr(torch, name)(*(torch.from_numpy(np.ascontiguousarray(value)) for value in values)).numpy()

    return call


_BY_NUMPY = {
    **{name: getattr(np, name) for name in ("sin", "cos", "tan", "sinh", "cosh", "tanh", "exp", "exp2", "expm1", "log", "log2", "log10")},
    **{
        name: getattr(np, name)
        for name in ("log1p", "sqrt", "cbrt", "hypot", "floor", "ceil", "trunc", "rint", "copysign", "fmod", "isnan")
    },
    **{"asin": np.arcsin, "acos": np.arccos, "atan": np.arctan, "atan2": np.arctan2, "asinh": np.arcsinh, "acosh": np.arccosh},
    **{
        "atanh": np.arctanh,
        "pow": np.power,
        "abs": np.abs,
        "max": np.maximum,
        "min": np.minimum,
        "isinf": np.isinf,
        "finitef": np.isfinite,
    },
    **{"fast_sinf": np.sin, "fast_cosf": np.cos, "fast_tanf": np.tan, "fast_expf": np.exp, "fast_logf": np.log, "fast_log2f": np.log2},
    **{"fast_log10f": np.log10, "fast_powf": np.power, "fast_tanhf": np.tanh, "fast_dividef": np.divide, "div_rn": np.divide},
    "rsqrt": lambda x: (1 / np.sqrt(x)).astype(x.dtype),
    "rcp_rn": lambda x: (1 / x).astype(x.dtype),
    "fma": lambda x, y, z: (x.astype(np.float64) * y + z).astype(x.dtype),
    **{name: _of_torch(name) for name in ("erf", "erfc", "erfinv", "lgamma")},
}
"""What stands in for `libdevice` functions, by name."""


def _libdevice() -> None:
    import triton.language as tl
    from triton.language.extra import libdevice
    from triton.language.extra.cuda import libdevice as of_cuda
    from triton.runtime.interpreter import TensorHandle

    kinds = {np.dtype(np.float32): tl.float32, np.dtype(np.float64): tl.float64, np.dtype(bool): tl.int1, np.dtype(np.float16): tl.float16}

    def stand_in(function: Callable[..., Array]) -> Callable[..., Any]:
        def call(*arguments: Any, **_: Any) -> Any:
            tensors = [argument for argument in arguments if isinstance(argument, tl.core.tensor)]
            whole = [a.handle.data if isinstance(a, tl.core.tensor) else getattr(a, "value", a) for a in arguments]
            data = [np.asarray(value, dtype=tensors[0].handle.data.dtype) for value in whole]
            with np.errstate(all="ignore"):
                done = np.asarray(function(*data))
            kind = kinds.get(done.dtype, tensors[0].dtype.scalar)
            shape = list(done.shape) if tensors[0].type.is_block() else None
            return tl.core.tensor(TensorHandle(done, kind), tl.block_type(kind, shape) if shape is not None else kind)

        return call

    for name, function in _BY_NUMPY.items():
        for module in (libdevice, of_cuda):
            if hasattr(module, name):
                setattr(module, name, stand_in(function))
