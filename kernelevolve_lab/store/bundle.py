"""One run as one file (`.kevrun`), to be kept, sent and opened elsewhere.

JSON Lines under xz (`xzcat mine.kevrun` shows them): first `{"format", "run"}`, then one `{"seq", "time", "event"}` a line. All is one
compressed stream, because most of a prompt, and of a kernel, stands in those before it: a model's search takes a tenth of what it takes
with each text compressed by itself. Equal logs give equal files.

A bundle comes from anywhere: it is unpacked and read under bounds and checked, and nothing in it is executed or unpickled.
"""

import lzma
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError

from kernelevolve_lab.errors import BadInput
from kernelevolve_lab.records.base import Record
from kernelevolve_lab.records.events import Event, Logged, RunStarted
from kernelevolve_lab.records.fold import RunFold
from kernelevolve_lab.store.store import Store

FORMAT = 2
SUFFIX = ".kevrun"
MOST_EVENTS = 500_000
LONGEST_LINE = 32 << 20
LARGEST_BUNDLE = 512 << 20
MOST_MEMORY = 64 << 20  # what unpacking may take; a file can ask for 4 GiB

_CHUNK = 1 << 20


class Header(Record):
    """What a bundle says of itself."""

    format: Literal[2] = FORMAT
    run: str = Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")


class _Line(Record):
    """One event in its frame."""

    seq: int
    time: float = Field(ge=0.0, le=1e11, allow_inf_nan=False)
    event: Event


def export_run(store: Store, run: str, path: str | os.PathLike) -> Path:
    """Write a run as a bundle and return its path; `.kevrun` is added where the path has no suffix. The file appears only when it is
    complete."""
    run = store.find(run)
    target = Path(path)
    target = target / f"{run}{SUFFIX}" if target.is_dir() else target if target.suffix else target.with_suffix(SUFFIX)
    packed = _packed(run, store.read(run))
    try:
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".kevrun-") as folder:
            complete = Path(folder) / target.name
            complete.write_bytes(packed)
            os.replace(complete, target)
    except OSError as error:
        raise BadInput(f"The run cannot be written to {target}: {error.strerror}.") from None
    return target


def read_run(path: str | os.PathLike) -> tuple[Logged, ...]:
    """The log in a bundle, checked; raises `BadInput` where the file is not one that can be trusted to be whole and of bounded size."""
    path = Path(path)
    try:
        return _checked(_lines(path))
    except OSError as error:
        raise BadInput(f"{path} cannot be read: {error.strerror or error}.") from None
    except _Unusable as error:
        raise BadInput(f"{path} is not a run that can be opened: {error}.") from None
    except lzma.LZMAError:
        raise BadInput(f"{path} is not a run that can be opened: it is no xz file, or a damaged one.") from None


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


def _packed(run: str, log: list[Logged]) -> bytes:
    lines = [Header(run=run).model_dump_json().encode()]
    lines += [_Line(seq=item.seq, time=item.time, event=item.event).model_dump_json().encode() for item in log]
    size = sum(len(line) + 1 for line in lines)
    if len(log) > MOST_EVENTS or size > LARGEST_BUNDLE or max(map(len, lines)) > LONGEST_LINE:
        raise BadInput(f"Run {run} is too large for one file: {len(log)} events, {size >> 20} MiB.")
    return lzma.compress(b"\n".join([*lines, b""]), lzma.FORMAT_XZ, lzma.CHECK_SHA256)


def _lines(path: Path) -> Iterator[bytes]:
    """The lines of a bundle, unpacked piece by piece, so that no more is ever unpacked than the bounds allow."""
    unpacker = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=MOST_MEMORY)
    size, rest = 0, b""
    with path.open("rb") as file:
        while not unpacker.eof:
            packed = file.read(_CHUNK) if unpacker.needs_input else b""
            if unpacker.needs_input and not packed:
                raise _Unusable("it is cut off")
            piece = unpacker.decompress(packed, _CHUNK)
            size += len(piece)
            if size > LARGEST_BUNDLE:
                raise _Unusable(f"it would unpack to more than {LARGEST_BUNDLE >> 20} MiB")
            *lines, rest = (rest + piece).split(b"\n")
            if len(rest) > LONGEST_LINE or any(len(line) > LONGEST_LINE for line in lines):
                raise _Unusable("one of its lines is too long")
            yield from lines
        if unpacker.unused_data or file.read(1):
            raise _Unusable("something follows its end")
    if rest:
        raise _Unusable("its last line has no end")


def _checked(lines: Iterator[bytes]) -> tuple[Logged, ...]:
    try:
        header = Header.model_validate_json(next(lines, b""))
    except ValidationError as error:
        raise _Unusable(f"its header says {error.errors()[0]['msg'].lower()} (a newer version may have written it)") from None
    log: list[Logged] = []
    fold = RunFold()
    for seq, line in enumerate(lines, 1):
        if seq > MOST_EVENTS:
            raise _Unusable(f"it has more than {MOST_EVENTS} events")
        try:
            framed = _Line.model_validate_json(line)
            if framed.seq != seq:
                raise _Unusable(f"event {seq} is missing")
            logged = Logged(run=header.run, seq=seq, time=framed.time, event=framed.event)
            fold.apply(logged)
        except (ValueError, KeyError, RecursionError) as error:
            raise _Unusable(f"event {seq} is not one that this version knows ({str(error).splitlines()[0]})") from None
        log.append(logged)
    if not log:
        raise _Unusable("it has no events")
    if not isinstance(log[0].event, RunStarted):
        raise _Unusable("its first event does not start a run")
    return tuple(log)
