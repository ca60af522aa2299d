"""The Python side of `kel.h`: the same structs for ctypes, and the call.

Only the standard library, so that a worker needs nothing else to call a native kernel. A test compiles `kel.h` and compares the offsets.
"""

import ctypes
from collections.abc import Callable, Sequence
from pathlib import Path

MAX_DIMS = 8

DTYPES = {
    "float32": 0,
    "float64": 1,
    "float16": 2,
    "bfloat16": 3,
    "int8": 4,
    "uint8": 5,
    "int16": 6,
    "int32": 7,
    "int64": 8,
    "bool": 9,
    "float8_e4m3fn": 10,
    "float8_e5m2": 11,
}
"""Codes of `kel::DType` by torch's dtype name."""

ITEMSIZE = {
    "float32": 4,
    "float64": 8,
    "float16": 2,
    "bfloat16": 2,
    "int8": 1,
    "uint8": 1,
    "int16": 2,
    "int32": 4,
    "int64": 8,
    "bool": 1,
    "float8_e4m3fn": 1,
    "float8_e5m2": 1,
}
"""Bytes of one element by torch's dtype name."""


class Tensor(ctypes.Structure):
    """`kel::Tensor`; sizes and strides (in elements) past `ndim` are 0. Does not own the memory at `data`."""

    _fields_ = (
        ("data", ctypes.c_void_p),
        ("sizes", ctypes.c_int64 * MAX_DIMS),
        ("strides", ctypes.c_int64 * MAX_DIMS),
        ("ndim", ctypes.c_int32),
        ("dtype", ctypes.c_int32),
    )


class Stream(ctypes.Structure):
    """`kel::Stream`: `threads` the CPU threads a kernel may use, `handle` and `device` a GPU's stream and ordinal."""

    _fields_ = (("handle", ctypes.c_void_p), ("threads", ctypes.c_int32), ("device", ctypes.c_int32))


def tensor(data: int, shape: Sequence[int], dtype: str, strides: Sequence[int] | None = None) -> Tensor:
    """A view of `shape` at address `data`; `strides` in elements, row-major without gaps when left out.

    Raises `ValueError` for more than eight dimensions or a dtype that `kel.h` does not have.
    """
    if len(shape) > MAX_DIMS:
        raise ValueError(f"a tensor of {len(shape)} dimensions; kel.h has at most {MAX_DIMS}")
    if dtype not in DTYPES:
        raise ValueError(f"kel.h has no dtype {dtype}; it has {', '.join(DTYPES)}")
    if strides is None:
        strides = contiguous_strides(shape)
    view = Tensor(data=data, ndim=len(shape), dtype=DTYPES[dtype])
    view.sizes[: len(shape)] = list(shape)
    view.strides[: len(shape)] = list(strides)
    return view


def contiguous_strides(shape: Sequence[int]) -> tuple[int, ...]:
    """Row-major strides in elements."""
    strides = [1] * len(shape)
    for i in range(len(shape) - 2, -1, -1):
        strides[i] = strides[i + 1] * shape[i + 1]
    return tuple(strides)


def array(tensors: Sequence[Tensor]) -> ctypes.Array:
    """The tensors side by side in memory, as `kernel` takes them (at least one slot, so that the pointer is valid)."""
    return (Tensor * max(1, len(tensors)))(*tensors)


def load(artifact: Path) -> Callable[[ctypes.Array, ctypes.Array, Stream], None]:
    """Load a shared library and return its `kernel`; runs the library's constructors, so only ever inside the sandbox.

    Raises `OSError` when it cannot be loaded and `AttributeError` when it has no `kernel`.
    """
    function = ctypes.CDLL(str(artifact), mode=ctypes.RTLD_LOCAL).kernel
    function.argtypes = (ctypes.POINTER(Tensor), ctypes.POINTER(Tensor), Stream)
    function.restype = None
    return function
