"""The judge's side of every candidate's process: one request, one reply, as packets on a SOCK_SEQPACKET socket.

The hosts at the other end (`native_host.cpp`, `python_host.py`) mirror the layouts. Whatever comes from there is untrusted: lengths and
nonces are checked, stray file descriptors closed, and nothing in a packet can execute.
"""

from __future__ import annotations

import array
import contextlib
import os
import secrets
import select
import signal
import socket
import struct
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

from kernelevolve_lab.harness.memory import Placed
from kernelevolve_lab.harness.policy import Traced
from kernelevolve_lab.harness.worker import last_words
from kernelevolve_lab.harness.workers import (
    CandidateCheats,
    CandidateCrashed,
    CandidateFailed,
    CandidateHung,
    CandidateWrong,
    SandboxFailed,
    Visit,
)
from kernelevolve_lab.languages import abi

HEADER = struct.Struct("<IIQ")
MAP = struct.Struct("<QII")
FAULT = struct.Struct("<Qii")
TENSOR_HEAD = struct.Struct("<IIQ")
READY, MAP_REGION, UNMAP, DEFINE, CALL, PING, HELLO, COLLECT, STEADY, TRACE, BIND = range(11)
FAULTED, FAILED = 100, 101
"""Operations. `FAULTED` and `FAILED` are answers to any request: a hardware fault, and a sentence that says what the candidate did, with
one of `FAILURES` as its status."""
FAILURES: dict[int, type[CandidateFailed]] = {1: CandidateCrashed, 2: CandidateWrong, 3: CandidateCheats}
LOAD_FAILED = 122
"""The exit status of a host whose candidate cannot be loaded."""
SEEN_OUTPUTS = 14
"""Of so many of a call's outputs a Python host tells where they lie; more do not fit into the answer to the longest visit."""
MAX_REGIONS = MAX_WORKLOADS = 256
_MAX_REPLY = 64 << 10
_NO_ANSWER = "its process answered with something that is not an answer"


