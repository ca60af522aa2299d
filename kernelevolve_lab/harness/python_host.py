"""What a candidate's process does for the judge: it maps the tensors that the judge sends, and calls.

It knows nothing worth stealing: no expected output, no seed, no statistics. What it reports (nanoseconds, addresses) the judge checks by
its own clock and by looking into the process. `zygote.py` starts it; its packets are those of `packets.py`.
"""

from __future__ import annotations

import array
import ctypes
import errno
import itertools
import json
import mmap
import os
import socket
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn

import torch

from kernelevolve_lab.harness import module_spec, packets
from kernelevolve_lab.harness.candidate_module import load, model_entry
from kernelevolve_lab.harness.trace import traced
from kernelevolve_lab.languages import abi

WARM_BYTES, WARMEST_BYTES = 96 << 20, 1 << 30
_STOCK_BYTES = 1 << 18
_MAX_PACKET = 96 * 1024
_DTYPES = {code: getattr(torch, name) for name, code in abi.DTYPES.items()}

# Taken before a candidate can put something in their place.
_clock = time.perf_counter_ns
_address_of = torch._C.TensorBase.data_ptr
_is_contiguous = torch._C.TensorBase.is_contiguous
_copy = ctypes.memmove
_empty = torch.empty


class WrongOutput(Exception):
    """What was returned cannot be the outputs."""


class LazyOutput(Exception):
    """What was returned computes later."""


_STATUS = {WrongOutput: 2, LazyOutput: 3}


@dataclass
class Tensor:
    """A tensor of a workload: where it is, and what it must look like."""

    address: int
    shape: tuple[int, ...]
    dtype: torch.dtype

    @property
    def bytes(self) -> int:
        count = 1
        for size in self.shape:
            count *= size
        return count * self.dtype.itemsize


@dataclass
class Workload:
    """A call made ready: its arguments, and where its outputs go."""

    inputs: tuple[torch.Tensor, ...]
    outputs: tuple[Tensor, ...]
    entry: Callable[..., Any] | None = None


class Region:
    """Shared memory that is mapped here; unmapped when the judge says so, whoever still holds tensors in it."""

    _libc = ctypes.CDLL(None, use_errno=True)
    _libc.mmap.restype = ctypes.c_void_p
    _libc.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long)
    _libc.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)

    def __init__(self, fd: int, size: int, writable: bool):
        protection = mmap.PROT_READ | (mmap.PROT_WRITE if writable else 0)
        populate = getattr(mmap, "MAP_POPULATE", 0)
        address = self._libc.mmap(None, size, protection, mmap.MAP_SHARED | populate, fd, 0)
        if address in (None, ctypes.c_void_p(-1).value):
            raise MemoryError("memory cannot be mapped")
        self.address: int = address
        self.size = size
        self.writable = writable

    def unmap(self) -> None:
        self._libc.munmap(self.address, self.size)


