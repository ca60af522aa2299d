"""The judge's side of the native host: one disposable, confined process per candidate of a compiled language."""

from __future__ import annotations

import array
import contextlib
import hashlib
import os
import secrets
import select
import signal
import socket
import struct
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from kernelevolve_lab.errors import MissingTool
from kernelevolve_lab.harness import sandbox
from kernelevolve_lab.harness.memory import Placed
from kernelevolve_lab.harness.worker import WorkerProcess
from kernelevolve_lab.languages import abi
from kernelevolve_lab.languages.toolchain import find_compiler

_SOURCE = Path(__file__).with_name("native_host.cpp")
_HEADER = struct.Struct("<IIQ")
_MAP = struct.Struct("<QII")
_FAULT = struct.Struct("<Qii")
_TENSOR_HEAD = struct.Struct("<IIQ")
_READY, _OP_MAP, _OP_UNMAP, _OP_DEFINE, _OP_CALL, _OP_PING, _OP_HELLO, _OP_FAULT = 0, 1, 2, 3, 4, 5, 6, 100
_MAX_REPLY = 64 << 10
MAX_REGIONS = MAX_WORKLOADS = 256


class CandidateFailed(Exception):
    """The candidate's process did not do what it was asked; the text says why, for people."""


class CandidateCrashed(CandidateFailed):
    """It ended."""


class SandboxFailed(OSError):
    """The sandbox could not start the process: our trouble, not the candidate's."""


class CandidateHung(CandidateFailed):
    """It did not answer in time, and was ended."""


@dataclass(frozen=True)
class Visit:
    """What one visit took: nanoseconds of each call by the worker's own clock, and of the whole by the judge's."""

    reported: tuple[int, ...]
    witnessed: int


def build_host(cache: Path) -> Path:
    """The native host program, compiled once per compiler and source."""
    compiler = find_compiler()
    header = Path(abi.__file__).with_name("kel.h")
    key = hashlib.sha256(b"\0".join([_SOURCE.read_bytes(), header.read_bytes(), compiler.version.encode()])).hexdigest()[:16]
    program = cache / "hosts" / f"native_host-{key}"
    if not program.exists():
        program.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=program.parent) as scratch:
            made = Path(scratch) / "native_host"
            line = [
                compiler.path,
                "-std=c++20",
                "-O2",
                "-pthread",
                f"-I{header.parent}",
                str(_SOURCE),
                "-o",
                str(made),
                "-ldl",
                "-Wl,-z,now",
            ]
            built = subprocess.run(line, capture_output=True, text=True, timeout=120)
            if built.returncode != 0:
                raise MissingTool(f"The worker for compiled kernels cannot be built with {compiler.path}: {built.stderr.strip()[:500]}")
            os.replace(made, program)
    return program


