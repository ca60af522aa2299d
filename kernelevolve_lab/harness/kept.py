"""What a candidate has built when it was loaded, kept for later processes of the same candidate while it is judged.

A candidate that compiles at import would do so in each of its processes. So its scratch folder is packed once, by itself, right after a
first load in a process that is asked for nothing else; every process that is judged starts from that copy, so that none can tell from it
which one it is. It is sealed before any process sees an input, is never opened here, and is unpacked in the candidate's own sandbox.
"""

from __future__ import annotations

import contextlib
import os

from kernelevolve_lab.harness import memory


class Kept:
    """The archive of one candidate in one evaluation; empty until a first process has been loaded."""

    def __init__(self) -> None:
        self._archive = memory.create("kept", 0)
        self._sealed = False

    def descriptors(self) -> dict[str, int]:
        """What to hand to the next process, by the name of `zygote.py`; the caller's to close."""
        if not self._sealed:
            return {"keep": os.dup(self._archive)}
        return {"kept": os.open(f"/proc/self/fd/{self._archive}", os.O_RDONLY | os.O_CLOEXEC)} if self.size else {}

    def seal(self) -> None:
        """The first process has been loaded: from now on nothing changes any more. What cannot be sealed, since somebody still holds it
        writable, is let go."""
        if self._sealed:
            return
        self._sealed = True
        try:
            memory.seal(self._archive, memory.SEAL_ALL)
        except OSError:
            os.close(self._archive)
            self._archive = memory.create("nothing", 0)

    @property
    def sealed(self) -> bool:
        """Whether a first process has been loaded."""
        return self._sealed

    @property
    def size(self) -> int:
        """Bytes of the archive."""
        return os.fstat(self._archive).st_size

    def close(self) -> None:
        """Free it."""
        with contextlib.suppress(OSError):
            os.close(self._archive)
