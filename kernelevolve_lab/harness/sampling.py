"""Whose code a candidate's process runs, seen from outside: where its threads are at random moments of a visit.

A stopped thread's program counter stands in /proc (proc_pid_syscall(5)), which also says what file is mapped there; the file's symbol table
says which function that is. The process is stopped for some microseconds at a time and cannot tell such a visit from another.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import re
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import numpy as np

_STOPPED_SECONDS = 0.05
_HEADER = np.dtype([("name", "<u4"), ("type", "<u4"), *((key, "<u8") for key in ("flags", "address", "offset", "size")), ("link", "<u4")])
_HEADER_BYTES, _FUNCTION, _TABLES = 64, 2, (2, 11)  # Elf64_Shdr, STT_FUNC, SHT_SYMTAB and SHT_DYNSYM
_SYMBOL = np.dtype([("name", "<u4"), ("info", "u1"), ("other", "u1"), ("section", "<u2"), ("address", "<u8"), ("size", "<u8")])


@dataclass(frozen=True)
class Library:
    """A library that computes: its files by a pattern of the path, and by patterns of their names the functions that do and those of them
    that only move data."""

    files: re.Pattern[str]
    computing: re.Pattern[str]
    harmless: re.Pattern[str]


@dataclass
class Samples:
    """How many samples fell into code of the candidate's own (what it compiled or loaded itself), and into which functions that compute
    for it."""

    own: int = 0
    foreign: Counter[str] = field(default_factory=Counter)


def program_counters(pid: int) -> list[int]:
    """Where the threads of a process that is being stopped are, of those that ran code of their own and did not wait in the kernel."""
    until, found = time.perf_counter() + _STOPPED_SECONDS, []
    with contextlib.suppress(OSError):
        threads = os.listdir(f"/proc/{pid}/task")
        # The signal reaches a thread without a processor when it gets one.
        while time.perf_counter() < until and not all(_state(pid, thread) in "TtZX" for thread in threads):
            pass
        for thread in threads:
            with contextlib.suppress(OSError, ValueError):
                fields = Path(f"/proc/{pid}/task/{thread}/syscall").read_text().split()
                if fields[0] == "-1":
                    found.append(int(fields[2], 16))
    return found


def _state(pid: int, thread: str) -> str:
    try:
        return Path(f"/proc/{pid}/task/{thread}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "X"


def weigh(pid: int, addresses: Sequence[int], libraries: Sequence[Library]) -> Samples:
    """Sort samples of a process that still lives."""
    found = Samples()
    try:
        lines = [line.split(maxsplit=5) for line in Path(f"/proc/{pid}/maps").read_text().splitlines()]
    except OSError:
        return found
    starts = np.array([int(fields[0].split("-")[0], 16) for fields in lines], np.uint64)
    for address in addresses:
        at = int(np.searchsorted(starts, np.uint64(address), "right")) - 1
        if at < 0 or address >= int(lines[at][0].split("-")[1], 16):
            continue
        path = lines[at][5] if len(lines[at]) > 5 else ""
        library = next((library for library in libraries if library.files.search(path)), None)
        if library is None or not _is_that_file(path, lines[at]):
            found.own += not path.startswith("[v") and not _is_that_file(path, lines[at])
            continue
        name = _function(path, address - int(starts[at]) + int(lines[at][2], 16))
        if library.computing.search(name) and not library.harmless.search(name):
            found.foreign[name] += 1
    return found


def _is_that_file(path: str, mapped: list[str]) -> bool:
    """Whether a mapping is of the file of that path here, and not of one in the candidate's own scratch."""
    try:
        about = os.stat(path)
    except OSError:
        return False
    return about.st_ino == int(mapped[4])


def _function(path: str, offset: int) -> str:
    """The name of the function at an offset in a file; empty where the file does not tell."""
    table = _symbols(path)
    if table is None:
        return ""
    segments, addresses, names = table
    start = next((virtual - at for at, virtual, size in segments if at <= offset < at + size), 0)
    index = int(np.searchsorted(addresses, np.uint64(offset + start), "right")) - 1
    if index < 0:
        return ""
    with open(path, "rb") as file:
        file.seek(int(names[index]))
        return file.read(512).partition(b"\0")[0].decode(errors="replace")


@lru_cache(maxsize=16)
def _symbols(path: str) -> tuple[list[tuple[int, int, int]], np.ndarray, np.ndarray] | None:
    """Of an ELF file: its segments (offset, address, bytes), the addresses of its functions in order, and where their names lie."""
    try:
        with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as whole:
            if whole[:5] != b"\x7fELF\x02":
                return None
            number = {at: int.from_bytes(whole[at : at + size], "little") for at, size in ((0x20, 8), (0x28, 8), (0x38, 2), (0x3C, 2))}
            segments = []
            for i in range(number[0x38]):
                entry = whole[number[0x20] + 56 * i : number[0x20] + 56 * (i + 1)]
                if int.from_bytes(entry[:4], "little") == 1:
                    offset, address, size = (int.from_bytes(entry[k : k + 8], "little") for k in (8, 16, 32))
                    segments.append((offset, address, size))
            first = number[0x28]
            headers = [
                np.frombuffer(whole[first + _HEADER_BYTES * i : first + _HEADER_BYTES * i + _HEADER.itemsize], _HEADER)[0]
                for i in range(number[0x3C])
            ]
            addresses, names = [], []
            for header in headers:
                if header["type"] in _TABLES:
                    begin = int(header["offset"])
                    symbols = np.frombuffer(whole[begin : begin + int(header["size"])], _SYMBOL)
                    symbols = symbols[(symbols["info"] & 15 == _FUNCTION) & (symbols["address"] > 0)]
                    addresses.append(symbols["address"])
                    names.append(symbols["name"].astype(np.uint64) + headers[int(header["link"])]["offset"])
    except (OSError, ValueError):
        return None
    if not addresses:
        return None
    order = np.argsort(np.concatenate(addresses), kind="stable")
    return segments, np.concatenate(addresses)[order], np.concatenate(names)[order]
