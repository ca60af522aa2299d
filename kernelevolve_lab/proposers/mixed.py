"""The proposer `mixed`: a language model invents structure, templates and tuning work it out, in one run.

Who answers a request follows from its seed and its parents alone. Drafts come from the templates and the model in turn. A parent that
declares constants (`proposers.tuning`) is mostly tuned, which costs nothing; a parent made from a template is mutated or handed to the
model; any other goes to the model. Whoever has nothing more to offer steps back, and the run goes on with the others.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from random import Random
from typing import Literal

from pydantic import BaseModel, Field, create_model

from kernelevolve_lab import registry
from kernelevolve_lab.errors import BadInput
from kernelevolve_lab.operators.base import Operator
from kernelevolve_lab.proposers.base import Proposal, ProposalRequest, Proposer
from kernelevolve_lab.proposers.tuning import Tuner
from kernelevolve_lab.records import TargetSpec

MODEL_SHARE = 0.5
TUNE_SHARE = 0.7


def create(operator: Operator, target: TargetSpec, language: str, options: Mapping[str, object], seed: int) -> Mixed:
    """Options are those of `chat`, and `model_share` (0 to 1, default 0.5): how often the model rather than a template is asked where both
    could answer. Raises `LabError` where the model cannot be asked; templates are left out where there are none for the operator."""
    options = dict(options)
    share = options.pop("model_share", MODEL_SHARE)
    if not isinstance(share, int | float) or isinstance(share, bool) or not 0 <= share <= 1:
        raise BadInput(f"The option 'model_share' of the mixed proposer is a number from 0 to 1, not {share!r}.")
    chat = registry.load("proposers", "chat")(operator, target, language, options | {"tunable": True}, seed)
    try:
        schedule = registry.load("proposers", "schedule")(operator, target, language, {}, seed)
    except BadInput:
        schedule = None
    return Mixed(chat, schedule, float(share))


def _check(options: Mapping[str, object]) -> None:
    registry.load("proposers", "chat").check({name: value for name, value in options.items() if name != "model_share"})


def _settings() -> type[BaseModel]:
    """Those of `chat` but for what is settled here, and the share."""
    share = (float, Field(MODEL_SHARE, ge=0, le=1))
    return create_model(
        "MixedSettings", __base__=registry.load("proposers", "chat").settings(), tunable=(Literal[True], True), model_share=share
    )


create.check = _check
create.settings = _settings


class Mixed:
    """See the module and `proposers.base.Proposer`."""

    name = "mixed"

    def __init__(self, chat: Proposer, schedule: Proposer | None, model_share: float = MODEL_SHARE) -> None:
        self.concurrency = chat.concurrency
        self._members = {"chat": chat} | ({"schedule": schedule} if schedule else {})
        self._tuner = Tuner()
        self._share = model_share
        self._dry: dict[str, str] = {}

    async def close(self) -> None:
        for member in self._members.values():
            await member.close()

    async def propose(self, request: ProposalRequest) -> Proposal:
        """Ask the member whose turn it is; where that has nothing, the next one."""
        order = self._order(request)
        for name in order:
            if name in self._dry:
                continue
            if name == "tuning":
                proposal = await asyncio.to_thread(self._tuner.propose, request)
                if proposal.candidate is not None:
                    return proposal
                continue
            proposal = await self._members[name].propose(request)
            if proposal.exhausted:
                self._dry[name] = proposal.reason
                proposal = replace(proposal, exhausted=False, warning=f"The run goes on without {name}: {proposal.reason}")
            if proposal.candidate is not None or proposal.cost or proposal.prompt:
                return proposal
        reasons = " ".join(self._dry.values()) or "there is nothing left to tune"
        return Proposal(None, f"nobody has anything more to offer: {reasons}", exhausted=len(self._dry) == len(self._members))

    def _order(self, request: ProposalRequest) -> list[str]:
        """Who is asked, first choice first."""
        random = Random(request.seed)
        model_first = random.random() < self._share
        both = ["chat", "schedule"] if model_first else ["schedule", "chat"]
        members = [name for name in both if name in self._members]
        if request.index in request.state.replies:
            return ["chat"]
        parents = [request.state.entries[parent] for parent in request.parents if parent in request.state.entries]
        if not parents:
            if 0 < self._share < 1:
                both = ["chat", "schedule"] if request.index % 2 == 0 else ["schedule", "chat"]
            return [name for name in both if name in self._members]
        if self._tuner.room(request.state, parents[0].candidate.id) and parents[0].correct and random.random() < TUNE_SHARE:
            return ["tuning", *members]
        if parents[0].candidate.template is None:
            return [name for name in ("chat", "schedule") if name in self._members]
        return members
