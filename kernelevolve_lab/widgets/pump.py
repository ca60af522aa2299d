"""The one thread that writes to a view.

Widget traits and messages have no locks, so a view has a single writer: this thread. It ticks four times a second, at once when something
was asked for, and more slowly when a tick takes long. It is started in the context of the cell that made it: ipykernel then files messages
and prints under that cell, and a reload of the page does not orphan the view.
"""

from __future__ import annotations

import contextvars
import threading
import time
import weakref
from collections.abc import Callable

PERIOD = 0.25
SLOWEST = 2.0


class Pump:
    """Calls `tick()` of `owner` until it returns False, `stop` is called or the owner is gone.

    `owner` is held weakly, so that a view nobody refers to can be freed; `tick` must not raise for anything but a defect, which is kept in
    `error` and ends the thread.
    """

    def __init__(self, owner: object, tick: Callable[[object], bool], period: float = PERIOD) -> None:
        self._owner = weakref.ref(owner, lambda _: self._wake.set())
        self._tick = tick
        self.base = self.period = period
        self._wake = threading.Event()
        self._stopped = threading.Event()
        self._context = contextvars.copy_context()
        self._thread: threading.Thread | None = None
        self.error: BaseException | None = None

    @property
    def alive(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def start(self) -> None:
        """Start the thread; does nothing when it runs already."""
        if not self.alive and not self._stopped.is_set():
            self._thread = threading.Thread(target=self._context.run, args=(self._run,), daemon=True, name="kel-ui")
            self._thread.start()

    def wake(self) -> None:
        """Tick now rather than at the end of the period."""
        self._wake.set()

    def stop(self, timeout: float = 1.0) -> None:
        """End the thread and wait for it, at most `timeout` seconds."""
        self._stopped.set()
        self._wake.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(timeout)

    def _run(self) -> None:
        while not self._stopped.is_set():
            self._wake.clear()
            began = time.perf_counter()
            owner = self._owner()
            if owner is None:
                return
            try:
                if not self._tick(owner):
                    return
            except BaseException as error:
                self.error = error
                raise
            del owner
            self._pace(time.perf_counter() - began)
            self._wake.wait(self.period)

    def _pace(self, took: float) -> None:
        """Double the period when a tick took more than half of it; come back slowly."""
        if took > self.period / 2:
            self.period = min(SLOWEST, self.period * 2)
        elif self.period > self.base:
            self.period = max(self.base, self.period * 0.9)
