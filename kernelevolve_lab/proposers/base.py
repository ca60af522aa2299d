"""What a proposer is: it is asked for one candidate at a time, with everything that is known, and answers with a source."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, Protocol

from kernelevolve_lab.operators.base import Operator
from kernelevolve_lab.records import Candidate, TargetSpec
from kernelevolve_lab.records.events import ModelReplied
from kernelevolve_lab.records.run_state import RunState

Memory = Literal["parent", "siblings", "both", "clean_slate", "none"]


@dataclass(frozen=True)
class ProposalRequest:
    """One question to a proposer.

    `parents` are ids in `state` (empty for a draft); `memory` says how much history to consider (`clean_slate`: no results, since the
    search stagnates; `none`: nothing at all, so that drafts are independent); `seed` is this request's own, derived from the run's, so that
    concurrent requests stay repeatable. `pending` are ids proposed and not yet judged. `emit` may be called with pieces of text as they
    arrive, for the live view. `record` writes an event of this request to the run's log at once (a model's reply, which must not be paid
    for twice).
    """

    operator: Operator
    target: TargetSpec
    language: str
    state: RunState
    index: int
    seed: int
    parents: tuple[str, ...] = ()
    memory: Memory = "parent"
    pending: tuple[str, ...] = ()
    emit: Callable[[str], None] = field(default=lambda text: None)
    record: Callable[[ModelReplied], None] = field(default=lambda event: None)


@dataclass(frozen=True)
class Proposal:
    """A candidate with what it cost; or, with `candidate` None, why there is none (`reason`), which costs all the same.

    `exhausted` says that this proposer has nothing more to offer, so that the run can end instead of asking forever. `model` names the
    language model that wrote it. `warning` is a sentence that people should read in the log.
    """

    candidate: Candidate | None
    reason: str = ""
    prompt: str = ""
    reply: str = ""
    model: str = ""
    input_tokens: int = 0
    output_tokens: int = 0
    cost: float = 0.0
    exhausted: bool = False
    warning: str = ""


class Proposer(Protocol):
    """Writes candidates. Registered in the group `kernelevolve_lab.proposers` as a factory
    `(operator, target, language, options: dict, seed: int) -> Proposer`; the factory raises a `LabError` where it cannot serve that
    operator, target or language. A factory may have an attribute `check(options)`, which is called before a run is created and raises a
    `LabError` for options that cannot serve or must not be stored; and an attribute `settings`, a function that returns the pydantic model
    of the options, of which front ends make their choosers.

    `concurrency` is how many requests may be in flight at once. One whose answers profit from verdicts more than the judge profits from a
    full queue may have an attribute `lookahead`: so many candidates may wait for the judge when it is asked again."""

    name: str
    concurrency: int

    async def propose(self, request: ProposalRequest) -> Proposal:
        """Answer one request; must not block the event loop for more than a few milliseconds (CPU work goes to a thread)."""

    async def close(self) -> None:
        """Release connections; called once."""
