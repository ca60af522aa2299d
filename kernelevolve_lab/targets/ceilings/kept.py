"""Results of measurements, kept as JSON in a folder of the cache."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """One measurement at a time on this host: two would disturb each other."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def read(file: Path) -> list[dict] | None:
    """What was kept, None where nothing readable is."""
    try:
        return json.loads(file.read_text())
    except (OSError, ValueError):
        return None


def write(file: Path, found: list[dict]) -> None:
    """Keep a result; a reader sees all of it or nothing."""
    temporary = file.with_suffix(f".{os.getpid()}")
    temporary.write_text(json.dumps(found))
    os.replace(temporary, file)
