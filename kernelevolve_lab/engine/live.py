"""What is being written just now: pieces of replies as they arrive, for the live view.

They are kept in the memory of the process that drives the run and never in its log: a reply counts once it is whole, and then it is an
event. A hundred pieces a second from many requests are therefore a cheap append here, and whoever shows them looks as often as it likes.
"""

from __future__ import annotations

import threading
import time
import weakref
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

TAIL = 2_000


@dataclass(frozen=True)
class Writing:
    """A reply on its way: to request `index` with these `parents`, asked at `since` (seconds since the epoch); `characters` have come, of
    which `text` is the end."""

    index: int
    parents: tuple[str, ...]
    since: float
    characters: int
    text: str


class Board:
    """The replies on their way in one run; may be used from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: dict[int, _Growing] = {}

    def begin(self, index: int, parents: tuple[str, ...]) -> Callable[[str], None]:
        """Open a place for the reply to a request; what is returned takes its pieces."""
        growing = self._open[index] = _Growing(parents, time.time())

        def emit(piece: str) -> None:
            with self._lock:
                growing.add(piece)

        return emit

    def end(self, index: int) -> None:
        """The request is answered, or given up."""
        with self._lock:
            self._open.pop(index, None)

    def snapshot(self) -> tuple[Writing, ...]:
        """What stands there now, oldest request first."""
        with self._lock:
            return tuple(
                Writing(index, growing.parents, growing.since, growing.characters, growing.text) for index, growing in self._open.items()
            )


class _Growing:
    """The end of a text that grows, as the pieces of which it is made."""

    def __init__(self, parents: tuple[str, ...], since: float) -> None:
        self.parents, self.since, self.characters = parents, since, 0
        self._pieces: deque[str] = deque()
        self._kept = 0

    def add(self, piece: str) -> None:
        self.characters += len(piece)
        self._pieces.append(piece)
        self._kept += len(piece)
        while self._kept - len(self._pieces[0]) >= TAIL:
            self._kept -= len(self._pieces.popleft())

    @property
    def text(self) -> str:
        return "".join(self._pieces)[-TAIL:]


_boards: weakref.WeakValueDictionary[str, Board] = weakref.WeakValueDictionary()


def open_board(run: str) -> Board:
    """The board of a run, made where there is none; it lives as long as somebody keeps it."""
    board = _boards.get(run)
    if board is None:
        board = _boards[run] = Board()
    return board


def writing(run: str) -> tuple[Writing, ...]:
    """What is being written for a run in this process; nothing where this process does not drive it."""
    board = _boards.get(run)
    return board.snapshot() if board is not None else ()
