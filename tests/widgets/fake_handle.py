"""A handle like `engine.handle.RunHandle`, over the synthetic script: what widgets are driven with where no search may run."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import synthetic_stream as synthetic

from kernelevolve_lab.errors import BadInput
from kernelevolve_lab.records.evaluation import Flag
from kernelevolve_lab.records.events import Event, Logged, RunEnded, SteeringAccepted, SteeringApplied
from kernelevolve_lab.records.fold import RunFold
from kernelevolve_lab.records.run import Appeal, Branch, Enqueue, Extend, Hint, Overrule, Pause, Pin, Reject, Resume, Stop
from kernelevolve_lab.records.run_state import RunState, Status


class FakeHandle:
    """Plays the script by hand (`play(n)`) or in a thread (`start(rate)`); steering appends to the same log."""

    def __init__(self, candidates: int = 60, seed: int = 0, run: str = synthetic.RUN, **script) -> None:
        self.run_id = run
        self._script = synthetic.script(candidates, seed, **script)
        self._fold = RunFold()
        self._lock = threading.RLock()
        self._halt = threading.Event()
        self.calls: list[tuple[str, str]] = []
        self._live = False
        self.may_export = threading.Event()
        self.may_export.set()

    @property
    def state(self) -> RunState:
        with self._lock:
            return self._fold.state

    @property
    def status(self) -> str:
        state = self.state
        return state.outcome if state.status is Status.ENDED else str(state.status)

    def append(self, event: Event, now: float | None = None) -> int:
        with self._lock:
            at = now if now is not None else (time.time() if self._live else synthetic.START + self._fold.state.seq)
            seq = self._fold.state.seq + 1
            self._fold.apply(Logged(run=self.run_id, seq=seq, time=at, event=event))
            return seq

    def play(self, events: int) -> int:
        """Append that many events of the script; returns how many there were."""
        done = 0
        for _, event in zip(range(events), (e for _, e in self._script), strict=False):
            self.append(event)
            done += 1
        return done

    def start(self, speed: float = 8.0) -> FakeHandle:
        """Append the script in a thread, `speed` times as fast as it says."""
        self._live = True

        def work() -> None:
            for wait, event in self._script:
                while self.state.status is Status.PAUSED and not self._halt.is_set():
                    time.sleep(0.05)
                if self._halt.wait(wait / speed) or self.state.status is Status.ENDED:
                    return
                self.append(event)

        threading.Thread(target=work, daemon=True, name="fake-search").start()
        return self

    def _steer(self, command, note: str) -> None:
        self.calls.append((command.command, threading.current_thread().name))
        seq = self.append(SteeringAccepted(command=command))
        self.append(SteeringApplied(request=seq, note=note))

    def reject(self, candidate: str, reason: str) -> None:
        if candidate not in self.state.entries:
            raise BadInput(f"There is no candidate {candidate} in this run.")
        self._steer(Reject(candidate=candidate, reason=reason), "")

    def pin(self, candidate: str, pinned: bool = True) -> None:
        self._steer(Pin(candidate=candidate, pinned=pinned), "")

    def hint(self, text: str) -> None:
        self._steer(Hint(text=text), "The next prompts carry the hint.")

    def enqueue(self, source: str, language: str | None = None, title: str = "", parents: tuple[str, ...] = ()) -> None:
        if not source.strip():
            raise BadInput("The source is empty; paste a kernel.")
        self._steer(Enqueue(source=source, language=language or "cpp", title=title, parents=parents), "Queued before all others.")

    def branch(self, candidate: str) -> None:
        self._steer(Branch(candidate=candidate), f"Expanding {candidate} next.")

    def appeal(self, candidate: str, reason: str) -> None:
        self._steer(Appeal(candidate=candidate, reason=reason), "Judged again.")

    def overrule(self, candidate: str, flag: str, reason: str) -> None:
        self._steer(Overrule(candidate=candidate, flag=Flag(flag), reason=reason), "")

    def pause(self) -> None:
        self._steer(Pause(), "")

    def resume(self) -> None:
        self._steer(Resume(), "")

    def stop(self) -> None:
        self._steer(Stop(), "")
        self.append(RunEnded(outcome="stopped", reason="stopped by a person"))

    def extend(self, candidates: int = 0, seconds: float = 0.0, cost: float = 0.0) -> None:
        self._steer(Extend(candidates=candidates, seconds=seconds, cost=cost), "")

    def export(self, out: Path, format: str = "module", candidate: str | None = None) -> tuple[Path, ...]:
        self.may_export.wait(30)
        out.mkdir(parents=True, exist_ok=True)
        path = out / f"{candidate}.{format}.txt"
        path.write_text(self.state.entries[candidate].candidate.source)
        return (path,)
