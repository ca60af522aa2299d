"""How long calls take on a CUDA device: one method for candidates and baselines, on the driver's own events.

A visit is a few calls back to back. First a kernel takes every thread slot of the device until the host has launched them all, so that the
device then runs them without waiting for the host; nothing can run beside it, so work on another stream gains nothing there. Then an
event, the calls, an event; the device is awaited as a whole, and a third event shows work that the second did not wait for. What two events
with nothing between them show is subtracted. A call that waits for the device itself (a copy to the host, say) is timed with its wait,
after the device was held for as long as it ever is.

The time of a call is the visit's over the calls; between calls of a visit that includes about a microsecond of launching.

Functions of the driver are taken when this file is loaded, before a candidate can put others in their place; a candidate that goes further
than that meets the judge's clock.
"""

from __future__ import annotations

import contextlib
import ctypes
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

_PTX = Path(__file__).with_name("spin.ptx")
_BLOCK = 512
_MOST_HOLD = 20_000_000
"""Nanoseconds that the device is held at most."""
_TAIL_NANOSECONDS = 10_000
"""How much later than it usually does after the second the third event may come: waiting and launching do not always take the same."""
_PERSISTING_L2 = 0x06
_DEVICE_MAP = 0x02
_EMPTY_VISITS = 9

_clock = time.perf_counter_ns


class DeviceFailed(Exception):
    """The device refused; the text says what, in CUDA's words."""