def packet_pair() -> tuple[socket.socket, socket.socket]:
    """The judge's end, which is told who sends, and the one to hand to the host."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
    return ours, theirs


class Ending(Protocol):
    """What is known of a process from outside; see `worker.WorkerProcess`."""

    def log_tail(self, limit: int = 2000) -> str:
        """The end of what it printed."""

    def ended(self, timeout: float = 0.0) -> int | None:
        """Its exit status, None while it lives."""

    def kill(self) -> None:
        """End it."""

    def close(self) -> None:
        """End it and free what belongs to it."""


class PacketWorker:
    """One candidate's process; a `workers.Worker`. A subclass starts it."""

    longest_visit = 512
    call_overhead = 3e-7
    unsteadiness: float | None = 1e-4

    def __init__(self) -> None:
        self._free_regions = list(range(MAX_REGIONS))
        self._free_workloads = list(range(MAX_WORKLOADS))
        self._socket: socket.socket
        self._process: Ending
        self.candidate_pid = 0
        self._killed_before = _killed_for_memory()

    def _greet(self, load_seconds: float) -> None:
        """Wait until the process is there and has loaded the candidate."""
        try:
            self._receive(HELLO, 0, load_seconds, "")
        except CandidateFailed as failure:  # nothing of the candidate's has run yet
            raise SandboxFailed(f"a worker cannot be started: {failure}") from None
        self._volunteer_for_oom()
        self._receive(READY, 0, load_seconds, "while it was being loaded")

    def map(self, fd: int, size: int, writable: bool) -> tuple[int, int]:
        """Map shared memory into the process; returns the region and its address there (as the process says)."""
        region = self._free_regions.pop()
        reply = self._ask(MAP_REGION, region, MAP.pack(size, int(writable), 0), fds=(fd,))
        return region, int.from_bytes(reply[:8], "little")

    def unmap(self, region: int) -> None:
        """Take a region away again."""
        self._ask(UNMAP, region)
        self._free_regions.append(region)

    def define(self, inputs: Sequence[Placed], input_region: int, outputs: Sequence[Placed], output_region: int) -> int:
        """Prepare the arguments of a call; returns the workload."""
        workload = self._free_workloads.pop()
        body = struct.pack("<II", len(inputs), len(outputs))
        for region, placed in ((input_region, inputs), (output_region, outputs)):
            for tensor in placed:
                view = abi.tensor(0, tensor.spec.shape, tensor.spec.dtype)
                body += TENSOR_HEAD.pack(region, 0, tensor.offset) + bytes(view)
        self._ask(DEFINE, workload, body)
        return workload

    def undefine(self, workload: int) -> None:
        """Let a workload's number be used again."""
        self._free_workloads.append(workload)

    def call(self, calls: Sequence[tuple[int, int]], timeout: float) -> Visit:
        """Call the kernel back to back: for each call the workload, and how many pages behind their places its outputs lie."""
        body = struct.pack(f"<{2 * len(calls)}I", *(number for call in calls for number in call))
        used, started = self.cpu_nanoseconds(), time.perf_counter_ns()
        reply = self._ask(CALL, len(calls), body, timeout=timeout)
        witnessed = time.perf_counter_ns() - started
        used = self.cpu_nanoseconds() - used
        if len(reply) != 8 * len(calls) + self._look(calls, reply):
            raise CandidateCrashed(_NO_ANSWER)
        return Visit(struct.unpack_from(f"<{len(calls)}Q", reply), witnessed, used)

    def watched(self, calls: Sequence[tuple[int, int]], timeout: float) -> tuple[Visit, list[int] | None]:
        """See `workers.Worker`: nothing but a kernel's own code is in this process."""
        return self.call(calls, timeout), None

    def _look(self, calls: Sequence[tuple[int, int]], reply: bytes) -> int:
        """Look, as soon as a visit has ended, at what else its reply tells beside the times; returns how many bytes that is."""
        return 0

    def bind(self, workload: int, module: str, timeout: float) -> tuple[str, ...]:
        """See `workers.Worker`."""
        return ()

    def trace(self, workload: int, timeout: float) -> Traced | None:
        """See `workers.Worker`."""
        return None

    def steady(self, calls: int) -> contextlib.AbstractContextManager[None]:
        """See `workers.Worker`: calls are made one by one here, and cost nothing beside."""
        return contextlib.nullcontext()

    def ping(self) -> int:
        """Nanoseconds of a question without a call, by the judge's clock."""
        started = time.perf_counter_ns()
        self._ask(PING, 0)
        return time.perf_counter_ns() - started

    def cpu_nanoseconds(self) -> int:
        """Processor time that all threads of the process have used so far (clock_getcpuclockid(3): the clock of another process)."""
        with contextlib.suppress(OSError):
            return time.clock_gettime_ns((~self.candidate_pid << 3) | 2)
        return 0

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """Stop all threads of the process meanwhile, so that what it has written by now is what is looked at."""
        self._signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._signal(signal.SIGCONT)

    def _signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(self.candidate_pid, number)

    def close(self) -> None:
        """End the process and all that it started."""
        self._socket.close()
        self._process.close()

    def _volunteer_for_oom(self) -> None:
        # What a limit does not catch (shared anonymous memory, many threads) must not end somebody else's process.
        with contextlib.suppress(OSError):
            Path(f"/proc/{self.candidate_pid}/oom_score_adj").write_text("1000")

    def _ask(self, operation: int, argument: int, body: bytes = b"", fds: tuple[int, ...] = (), timeout: float = 10.0) -> bytes:
        nonce = secrets.randbits(64)
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # the reply, or its absence, says why
            self._socket.sendmsg([HEADER.pack(operation, argument, nonce) + body], ancillary)
        return self._receive(operation, nonce, timeout, "while it ran")

    def _receive(self, operation: int, nonce: int, timeout: float, when: str) -> bytes:
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        if not self._wait(poll, timeout):
            self._process.kill()
            raise CandidateHung(f"it did not return within {timeout:.3g} s {when}")
        try:
            packet, ancillary, flags, _ = self._socket.recvmsg(_MAX_REPLY, socket.CMSG_SPACE(12) + socket.CMSG_SPACE(64))
        except ConnectionResetError:
            packet, ancillary, flags = b"", [], 0
        for level, kind, raw in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                received = array.array("i")
                received.frombytes(raw[: len(raw) - len(raw) % received.itemsize])
                for fd in received:
                    os.close(fd)
            elif (level, kind) == (socket.SOL_SOCKET, socket.SCM_CREDENTIALS) and packet:
                sender = struct.unpack("iII", raw)[0]
                self.candidate_pid = self.candidate_pid or sender  # the first packet comes before anything of the candidate's has run
                if sender != self.candidate_pid:
                    raise CandidateCheats(f"another process answers in its place {when}")
        if not packet:
            raise CandidateCrashed(self._how_it_ended(when))
        if len(packet) < HEADER.size or flags & socket.MSG_TRUNC:
            raise CandidateCrashed(_NO_ANSWER)
        got, status, answered = HEADER.unpack_from(packet)
        body = packet[HEADER.size :]
        if got == FAULTED and len(body) == FAULT.size:
            self._process.ended(2.0)
            raise CandidateCrashed(self._fault(*FAULT.unpack(body), when))
        if got == FAILED and answered == nonce and status in FAILURES:
            raise FAILURES[status](body.decode(errors="replace"))
        if (got, status, answered) != (operation, 0, nonce):
            raise CandidateCrashed(_NO_ANSWER)
        return body

    def _wait(self, answer: select.poll, timeout: float) -> bool:
        """Whether an answer comes in time."""
        return bool(answer.poll(timeout * 1000))

    def _fault(self, address: int, number: int, region: int, when: str) -> str:
        name = signal.Signals(number).name if number in set(signal.Signals) else f"signal {number}"
        if number == signal.SIGSEGV and region >= 0:
            return f"{name} {when}: it wrote to an input, and inputs are read-only"
        if number == signal.SIGSEGV:
            near = "a null pointer" if address < 65536 else "memory that is not its own (an index outside a tensor, or a stack overflow)"
            return f"{name} {when}: it touched {near}"
        causes = {signal.SIGFPE: "an integer division by zero or overflow", signal.SIGILL: "an instruction that this processor lacks"}
        return f"{name} {when}: {causes.get(number, 'a hardware fault')}"

    def _how_it_ended(self, when: str) -> str:
        status = self._process.ended(5.0)
        last = last_words(self._process.log_tail())
        if status is None:
            return f"its process closed the channel {when}{last}"
        if status < 0:
            name = signal.Signals(-status).name if -status in set(signal.Signals) else f"signal {-status}"
            why = (
                ", since the machine ran out of memory" if -status == signal.SIGKILL and _killed_for_memory() > self._killed_before else ""
            )
            return f"{name} {when}{why}{last}"
        if status == LOAD_FAILED:
            return f"it cannot be loaded{last}"
        return f"it ended its own process with status {status} {when}{last}"


def _killed_for_memory() -> int:
    """How many processes this machine has ended so far because it ran out of memory (see proc(5), /proc/vmstat)."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/vmstat").read_text().splitlines():
            if line.startswith("oom_kill "):
                return int(line.split()[1])
    return 0
