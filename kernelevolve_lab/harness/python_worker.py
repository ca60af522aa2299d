"""The judge's side of a candidate's process that was forked from the zygote: calls, and what it looks at meanwhile from outside."""

from __future__ import annotations

import contextlib
import itertools
import json
import mmap
import os
import re
import secrets
import select
import shutil
import struct
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from kernelevolve_lab.harness import operator_counter, peeking, sampling
from kernelevolve_lab.harness.forking import Child, Zygote
from kernelevolve_lab.harness.kept import Kept
from kernelevolve_lab.harness.memory import PAGE, Placed
from kernelevolve_lab.harness.packets import BIND, COLLECT, SEEN_OUTPUTS, STEADY, TRACE, PacketWorker, packet_pair
from kernelevolve_lab.harness.policy import Traced
from kernelevolve_lab.harness.workers import CandidateCheats, Visit

LONGEST_DEVICE_VISIT = 64
"""CUDA takes about a thousand launches ahead, and a call may need several."""
_PEEKED, _PEEKED_AT_MOST = 48, 256
"""Words of an output, and of all outputs, that are read out of the process at the end of a visit."""
_ALONE_SHARE = 1 / 8
"""Of the visits, after which it is looked whether processes of the candidate are left."""
_SAMPLES, _BETWEEN_SAMPLES = 64, 2e-3
"""Of a visit, and seconds."""


@dataclass(frozen=True)
class _Seen:
    """Words of an output (the `chosen` of them) that lay in the process when a visit had ended, and where it handed the output over."""

    region: int
    start: int
    words: int
    chosen: np.ndarray
    found: np.ndarray | None


def _last(calls: Sequence[tuple[int, int]]) -> dict[int, int]:
    """By place the last call that has it: of calls that share a place that one counts."""
    return {pages: index for index, (_, pages) in enumerate(calls)}


