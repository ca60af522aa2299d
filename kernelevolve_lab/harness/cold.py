"""Cold caches: a buffer more than twice as large as the last-level cache is read and written whole, by every processor, before a call.

Reading and writing, since a kernel can ask some caches to keep its lines while others only read past them; more than twice, since a cache
that does not evict in order keeps a part of what it held after one pass of its own size.
"""

from __future__ import annotations

import mmap
import os
import threading

import numpy as np

from kernelevolve_lab.records import TargetSpec

_UNKNOWN_CACHE = 64 << 20
_SPARE = 32 << 20


class Flusher:
    """Holds the buffer while it is open; a context manager."""

    def __init__(self, target: TargetSpec):
        last_level = max((level.bytes for level in target.caches), default=_UNKNOWN_CACHE)
        self.bytes = 2 * last_level + _SPARE
        self._map = mmap.mmap(-1, self.bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self._map.madvise(mmap.MADV_HUGEPAGE)
        self._parts = np.array_split(np.frombuffer(self._map, np.uint64), len(os.sched_getaffinity(0)))

    def __enter__(self) -> Flusher:
        return self

    def __exit__(self, *exception: object) -> None:
        self._parts.clear()
        self._map.close()

    def flush(self) -> None:
        """Empty the caches of all processors that this process may use; takes as long as reading and writing the buffer once."""

        def run(processor: int, part: np.ndarray) -> None:
            os.sched_setaffinity(0, {processor})  # of this thread alone
            np.add(part, 1, out=part)

        threads = [threading.Thread(target=run, args=pair) for pair in zip(sorted(os.sched_getaffinity(0)), self._parts, strict=True)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
