"""The CUDA runtime that the compiled host code of CuTe DSL finds where there is no GPU: it launches nothing and notes what was asked for.

CuTe DSL compiles a `@cute.jit` function to host code that loads the kernels, works out grids and shared memory, and launches. That code
runs here for real, against the functions below in place of `libcute_dsl_runtime`'s, so what is noted is what a GPU would have been given.
Only ever used in a process that runs nothing else.
"""

from __future__ import annotations

import ctypes
import mmap
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from kernelevolve_lab.languages import absent_gpu

_INT, _POINTER = ctypes.c_int32, ctypes.c_void_p
_LIBRARY = 1  # a handle that is not null
_ON_CUDA = 2  # DLPack, DLDeviceType: kDLCUDA
_INVALID_VALUE = 1  # cudaErrorInvalidValue
_FATBIN_MAGIC = 0xBA55ED50
_ROOM_BYTES = 1 << 40
_NO_RESERVE = 0x4000  # mmap's MAP_NORESERVE on Linux


@dataclass(frozen=True)
class Launched:
    """A launch: the kernel's name as compiled, its cubin, blocks of the grid and threads of a block in three dimensions, and bytes of
    dynamic shared memory a block."""

    name: str
    cubin: bytes
    grid: tuple[int, int, int]
    block: tuple[int, int, int]
    shared: int


class _Config(ctypes.Structure):
    """`cudaLaunchConfig_t` of the CUDA runtime."""

    _fields_ = (
        ("grid", ctypes.c_uint32 * 3),
        ("block", ctypes.c_uint32 * 3),
        ("shared", ctypes.c_uint64),
        ("stream", _POINTER),
        ("attributes", _POINTER),
        ("count", ctypes.c_uint32),
    )


class _DLTensorHead(ctypes.Structure):
    """The first fields of DLPack's `DLTensor`."""

    _fields_ = (("data", _POINTER), ("device_type", _INT), ("device_id", _INT))


def cubin_of(image: int) -> bytes:
    """The first ELF image of the fat binary at an address (undocumented; the layout is the one that CuTe DSL 4.8 embeds)."""
    head = ctypes.string_at(image, 16)
    magic, size = int.from_bytes(head[:4], "little"), int.from_bytes(head[6:8], "little")
    if magic != _FATBIN_MAGIC:
        raise ValueError("not a fat binary")
    entry = ctypes.string_at(image + size, 16)
    head_bytes, length = int.from_bytes(entry[4:8], "little"), int.from_bytes(entry[8:16], "little")
    return ctypes.string_at(image + size + head_bytes, length)


class Runtime:
    """The functions, to be registered with each engine of compiled host code; `launched` fills as that code runs."""

    def __init__(self, target: Mapping[str, Any]):
        self.launched: list[Launched] = []
        self._device = absent_gpu.describe(target)
        self._cubin = b""
        self._kernels: list[tuple[str, bytes]] = []
        makers = {
            "_cudaLibraryLoadData": (self._load, (_POINTER, _POINTER, _POINTER, _POINTER, _INT, _POINTER, _POINTER, _INT)),
            "_cudaLibraryGetKernel": (self._kernel, (_POINTER, _POINTER, _POINTER)),
            "_cudaLaunchKernelEx": (self._launch, (_POINTER, _POINTER, _POINTER)),
            "_cudaDeviceGetAttribute": (self._attribute, (_POINTER, _INT, _INT)),
            "_cuKernelGetAttribute": (lambda out, *_: _store(out, 0), (_POINTER, _INT, _POINTER, _INT)),
            "_cudaGetDevice": (lambda out: _store(out, 0), (_POINTER,)),
            "_cudaFuncSetAttribute": (lambda *_: 0, (_POINTER, _INT, _INT)),
            "_cudaKernelSetAttributeForDevice": (lambda *_: 0, (_POINTER, _INT, _INT, _INT)),
            "_cuTensorMapEncodeTiled": (lambda *_: 0, ()),
        }
        # Callbacks must outlive every engine that knows them.
        self._functions = {name: ctypes.CFUNCTYPE(_INT, *takes)(call) for name, (call, takes) in makers.items()}

    def serve(self, engine: Any) -> None:
        """Have the host code of an MLIR execution engine call these functions; before anything of it is looked up."""
        for name, function in self._functions.items():
            engine.raw_register_runtime(name, ctypes.cast(function, _POINTER))

    def _load(self, out: int, image: int, *_: Any) -> int:
        self._cubin = cubin_of(image)
        _POINTER.from_address(out).value = _LIBRARY
        return 0

    def _kernel(self, out: int, library: int, name: int) -> int:
        self._kernels.append((ctypes.string_at(name).decode(), self._cubin))
        _POINTER.from_address(out).value = len(self._kernels)
        return 0

    def _launch(self, config: int, kernel: int, arguments: int) -> int:
        told, (name, cubin) = _Config.from_address(config), self._kernels[kernel - 1]
        self.launched.append(Launched(name, cubin, tuple(told.grid), tuple(told.block), told.shared))
        return 0

    def _attribute(self, out: int, attribute: int, device: int) -> int:
        try:
            return _store(out, device_attribute(self._device, attribute))
        except ValueError:
            return _INVALID_VALUE


