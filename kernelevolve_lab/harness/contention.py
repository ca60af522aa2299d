"""Was a worker kept waiting? The kernel counts how long each thread was ready to run and had no processor; a timing during which that was
more than a little says more about the machine's other work than about the kernel. Counted outside the worker, so it cannot be forged."""

from __future__ import annotations

import contextlib
from pathlib import Path


def waited(pid: int) -> float:
    """Seconds that the threads of a process have waited for a processor so far (second field of /proc/PID/task/TID/schedstat, see
    Documentation/scheduler/sched-stats.rst); 0 where the kernel does not count. Threads that ended are not in it."""
    total = 0
    try:
        for task in Path(f"/proc/{pid}/task").iterdir():
            total += int((task / "schedstat").read_bytes().split()[1])
    except (OSError, IndexError, ValueError):
        return 0.0
    return total / 1e9


def runnable(pid: int) -> bool:
    """Whether a thread of the process computes, or would if it had a processor (state R of /proc/PID/task/TID/stat, see proc(5))."""
    with contextlib.suppress(OSError, IndexError):
        return any((task / "stat").read_bytes().rpartition(b")")[2].split()[0] == b"R" for task in Path(f"/proc/{pid}/task").iterdir())
    return False


def threads(pid: int) -> int:
    """How many threads a process has; 0 when it is gone."""
    try:
        return len(list(Path(f"/proc/{pid}/task").iterdir()))
    except OSError:
        return 0
