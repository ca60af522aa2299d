"""Running a compiler: time, memory and file-size limits, and no process left behind."""

import contextlib
import os
import select
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

Sandbox = Callable[[Sequence[str], Path], Sequence[str]]
"""Turns a command into one that runs it confined: the path given stays writable, everything else is at most readable, no network."""

MEMORY_BYTES = 4 << 30
FILE_BYTES = 256 << 20
OUTPUT_BYTES = 1 << 20


@dataclass(frozen=True)
class Finished:
    """What a command did: exit status (negative: the signal that ended it), its standard output and error as text, whether it was stopped
    because its time was over."""

    status: int
    output: str
    errors: str
    timed_out: bool


def run(command: Sequence[str], scratch: Path, timeout: float, sandbox: Sandbox | None = None, *, libraries: bool = False) -> Finished:
    """Run a command in the folder `scratch` under limits (4 GiB of address space a process, 256 MiB a file, `timeout` seconds).

    With `libraries` the 4 GiB are of writable memory alone, for programs that map more than that of libraries, as PyTorch for CUDA does.

    The command gets a session of its own, and the whole process group is killed at the end whatever happened. Its environment is the
    bare minimum, so that nothing of the user's (keys, include paths) reaches it.
    """
    if sandbox is not None:
        command = sandbox(command, scratch)
    # The shell sets the limits and becomes the command: safe in a threaded parent, where code between fork and exec would not be.
    memory = f"{'-d' if libraries else '-v'} {MEMORY_BYTES // 1024}"
    limits = f'ulimit -c 0; ulimit {memory}; ulimit -f {FILE_BYTES // 512}; ulimit -t {int(timeout) + 1}; exec "$@"'
    # Files without names: several commands may run in one folder at once.
    with tempfile.TemporaryFile(dir=scratch) as output, tempfile.TemporaryFile(dir=scratch) as errors:
        process = subprocess.Popen(
            ["/bin/sh", "-c", limits, "sh", *command],
            cwd=scratch,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=errors,
            env={"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "TMPDIR": str(scratch), "HOME": str(scratch)},
            start_new_session=True,
        )
        try:
            timed_out = not _ended_within(process.pid, timeout)
        finally:
            _kill_group(process)
        texts = []
        for file in (output, errors):
            file.seek(0)
            texts.append(file.read(OUTPUT_BYTES).decode(errors="replace"))
    return Finished(process.returncode, texts[0], texts[1], timed_out)


def _ended_within(pid: int, timeout: float) -> bool:
    # Not Popen.wait(timeout), which sleeps up to 50 ms between looks, as long as a whole build takes; and the process must stay
    # unreaped until its group is killed, so that the group's number cannot be another's by then.
    pidfd = os.pidfd_open(pid)
    try:
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        return bool(poll.poll(timeout * 1000))
    finally:
        os.close(pidfd)


def _kill_group(process: subprocess.Popen) -> None:
    """Kill every process of the group and wait, a second at most, until none is left that could still write to the folder."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        deadline = time.monotonic() + 1
        while time.monotonic() < deadline:
            os.killpg(process.pid, 0)
            time.sleep(0.005)
    process.wait()
