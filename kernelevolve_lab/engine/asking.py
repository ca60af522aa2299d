"""Asking the proposer: which parents, how many requests at once, and what becomes of the answers."""

import asyncio
import hashlib
import random
import time
from collections import Counter
from dataclasses import dataclass

from kernelevolve_lab.engine.budget import room
from kernelevolve_lab.engine.live import open_board
from kernelevolve_lab.engine.log import RunLog, generation, waiting
from kernelevolve_lab.engine.policies.base import Choice, Policy
from kernelevolve_lab.errors import LabError
from kernelevolve_lab.operators.base import Operator
from kernelevolve_lab.proposers.base import Proposal, ProposalRequest, Proposer
from kernelevolve_lab.records import RunConfig, TargetSpec
from kernelevolve_lab.records.events import CandidateProposed, Event, Noted, ProposalFailed, SteeringApplied
from kernelevolve_lab.records.run import Branch
from kernelevolve_lab.records.run_state import RunState

FRUITLESS = 25
ERRORS = 5
BACK_OFF_SECONDS = 0.5
BRANCH_ATTEMPTS = 3
CLOSING_SECONDS = 5.0


@dataclass(frozen=True)
class _Request:
    """One request in flight; `branch` is the number of the person's command that it serves."""

    request: ProposalRequest
    since: float
    branch: int | None


