"""Measurements alone, builds together: a lock over all judges of this user on this machine, kept by the kernel in two files.

A measurement excludes everything; builds exclude measurements only. A measurement that waits holds the turnstile, so a steady stream of
builds cannot keep it out. The kernel frees the locks of a process that dies.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

_POLL_SECONDS = 0.002


class Cancelled(Exception):
    """The caller's `cancelled` said so."""


class MachineLock:
    """The lock of one cache folder. Each use opens the files anew, so threads of one process exclude each other as well."""

    def __init__(self, folder: Path):
        folder.mkdir(parents=True, exist_ok=True)
        self._turnstile = folder / "turnstile.lock"
        self._main = folder / "timing.lock"

    @contextlib.contextmanager
    def measuring(self, cancelled: Callable[[], bool] = lambda: False) -> Iterator[None]:
        """Be the only one that measures, with no build running."""
        with self._held(self._turnstile, fcntl.LOCK_EX, cancelled), self._held(self._main, fcntl.LOCK_EX, cancelled):
            yield

    @contextlib.contextmanager
    def building(self, cancelled: Callable[[], bool] = lambda: False) -> Iterator[None]:
        """Build beside other builds, while nobody measures."""
        with self._held(self._turnstile, fcntl.LOCK_SH, cancelled):
            pass
        with self._held(self._main, fcntl.LOCK_SH, cancelled):
            yield

    @contextlib.contextmanager
    def _held(self, path: Path, how: int, cancelled: Callable[[], bool]) -> Iterator[None]:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            while True:
                try:
                    fcntl.flock(fd, how | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if cancelled():
                        raise Cancelled from None
                    time.sleep(_POLL_SECONDS)
            yield
        finally:
            os.close(fd)