def _store(out: int, value: int) -> int:
    _INT.from_address(out).value = value
    return 0


def device_attribute(device: SimpleNamespace, attribute: int) -> int:
    """What `cudaDeviceGetAttribute` says of a device; raises `ValueError` for what is not known of it."""
    by_number = {
        1: device.max_threads_per_block,
        8: device.shared_memory_per_block,
        10: device.warp_size,
        16: device.multi_processor_count,
        38: device.L2_cache_size,
        39: device.max_threads_per_multi_processor,
        75: device.major,
        76: device.minor,
        81: device.shared_memory_per_multiprocessor,
        82: device.regs_per_multiprocessor,
        97: device.shared_memory_per_block_optin,
    }
    if int(attribute) not in by_number:
        raise ValueError(f"attribute {int(attribute)} of the GPU is not known without it")
    return by_number[int(attribute)]


def tensors_are_on_the_device() -> None:
    """Let every tensor, PyTorch's fake ones too, be handed over by DLPack as one in the GPU's memory. Its address means nothing."""
    import torch
    from torch._subclasses.fake_tensor import unset_fake_temporarily

    room = mmap.mmap(-1, _ROOM_BYTES, flags=mmap.MAP_PRIVATE | _NO_RESERVE, prot=mmap.PROT_READ)
    pointer = ctypes.pythonapi.PyCapsule_GetPointer
    pointer.restype, pointer.argtypes = _POINTER, (ctypes.py_object, ctypes.c_char_p)

    def exported(tensor: torch.Tensor, **_: Any) -> Any:
        if tensor.requires_grad:
            raise BufferError("Can't export tensors that require gradient, use tensor.detach()")
        shape, strides, offset, dtype = tuple(tensor.shape), tensor.stride(), tensor.storage_offset(), tensor.dtype
        with unset_fake_temporarily(), torch._C.DisableTorchFunction(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the room cannot be written to, and is not
            memory = torch.frombuffer(room, dtype=dtype, count=_ROOM_BYTES // dtype.itemsize)
            capsule = torch._C._to_dlpack(torch.as_strided(memory, shape, strides, offset))
        _DLTensorHead.from_address(pointer(capsule, b"dltensor")).device_type = _ON_CUDA
        return capsule

    torch.Tensor.__dlpack__ = exported
    torch.Tensor.__dlpack_device__ = lambda tensor: (_ON_CUDA, 0)


def serve(target: Mapping[str, Any]) -> Runtime:
    """Let CuTe DSL of this process, which compiles for `target` (see `absent_gpu.about`), find the GPU there, for good."""
    import cutlass.cute  # noqa: F401
    from cutlass.base_dsl import dsl
    from cutlass.base_dsl.runtime import cuda
    from cutlass.cutlass_dsl.cuda_jit_executor import CudaDialectJitCompiledFunction
    from cutlass.utils import hardware_info

    device, runtime = absent_gpu.describe(target), Runtime(target)
    look_up = dsl.BaseDSL._lookup_jit_entry

    def lookup_with_runtime(self: Any, engine: Any, function_name: str) -> Any:
        runtime.serve(engine)
        return look_up(self, engine, function_name)

    dsl.BaseDSL._lookup_jit_entry = lookup_with_runtime
    CudaDialectJitCompiledFunction.num_devices = property(lambda self: 1)
    cuda.get_device_attribute = lambda attribute, device_id=0: device_attribute(device, attribute)
    cuda.initialize_cuda_context = lambda *_, **__: None
    answers = {
        "__init__": lambda self, device_id=0: None,
        "get_max_active_clusters": lambda self, cluster_size, stream=None: device.multi_processor_count // cluster_size,
        "get_l2_cache_size_in_bytes": lambda self: device.L2_cache_size,
        "get_device_multiprocessor_count": lambda self: device.multi_processor_count,
    }
    for name, answer in answers.items():
        setattr(hardware_info.HardwareInfo, name, answer)
    tensors_are_on_the_device()
    return runtime
