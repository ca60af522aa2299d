"""The thread in which a run is driven."""

import asyncio
import atexit
import threading
import weakref

from kernelevolve_lab.engine.appeal import first_appeal
from kernelevolve_lab.engine.hearing import Hearing
from kernelevolve_lab.engine.loop import Interrupted, SearchLoop
from kernelevolve_lab.engine.services import Services
from kernelevolve_lab.errors import LabError
from kernelevolve_lab.records.events import RunResumed
from kernelevolve_lab.records.run import Extend
from kernelevolve_lab.store import Store

EXIT_SECONDS = 3.0

_live: "weakref.WeakSet[Driver]" = weakref.WeakSet()


class Driver:
    """Drives a run in a daemon thread with an event loop of its own, under the store's lease; with `hearing` it only hears the
    appeals of a run that has ended.

    The lease is taken at once, so `RunBusy` reaches the caller. An interpreter that exits lets go of the run, which stays resumable.
    `error` is why driving failed without the run's log saying so (the store cannot be written), None otherwise.
    """

    def __init__(self, store: Store, run: str, services: Services, *, resumed: str | None = None, hearing: bool = False) -> None:
        self._store, self._run, self._services = store, run, services
        self._lease = store.drive(run)
        self.error: LabError | None = None
        try:
            if resumed is not None:
                store.append(run, RunResumed(reason=resumed))
            self._loop: SearchLoop | Hearing = (Hearing if hearing else SearchLoop)(store, self._lease, services)
        except BaseException:
            self._lease.release()
            raise
        self._thread = threading.Thread(target=self._drive, name=f"search-{run}", daemon=True)
        _live.add(self)
        self._thread.start()

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    def wake(self) -> None:
        """Have the loop look at the log now."""
        self._loop.wake()

    def interrupt(self) -> None:
        """Let go of the run."""
        self._loop.interrupt()

    def join(self, timeout: float | None = None) -> bool:
        """Wait until the thread has ended; return whether it has."""
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def _drive(self) -> None:
        try:
            while True:
                asyncio.run(self._loop.run())
                if self._extended_too_late():
                    self._store.append(self._run, RunResumed(reason="The budget was extended."))
                    self._loop = SearchLoop(self._store, self._lease, self._services)
                elif first_appeal(self._store.state(self._run)) is not None:
                    self._loop = Hearing(self._store, self._lease, self._services)
                else:
                    return
        except Interrupted:
            return
        except LabError as error:
            self.error = error
        except Exception as error:
            self.error = LabError(f"Internal error while driving run {self._run}: {type(error).__name__}: {error}")
        finally:
            try:
                self._lease.release()
            except Exception as error:  # the store is gone; the lease dies with this process
                self.error = self.error or LabError(f"Run {self._run} could not be let go: {error}")

    def _extended_too_late(self) -> bool:
        """Whether a person extended the budget between the loop's last look at the log and the run's end. (A run that failed may have left
        an extension unread; it would fail again.)"""
        state = self._store.state(self._run)
        return state.outcome == "finished" and any(isinstance(request.command, Extend) for request in state.pending_requests)


@atexit.register
def _let_go() -> None:
    drivers = [driver for driver in _live if driver.alive]
    for driver in drivers:
        driver.interrupt()
    for driver in drivers:
        driver.join(EXIT_SECONDS)
