"""The state of a run as immutable snapshots; `records.fold` makes them of the run's events."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType

from kernelevolve_lab.records import events
from kernelevolve_lab.records.candidate import Candidate
from kernelevolve_lab.records.evaluation import Evaluation, Flag, Verdict
from kernelevolve_lab.records.hardware import Evidence, TargetSpec
from kernelevolve_lab.records.run import Budget, RunConfig


class Status(StrEnum):
    EMPTY = "empty"
    RUNNING = "running"
    PAUSED = "paused"
    ENDED = "ended"


class Occasion(StrEnum):
    """Why a candidate was judged."""

    PROPOSED = "proposed"
    FINALIST = "finalist"
    APPEAL = "appeal"


@dataclass(frozen=True)
class Judgement:
    """One verdict in the history of a candidate: what was found, `at` which time (seconds since the epoch), on which occasion; `reason` is
    what the person who appealed said."""

    evaluation: Evaluation
    at: float
    occasion: Occasion
    reason: str = ""


@dataclass(frozen=True)
class Overruling:
    """A person's word, `at` that time, that a flag of the judge does not count, and why."""

    flag: Flag
    reason: str
    at: float


@dataclass(frozen=True)
class Entry:
    """One candidate in a run. `order` counts from 1; `index` is the request that it answers (None: a person enqueued it); `rejected` is the
    person's reason (None: not rejected), `banned` whether it or an ancestor was rejected, so that nothing may descend from it.
    `evaluation` is the verdict that counts, the last of `history`; `overrulings` are what people said about its flags, one for each flag
    at the most."""

    candidate: Candidate
    order: int
    generation: int
    index: int | None = None
    evaluation: Evaluation | None = None
    judging: bool = False
    pinned: bool = False
    rejected: str | None = None
    banned: bool = False
    prompt: str = ""
    reply: str = ""
    model: str = ""
    cost: float = 0.0
    proposed_at: float = 0.0
    judged_at: float = 0.0
    history: tuple[Judgement, ...] = ()
    overrulings: tuple[Overruling, ...] = ()

    @property
    def id(self) -> str:
        return self.candidate.id

    @property
    def source(self) -> str:
        return self.candidate.source

    @property
    def fitness(self) -> float:
        return self.evaluation.fitness if self.evaluation else 0.0

    @property
    def secured(self) -> float:
        return self.evaluation.secured if self.evaluation else 0.0

    @property
    def correct(self) -> bool:
        return self.evaluation is not None and self.evaluation.verdict is Verdict.CORRECT

    def overruling(self, flag: Flag) -> Overruling | None:
        """What a person said against this flag, or None."""
        return next((said for said in self.overrulings if said.flag is flag), None)


@dataclass(frozen=True)
class LogLine:
    """One line for people."""

    seq: int
    time: float
    level: str
    text: str


@dataclass(frozen=True)
class Request:
    """A person's command: accepted as event `seq`, and applied once `note` is not None."""

    seq: int
    command: object
    author: str
    note: str | None = None


@dataclass(frozen=True)
class RunState:
    """A snapshot of a run. All collections are read-only; `entries` is in the order of proposal.

    `judged` counts candidates with an evaluation, `since_best` those judged since the best was found. `active_seconds` is the run's clock
    as of `updated_at`; `clock_from` is not None while the clock runs (see `active`). Requests to the proposer are numbered from 0: all
    below `next_index` are answered, and so are those in `answered_ahead`; `replies` are what models said so far for requests without an
    answer. `failures` are the latest reasons why a proposal was of no use.
    """

    run: str = ""
    seq: int = 0
    status: Status = Status.EMPTY
    config: RunConfig | None = None
    title: str = ""
    phase: str = ""
    outcome: str = ""
    reason: str = ""
    target: TargetSpec | None = None
    baselines: tuple[events.BaselineCase, ...] = ()
    entries: Mapping[str, Entry] = field(default_factory=lambda: MappingProxyType({}))
    budget: Budget = field(default_factory=Budget)
    started_at: float = 0.0
    updated_at: float = 0.0
    active_seconds: float = 0.0
    clock_from: float | None = None
    judged: int = 0
    cost: float = 0.0
    input_tokens: int = 0
    output_tokens: int = 0
    failed_proposals: int = 0
    failures: tuple[str, ...] = ()
    next_index: int = 0
    answered_ahead: frozenset[int] = frozenset()
    replies: Mapping[int, tuple[events.ModelReplied, ...]] = field(default_factory=lambda: MappingProxyType({}))
    hints: tuple[str, ...] = ()
    requests: tuple[Request, ...] = ()
    lessons: tuple[events.LessonLearned, ...] = ()
    log: tuple[LogLine, ...] = ()
    best_id: str | None = None
    since_best: int = 0

    def active(self, now: float) -> float:
        """The run's clock in seconds at `now` (seconds since the epoch), supposing that somebody drives it."""
        running = max(0.0, now - self.clock_from) if self.clock_from is not None else 0.0
        return self.active_seconds + running

    @property
    def best(self) -> Entry | None:
        """The best correct candidate that nobody rejected, or None."""
        return self.entries[self.best_id] if self.best_id else None

    @property
    def pending_requests(self) -> tuple[Request, ...]:
        """Commands accepted and not yet applied, oldest first."""
        return tuple(request for request in self.requests if request.note is None)

    def ranked(self) -> tuple[Entry, ...]:
        """Correct candidates best first, by what their speedup is at least (pinned ones are not moved up), those that were rejected or
        descend from one after the others, then the rest, newest first. Numbers of different evidence are never ranked together: what was
        measured comes before what was emulated, modelled or compiled."""
        evidence = list(Evidence)

        def key(entry: Entry) -> tuple:
            if not entry.correct:
                return (2, 0, 0.0, -entry.order)
            return (int(entry.banned), evidence.index(entry.evaluation.evidence), -entry.secured, entry.order)

        return tuple(sorted(self.entries.values(), key=key))

    def children(self, candidate: str) -> tuple[Entry, ...]:
        """The candidates that name this one as a parent."""
        return tuple(entry for entry in self.entries.values() if candidate in entry.candidate.parents)

    def lineage(self, candidate: str) -> tuple[Entry, ...]:
        """The first-parent chain from the root draft to this candidate."""
        chain: list[Entry] = []
        seen: set[str] = set()
        current: str | None = candidate
        while current in self.entries and current not in seen:
            seen.add(current)
            chain.append(self.entries[current])
            current = next(iter(self.entries[current].candidate.parents), None)
        return tuple(reversed(chain))
