"""The judge's side of the zygote: started once, asked for a forked process per candidate, and what is known of each from outside."""

from __future__ import annotations

import array
import contextlib
import json
import os
import select
import signal
import socket
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from kernelevolve_lab.errors import LabError
from kernelevolve_lab.harness import devices, sandbox
from kernelevolve_lab.harness.packets import packet_pair
from kernelevolve_lab.harness.worker import WorkerProcess, python_command, python_environment
from kernelevolve_lab.harness.workers import SandboxFailed
from kernelevolve_lab.languages import absent_gpu
from kernelevolve_lab.records import TargetSpec

_START_SECONDS = 120.0
EMULATED_ENVIRONMENT = {"TRITON_INTERPRET": "1", "OPENBLAS_NUM_THREADS": "1"}  # its products are small, and threads cost more than they


class Zygote:
    """The warm process for one device ("cpu", "cuda:0"): has torch imported, forks a child per candidate, runs nothing of theirs. With
    `emulate`, a GPU that is not here, Triton's interpreter stands in for it. `counter` is the library that counts operators, if any."""

    def __init__(self, device: str, *, threads: int, confined: bool, emulate: TargetSpec | None = None, counter: Path | None = None):
        self.device = device
        self._lock = threading.Lock()
        self._control, theirs = packet_pair()
        environment = python_environment(threads) | devices.environment(device) | (EMULATED_ENVIRONMENT if emulate else {})
        told = json.dumps(absent_gpu.about(emulate)) if emulate else ""
        argv = python_command("zygote", (str(theirs.fileno()), device, str(int(confined)), told, str(counter or "")))
        confinement = None
        if confined:  # the filter and the scratch of a candidate are its own; see `isolation`
            readable = (*sandbox.python_paths(), *([counter] if counter else []))
            confinement = sandbox.Confinement(readable=readable, environment=environment, filter=None, gpus=device != "cpu")
        else:
            argv = ["/usr/bin/env", *(f"{name}={value}" for name, value in environment.items()), *argv]
        self.confined = confined
        try:
            self._process = WorkerProcess(argv, confinement, (theirs.fileno(),))
        except BaseException:
            self._control.close()
            raise
        finally:
            theirs.close()
        try:
            if not select.select([self._control], [], [], _START_SECONDS)[0] or not (told := self._control.recv(1 << 20)):
                raise SandboxFailed(f"the Python host did not start: {self._last_words()}")
            about = json.loads(told)
            self.counter: int | None = about.get("counter")
            """Where a child's counts of operators lie in its memory."""
            self.composite = frozenset(about.get("composite", ()))
            """Operators that only call others."""
        except BaseException:
            self.close()
            raise

    def spawn(self, request: dict, fds: Sequence[int]) -> None:
        """Fork a child, which gets the descriptors: channel, source, log, status."""
        with self._lock, contextlib.suppress(BrokenPipeError, ConnectionResetError):  # who waits for the child finds out
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))]
            self._control.sendmsg([json.dumps(request).encode()], rights)

    @property
    def alive(self) -> bool:
        """Whether it can still fork."""
        return self._process.ended() is None

    def _last_words(self) -> str:
        lines = self._process.log_tail().strip().splitlines()
        return lines[-1][:300] if lines else f"status {self._process.ended(1.0)}"

    def close(self) -> None:
        """End it and all its children."""
        self._control.close()
        self._process.close()


class ZygoteKeeper:
    """The zygote of a judge: started when it is needed, or ahead of that, and again where it has ended."""

    def __init__(self, start: Callable[[], Zygote]):
        self._start = start
        self._lock = threading.Lock()
        self._zygote: Zygote | None = None
        self._closed = False

    def start_ahead(self) -> None:
        """Start it beside what else goes on; trouble shows when it is needed."""
        threading.Thread(target=self._try, name="kel-zygote", daemon=True).start()

    def _try(self) -> None:
        with contextlib.suppress(OSError, LabError):
            self.get()

    def get(self) -> Zygote:
        """One that is alive."""
        with self._lock:
            if self._closed:
                raise SandboxFailed("the judge is closed")
            if self._zygote is None or not self._zygote.alive:
                if self._zygote is not None:
                    self._zygote.close()
                self._zygote = self._start()
            return self._zygote

    def close(self) -> None:
        """End it."""
        with self._lock:
            self._closed = True
            if self._zygote is not None:
                self._zygote.close()
                self._zygote = None


class Child:
    """What is known from outside of a process that a zygote forked: a `packets.Ending`."""

    def __init__(self) -> None:
        self.log = os.memfd_create("log", os.MFD_CLOEXEC)
        self._read, self.status = os.pipe2(os.O_CLOEXEC)
        self.pid = 0

    def log_tail(self, limit: int = 2000) -> str:
        """The end of what it printed; untrusted text."""
        size = os.fstat(self.log).st_size
        return os.pread(self.log, limit, max(0, size - limit)).decode(errors="replace")

    def started(self) -> None:
        """Let go of what only the child needs."""
        os.close(self.status)
        self.status = -1

    def ended(self, timeout: float = 0.0) -> int | None:
        """Its exit status (negative: the signal that ended it), None while it lives or where nobody saw."""
        if self._read < 0 or not select.select([self._read], [], [], timeout)[0]:
            return None
        told = os.read(self._read, 4)
        return os.waitstatus_to_exitcode(int.from_bytes(told, "little")) if len(told) == 4 else None

    def kill(self) -> None:
        """End it; the first process of its namespaces ends the rest."""
        if self.pid:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(self.pid, signal.SIGKILL)

    def close(self) -> None:
        """End it and free what belongs to it."""
        self.kill()
        for fd in (self.log, self._read, self.status):
            if fd >= 0:
                os.close(fd)
        self.log = self._read = self.status = -1
