"""A run in the hands of a person: watch it, wait for it, steer it."""

import asyncio
import difflib
import threading
import time
from collections.abc import Generator
from typing import Any

from pydantic import ValidationError

from kernelevolve_lab import registry
from kernelevolve_lab.engine import budget, live
from kernelevolve_lab.engine.driver import Driver
from kernelevolve_lab.engine.live import Writing
from kernelevolve_lab.engine.services import Services
from kernelevolve_lab.errors import BadInput, LabError, UnknownName
from kernelevolve_lab.records import Flag, candidate_id
from kernelevolve_lab.records.events import Logged, SteeringAccepted, SteeringApplied
from kernelevolve_lab.records.run import Appeal, Branch, Command, Enqueue, Extend, Hint, Overrule, Pause, Pin, Reject, Resume, Stop
from kernelevolve_lab.records.run_state import Entry, RunState, Status
from kernelevolve_lab.store import Store

WAIT_SECONDS = 0.1
LONGEST_HINT = 10_000
LONGEST_SOURCE = 1_000_000


class RunHandle:
    """One run. All methods may be called from any thread and return after at most one write to the store.

    A handle that started or resumed the run drives it in a thread of this process; any other handle, in whatever process, sees the same
    state and steers through the same log.
    """

    def __init__(self, store: Store, run: str, services: Services | None = None) -> None:
        self.store = store
        self.id = store.find(run)
        self._services = services or Services()
        self._driver: Driver | None = None
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        state = self.state
        config = state.config
        best = f", best {state.best.fitness:.2f}x" if state.best else ""
        return f"<Run {self.id}: {state.title} on {config.target} in {config.language}, {self.status}, {state.judged} judged{best}>"

    # Watching

    @property
    def state(self) -> RunState:
        """The run as it stands, as an immutable snapshot."""
        return self.store.state(self.id)

    @property
    def status(self) -> str:
        """`running`, `paused`, `interrupted` (not ended, and nobody drives it), `finished`, `stopped` or `failed`."""
        state = self.state
        if state.status is Status.ENDED:
            return state.outcome
        return state.status.value if self.is_driven else "interrupted"

    @property
    def is_driven(self) -> bool:
        """Whether a live process drives the run."""
        return (self._driver is not None and self._driver.alive) or self.store.is_driven(self.id)

    @property
    def best(self) -> Entry | None:
        """The best candidate so far (`.source`, `.evaluation`), None while nothing correct was found."""
        return self.state.best

    @property
    def error(self) -> LabError | None:
        """Why this process could not drive the run further although its log does not say so, None otherwise."""
        return self._driver.error if self._driver else None

    @property
    def writing(self) -> tuple[Writing, ...]:
        """Replies of models that are arriving just now; empty where another process drives the run."""
        return live.writing(self.id)

    def events(self, after: int = 0) -> list[Logged]:
        """The run's log above a sequence number."""
        return self.store.read(self.id, after=after)

    def candidate(self, name: str) -> Entry:
        """The candidate with this id, or with an id that starts like this; raise `UnknownName` with near ids."""
        entries = self.state.entries
        if name in entries:
            return entries[name]
        found = [entry for key, entry in entries.items() if name and key.startswith(name)]
        if len(found) == 1:
            return found[0]
        if found:
            raise UnknownName(f"'{name}' fits several candidates ({', '.join(e.id for e in found[:4])}); give more of the id.")
        near = difflib.get_close_matches(str(name), entries, n=3, cutoff=0.4) or [entry.id for entry in self.state.ranked()[:3]]
        hint = f"the nearest: {', '.join(near)}." if near else "it has none yet."
        raise UnknownName(f"Run {self.id} has no candidate '{name}'; {hint}")

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the run has ended, at most `timeout` seconds; return whether nobody drives it any more. Raises the error that kept
        the run from being driven on, if there was one."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while not self._over():
            left = WAIT_SECONDS if deadline is None else min(WAIT_SECONDS, deadline - time.monotonic())
            if left <= 0:
                return False
            if self._driver is not None and self._driver.alive:
                self._driver.join(left)
            else:
                time.sleep(left)
        return True

    def __await__(self) -> Generator[Any, None, "RunHandle"]:
        """`await run` waits for the end in any event loop, without blocking it, and gives the run."""

        async def ended() -> RunHandle:
            while not self._over():
                await asyncio.sleep(WAIT_SECONDS)
            return self

        return ended().__await__()

    def _over(self) -> bool:
        if self.error is not None:
            raise self.error
        return not self.is_driven

    # Steering

    def reject(self, candidate: str, reason: str) -> None:
        """Ban a candidate and all that descends from it; proposers are told the reason."""
        if not str(reason).strip():
            raise BadInput("A rejection needs a reason: proposers are told it.")
        self._steer(Reject(candidate=self.candidate(candidate).id, reason=_text(reason)))

    def pin(self, candidate: str, pinned: bool = True) -> None:
        """Prefer a candidate as a parent (or no longer)."""
        self._steer(Pin(candidate=self.candidate(candidate).id, pinned=pinned))

    def hint(self, text: str) -> None:
        """Tell the proposer something, from its next request on."""
        if not str(text).strip():
            raise BadInput("The hint is empty.")
        self._steer(Hint(text=_text(text)))

    def enqueue(
        self,
        source: str,
        language: str | None = None,
        title: str = "",
        parents: tuple[str, ...] = (),
        *,
        notes: str = "",
        prompt: str = "",
        reply: str = "",
    ) -> str:
        """Have a source of one's own judged next; return its candidate id. `notes` say what it is about; `prompt` and `reply` are kept with
        it where a model wrote it by hand of a person."""
        language = language or self.state.config.language
        if language not in registry.names("languages"):
            raise UnknownName(registry.unknown("languages", language))
        if not isinstance(source, str) or not source.strip():
            raise BadInput("The source is empty.")
        if len(source) > LONGEST_SOURCE:
            raise BadInput(f"The source is too long: {len(source)} characters, at most {LONGEST_SOURCE} can be judged.")
        self._needs_driver("judge it")
        known = tuple(self.candidate(parent).id for parent in parents)
        self._steer(
            Enqueue(
                source=_text(source, len(source)),
                language=language,
                title=_text(title),
                parents=known,
                notes=_text(notes),
                prompt=_text(prompt, LONGEST_SOURCE),
                reply=_text(reply, LONGEST_SOURCE),
            )
        )
        return candidate_id(language, source)

    def branch(self, candidate: str) -> None:
        """Expand this candidate next, whatever the policy would choose."""
        entry = self.candidate(candidate)
        if entry.banned:
            raise BadInput(f"{entry.id} was rejected, or descends from one that was; nothing is made from it any more.")
        self._needs_driver("expand it")
        self._steer(Branch(candidate=entry.id))

    def appeal(self, candidate: str, reason: str) -> None:
        """Have a judged candidate judged again from scratch: by fresh processes, on inputs from fresh seeds, as long as a finalist. All its
        verdicts stay in `Entry.history`. In a run that has ended, a thread of this process does it and the run stays ended."""
        entry = self.candidate(candidate)
        if not str(reason).strip():
            raise BadInput("An appeal needs a reason: it stands in the history of the verdict.")
        if entry.evaluation is None:
            raise BadInput(f"{entry.id} has not been judged yet, so there is no verdict to appeal against.")
        with self._lock:
            if self.state.status is Status.ENDED and not self.is_driven:
                self._refuse_foreign_code()
            self._steer(Appeal(candidate=entry.id, reason=_text(reason)))
            if self.state.status is Status.ENDED and not self.is_driven:
                self._driver = Driver(self.store, self.id, self._services, hearing=True)

    def overrule(self, candidate: str, flag: str, reason: str) -> None:
        """Say that a flag of a correct candidate does not count, and why. The flag stays in sight as overruled by a person; a verdict
        cannot be overruled, only appealed against."""
        entry = self.candidate(candidate)
        flags = [str(known) for known in entry.evaluation.flags] if entry.evaluation else []
        if not entry.correct:
            raise BadInput(f"{entry.id} is not judged correct, and no person can make it so; appeal against the verdict instead.")
        if flag not in flags:
            raise BadInput(f"{entry.id} carries no flag '{flag}'; its flags: {', '.join(flags) or 'none'}.")
        if not str(reason).strip():
            raise BadInput("Overruling a flag needs a reason: it is shown beside the flag.")
        self._steer(Overrule(candidate=entry.id, flag=Flag(flag), reason=_text(reason)))

    def pause(self) -> None:
        """Finish the evaluation in progress, then wait; the run's clock stands meanwhile."""
        self._needs_live("pause")
        self._steer(Pause())

    def stop(self) -> None:
        """End the run now; it can be taken up again."""
        self._needs_live("stop")
        self._steer(Stop())

    def resume(self) -> None:
        """Go on: after a pause, after the driving process died, or after a stop or failure."""
        with self._lock:
            if not self.is_driven:
                self._revive("A person resumed it.")
            elif self.state.status is Status.PAUSED:
                self._steer(Resume())

    def extend(self, candidates: int = 0, seconds: float = 0.0, cost: float = 0.0) -> None:
        """Add to the budget; a run that has ended goes on."""
        try:
            command = Extend(candidates=candidates, seconds=seconds, cost=cost)
        except ValidationError as error:
            raise BadInput(f"The budget cannot be extended by that: {error.errors()[0]['msg']}.") from None
        if not (candidates or seconds or cost):
            raise BadInput("Say by how much to extend the budget: candidates, seconds or cost.")
        with self._lock:
            self._steer(command)
            if self.state.status is Status.ENDED or not self.is_driven:
                if self._driver is not None:
                    self._driver.join()
                if self.state.status is Status.ENDED:
                    self._revive("The budget was extended.")

    def _steer(self, command: Command) -> None:
        accepted = self.store.append(self.id, SteeringAccepted(command=command))
        if isinstance(command, Reject | Pin | Hint | Overrule) and self.state.status is Status.ENDED:
            self.store.append(self.id, SteeringApplied(request=accepted.seq, note="The run has ended; this stands in its record."))
        if self._driver is not None:
            self._driver.wake()

    def _needs_driver(self, purpose: str) -> None:
        state = self.state
        if state.status is Status.ENDED:
            raise BadInput(
                f"Run {self.id} has {_ended(state)}; extend its budget first, so that it can {purpose}: run.extend(candidates=10)."
            )

    def _needs_live(self, what: str) -> None:
        if not self.is_driven:
            raise BadInput(f"Run {self.id} is not running ({self.status}), so there is nothing to {what}; run.resume() takes it up again.")

    def _revive(self, reason: str) -> None:
        state = self.state
        spent = budget.spent(state, time.time()) or budget.out_of_money(state)
        if state.outcome == "finished" and spent:
            raise BadInput(f"Run {self.id} has used up its budget ({spent}); extend it: run.extend(candidates=50).")
        self._refuse_foreign_code()
        self._driver = Driver(self.store, self.id, self._services, resumed=reason)

    def _refuse_foreign_code(self) -> None:
        config = self.state.config
        if self.store.is_imported(self.id) and (config.operator.kind != "registered" or config.unsandboxed):
            raise BadInput(
                f"Run {self.id} came from a file and brings code of its own to run outside the sandbox, so nothing is judged in it here; "
                "start a run of your own on its operator."
            )

    def _drive(self) -> None:
        """Begin to drive a new run."""
        self._driver = Driver(self.store, self.id, self._services)


def _ended(state: RunState) -> str:
    return {"finished": "finished", "stopped": "been stopped", "failed": "failed"}[state.outcome]


def _text(text: str, longest: int = LONGEST_HINT) -> str:
    """Text that a person gave, checked; raises `BadInput` where it cannot be kept."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise BadInput("The text is not valid Unicode (a lone surrogate in it), so it cannot be kept as UTF-8.") from None
    if len(text) > longest:
        raise BadInput(f"The text is too long: {len(text)} characters, at most {longest} are kept.")
    return text


def open_run(run: str, store: Store | None = None) -> RunHandle:
    """The run with this id (or a prefix that only it has) in a store, by default the user's own."""
    return RunHandle(store or Store.open(), run)
