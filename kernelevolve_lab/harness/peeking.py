"""Looking into a candidate's process from outside: what lies in its memory, and which processes it has started. Nothing there can lie."""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np

_libc = ctypes.CDLL(None, use_errno=True)
_MOST = 1024  # IOV_MAX


class _Piece(ctypes.Structure):
    _fields_ = (("start", ctypes.c_void_p), ("bytes", ctypes.c_size_t))


def read(pid: int, address: int, size: int) -> bytes | None:
    """So many bytes from another process's memory; None where it has no such memory or may not be read."""
    found = ctypes.create_string_buffer(size)
    here, there = _Piece(ctypes.addressof(found), size), _Piece(address, size)
    got = _libc.process_vm_readv(pid, ctypes.byref(here), 1, ctypes.byref(there), 1, 0)
    return found.raw if got == size else None


def words(pid: int, addresses: Sequence[int]) -> np.ndarray | None:
    """The 4-byte words at these addresses (at most 1024) of another process; None where it has no such memory or may not be read."""
    found = np.zeros(len(addresses), np.uint32)
    pieces = (_Piece * len(addresses))(*((address, 4) for address in addresses[:_MOST]))
    here = _Piece(found.ctypes.data, found.nbytes)
    read = _libc.process_vm_readv(pid, ctypes.byref(here), 1, pieces, len(addresses), 0)
    return found if read == found.nbytes else None


@cache
def permitted() -> bool:
    """Whether this machine lets a process read another's memory at all (a container may not)."""
    value = ctypes.c_uint32(7)
    found = words(os.getpid(), [ctypes.addressof(value)])
    return found is not None and bool(found[0] == 7)


def company(pid: int) -> list[int]:
    """Other processes that live in the namespace of a candidate: whatever descends from that namespace's first process, which starts the
    candidate and gets the orphans."""
    parents: dict[int, list[int]] = {}
    states: dict[int, str] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(OSError):
                fields = Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()
                states[int(entry)] = fields[0]
                parents.setdefault(int(fields[1]), []).append(int(entry))
    first = next((parent for parent, children in parents.items() if pid in children), 0)
    found, left = [], [first] if first else []
    while left:
        children = parents.get(left.pop(), [])
        found += [child for child in children if child != pid and states[child] not in "ZX"]
        left += children
    return found
