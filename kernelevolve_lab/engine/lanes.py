"""Threads for blocking work, called from asyncio.

Unlike the executors of the standard library, a lane's threads are daemons: an interpreter that exits does not wait for the compiler or the
measurement that happens to run.
"""

import asyncio
import queue
import threading
from collections.abc import Callable
from typing import Any


class Lane:
    """A number of threads that take calls in order."""

    def __init__(self, name: str, threads: int = 1) -> None:
        self._calls: queue.SimpleQueue = queue.SimpleQueue()
        self._threads = [threading.Thread(target=self._serve, name=f"{name}-{i}", daemon=True) for i in range(threads)]
        for thread in self._threads:
            thread.start()

    def run(self, function: Callable, *args: Any, **kwargs: Any) -> asyncio.Future:
        """Call the function in this lane; the future belongs to the running event loop. Cancelling it takes the call back if it has not
        begun, and lets go of its result otherwise."""
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        future.add_done_callback(_noticed)
        self._calls.put((loop, future, function, args, kwargs))
        return future

    def close(self) -> None:
        """End the threads once the calls before this one are done; returns at once."""
        for _ in self._threads:
            self._calls.put(None)

    def _serve(self) -> None:
        while (call := self._calls.get()) is not None:
            loop, future, function, args, kwargs = call
            if future.cancelled():
                continue
            try:
                outcome, error = function(*args, **kwargs), None
            except BaseException as raised:
                outcome, error = None, raised
            try:
                loop.call_soon_threadsafe(_settle, future, outcome, error)
            except RuntimeError:  # the event loop was closed meanwhile; nobody waits any more
                continue


def _noticed(future: asyncio.Future) -> None:
    """Keep asyncio from complaining about an error in a call whose result nobody needs any more."""
    if not future.cancelled():
        future.exception()


def _settle(future: asyncio.Future, outcome: Any, error: BaseException | None) -> None:
    if future.cancelled():
        return
    if error is None:
        future.set_result(outcome)
    elif isinstance(error, Exception):
        future.set_exception(error)
    else:
        future.set_exception(RuntimeError(f"a worker thread ended: {error!r}"))
