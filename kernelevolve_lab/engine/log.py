"""One run's log, as the parts of the loop use it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from kernelevolve_lab.records.events import Event, Logged
from kernelevolve_lab.records.run_state import Entry, RunState
from kernelevolve_lab.store import Overtaken, Store


@dataclass(frozen=True)
class RunLog:
    """Append to one run and read its state."""

    store: Store
    run: str

    def append(self, *events: Event) -> list[Logged]:
        """Add events that stand or fall together; on disk when this returns."""
        return self.store.append_all(self.run, events)

    def decide(self, decision: Callable[[RunState], Sequence[Event]]) -> list[Logged]:
        """Append what follows from the state, decided anew whenever somebody else (a person who rejects a parent, say) adds to the log
        between the look at it and the record. Nothing is appended where nothing follows."""
        while True:
            state = self.state
            try:
                events = decision(state)
                return self.store.append_all(self.run, events, last=state.seq) if events else []
            except Overtaken:
                continue

    @property
    def state(self) -> RunState:
        """The run as it stands in the store."""
        return self.store.state(self.run)


def waiting(state: RunState) -> list[Entry]:
    """The candidates that wait for the judge (or are with it), in the order in which they are taken: what people enqueued, then the
    rest."""
    found = [entry for entry in state.entries.values() if entry.evaluation is None and not entry.banned]
    return sorted(found, key=lambda entry: (entry.index is not None, entry.order))


def generation(state: RunState, parents: tuple[str, ...]) -> int:
    """0 for a draft, else one more than the latest of its parents."""
    return max((state.entries[p].generation + 1 for p in parents if p in state.entries), default=0)
