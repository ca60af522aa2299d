"""The drive lease: one process drives a run.

The lease is a row that names its owner. An owner on this machine is alive as long as its process is (process ids are told apart by their
start time); of an owner elsewhere only the heartbeat is known, and one that has been silent for `STALE_SECONDS` is taken for dead. Whoever
finds a dead owner takes the run over.
"""

import os
import socket
import threading
import time
import uuid
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Engine, Row, delete, insert, select, update
from sqlalchemy.exc import DBAPIError

from kernelevolve_lab.errors import RunBusy
from kernelevolve_lab.store.schema import DRIVES

if TYPE_CHECKING:
    from types import TracebackType

HEARTBEAT_SECONDS = 5.0
STALE_SECONDS = 60.0


@cache
def _machine() -> str:
    """The host, its boot and the namespace of process ids: where a process id means what it says."""
    parts = [socket.gethostname()]
    for read in (lambda: Path("/proc/sys/kernel/random/boot_id").read_text().strip(), lambda: os.readlink("/proc/self/ns/pid")):
        try:
            parts.append(read())
        except OSError:
            parts.append("")
    return "/".join(parts)


def _process_started(pid: int) -> str:
    """When a process started, in clock ticks since boot; empty where there is no such process or the system does not say."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""


def _process_lives(pid: int, started: str) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return not started or _process_started(pid) == started


def is_live(row: Row, now: float) -> bool:
    """Whether the owner of this row of `drives` still drives its run."""
    if row.machine == _machine():
        return _process_lives(row.pid, row.pid_started)
    return now - row.heartbeat < STALE_SECONDS


@dataclass
class Lease:
    """The right to drive a run, held until it is released; `lost` is set when somebody else took it (after this machine slept, say)."""

    engine: Engine
    run: str
    token: str = field(default_factory=lambda: uuid.uuid4().hex)
    lost: threading.Event = field(default_factory=threading.Event)
    _released: threading.Event = field(default_factory=threading.Event)

    def take(self) -> "Lease":
        """Claim the run and start the heartbeat; raise `RunBusy` where a live process drives it."""
        now = time.time()
        with self.engine.execution_options(writes=True).begin() as connection:
            row = connection.execute(select(DRIVES).where(DRIVES.c.run == self.run).with_for_update()).first()
            if row is not None:
                if is_live(row, now):
                    raise RunBusy(_busy(row))
                connection.execute(delete(DRIVES).where(DRIVES.c.run == self.run))
            connection.execute(
                insert(DRIVES).values(
                    run=self.run,
                    token=self.token,
                    host=socket.gethostname(),
                    machine=_machine(),
                    pid=os.getpid(),
                    pid_started=_process_started(os.getpid()),
                    since=now,
                    heartbeat=now,
                )
            )
        threading.Thread(target=self._beat, name=f"lease-{self.run}", daemon=True).start()
        return self

    def _beat(self) -> None:
        while not self._released.wait(HEARTBEAT_SECONDS):
            try:
                with self.engine.execution_options(writes=True).begin() as connection:
                    mine = (DRIVES.c.run == self.run) & (DRIVES.c.token == self.token)
                    if connection.execute(update(DRIVES).where(mine).values(heartbeat=time.time())).rowcount == 0:
                        self.lost.set()
                        return
            except DBAPIError:
                continue  # the store is out of reach for the moment; the next beat tries again

    def release(self) -> None:
        """Give the run back; does nothing the second time."""
        if self._released.is_set():
            return
        self._released.set()
        with self.engine.execution_options(writes=True).begin() as connection:
            connection.execute(delete(DRIVES).where((DRIVES.c.run == self.run) & (DRIVES.c.token == self.token)))

    def __enter__(self) -> "Lease":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: "TracebackType | None") -> None:
        self.release()


def _busy(row: Row) -> str:
    since = time.strftime("%H:%M:%S", time.localtime(row.since))
    if row.machine == _machine() and row.pid == os.getpid():
        return f"Run {row.run} is already being driven by this process, since {since}; steer it, or stop it first."
    return f"Run {row.run} is driven by process {row.pid} on {row.host} since {since}; you can watch and steer it, or stop it there first."