class PythonWorker(PacketWorker):
    """One candidate's process, with the module loaded. `source` is its text (or a shared library, on a GPU), `kernels` the folder with what
    its build compiled ahead, which the process finds as Triton's cache, `kept` what earlier processes of the same candidate left when they
    had loaded it, and with `threads_only` it can start no processes once it is loaded."""

    def __init__(
        self,
        zygote: Zygote,
        source: bytes,
        *,
        threads: int,
        heap_bytes: int,
        load_seconds: float,
        kernels: Path | None = None,
        kept: Kept | None = None,
        threads_only: bool = False,
    ):
        super().__init__()
        self._child = self._process = Child()
        self._device, self._confined = zygote.device, zygote.confined
        self.call_overhead, self.unsteadiness = 2e-6, 1.5e-4
        if self._device != "cpu":
            self.longest_visit, self.unsteadiness = LONGEST_DEVICE_VISIT, None
        self._peeks = zygote.device == "cpu" and peeking.permitted()
        self._counter = zygote.counter
        self._visits = 0
        self._steady = False
        self._sampling = False
        self._sampled: list[int] = []
        self._arenas: dict[int, mmap.mmap] = {}
        self._outputs: dict[int, tuple[int, Sequence[Placed]]] = {}
        self._seen: list[_Seen] = []
        self._rng = np.random.default_rng(secrets.randbits(64))
        self._folder = "" if zygote.confined else tempfile.mkdtemp(prefix="kel-candidate-")
        self._socket, theirs = packet_pair()
        more: dict[str, int] = {}
        text = os.memfd_create("source", os.MFD_CLOEXEC)
        try:
            os.write(text, source)
            os.lseek(text, 0, os.SEEK_SET)
            request = {"threads": threads, "heap_bytes": heap_bytes, "folder": self._folder}
            request["threads_only"] = threads_only and self._confined
            if kernels is not None:
                request["kernels"] = str(kernels.absolute())
                more["kernels"] = os.open(kernels, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            if kept is not None:
                more |= kept.descriptors()
            fds = [theirs.fileno(), text, self._child.log, self._child.status, *more.values()]
            zygote.spawn(request | {"more": list(more)}, fds)
        finally:
            for fd in (text, *more.values()):
                os.close(fd)
            theirs.close()
            self._child.started()
        try:
            self._greet(load_seconds)
        except BaseException:
            self.close()
            raise

    def _volunteer_for_oom(self) -> None:
        self._child.pid = self.candidate_pid  # the host itself volunteers, before it hides

    def call(self, calls: Sequence[tuple[int, int]], timeout: float) -> Visit:
        """See `workers.Worker`. What the module returns is put into the judge's memory by a second request, which no clock sees."""
        before = self._called_so_far()
        visit = super().call(calls, timeout)
        after = self._called_so_far()
        if before is not None and after is not None:
            if after["aten::empty"] <= before["aten::empty"] or any(after[name] < count for name, count in before.items()):
                raise CandidateCheats("it keeps the judge from counting what it has PyTorch do")
            visit = replace(visit, operators=after - before)
        self._visits += 1
        if self._visits <= 2 or self._rng.random() < _ALONE_SHARE:
            self._stand_alone()
        if self._steady:  # the judge looks at the time alone
            return visit
        wanted = [number for pages, index in _last(calls).items() for number in (index, pages)]
        self._ask(COLLECT, 0, struct.pack(f"<{len(wanted)}I", *wanted), timeout=timeout)
        self._compare()
        return visit

    def watched(self, calls: Sequence[tuple[int, int]], timeout: float) -> tuple[Visit, list[int] | None]:
        """See `workers.Worker`."""
        if not self._peeks:
            return self.call(calls, timeout), None
        self._sampling, self._sampled = True, []
        try:
            return self.call(calls, timeout), self._sampled
        finally:
            self._sampling = False

    def _wait(self, answer: select.poll, timeout: float) -> bool:
        until = time.monotonic() + timeout
        while self._sampling and len(self._sampled) < _SAMPLES and time.monotonic() < until:
            if answer.poll(self._rng.uniform(0.0, _BETWEEN_SAMPLES) * 1000):
                return True
            with self.frozen():
                self._sampled += sampling.program_counters(self.candidate_pid)
        return super()._wait(answer, max(0.0, until - time.monotonic()))

    def _called_so_far(self) -> Counter[str] | None:
        if self._counter is None or not peeking.permitted():
            return None
        return operator_counter.read(self.candidate_pid, self._counter)

    def map(self, fd: int, size: int, writable: bool) -> tuple[int, int]:
        """See `workers.Worker`."""
        region, address = super().map(fd, size, writable)
        if writable:
            self._arenas[region] = mmap.mmap(fd, size, prot=mmap.PROT_READ)
        return region, address

    def unmap(self, region: int) -> None:
        """See `workers.Worker`."""
        super().unmap(region)
        if region in self._arenas:
            self._arenas.pop(region).close()

    def define(self, inputs: Sequence[Placed], input_region: int, outputs: Sequence[Placed], output_region: int) -> int:
        """See `workers.Worker`."""
        workload = super().define(inputs, input_region, outputs, output_region)
        self._outputs[workload] = (output_region, tuple(outputs))
        return workload

    def _look(self, calls: Sequence[tuple[int, int]], reply: bytes) -> int:
        # What a call returned must be there when it has returned. The judge reads some words of each output out of the process, which is
        # stopped meanwhile, and sees below that what the process handed over later is the same.
        self._sampling = False
        self._seen.clear()
        if self._device != "cpu":
            return 0
        told = [min(len(self._outputs[workload][1]), SEEN_OUTPUTS) for workload, _ in calls]
        if self._peeks and len(reply) == 8 * (len(calls) + sum(told)):
            addresses = struct.unpack_from(f"<{sum(told)}Q", reply, 8 * len(calls))
            starts = list(itertools.accumulate(told, initial=0))
            places = []
            for pages, index in _last(calls).items():
                region, outputs = self._outputs[calls[index][0]]
                for output, address in zip(outputs, addresses[starts[index] : starts[index + 1]], strict=False):
                    if output.bytes >= 4:
                        places.append((region, output.offset + pages * PAGE, output.bytes // 4, address))
            self._peek(places)
        return 8 * sum(told)

    def _peek(self, places: list[tuple[int, int, int, int]]) -> None:
        if len(places) > _PEEKED_AT_MOST:
            places = [places[i] for i in self._rng.choice(len(places), _PEEKED_AT_MOST, replace=False)]
        each = min(_PEEKED, _PEEKED_AT_MOST // max(1, len(places)))
        chosen = [4 * np.unique(self._rng.integers(0, words, each)) for _, _, words, _ in places]
        at = [address + int(offset) for (*_, address), offsets in zip(places, chosen, strict=True) for offset in offsets]
        if not at:
            return
        with self.frozen():
            found = peeking.words(self.candidate_pid, at)
        ends = itertools.accumulate(map(len, chosen))
        for (region, start, words, _), offsets, end in zip(places, chosen, ends, strict=True):
            self._seen.append(_Seen(region, start, words, offsets // 4, None if found is None else found[end - len(offsets) : end]))

    def _compare(self) -> None:
        for seen in self._seen:
            given = np.frombuffer(self._arenas[seen.region], np.uint8, 4 * seen.words, seen.start).view(np.uint32)[seen.chosen].copy()
            if seen.found is None or (given != seen.found).any():
                raise CandidateCheats("what it handed over is not what lay in its memory when the call returned: it computes later")

    def _stand_alone(self) -> None:
        if self._confined and peeking.company(self.candidate_pid):
            raise CandidateCheats("it left processes running that work on after a call has returned")

    @contextlib.contextmanager
    def steady(self, calls: int) -> Iterator[None]:
        """Meanwhile a visit costs as much beside its calls as one of so many calls does, whatever the number of its own."""
        self._ask(STEADY, calls)
        self._steady = self._device != "cpu"
        yield
        self._steady = False
        self._ask(STEADY, 0)

    def bind(self, workload: int, module: str, timeout: float) -> tuple[str, ...]:
        """See `workers.Worker`."""
        return tuple(map(str, json.loads(self._ask(BIND, workload, module.encode(), timeout=timeout))))

    def trace(self, workload: int, timeout: float) -> Traced | None:
        """See `workers.Worker`."""
        before = self._called_so_far()
        told = json.loads(self._ask(TRACE, workload, timeout=timeout))
        after = self._called_so_far()
        reached = after - before if before is not None and after is not None else None
        if told["returned"]:
            self._ask(COLLECT, 0, struct.pack("<2I", 0, 0), timeout=timeout)
        counts = {str(name): int(count) for name, count in told["counts"].items()}
        return Traced(counts, bool(told["made_outside"]), reached, bool(told["returned"]))

    def _how_it_ended(self, when: str) -> str:
        text = super()._how_it_ended(when)
        # The traceback that `faulthandler` leaves, innermost call first.
        lines = re.findall(r'File "[^"]*candidate\.py", line (\d+) in (\w+)', self._process.log_tail(8000))
        if text.startswith("SIG"):
            where = f" at line {lines[0][0]}, in {lines[0][1]}" if lines else ""
            return f"{text.split(':', 1)[0]}{where} (inputs are read-only memory: writing to one ends like this)"
        return text

    def close(self) -> None:
        """See `workers.Worker`."""
        super().close()
        for arena in self._arenas.values():
            arena.close()
        self._arenas.clear()
        if self._folder:
            shutil.rmtree(self._folder, ignore_errors=True)
