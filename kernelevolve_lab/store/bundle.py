"""One run as one file (`.kevrun`), to be kept, sent and opened elsewhere.

A zip archive of `run.json` (format and id), `events.jsonl` (one `{"seq", "time", "event"}` a line, as stored) and `blobs/<digest>` for the
long texts. A bundle comes from anywhere: everything in it is read under bounds and checked, nothing in it is executed or unpickled, and
members other than these are not looked at.
"""

import json
import os
import re
import tempfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError

from kernelevolve_lab.errors import BadInput
from kernelevolve_lab.records.base import Record
from kernelevolve_lab.records.events import Logged, RunStarted
from kernelevolve_lab.records.fold import RunFold
from kernelevolve_lab.store.payload import decode, digest_of, references
from kernelevolve_lab.store.store import Store

FORMAT = 1
SUFFIX = ".kevrun"
MOST_EVENTS = 500_000
LONGEST_EVENT = 16 << 20
LARGEST_BLOB = 64 << 20
LARGEST_BUNDLE = 1 << 30

_HEADER, _EVENTS, _BLOBS = "run.json", "events.jsonl", "blobs/"
_DIGEST = re.compile(r"[0-9a-f]{64}")


class Header(Record):
    """What a bundle says of itself."""

    format: Literal[1] = FORMAT
    run: str = Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")


class _Line(Record):
    """The frame of one event."""

    seq: int
    time: float = Field(ge=0.0, le=1e11, allow_inf_nan=False)
    event: dict


def export_run(store: Store, run: str, path: str | os.PathLike) -> Path:
    """Write a run as a bundle and return its path; `.kevrun` is added where the path has no suffix. The file appears only when it is
    complete."""
    run = store.find(run)
    target = Path(path)
    target = target / f"{run}{SUFFIX}" if target.is_dir() else target if target.suffix else target.with_suffix(SUFFIX)
    lines, wanted = [], set()
    for seq, time, text in store.read_stored(run):
        lines.append(f'{{"seq":{seq},"time":{time!r},"event":{text}}}\n')
        wanted |= references(text)
    try:
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".kevrun-") as folder:
            complete = Path(folder) / target.name
            with zipfile.ZipFile(complete, "w", zipfile.ZIP_DEFLATED) as archive:
                archive.writestr(_HEADER, Header(run=run).model_dump_json())
                archive.writestr(_EVENTS, "".join(lines))
                for digest in sorted(wanted):
                    archive.writestr(_BLOBS + digest, store.get_blob(digest))
            os.replace(complete, target)
    except OSError as error:
        raise BadInput(f"The run cannot be written to {target}: {error.strerror}.") from None
    return target


def read_run(path: str | os.PathLike) -> tuple[Logged, ...]:
    """The log in a bundle, checked; raises `BadInput` where the file is not one that can be trusted to be whole and of bounded size."""
    path = Path(path)
    try:
        with zipfile.ZipFile(path) as archive:
            return _read(archive)
    except OSError as error:
        raise BadInput(f"{path} cannot be read: {error.strerror or error}.") from None
    except _Unusable as error:
        raise BadInput(f"{path} is not a run that can be opened: {error}.") from None
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, EOFError):
        raise BadInput(f"{path} is not a run that can be opened: it is no zip archive, or a damaged one.") from None


def import_run(store: Store, path: str | os.PathLike) -> str:
    """Add the run in a bundle to a store, marked as somebody else's, and return its id there. A run that the store has already is not added
    again; if another run has the same id, this one gets a new id."""
    log = read_run(path)
    run, suffix = log[0].run, 1
    while store.exists(run):
        if [(item.time, item.event) for item in store.read(run)] == [(item.time, item.event) for item in log]:
            return run
        suffix += 1
        run = f"{log[0].run[:58]}-{suffix}"
    store.insert_run(run, [(item.time, item.event) for item in log], imported=True)
    return run


class _Unusable(Exception):
    """What is wrong with a bundle, as the end of a sentence."""


def _read(archive: zipfile.ZipFile) -> tuple[Logged, ...]:
    members = {info.filename: info for info in archive.infolist()}
    if sum(info.file_size for info in members.values()) > LARGEST_BUNDLE:
        raise _Unusable(f"it would unpack to more than {LARGEST_BUNDLE >> 20} MiB")
    left = LARGEST_BUNDLE

    def content(name: str, largest: int) -> bytes:
        nonlocal left
        if name not in members:
            raise _Unusable(f"{name} is missing")
        with archive.open(members[name]) as file:  # the sizes in the directory are only claims, so no more than that is ever read
            data = file.read(min(largest, left) + 1)
        if len(data) > min(largest, left):
            raise _Unusable(f"{name} is too large")
        left -= len(data)
        return data

    try:
        header = Header.model_validate_json(content(_HEADER, 1 << 20))
    except ValidationError as error:
        raise _Unusable(f"its header says {error.errors()[0]['msg'].lower()} (a newer version may have written it)") from None
    lines = content(_EVENTS, LARGEST_BUNDLE).splitlines()
    if not 0 < len(lines) <= MOST_EVENTS:
        raise _Unusable(f"it has {len(lines)} events")
    return _checked(header.run, lines, _blobs(content))


def _blobs(content: Callable[[str, int], bytes]) -> Callable[[str], bytes]:
    cache: dict[str, bytes] = {}

    def blob(digest: str) -> bytes:
        if not _DIGEST.fullmatch(digest):
            raise _Unusable("it refers to a text by a name that is no digest")
        if digest not in cache:
            data = content(_BLOBS + digest, LARGEST_BLOB)
            if digest_of(data) != digest:
                raise _Unusable(f"the text {digest[:12]} was changed")
            cache[digest] = data
        return cache[digest]

    return blob


def _checked(run: str, lines: list[bytes], blob: Callable[[str], bytes]) -> tuple[Logged, ...]:
    log: list[Logged] = []
    fold = RunFold()
    for seq, line in enumerate(lines, 1):
        if len(line) > LONGEST_EVENT:
            raise _Unusable(f"event {seq} is too long")
        try:
            framed = _Line.model_validate_json(line)
            if framed.seq != seq:
                raise _Unusable(f"event {seq} is missing")
            logged = Logged(run=run, seq=seq, time=framed.time, event=decode(json.dumps(framed.event), blob))
            fold.apply(logged)
        except (ValidationError, ValueError, KeyError, RecursionError) as error:
            raise _Unusable(f"event {seq} is not one that this version knows ({str(error).splitlines()[0]})") from None
        log.append(logged)
    if not isinstance(log[0].event, RunStarted):
        raise _Unusable("its first event does not start a run")
    return tuple(log)
