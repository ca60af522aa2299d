"""What people ask for while a run goes on.

Commands arrive as events of the log, from any process; `RunState` has taken in what they mean for the record (bans, pins, hints,
budgets), and this module does what they mean for the work in progress, then writes down that it did.
"""

from kernelevolve_lab.engine.bench import Bench
from kernelevolve_lab.engine.log import RunLog, generation
from kernelevolve_lab.errors import LabError
from kernelevolve_lab.records import Candidate
from kernelevolve_lab.records.events import CandidateProposed, Event, SteeringApplied
from kernelevolve_lab.records.run import Appeal, Branch, Enqueue, Extend, Hint, Overrule, Pause, Pin, Reject, Resume, Stop
from kernelevolve_lab.records.run_state import Request, RunState

UNHEARD = "The run was stopped before it was judged again; the verdict stands, and can be appealed against anew."


class Steering:
    """Applies the commands of one drive; `stopping` is set once a person asked to stop."""

    def __init__(self, log: RunLog, bench: Bench) -> None:
        self._log, self._bench = log, bench
        self.stopping = False

    def apply(self, state: RunState) -> RunState:
        """Do what the commands accepted since the last turn ask for; return the state after it."""
        pending = state.pending_requests
        for request in pending:
            if isinstance(request.command, Pause) and self._bench.busy and not _outlived(request, pending):
                break  # the clock stops, and later commands count, when the evaluation in progress is done
            applied = self._do(state, request)
            if applied is not None:
                self._log.append(*applied)
                state = self._log.state
        self._bench.drop_banned(state)
        return state

    def _do(self, state: RunState, request: Request) -> list[Event] | None:
        """The events that a command leads to; None where it stays pending for another part of the loop."""
        more: list[Event] = []
        match request.command:
            case Reject(candidate=rejected):
                banned = [e for e in state.entries.values() if e.banned and e.evaluation is None and e.id != rejected]
                note = f"{len(banned)} waiting descendants dropped." if banned else "Nothing will be made from it."
            case Pin(pinned=pinned):
                note = "It is preferred as a parent." if pinned else "It is no longer preferred."
            case Hint():
                note = "The proposer is told from its next request on."
            case Enqueue() as command:
                more, note = self._enqueue(state, command)
            case Branch(candidate=parent):
                entry = state.entries.get(parent)
                if entry is not None and not entry.banned:
                    return None
                note = f"{parent} cannot be expanded: {'it was rejected' if entry else 'it is not in this run'}."
            case Appeal(candidate=named):
                entry = state.entries.get(named)
                if entry is not None and entry.evaluation is not None:
                    return None
                note = f"There is no verdict on {named} to appeal against."
            case Overrule(flag=flag):
                note = f"The flag '{flag}' stands as overruled by a person; the verdict is what it was."
            case Pause():
                note = "Nothing is being judged now."
            case Resume():
                note = "The search goes on."
            case Stop():
                self.stopping = True
                unheard = [pending for pending in state.pending_requests if isinstance(pending.command, Appeal)]
                more = [SteeringApplied(request=appeal.seq, note=UNHEARD) for appeal in unheard]
                self._bench.cancel()
                note = "Stopping."
            case Extend():
                bounds = state.budget.model_dump(exclude_none=True)
                note = f"The budget is now {', '.join(f'{key} {value:g}' for key, value in bounds.items()) or 'without bounds'}."
        return [*more, SteeringApplied(request=request.seq, note=note)]

    def _enqueue(self, state: RunState, command: Enqueue) -> tuple[list[Event], str]:
        known = tuple(p for p in command.parents if p in state.entries and not state.entries[p].banned)
        try:
            title = command.title or "Written by hand"
            candidate = Candidate(language=command.language, source=command.source, parents=known, title=title, notes=command.notes)
        except (ValueError, LabError) as error:
            return [], f"That source cannot be judged: {error}"
        if candidate.id in state.entries:
            return [], f"That source is in this run already, as {candidate.id}."
        proposed = CandidateProposed(candidate=candidate, generation=generation(state, known), prompt=command.prompt, reply=command.reply)
        return [proposed, *_branched(state, candidate)], f"Taken in as {candidate.id}; it is judged next."


def _branched(state: RunState, candidate: Candidate) -> list[SteeringApplied]:
    """That what people asked to be expanded was expanded by a person."""
    asked = [r for r in state.pending_requests if isinstance(r.command, Branch) and r.command.candidate in candidate.parents]
    return [SteeringApplied(request=r.seq, note=f"{candidate.id} was made from {r.command.candidate} by hand.") for r in asked]


def _outlived(request: Request, pending: tuple[Request, ...]) -> bool:
    """Whether a later command takes back this pause."""
    return any(later.seq > request.seq and isinstance(later.command, Resume | Stop) for later in pending)