class Host:
    """The child's side of the channel."""

    def __init__(self, channel: socket.socket, device: str):
        self.channel = channel
        self.device = torch.device(device)
        self.entry: Callable[..., Any] | None = None
        self.regions: dict[int, Region] = {}
        self.workloads: dict[int, Workload] = {}
        self.kept: list[Any] = []
        self.called: list[Workload] = []
        self.models: dict[str, tuple[Callable[..., Any], dict[str, tuple[int, ...]]] | None] = {}
        self.threads_only = False
        self.warmed = 0
        self.pins: list[torch.Tensor] = []

    def prepare(self) -> None:
        """Start the device, before anything of the candidate's is there."""

    def load(self, source: bytes, folder: str) -> None:
        """Load the candidate; `folder` is its own."""
        self.entry = load(source.decode(), folder)

    def reply(self, operation: int, status: int, nonce: int, body: bytes = b"") -> None:
        self.channel.send(packets.HEADER.pack(operation, status, nonce) + body)

    def map(self, argument: int, body: bytes, fds: list[int]) -> bytes:
        size, writable, _ = packets.MAP.unpack(body)
        self.regions[argument] = Region(fds[0], size, bool(writable))
        return self.regions[argument].address.to_bytes(8, "little")

    def unmap(self, argument: int, body: bytes, fds: list[int]) -> bytes:
        self.regions.pop(argument).unmap()
        return b""

    def define(self, argument: int, body: bytes, fds: list[int]) -> bytes:
        inputs, outputs = (int.from_bytes(body[at : at + 4], "little") for at in (0, 4))
        head, size = packets.TENSOR_HEAD, packets.TENSOR_HEAD.size + ctypes.sizeof(abi.Tensor)
        tensors = []
        for at in range(8, 8 + (inputs + outputs) * size, size):
            region, _, offset = head.unpack_from(body, at)
            view = abi.Tensor.from_buffer_copy(body, at + head.size)
            tensors.append(Tensor(self.regions[region].address + offset, tuple(view.sizes[: view.ndim]), _DTYPES[view.dtype]))
        self.workloads[argument] = Workload(tuple(self._argument(t) for t in tensors[:inputs]), tuple(tensors[inputs:]), self.entry)
        self._warm_heap(max(WARM_BYTES, 8 * sum(tensor.bytes for tensor in tensors[inputs:])))
        return b""

    def bind(self, argument: int, body: bytes, fds: list[int]) -> bytes:
        """Have a workload call `ModelNew`, built as the spec says, if the candidate has one; returns the names of the state that it
        lacks. Modules are kept by spec."""
        text = body.decode()
        if text not in self.models:
            self.models[text] = model_entry(module_spec.from_text(text), self.device)
        model = self.models[text]
        if model is None:
            return b"[]"
        workload, (entry, shapes) = self.workloads[argument], model
        workload.entry = entry
        spec = module_spec.from_text(text)
        given = zip(spec.state, workload.inputs[spec.arguments :], strict=True)
        return json.dumps([name for name, value in given if shapes.get(name) != tuple(value.shape)]).encode()

    def _warm_heap(self, size: int) -> None:
        """Touch so much memory once, which a baseline did long ago: each page that was never touched costs a fault. Small objects get a
        stock of their own first, or else they lie between large ones, and those wander through the heap from call to call."""
        if self.device.type == "cpu" and size > self.warmed:
            stock = torch.empty(_STOCK_BYTES, dtype=torch.uint8)
            self.pins.append(torch.empty(1))
            del stock
            heap = torch.empty(min(size, WARMEST_BYTES), dtype=torch.uint8)
            ctypes.memset(_address_of(heap), 0, heap.numel())
            self.warmed = size

    def _argument(self, tensor: Tensor) -> torch.Tensor:
        if tensor.bytes == 0:
            return torch.empty(tensor.shape, dtype=tensor.dtype, device=self.device)
        memory = (ctypes.c_char * tensor.bytes).from_address(tensor.address)
        return torch.frombuffer(memory, dtype=tensor.dtype).reshape(tensor.shape).to(self.device)

    def call(self, argument: int, body: bytes, fds: list[int]) -> bytes:
        """Call once per workload; each call's time reaches to the moment after it, so that nothing is outside all of them."""
        numbers = array.array("I", body)
        self.kept.clear()
        self.called = called = [self.workloads[number] for number in numbers[::2]]
        calls = [(workload.entry, workload.inputs) for workload in called]
        keep, clock = self.kept.append, _clock
        with torch.inference_mode():
            _empty(0)  # shows the judge that operators are still counted
            stamps = [clock()]
            stamp = stamps.append
            for entry, inputs in calls:
                keep(entry(*inputs))  # type: ignore[misc]
                stamp(clock())
        spent = [after - before for before, after in itertools.pairwise(stamps)]
        seen = (min(len(workload.outputs), packets.SEEN_OUTPUTS) for workload in called)
        where = (address for returned, count in zip(self.kept, seen, strict=True) for address in _where(returned, count))
        return array.array("Q", [*spent, *where]).tobytes()

    def collect(self, argument: int, body: bytes, fds: list[int]) -> bytes:
        """Put the outputs of some calls of the last visit where the judge looks, and let all go: pairs of a call's index and of pages
        behind its place."""
        pairs = array.array("I", body)
        for index, pages in zip(pairs[::2], pairs[1::2], strict=True):
            workload = self.called[index]
            for place, tensor in zip(workload.outputs, outputs_of(self.kept[index], workload, self.device), strict=True):
                on_host = tensor if self.device.type == "cpu" else tensor.cpu()
                _copy(place.address + pages * mmap.PAGESIZE, _address_of(on_host), place.bytes)
        self.kept.clear()  # the next call gets their memory, as a baseline's does
        return b""

    def trace(self, argument: int, body: bytes, fds: list[int]) -> bytes:
        """Call once, and tell which of PyTorch's operators ran, as `policy.Traced` has it; `collect` hands the outputs over."""
        workload = self.workloads[argument]
        assert workload.entry is not None
        returned, trace = traced(workload.entry, workload.inputs)
        self.called, self.kept[:] = [workload], [returned]
        return json.dumps({"counts": dict(trace.counts), "made_outside": trace.made_outside, "returned": True}).encode()

    def ping(self, argument: int, body: bytes, fds: list[int]) -> bytes:
        return b""

    def steady(self, argument: int, body: bytes, fds: list[int]) -> bytes:
        """From now on let a visit cost the same beside its calls as one of so many calls does (0: let each cost what it costs)."""
        return b""

    def _explain(self, error: Exception) -> str:
        started = isinstance(error, PermissionError) and error.errno == errno.EPERM and self.threads_only
        return explain(error) + (" (processes may be started while the module is loaded, and not in a call)" if started else "")

    def serve(self) -> NoReturn:
        """Answer until the judge is gone."""
        operations = {
            packets.MAP_REGION: self.map,
            packets.UNMAP: self.unmap,
            packets.DEFINE: self.define,
            packets.CALL: self.call,
            packets.COLLECT: self.collect,
            packets.TRACE: self.trace,
            packets.BIND: self.bind,
            packets.PING: self.ping,
            packets.STEADY: self.steady,
        }
        while True:
            packet, ancillary, _, _ = self.channel.recvmsg(_MAX_PACKET, socket.CMSG_SPACE(4), socket.MSG_CMSG_CLOEXEC)
            if not packet:
                os._exit(0)
            operation, argument, nonce = packets.HEADER.unpack_from(packet)
            fds = array.array("i", b"".join(raw for _, kind, raw in ancillary if kind == socket.SCM_RIGHTS)).tolist()
            try:
                body = operations[operation](argument, packet[packets.HEADER.size :], fds)
            except Exception as error:
                traceback.print_exc()
                self.reply(packets.FAILED, _STATUS.get(type(error), 1), nonce, self._explain(error).encode()[:2000])
            else:
                self.reply(operation, 0, nonce, body)
            for fd in fds:
                os.close(fd)


