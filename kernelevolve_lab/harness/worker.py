"""What the judge's side of every worker has in common: a confined process with a log of capped size, and its end."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from kernelevolve_lab.harness import sandbox

LOG_BYTES = 1 << 20


def last_words(printed: str) -> str:
    """The last line of what a candidate printed, marked as its own words and in quotation marks that it cannot close, to stand behind a
    sentence of the judge's; empty if it printed nothing. At most 120 printable ASCII characters: such text may end up in a prompt."""
    line = (printed.strip().splitlines() or [""])[-1].replace('"', "'").replace("`", "'")
    words = " ".join("".join(c if c.isascii() and c.isprintable() else " " for c in line).split())
    return f' (the last that it printed itself, unchecked: "{words[:120]}")' if words else ""


class WorkerProcess:
    """A started worker. `pid` is bubblewrap's; killing it takes the whole namespace down."""

    def __init__(self, argv: Sequence[str], confinement: sandbox.Confinement | None, pass_fds: Sequence[int]):
        self._log = os.memfd_create("log", os.MFD_CLOEXEC)
        # The worker can write to its log and not map it: writable memory that it can map as code is what it must not have.
        output = os.open(f"/proc/self/fd/{self._log}", os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        try:
            self._process: subprocess.Popen = sandbox.start(argv, confinement, pass_fds, output)
        except BaseException:
            os.close(self._log)
            raise
        finally:
            os.close(output)
        self.pid = self._process.pid

    def log_tail(self, limit: int = 2000) -> str:
        """The end of what the worker printed; untrusted text."""
        size = os.fstat(self._log).st_size
        return os.pread(self._log, limit, max(0, size - limit)).decode(errors="replace")

    def ended(self, timeout: float = 0.0) -> int | None:
        """The exit status once the process has ended (negative: the signal that ended it), else None."""
        try:
            status = self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            return None
        return 128 - status if status > 128 else status

    def kill(self) -> None:
        """End the worker and everything it started."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        self._process.wait()

    def close(self) -> None:
        """End the worker and free its log."""
        self.kill()
        if self._log >= 0:
            os.close(self._log)
            self._log = -1


def thread_environment(threads: int) -> dict[str, str]:
    """The same threading for candidates and baselines: threads wait without spinning, so that those of one worker do not take the
    processors from the other's turn."""
    count = str(threads)
    return {"OMP_NUM_THREADS": count, "MKL_NUM_THREADS": count, "OMP_WAIT_POLICY": "passive", "KMP_BLOCKTIME": "0", "OMP_DYNAMIC": "false"}


def python_environment(threads: int) -> dict[str, str]:
    """What a Python worker finds in its environment, and nothing else."""
    compiler = shutil.which("g++") or ""
    return {
        **thread_environment(threads),
        # Freed memory stays with the process: one that returned its outputs to the kernel after each call would pay for page faults in
        # the next one, which kernels whose outputs are allocated once do not.
        "MALLOC_MMAP_MAX_": "0",
        "MALLOC_TRIM_THRESHOLD_": str(64 << 30),
        "MALLOC_TOP_PAD_": str(64 << 20),
        "PYTHONDONTWRITEBYTECODE": "1",
        "HOME": "/tmp",
        "USER": "kel",
        "LC_ALL": "C.UTF-8",
        "PATH": os.pathsep.join([os.path.dirname(compiler), os.defpath] if compiler else [os.defpath]),
    }


def python_command(module: str, arguments: Sequence[str]) -> list[str]:
    """The command that runs `main` of a module of this folder: isolated, but with this process's packages."""
    paths = [str(Path(__file__).parent.parent.parent), *(p for p in sys.path if "site-packages" in p)]
    boot = f"import sys; sys.path[:0] = {paths!r}; sys.argv = {[module, *arguments]!r}; "
    return [sys.executable, "-I", "-c", f"{boot}from kernelevolve_lab.harness.{module} import main; main()"]
