"""The proposer `chat`: asks a language model for one candidate at a time.

One request goes: compose the prompt from the run's state, ask, read the reply; where the reply is unusable, say why and ask again, a few
times at most. Whatever happens is told in the `Proposal`, with what it cost.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import replace

from kernelevolve_lab import registry
from kernelevolve_lab.errors import BadInput
from kernelevolve_lab.knowledge.diagnosis import Analysis, diagnose
from kernelevolve_lab.operators.base import Operator
from kernelevolve_lab.proposers import novelty
from kernelevolve_lab.proposers.base import Proposal, ProposalRequest
from kernelevolve_lab.proposers.chat import models, reply
from kernelevolve_lab.proposers.chat.advice import Adviser
from kernelevolve_lab.proposers.chat.budget import estimate
from kernelevolve_lab.proposers.chat.client import ChatClient, ChatFailed, ChatReply, Terms, Usage
from kernelevolve_lab.proposers.chat.context import LanguageNotes, compose
from kernelevolve_lab.proposers.chat.conversation import Conversation, write_down
from kernelevolve_lab.proposers.chat.diagnosing import question, refined
from kernelevolve_lab.proposers.chat.findings import in_short
from kernelevolve_lab.proposers.chat.prices import Price
from kernelevolve_lab.proposers.chat.purse import CapReached, Purse
from kernelevolve_lab.proposers.chat.render import render
from kernelevolve_lab.proposers.chat.settings import ChatSettings, check, read
from kernelevolve_lab.proposers.chat.tools import Toolbox, specifications
from kernelevolve_lab.records import Candidate, TargetSpec

OUTAGES = 3
"""After so many requests in a row that no endpoint answered, the run ends instead of asking forever."""


def create(operator: Operator, target: TargetSpec, language: str, options: Mapping[str, object], seed: int) -> ChatProposer:
    """The proposer for a run; raises `BadInput` where model, key or options are missing or wrong."""
    check(options)
    settings = read(options)
    notes = language_notes(language, target)
    return ChatProposer(operator, target, notes, settings, seed)


create.check = check
create.settings = lambda: ChatSettings


def language_notes(name: str, target: TargetSpec) -> LanguageNotes:
    """What prompts say about a registered language; raises `BadInput` where it does not serve the target."""
    language = registry.load("languages", name)
    if not language.supports(target):
        raise BadInput(f"Kernels in '{name}' cannot be built for {target.name}; choose another language or target.")
    tag = {"native": "cpp", "python": "python"}[language.binding]
    return LanguageNotes(language.title, tag, language.binding, language.guide(), "#" if language.binding == "python" else "//")


OVERDRAWN = 3
"""So many calls of tools beyond what is allowed are answered with a refusal; then the reply is taken as it is."""


class ChatProposer:
    """Writes candidates with a language model. See `proposers.base.Proposer`."""

    name = "chat"
    lookahead = 1  # a reply costs money and minutes: it had better know what became of those before

    def __init__(self, operator: Operator, target: TargetSpec, language: LanguageNotes, settings: ChatSettings, seed: int) -> None:
        self.concurrency = settings.concurrency
        self._operator, self._target, self._language, self._settings, self._seed = operator, target, language, settings, seed
        self._adviser = Adviser(settings, language)
        self._client: ChatClient | None = None
        self._purse: Purse | None = None
        self._outages = 0
        self._warned = False
        self._delivered: dict[str, tuple[int, str]] = {}
        self._tools = specifications() if settings.tools else None
        self._context_tokens = settings.context_tokens

    @property
    def spent(self) -> float:
        """USD that this run has spent so far, requests that were broken off at their worst case."""
        return self._purse.spent if self._purse is not None else 0.0

    async def close(self) -> None:
        if self._client is not None:
            await self._client.close()

    async def propose(self, request: ProposalRequest) -> Proposal:
        """Ask for one candidate."""
        if carried := self._adviser.carried_over(request):
            return Proposal(carried)
        resumed = Conversation.resumed(request)
        model = resumed.model if resumed else self._model(request)
        terms = Terms(model, self._settings.price(model), request.state.budget.cost, request.emit)
        if terms.cap is not None and terms.price is None:
            reason = (
                f"the price of '{model}' is not known, so a cost cap of {terms.cap:g} USD cannot be kept: add it to the price file, "
                "set price_input and price_output, or leave the cap out"
            )
            return Proposal(None, reason, model=model, exhausted=True)
        if self._client is None:
            self._purse = Purse(request.state.cost)
            self._client = ChatClient(self._settings, self._purse, self._seed)
        try:
            conversation = resumed or await self._begin(request, terms)
        except CapReached as error:
            return Proposal(None, f"the cost cap is reached: {error}", model=model, exhausted=True)
        while True:
            answer = conversation.unread
            conversation.unread = None
            if answer is None:
                try:
                    answer = await self._client.ask(conversation.messages, terms, self._tools)
                except CapReached as error:
                    return conversation.proposal(None, None, f"the cost cap is reached: {error}", exhausted=True)
                except ChatFailed as error:
                    return self._after_failure(error, conversation)
                self._outages = 0
                conversation.heard(answer)
            if answer.tool_calls and await self._served(answer, conversation, request):
                continue
            try:
                candidate = self._candidate(answer, conversation.parents, request)
            except reply.ReplyProblem as problem:
                if conversation.repairs >= self._settings.repairs:
                    return conversation.proposal(answer, None, str(problem))
                conversation.answer(answer, {"role": "user", "content": render("repair", problem=str(problem))})
                continue
            return self._with_warning(conversation.proposal(answer, candidate), terms.price)

    async def _begin(self, request: ProposalRequest, terms: Terms) -> Conversation:
        """Diagnose, retrieve, compose."""
        settings = self._settings
        analysis, usage = await self._analysis(request, terms)
        advice = await asyncio.to_thread(self._adviser.advise, request, analysis)
        calls = settings.tool_calls if settings.tools else 0
        prompt = compose(request, self._language, advice, self._context_tokens, tunable=settings.tunable, tool_calls=calls)
        conversation = Conversation(request, terms.model, [*prompt.messages])
        conversation.spent(usage)
        return conversation

    async def _analysis(self, request: ProposalRequest, terms: Terms) -> tuple[Analysis | None, Usage]:
        """The diagnosis of the first parent and what it cost; None where it is switched off. A model is asked at most once a request, and
        where it does not answer the rules do."""
        if self._settings.diagnosis == "off":
            return None, Usage()
        analysis = diagnose(request.operator, request.target, request.state, request.parents)
        if self._settings.diagnosis == "rules" or analysis.phase == "draft":
            return analysis, Usage()
        for said in request.state.replies.get(request.index, ()):
            return refined(analysis, json.loads(said.reply)["content"]), Usage(said.input_tokens, said.output_tokens, 0, said.cost)
        messages = question(request, self._language, analysis)
        try:
            answer = await self._client.ask(messages, terms)
        except ChatFailed as error:
            return analysis, error.usage
        write_down(request, terms.model, messages, answer, request.parents, "diagnosis")
        return refined(analysis, answer.text), answer.usage

    def _model(self, request: ProposalRequest) -> str:
        """The model for a request; requests that run side by side draw with their own seeds."""
        weights = self._settings.models
        if self._settings.model_choice == "bandit":
            return models.by_gain(weights, request.state, request.seed)
        return models.by_weight(weights, request.seed)

    async def _served(self, answer: ChatReply, conversation: Conversation, request: ProposalRequest) -> bool:
        """Answer the tools that a reply calls; False where the model goes on calling although it was told that no calls are left."""
        left = self._settings.tool_calls - conversation.tool_calls
        if not self._settings.tools or left <= -OVERDRAWN:
            return False
        toolbox = Toolbox(self._adviser.pages, request)
        results = []
        for number, call in enumerate(answer.tool_calls):
            text = await asyncio.to_thread(toolbox.answer, call) if number < left else "No calls are left: answer now."
            results.append({"role": "tool", "tool_call_id": call.id, "content": text})
        conversation.answer(answer, *results)
        return True

    def _candidate(self, answer: ChatReply, parents: tuple[str, ...], request: ProposalRequest) -> Candidate:
        """The candidate in a reply; raises `ReplyProblem` where there is none."""
        entries = request.state.entries
        parsed = reply.parse(
            answer.text,
            binding=self._language.binding,
            parent=entries[parents[0]].candidate.source if parents and parents[0] in entries else None,
            finish_reason=answer.finish_reason,
            refusal=answer.refusal,
        )
        candidate = Candidate(
            language=request.language,
            source=parsed.source,
            parents=parents,
            proposer=self.name,
            title=parsed.title or "untitled",
            notes=parsed.notes,
        )
        self._must_be_new(candidate, request)
        return candidate

    def _must_be_new(self, candidate: Candidate, request: ProposalRequest) -> None:
        """Raise `ReplyProblem` for a source that the run has already, be it in other words; also one that was delivered since this request
        was made."""
        known = novelty.twin(candidate.language, candidate.source, request.state.entries.values())
        mark = novelty.fingerprint(candidate.language, candidate.source)
        by, name = self._delivered.setdefault(mark, (request.index, candidate.id))
        if known is not None:
            name = known.id
        elif by == request.index:
            return
        found = f" ({in_short(known.evaluation, self._operator)})" if known else ""
        same = "exactly" if name == candidate.id else "but for blanks, comments and names"
        text = f"this source is {same} that of candidate {name}, which is in the run already{found}; change what it does"
        raise reply.ReplyProblem("duplicate", text)

    def _with_warning(self, proposal: Proposal, price: Price | None) -> Proposal:
        """Say once that what the run costs is not known."""
        if price is not None or self._warned:
            return proposal
        self._warned = True
        warning = (
            f"The price of '{proposal.model}' is not known: tokens are counted, money is not. Add it to the price file to see the cost."
        )
        return replace(proposal, warning=warning)

    def _after_failure(self, error: ChatFailed, conversation: Conversation) -> Proposal:
        conversation.spent(error.usage)
        partial = ChatReply(error.partial, "", Usage()) if error.partial else None
        if error.failure.kind == "too_long":
            sent = sum(estimate(str(message["content"])) for message in conversation.messages)
            if sent > 1.2 * self._context_tokens:
                return conversation.proposal(partial, None, f"{error}; even the shortest prompt for this task does not fit", exhausted=True)
            self._context_tokens = min(self._context_tokens, int(0.6 * sent))
            return conversation.proposal(partial, None, f"{error}; the next prompts will be shorter")
        if error.failure.kind == "fatal":
            return conversation.proposal(partial, None, str(error), exhausted=True)
        self._outages += 1
        return conversation.proposal(partial, None, str(error), exhausted=self._outages >= OUTAGES)