def _where(returned: Any, count: int) -> list[int]:
    """The addresses of so many outputs of a call, so that the judge can see that they are there; 0 where there is nothing with one."""
    outputs = returned if type(returned) in (tuple, list) else (returned,)
    found = [_address_of(output) if type(output) in (torch.Tensor, torch.nn.Parameter) else 0 for output in outputs[:count]]
    return found + [0] * (count - len(found))


def outputs_of(returned: Any, workload: Workload, device: torch.device) -> tuple[torch.Tensor, ...]:
    """The outputs of a call as they must be, or an exception that says what is wrong with them."""
    wanted = workload.outputs
    outputs = tuple(returned) if type(returned) in (tuple, list) else (returned,)
    if len(outputs) != len(wanted):
        raise WrongOutput(f"it returned {len(outputs)} outputs, not {len(wanted)}")
    inputs = [(_address_of(tensor), tensor.numel() * tensor.itemsize) for tensor in workload.inputs]
    for index, (output, want) in enumerate(zip(outputs, wanted, strict=True)):
        if isinstance(output, torch.Tensor) and type(output) not in (torch.Tensor, torch.nn.Parameter):
            raise LazyOutput(f"output {index} is a {type(output).__name__}, a tensor with code of its own, and not a plain torch.Tensor")
        if not isinstance(output, torch.Tensor):
            raise WrongOutput(f"output {index} is a {type(output).__name__}, not a torch.Tensor")
        if output.dtype != want.dtype or tuple(output.shape) != want.shape:
            got, must = _described(output.dtype, tuple(output.shape)), _described(want.dtype, want.shape)
            raise WrongOutput(f"output {index} is {got}, not {must}")
        if output.device.type != device.type:
            raise WrongOutput(f"output {index} lies on {output.device}, not on {device}")
        if output.layout is not torch.strided or not _is_contiguous(output):
            raise WrongOutput(f"output {index} is not contiguous; return .contiguous()")
        address, size = _address_of(output), want.bytes
        if size and (address == 0 or output.untyped_storage().nbytes() < size):
            raise WrongOutput(f"output {index} has no memory of its own")
        if size and any(start < address + size and address < start + length for start, length in inputs):
            raise WrongOutput(f"output {index} is memory of an input; outputs must be memory of their own")
    return outputs


def _described(dtype: torch.dtype, shape: tuple[int, ...]) -> str:
    return f"{str(dtype).removeprefix('torch.')}{list(shape)}"


def explain(error: BaseException) -> str:
    """One sentence: what was raised, and where in the candidate."""
    if type(error) in _STATUS:
        return str(error)
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename.endswith("candidate.py")]
    where = f" at line {lines[-1]}" if lines else ""
    first = (str(error).strip().splitlines() or [""])[0][:500]
    return f"it raised {type(error).__name__}{where}{': ' if first else ''}{first}"
