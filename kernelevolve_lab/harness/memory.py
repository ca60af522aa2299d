"""Shared memory: sealed input sets that nobody can write any more, and output arenas that are poisoned before every call.

Sizes are bytes; tensors lie at fixed offsets in a region (`layout`), row-major without gaps.
"""

from __future__ import annotations

import fcntl
import math
import mmap
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from kernelevolve_lab.languages.abi import ITEMSIZE
from kernelevolve_lab.records import TensorSpec

PAGE = 4096
# Tensors that start at the same offset within a page make loads wait for unrelated stores (4 KiB aliasing); so each starts elsewhere.
_STAGGER = 9 * 64

SEAL_SIZE = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
SEAL_ALL = SEAL_SIZE | fcntl.F_SEAL_WRITE

NAN_POISON = {1: b"\xa5", 2: b"\xa5\xff", 4: b"\xa5\xa5\xff\xff", 8: b"\xa5\xa5\xa5\xa5\xa5\xa5\xff\xff"}
"""By item size: a quiet NaN in every float format (sign, exponent and top of the fraction all ones), little-endian."""
BIG_POISON = {1: b"\x5b", 2: b"\x5b\x5b", 4: b"\x5b\x5b\x5b\x5b", 8: b"\x5b\x5b\x5b\x5b\x5b\x5b\x5b\x5b"}
"""By item size: a large finite number (float32: 6.2e16), so that code that skips NaNs still shows what it did not write."""


@dataclass(frozen=True)
class Placed:
    """A tensor in a region."""

    spec: TensorSpec
    offset: int

    @property
    def bytes(self) -> int:
        return ITEMSIZE[self.spec.dtype] * math.prod(self.spec.shape)


def layout(specs: Iterable[TensorSpec], first: int = 0) -> tuple[tuple[Placed, ...], int]:
    """Where each tensor lies, and the bytes of the region; `first` tensors lie before these in another region (they shift the stagger)."""
    placed, position = [], 0
    for index, spec in enumerate(specs, start=first):
        tensor = Placed(spec, position + (index * _STAGGER) % PAGE)
        placed.append(tensor)
        position = -(-(tensor.offset + tensor.bytes + 64) // PAGE) * PAGE
    return tuple(placed), max(position, PAGE)


def create(name: str, size: int) -> int:
    """A new shared-memory file of `size` bytes; its descriptor is the caller's to close."""
    fd = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, size)
    return fd


def seal(fd: int, seals: int) -> None:
    """Forbid what `seals` name, for everyone and for good."""
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)


def is_sealed(fd: int, size: int) -> bool:
    """Whether the file has that size and can be changed by nobody."""
    return fcntl.fcntl(fd, fcntl.F_GET_SEALS) & SEAL_ALL == SEAL_ALL and os.fstat(fd).st_size == size


class Arena:
    """A writable region for one candidate's outputs, of fixed size. The judge keeps its own mapping to poison and to look.

    `handed` says that outputs are computed on a device and handed over whole: then what was here before reaches no candidate, and filling
    it would tell nothing of what a kernel wrote.
    """

    def __init__(self, size: int, handed: bool = False):
        self.size = size
        self.handed = handed
        self.fd = create("outputs", size)
        seal(self.fd, SEAL_SIZE)
        self._map = mmap.mmap(self.fd, size)
        self._bytes = np.frombuffer(self._map, np.uint8)

    def clear(self) -> None:
        """Zero all of it: what one candidate left is not for the next."""
        if not self.handed:
            self._bytes.fill(0)

    def poison(self, placed: Sequence[Placed], pattern: dict[int, bytes]) -> None:
        """Fill the tensors with the pattern, whole."""
        if self.handed:
            return
        for tensor in placed:
            item = ITEMSIZE[tensor.spec.dtype]
            view = self._bytes[tensor.offset : tensor.offset + tensor.bytes].view(f"u{item}")
            view.fill(int.from_bytes(pattern[item], "little"))

    def sprinkle(self, placed: Sequence[Placed], rng: np.random.Generator, count: int = 128) -> np.ndarray:
        """Overwrite up to `count` random 4-byte words of each tensor, its last one among them, with random bits; returns what `unwritten`
        needs. Cheap enough for every timed call: a call that does not write its outputs leaves these words as they are."""
        chosen = []
        for tensor in placed:
            first, end = -(-tensor.offset // 4), (tensor.offset + tensor.bytes) // 4
            if end > first:
                chosen += [rng.integers(first, end, min(count, end - first)), np.array([end - 1])]
        where = np.unique(np.concatenate(chosen)) if chosen else np.zeros(0, np.int64)
        words = rng.integers(0, 1 << 32, len(where), dtype=np.uint32)
        self._bytes.view(np.uint32)[where] = words
        return np.stack([where, words.astype(np.int64)])

    def unwritten(self, sprinkled: np.ndarray) -> int:
        """How many of the sprinkled words are still there. A right output keeps one by chance once in 2^32."""
        return int((self._bytes.view(np.uint32)[sprinkled[0]] == sprinkled[1]).sum())

    def close(self) -> None:
        del self._bytes
        self._map.close()
        os.close(self.fd)
