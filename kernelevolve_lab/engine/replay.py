"""A recorded run shown again: its events with their timing, at any speed. Nothing is proposed, judged or written."""

from __future__ import annotations

import math
import threading
import time

from kernelevolve_lab.engine.handle import RunHandle
from kernelevolve_lab.engine.live import Writing
from kernelevolve_lab.errors import BadInput
from kernelevolve_lab.records.events import Logged, RunStarted
from kernelevolve_lab.records.fold import RunFold
from kernelevolve_lab.records.run import Command
from kernelevolve_lab.records.run_state import RunState, Status

LONGEST_PAUSE = 20.0
"""Seconds of the run's own time to which a longer silence (a pause, a night between two drives) is cut."""


class Replay(RunHandle):
    """A recorded run that plays from its start when it is made. To views it is a run like any other; its title says that it is a replay.

    `pause`, `resume`, `stop`, `seek` and `speed` move the playback; what would change the run raises `BadInput`, and so does a speed that
    is not above zero. `math.inf` plays everything at once.
    """

    def __init__(self, recorded: RunHandle, speed: float = 8.0) -> None:
        self.store, self.id = recorded.store, recorded.id
        self._services = recorded._services
        self._driver = None
        self._lock = threading.Lock()
        self._log = [_labelled(logged) for logged in recorded.events()]
        self._due = _timeline(self._log)
        self._changed = threading.Condition()
        self._fold = RunFold()
        self._played = 0
        self._position = 0.0
        self._paused = self._stopped = False
        self._speed, self._since = 1.0, time.monotonic()
        self.speed = speed
        self._thread = threading.Thread(target=self._play, name=f"replay-{self.id}", daemon=True)
        self._thread.start()

    @property
    def state(self) -> RunState:
        """The run as it stood at the position that is shown."""
        with self._changed:
            return self._fold.state

    @property
    def status(self) -> str:
        """`paused` while the playback stands; at its end what the run ended with, or `interrupted`; `running` in between."""
        with self._changed:
            if self._paused:
                return "paused"
            if self._over_now:
                state = self._fold.state
                return state.outcome if state.status is Status.ENDED else "interrupted"
            return "running"

    @property
    def is_driven(self) -> bool:
        """Whether there is more to be shown."""
        with self._changed:
            return not self._over_now

    @property
    def speed(self) -> float:
        """How many seconds of the run pass in one second."""
        return self._speed

    @speed.setter
    def speed(self, value: float) -> None:
        if not isinstance(value, int | float) or isinstance(value, bool) or math.isnan(value) or value <= 0:
            raise BadInput(f"A replay needs a speed above zero, not {value!r}; 1 is the run's own.")
        with self._changed:
            self._advance()
            self._speed = float(value)
            self._changed.notify_all()

    @property
    def progress(self) -> float:
        """How much of the run is shown, 0 to 1, in its own time."""
        with self._changed:
            return min(1.0, self._position / self._due[-1]) if self._due and self._due[-1] > 0 else 1.0

    @property
    def writing(self) -> tuple[Writing, ...]:
        """Nothing: how a reply arrived is not recorded."""
        return ()

    def events(self, after: int = 0) -> list[Logged]:
        """The events that are shown so far, above a sequence number."""
        with self._changed:
            return [logged for logged in self._log[: self._played] if logged.seq > after]

    def seek(self, progress: float) -> None:
        """Go to a place in the run, 0 to 1 in its own time; earlier ones too."""
        if not 0 <= progress <= 1:
            raise BadInput(f"A place in a replay is between 0 and 1, not {progress!r}.")
        with self._changed:
            self._advance()
            self._position = progress * (self._due[-1] if self._due else 0.0)
            if self._played and self._due[self._played - 1] > self._position:
                self._fold, self._played = RunFold(), 0
            self._show()
            self._changed.notify_all()

    def pause(self) -> None:
        """Stand still."""
        with self._changed:
            self._advance()
            self._paused = True
            self._changed.notify_all()

    def resume(self) -> None:
        """Play on; from the start when the end was reached."""
        with self._changed:
            self._advance()
            self._paused = False
            if self._over_now:
                self._fold, self._played, self._position, self._stopped = RunFold(), 0, 0.0, False
                self._show()
            if not self._thread.is_alive():
                self._thread = threading.Thread(target=self._play, name=f"replay-{self.id}", daemon=True)
                self._thread.start()
            self._changed.notify_all()

    def stop(self) -> None:
        """End the playback where it is."""
        with self._changed:
            self._advance()
            self._stopped, self._paused = True, False
            self._changed.notify_all()

    def extend(self, candidates: int = 0, seconds: float = 0.0, cost: float = 0.0) -> None:
        """Refused: a replay has no budget."""
        self._refuse()

    def _steer(self, command: Command) -> None:
        self._refuse()

    def _refuse(self) -> None:
        raise BadInput(
            f"This is a replay of run {self.id}, which cannot be changed; open the run itself to steer it: kel.open('{self.id}')."
        )

    @property
    def _over_now(self) -> bool:
        return self._stopped or self._played == len(self._log)

    def _show(self) -> None:
        """Take in all events that are due; the caller holds the lock."""
        while self._played < len(self._log) and self._due[self._played] <= self._position:
            self._fold.apply(self._log[self._played])
            self._played += 1

    def _advance(self) -> None:
        """Move on by the time that has passed; the caller holds the lock."""
        now = time.monotonic()
        if not self._paused and now > self._since and self._due:
            self._position = min(self._position + (now - self._since) * self._speed, self._due[-1])
        self._since = now
        if not self._stopped:
            self._show()

    def _play(self) -> None:
        with self._changed:
            self._advance()
            while not self._over_now:
                self._changed.wait(None if self._paused else (self._due[self._played] - self._position) / self._speed)
                self._advance()


def _labelled(logged: Logged) -> Logged:
    if not isinstance(logged.event, RunStarted):
        return logged
    event = logged.event.model_copy(update={"title": f"{logged.event.title} (replay)"})
    return logged.model_copy(update={"event": event})


def _timeline(log: list[Logged]) -> list[float]:
    """When each event is due, in seconds of the run's own time from its start, long silences cut."""
    due: list[float] = []
    for before, logged in zip((None, *log), log, strict=False):
        gap = min(max(0.0, logged.time - before.time), LONGEST_PAUSE) if before else 0.0
        due.append((due[-1] if due else 0.0) + gap)
    return due
