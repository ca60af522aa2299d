"""What the Python host does differently on a CUDA device.

Inputs are copied to the device once for each set, outputs are copied back after the timed part; calls are timed by `cuda_clock.py`. A
compiled candidate of the language `cuda` is a shared library in the same process, called through `kel.h` with device pointers and the
current stream; its outputs are allocated and poisoned here.
"""

from __future__ import annotations

import array
import ctypes
import functools
import json
import mmap
import os
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from kernelevolve_lab.harness import isolation, python_host
from kernelevolve_lab.harness.cuda_clock import CudaClock
from kernelevolve_lab.harness.python_host import Host, Tensor, Workload, WrongOutput, outputs_of
from kernelevolve_lab.languages import abi

_POISON = 0xFF
"""Every byte of an output before and after it is used: a NaN in every float format, and no plausible integer."""
_READ_ONLY = 0x08  # CU_MEMHOSTREGISTER_READ_ONLY
_ELF = b"\x7fELF"
_address_of = torch._C.TensorBase.data_ptr


class CudaHost(Host):
    """The child's side of the channel, with a device of its own context."""

    def __init__(self, channel: socket.socket, device: str):
        super().__init__(channel, device)
        self.clock = CudaClock()
        self._cuda = ctypes.CDLL("libcuda.so.1")
        names = {
            "copy": "cuMemcpyDtoH_v2",
            "fill": "cuMemsetD8_v2",
            "register": "cuMemHostRegister_v2",
            "unregister": "cuMemHostUnregister",
        }
        self._driver = {short: getattr(self._cuda, name) for short, name in names.items()}
        for short, types in (
            ("copy", (ctypes.c_void_p, ctypes.c_uint64, ctypes.c_size_t)),
            ("fill", (ctypes.c_uint64, ctypes.c_ubyte, ctypes.c_size_t)),
            ("register", (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_uint)),
            ("unregister", (ctypes.c_void_p,)),
        ):
            self._driver[short].argtypes = types
        self._registered: set[int] = set()
        self._digests: dict[int, tuple[int, ...]] = {}
        self._numbers: tuple[int, ...] = ()  # of the workloads that were called last
        self._copies: dict[int, torch.Tensor] = {}  # of inputs, by where they lie in the judge's memory
        self._native: Callable[..., None] | None = None

    def prepare(self) -> None:
        """Start the device, before the candidate is loaded."""
        isolation.reveal()
        torch.empty(1, device=self.device)
        self.clock.prepare(self.device)

    def load(self, source: bytes, folder: str) -> None:
        """Load a module, or a shared library."""
        if not source.startswith(_ELF):
            self.entry = python_host.load(source.decode(), folder)
            return
        path = Path(folder, "candidate.so")
        path.write_bytes(source)
        os.chmod(path, 0o700)
        self._native = abi.load(path)

    def map(self, argument: int, body: bytes, fds: list[int]) -> bytes:
        reply = super().map(argument, body, fds)
        region = self.regions[argument]
        # Pinned, copies run at the bus's speed; where it is refused (read-only memory, by some systems) they are only slower.
        if self._driver["register"](region.address, region.size, 0 if region.writable else _READ_ONLY) == 0:
            self._registered.add(argument)
        return reply

    def unmap(self, argument: int, body: bytes, fds: list[int]) -> bytes:
        if argument in self._registered:
            self._registered.discard(argument)
            self._driver["unregister"](self.regions[argument].address)
        region = self.regions[argument]
        gone = {a: copy for a, copy in self._copies.items() if region.address <= a < region.address + region.size}
        held = {id(copy) for copy in gone.values()}
        self._copies = {a: copy for a, copy in self._copies.items() if a not in gone}
        self.workloads = {n: w for n, w in self.workloads.items() if not any(id(tensor) in held for tensor in w.inputs)}
        return super().unmap(argument, body, fds)

    def define(self, argument: int, body: bytes, fds: list[int]) -> bytes:
        reply = super().define(argument, body, fds)
        self._digests[argument] = _digests(self.workloads[argument].inputs)
        return reply

    def _argument(self, tensor: Tensor) -> torch.Tensor:
        if tensor.address not in self._copies:
            with self.clock.apart():
                self._copies[tensor.address] = super()._argument(tensor)
        return self._copies[tensor.address]

    def call(self, argument: int, body: bytes, fds: list[int]) -> bytes:
        """See `Host.call`."""
        pairs = array.array("I", body)
        numbers = pairs[::2]
        called = [self.workloads[number] for number in numbers]
        last = {pair: index for index, pair in enumerate(zip(numbers, pairs[1::2], strict=True))}.values()
        self.kept.clear()
        self.called = called
        self._numbers = tuple(dict.fromkeys(numbers))
        calls = [self._call_of(workload) for workload in called]
        with torch.inference_mode():
            python_host._empty(0)
            spent = self.clock.time(calls, self._keeper(frozenset(last)))
        if self.clock.l2_was_set_aside:
            raise python_host.LazyOutput("it sets part of the L2 cache aside, which outlives its calls and slows down whoever runs next")
        return array.array("Q", spent).tobytes()

    def collect(self, argument: int, body: bytes, fds: list[int]) -> bytes:
        """See `Host.collect`. What was returned is poisoned before it is let go: freed memory is the next call's, and must hold
        nothing that could be right."""
        pairs, returned = array.array("I", body), []
        for index, pages in zip(pairs[::2], pairs[1::2], strict=True):
            workload = self.called[index]
            for place, tensor in zip(workload.outputs, outputs_of(self.kept[index], workload, self.device), strict=True):
                if place.bytes and self._driver["copy"](place.address + pages * mmap.PAGESIZE, _address_of(tensor), place.bytes):
                    self.clock.wait()  # says what is wrong with the device
                    raise WrongOutput("an output cannot be read: its memory is not the device's")
        if any(_digests(self.workloads[number].inputs) != self._digests[number] for number in self._numbers):
            raise WrongOutput("it wrote to an input, and inputs are read-only")
        for kept, workload in zip(self.kept, self.called, strict=True):
            if kept is not None:
                returned += outputs_of(kept, workload, self.device)
        for tensor in returned:
            self._poison(tensor)
        self.kept.clear()
        return b""

    def trace(self, argument: int, body: bytes, fds: list[int]) -> bytes:
        """See `Host.trace`; a shared library has PyTorch do nothing."""
        self._numbers = (argument,)
        if self._native is not None:
            return json.dumps({"counts": {}, "made_outside": False, "returned": False}).encode()
        told = super().trace(argument, body, fds)
        self.clock.wait()
        return told

    def steady(self, argument: int, body: bytes, fds: list[int]) -> bytes:
        """See `CudaClock.steady`."""
        self.clock.steady(argument)
        return b""

    def _keeper(self, wanted: frozenset[int]) -> Callable[[Any], None]:
        """Keeps what calls return where the judge will look at it, so that memory does not grow with a visit's calls."""
        kept = self.kept

        def keep(returned: Any) -> None:
            kept.append(returned if len(kept) in wanted else None)

        return keep

    def _poison(self, tensor: torch.Tensor) -> None:
        size = tensor.numel() * tensor.itemsize
        if size:
            self._driver["fill"](_address_of(tensor), _POISON, size)

    def _call_of(self, workload: Workload) -> Callable[[], Any]:
        if self._native is None:
            assert workload.entry is not None
            return functools.partial(workload.entry, *workload.inputs)
        outputs = tuple(torch.empty(want.shape, dtype=want.dtype, device=self.device) for want in workload.outputs)
        for tensor in outputs:
            self._poison(tensor)
        arrays = [abi.array([_view(tensor) for tensor in tensors]) for tensors in (workload.inputs, outputs)]
        stream = abi.Stream(handle=torch.cuda.current_stream().cuda_stream, threads=0, device=self.device.index or 0)
        native = self._native

        def call() -> tuple[torch.Tensor, ...]:
            native(arrays[0], arrays[1], stream)
            return outputs

        return call


def _view(tensor: torch.Tensor) -> abi.Tensor:
    return abi.tensor(_address_of(tensor), tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."))


def _digests(tensors: Sequence[torch.Tensor]) -> tuple[int, ...]:
    """A sum over the bits of each tensor: shows that it was written to."""
    found = []
    for tensor in tensors:
        flat = tensor.reshape(-1)
        if flat.numel() == 0:
            found.append(0)
            continue
        words = flat.view(torch.uint8)
        whole = words[: words.numel() // 8 * 8].view(torch.int64)
        found.append(int(whole.sum()) + int(words[whole.numel() * 8 :].sum()))
    return tuple(found)