class CudaClock:
    """Times calls on the current device of this process. Made before a candidate is loaded; `prepare` starts the device."""

    def __init__(self) -> None:
        self._cuda = ctypes.CDLL("libcuda.so.1")
        names = (
            "cuModuleLoadData cuModuleGetFunction cuMemHostAlloc cuLaunchKernel cuEventCreate cuEventRecord cuEventElapsedTime "
            "cuCtxSynchronize cuCtxResetPersistingL2Cache cuCtxGetLimit cuGetErrorName cuGetErrorString"
        )
        self._driver = {name: getattr(self._cuda, name) for name in names.split()}
        self._driver["cuLaunchKernel"].argtypes = (
            ctypes.c_void_p, *[ctypes.c_uint] * 7, ctypes.c_void_p, ctypes.POINTER(ctypes.c_void_p), ctypes.POINTER(ctypes.c_void_p),
        )  # fmt: skip
        self._driver["cuEventRecord"].argtypes = (ctypes.c_void_p, ctypes.c_void_p)
        self._driver["cuEventElapsedTime"].argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p)
        self._driver["cuModuleGetFunction"].argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_char_p)
        self._image = _PTX.read_bytes() + b"\0"
        self._stream_of = torch._C._cuda_getCurrentRawStream
        self._launching: deque[float] = deque(maxlen=5)
        self._held_for = 0
        self._ticket = 0
        self._grid = 0
        self._device = 0

    def prepare(self, device: torch.device) -> None:
        """Create the context, load the kernel, create the events."""
        self._device = device.index or 0
        torch.cuda.set_device(self._device)
        torch.empty(1, device=device)
        module, function = ctypes.c_void_p(), ctypes.c_void_p()
        self._ask("cuModuleLoadData", ctypes.byref(module), self._image)
        self._ask("cuModuleGetFunction", ctypes.byref(function), module, b"spin")
        self._function = function
        properties = torch.cuda.get_device_properties(self._device)
        self._grid = properties.multi_processor_count * max(1, properties.max_threads_per_multi_processor // _BLOCK)
        flag = ctypes.c_void_p()
        self._ask("cuMemHostAlloc", ctypes.byref(flag), ctypes.c_size_t(8), ctypes.c_uint(_DEVICE_MAP))
        assert flag.value is not None
        self._flag = ctypes.c_uint64.from_address(flag.value)
        self._flag.value = 0
        self._events = [ctypes.c_void_p() for _ in range(3)]
        for event in self._events:
            self._ask("cuEventCreate", ctypes.byref(event), ctypes.c_uint(0))
        self._pool = torch.cuda.MemPool()
        self._persisting = self.persisting_bytes()
        self._empty = self._tail = 0.0
        empty = [self._visit([], lambda result: None) for _ in range(_EMPTY_VISITS)]
        self._empty, whole = (sorted(values)[_EMPTY_VISITS // 2] for values in zip(*empty, strict=True))
        self._tail = whole - self._empty

    @contextlib.contextmanager
    def apart(self) -> Iterator[None]:
        """Allocate from memory of its own meanwhile: a call that finds the memory of its outputs taken asks the driver for more, which
        takes longer than most kernels."""
        with torch.cuda.use_mem_pool(self._pool):
            yield

    def steady(self, calls: int) -> None:
        """From now on hold the device for at least as long as the host needs to launch that many calls, whatever the number of a visit's
        calls (0: only until it has launched those)."""
        self._held_for = calls

    def time(self, calls: Sequence[Callable[[], Any]], keep: Callable[[Any], None]) -> list[int]:
        """Run the calls and hand each result to `keep`; nanoseconds of each, which are the visit's over their number.

        Raises `DeviceFailed` where the device did.
        """
        spent, whole = self._visit(calls, keep)
        spent = max(spent, whole - self._tail - _TAIL_NANOSECONDS)  # work that the second event did not wait for
        return [max(1, round(spent / len(calls)))] * len(calls)

    def _visit(self, calls: Sequence[Callable[[], Any]], keep: Callable[[Any], None]) -> tuple[float, float]:
        """Nanoseconds to the second event and to the third, less what they take where there are no calls (of the second)."""
        begin, end, last = self._events
        self._ask("cuCtxSynchronize")
        self._ask("cuCtxResetPersistingL2Cache")
        stream = ctypes.c_void_p(self._stream_of(self._device))
        self._ticket += 1
        self._hold(stream)
        self._ask("cuEventRecord", begin, stream)
        started = _clock()
        try:
            for call in calls:
                keep(call())
        except BaseException:
            self._flag.value = self._ticket
            raise
        if calls:
            self._launching.append((_clock() - started) / len(calls))
        self._ask("cuEventRecord", end, stream)
        self._flag.value = self._ticket
        self._ask("cuCtxSynchronize")
        self._ask("cuEventRecord", last, stream)
        self._ask("cuCtxSynchronize")
        return self._elapsed(begin, end) - self._empty, self._elapsed(begin, last) - self._empty

    def persisting_bytes(self) -> int:
        """How much of the L2 cache is set aside for persisting accesses."""
        value = ctypes.c_size_t()
        self._ask("cuCtxGetLimit", ctypes.byref(value), ctypes.c_int(_PERSISTING_L2))
        return value.value

    @property
    def l2_was_set_aside(self) -> bool:
        """Whether more of the L2 cache is set aside than when this clock was made ready."""
        return self.persisting_bytes() > self._persisting

    def wait(self) -> None:
        """Wait until the whole device is idle; raises `DeviceFailed` with what went wrong on it."""
        self._ask("cuCtxSynchronize")

    def _hold(self, stream: ctypes.c_void_p) -> None:
        """Start the kernel that holds the device, until `_flag` is `_ticket`; where visits are to be steady, for a fixed time at least."""
        launching = sorted(self._launching)[len(self._launching) // 2] if self._launching else 0.0
        least = min(_MOST_HOLD, int(1.5 * launching * self._held_for))
        values = (ctypes.addressof(self._flag), self._ticket, least, max(_MOST_HOLD, least))
        held = [ctypes.c_uint64(value) for value in values]
        arguments = (ctypes.c_void_p * len(held))(*(ctypes.addressof(value) for value in held))
        self._ask("cuLaunchKernel", self._function, self._grid, 1, 1, _BLOCK, 1, 1, 0, stream, arguments, None)

    def _elapsed(self, first: ctypes.c_void_p, second: ctypes.c_void_p) -> float:
        milliseconds = ctypes.c_float()
        self._ask("cuEventElapsedTime", ctypes.byref(milliseconds), first, second)
        return milliseconds.value * 1e6

    def _ask(self, name: str, *arguments: Any) -> None:
        status = self._driver[name](*arguments)
        if status:
            texts = []
            for ask in ("cuGetErrorName", "cuGetErrorString"):
                text = ctypes.c_char_p()
                self._driver[ask](status, ctypes.byref(text))
                texts.append((text.value or b"?").decode())
            raise DeviceFailed(f"{texts[0]}: {texts[1]}")
