"""What the judge's side of every worker has in common: a confined process with a log of capped size, and its end."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Sequence

from kernelevolve_lab.harness import sandbox

LOG_BYTES = 1 << 20


class WorkerProcess:
    """A started worker. `pid` is bubblewrap's; killing it takes the whole namespace down."""

    def __init__(self, argv: Sequence[str], confinement: sandbox.Confinement | None, pass_fds: Sequence[int]):
        self._log = os.memfd_create("log", os.MFD_CLOEXEC)
        try:
            self._process: subprocess.Popen = sandbox.start(argv, confinement, pass_fds, self._log)
        except BaseException:
            os.close(self._log)
            raise
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