class NativeWorker:
    """One candidate's process. Every method may raise `CandidateCrashed` or `CandidateHung`; after that only `close` makes sense."""

    def __init__(self, host: Path, artifact: Path, *, threads: int, heap_bytes: int, load_seconds: float, confined: bool):
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self._socket = ours
        self._free_regions = list(range(MAX_REGIONS))
        self._free_workloads = list(range(MAX_WORKLOADS))
        self.candidate_pid = 0
        environment = thread_environment(threads)
        confinement = None
        if confined:
            libraries = find_compiler_libraries()
            confinement = sandbox.Confinement(
                readable=(host, artifact, *libraries), environment=environment, scratch_mb=1, filter="native", devices=False
            )
        argv = [str(host), str(theirs.fileno()), str(artifact), str(threads), str(heap_bytes)]
        if not confined:
            argv = ["/usr/bin/env", *(f"{name}={value}" for name, value in environment.items()), *argv]
        try:
            self._process = WorkerProcess(argv, confinement, (theirs.fileno(),))
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        try:
            try:
                self._receive(_OP_HELLO, 0, load_seconds, "")
            except CandidateFailed as failure:  # nothing of the candidate's has run yet
                raise SandboxFailed(f"a worker cannot be started: {failure}") from None
            self._volunteer_for_oom()
            self._receive(_READY, 0, load_seconds, "while it was being loaded")
        except BaseException:
            self.close()
            raise

    def map(self, fd: int, size: int, writable: bool) -> tuple[int, int]:
        """Map shared memory into the process; returns the region and its address there (as the process says)."""
        region = self._free_regions.pop()
        reply = self._ask(_OP_MAP, region, _MAP.pack(size, int(writable), 0), fds=(fd,))
        return region, int.from_bytes(reply[:8], "little")

    def unmap(self, region: int) -> None:
        """Take a region away again."""
        self._ask(_OP_UNMAP, region)
        self._free_regions.append(region)

    def define(self, inputs: Sequence[Placed], input_region: int, outputs: Sequence[Placed], output_region: int) -> int:
        """Prepare the arguments of a call; returns the workload."""
        workload = self._free_workloads.pop()
        body = struct.pack("<II", len(inputs), len(outputs))
        for region, placed in ((input_region, inputs), (output_region, outputs)):
            for tensor in placed:
                view = abi.tensor(0, tensor.spec.shape, tensor.spec.dtype)
                body += _TENSOR_HEAD.pack(region, 0, tensor.offset) + bytes(view)
        self._ask(_OP_DEFINE, workload, body)
        return workload

    def undefine(self, workload: int) -> None:
        """Let a workload's number be used again."""
        self._free_workloads.append(workload)

    def call(self, calls: Sequence[tuple[int, int]], timeout: float) -> Visit:
        """Call the kernel back to back: for each call the workload, and how many pages behind their places its outputs lie."""
        body = struct.pack(f"<{2 * len(calls)}I", *(number for call in calls for number in call))
        started = time.perf_counter_ns()
        reply = self._ask(_OP_CALL, len(calls), body, timeout=timeout)
        witnessed = time.perf_counter_ns() - started
        if len(reply) != 8 * len(calls):
            raise CandidateCrashed("its process answered with something that is not an answer")
        return Visit(struct.unpack(f"<{len(calls)}Q", reply), witnessed)

    def ping(self) -> int:
        """Nanoseconds of a question without a call, by the judge's clock."""
        started = time.perf_counter_ns()
        self._ask(_OP_PING, 0)
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
        """End the process."""
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
            self._socket.sendmsg([_HEADER.pack(operation, argument, nonce) + body], ancillary)
        return self._receive(operation, nonce, timeout, "while it ran")

    def _receive(self, operation: int, nonce: int, timeout: float, when: str) -> bytes:
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        if not poll.poll(timeout * 1000):
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
                self.candidate_pid = struct.unpack("iII", raw)[0]
        if not packet:
            raise CandidateCrashed(self._how_it_ended(when))
        if len(packet) < _HEADER.size or flags & socket.MSG_TRUNC:
            raise CandidateCrashed("its process answered with something that is not an answer")
        got, status, answered = _HEADER.unpack_from(packet)
        body = packet[_HEADER.size :]
        if got == _OP_FAULT and len(body) == _FAULT.size:
            self._process.ended(2.0)
            raise CandidateCrashed(self._fault(*_FAULT.unpack(body), when))
        if (got, status, answered) != (operation, 0, nonce):
            raise CandidateCrashed("its process answered with something that is not an answer")
        return body

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
        tail = self._process.log_tail().strip()
        last = f": {tail.splitlines()[-1][:300]}" if tail else ""
        if status is None:
            return f"its process closed the channel {when}{last}"
        if status < 0:
            name = signal.Signals(-status).name if -status in set(signal.Signals) else f"signal {-status}"
            return f"{name} {when}{last}"
        if status == 122:
            return f"it cannot be loaded{last}"
        return f"it ended its own process with status {status} {when}{last}"


def thread_environment(threads: int) -> dict[str, str]:
    """The same threading for candidates and baselines: threads wait without spinning, so that those of one worker do not take the
    processors from the other's turn."""
    count = str(threads)
    return {"OMP_NUM_THREADS": count, "MKL_NUM_THREADS": count, "OMP_WAIT_POLICY": "passive", "KMP_BLOCKTIME": "0", "OMP_DYNAMIC": "false"}


def find_compiler_libraries() -> tuple[Path, ...]:
    """Folders of the run-time libraries of a compiler that does not live under /usr (conda's, for one)."""
    root = Path(find_compiler().path).resolve().parent.parent
    if root.is_relative_to("/usr"):
        return ()
    return tuple(path for path in (root / "lib", root / "lib64") if path.is_dir())