class Asking:
    """The requests of one drive. `dry` says why there is nothing more to be had from the proposer, empty while there is."""

    def __init__(
        self, log: RunLog, config: RunConfig, operator: Operator, target: TargetSpec, proposer: Proposer, policy: Policy, lookahead: int
    ) -> None:
        self._log, self._config, self._operator, self._target = log, config, operator, target
        self._proposer, self._policy = proposer, policy
        ahead = min(lookahead, getattr(proposer, "lookahead", lookahead))
        self._capacity = 1 + (max(ahead, proposer.concurrency) if lookahead else 0)
        self._in_flight: dict[asyncio.Task[Proposal], _Request] = {}
        self._fruitless = self._errors = 0
        self._not_before = 0.0
        self._attempts: Counter[int] = Counter()
        self._board = open_board(log.run)
        self.dry = ""

    @property
    def tasks(self) -> set[asyncio.Task[Proposal]]:
        return set(self._in_flight)

    def start(self, state: RunState) -> None:
        """Ask as often as capacity and budget allow."""
        while (
            not self.dry
            and time.monotonic() >= self._not_before
            and len(self._in_flight) < self._proposer.concurrency
            and len(waiting(state)) + len(self._in_flight) < self._capacity
            and room(state, len(self._in_flight))
        ):
            self._ask(state)

    def _ask(self, state: RunState) -> None:
        taken = {item.request.index for item in self._in_flight.values()} | state.answered_ahead
        index = state.next_index
        while index in taken:
            index += 1
        choice, branch = self._choose(state, index)
        request = ProposalRequest(
            operator=self._operator,
            target=self._target,
            language=self._config.language,
            state=state,
            index=index,
            seed=_seed(self._config.seed, index, "proposal"),
            parents=choice.parents,
            memory=choice.memory,
            pending=tuple(entry.id for entry in waiting(state)),
            emit=self._board.begin(index, choice.parents),
            record=self._log.append,
        )
        task = asyncio.get_running_loop().create_task(self._proposer.propose(request))
        self._in_flight[task] = _Request(request, time.monotonic(), branch)

    def _choose(self, state: RunState, index: int) -> tuple[Choice, int | None]:
        served = {item.branch for item in self._in_flight.values()}
        for pending in state.pending_requests:
            command = pending.command
            if isinstance(command, Branch) and pending.seq not in served and command.candidate in state.entries:
                return Choice((command.candidate,), "parent"), pending.seq
        drafts_asked = sum(not item.request.parents for item in self._in_flight.values())
        rng = random.Random(_seed(self._config.seed, index, "policy"))
        return self._policy.choose(state, rng, _draft_target(state) - drafts_asked), None

    def collect(self) -> None:
        """Write down the answers that have come."""
        for task in [task for task in self._in_flight if task.done()]:
            item = self._in_flight.pop(task)
            self._board.end(item.request.index)
            error = asyncio.CancelledError("it was cancelled") if task.cancelled() else task.exception()
            proposal = Proposal(None, reason=_said(error)) if error else task.result()
            self._errors = self._errors + 1 if error else 0
            if error:
                self._not_before = time.monotonic() + BACK_OFF_SECONDS * 2 ** (self._errors - 1)
            failed = self._record(item, proposal)
            self._attempts[item.branch] += 1
            self._fruitless = self._fruitless + 1 if failed else 0
            if proposal.exhausted:
                self.dry = f"The proposer {self._proposer.name} has nothing more to offer. {proposal.reason}".strip()
            elif self._errors >= ERRORS:
                self.dry = f"The proposer {self._proposer.name} failed {self._errors} times in a row: {proposal.reason}"
            elif self._fruitless >= FRUITLESS:
                self.dry = f"The proposer {self._proposer.name} brought nothing new {self._fruitless} times in a row."

    def _record(self, item: _Request, proposal: Proposal) -> bool:
        """Write down what came of a request; return whether it was of no use."""
        logged = self._log.decide(lambda state: self._outcome(state, item, proposal))
        return isinstance(logged[0].event, ProposalFailed)

    def _outcome(self, state: RunState, item: _Request, proposal: Proposal) -> list[Event]:
        """The events that an answer leads to."""
        usage = {
            "index": item.request.index,
            "model": proposal.model,
            "prompt": proposal.prompt,
            "reply": proposal.reply,
            "input_tokens": proposal.input_tokens,
            "output_tokens": proposal.output_tokens,
            "cost": proposal.cost,
        }
        warning = [Noted(text=proposal.warning, level="warning")] if proposal.warning else []
        made_from = ", ".join(item.request.parents)
        reason = _refusal(state, item.request, proposal)
        if reason is None:
            candidate = proposal.candidate
            layer, seconds = generation(state, candidate.parents), time.monotonic() - item.since
            proposed = CandidateProposed(candidate=candidate, generation=layer, seconds=seconds, **usage)
            return [proposed, *self._served(item, f"{candidate.id} was made from {made_from}."), *warning]
        failed = ProposalFailed(proposer=self._proposer.name, reason=reason, **usage)
        if self._attempts[item.branch] + 1 < BRANCH_ATTEMPTS:
            return [failed, *warning]
        return [failed, *self._served(item, f"Nothing new came of {made_from}: {reason}"), *warning]

    def _served(self, item: _Request, note: str) -> list[SteeringApplied]:
        return [SteeringApplied(request=item.branch, note=note)] if item.branch is not None else []

    async def close(self) -> None:
        """Take back what is still asked, and let the proposer go; one that cannot be let go of in time is left behind with a note."""
        for task, item in self._in_flight.items():
            task.cancel()
            self._board.end(item.request.index)
        closing = asyncio.get_running_loop().create_task(self._proposer.close())
        done, _ = await asyncio.wait({*self._in_flight, closing}, timeout=CLOSING_SECONDS)
        for task in done:
            if not task.cancelled() and task.exception() and task is closing:
                self._log.append(Noted(text=f"The proposer could not be closed: {_said(task.exception())}", level="warning"))
        if closing not in done:
            self._log.append(Noted(text="The proposer did not close in time.", level="warning"))


def _seed(seed: int, index: int, purpose: str) -> int:
    """A seed of its own for each request of a run; the same in every process."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{index}/{purpose}".encode()).digest()[:7], "big")


def _draft_target(state: RunState) -> int:
    """How many drafts come before expansion: a fifth of the candidates, between 3 and 12."""
    return min(12, max(3, (state.budget.candidates or 50) // 5))


def _said(error: BaseException) -> str:
    return str(error) if isinstance(error, LabError) else f"{type(error).__name__}: {error}"


def _refusal(state: RunState, request: ProposalRequest, proposal: Proposal) -> str | None:
    """Why a proposal is of no use, or None."""
    candidate = proposal.candidate
    if candidate is None:
        return proposal.reason or "it gave no candidate and no reason"
    if candidate.id in state.entries:
        return f"it proposed {candidate.id} again, which is in this run already"
    banned = [p for p in (*request.parents, *candidate.parents) if p in state.entries and state.entries[p].banned]
    if banned:
        return f"its parent {banned[0]} was rejected meanwhile"
    return None
