"""The proposer `chat`: asks a language model for one candidate at a time.

One request goes: compose the prompt from the run's state, ask, read the reply; where the reply is unusable, say why and ask again, a few
times at most. Whatever happens is told in the `Proposal`, with what it cost.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace

from kernelevolve_lab import registry
from kernelevolve_lab.errors import BadInput
from kernelevolve_lab.operators.base import Operator
from kernelevolve_lab.proposers.base import Proposal, ProposalRequest
from kernelevolve_lab.proposers.chat import reply
from kernelevolve_lab.proposers.chat.advice import Adviser
from kernelevolve_lab.proposers.chat.budget import estimate
from kernelevolve_lab.proposers.chat.client import ChatClient, ChatFailed, Usage
from kernelevolve_lab.proposers.chat.context import LanguageNotes, Prompt, compose
from kernelevolve_lab.proposers.chat.purse import CapReached, Purse
from kernelevolve_lab.proposers.chat.render import render
from kernelevolve_lab.proposers.chat.settings import ChatSettings, key_for, read
from kernelevolve_lab.records import Candidate, TargetSpec, candidate_id

OUTAGES = 3
"""After so many requests in a row that no endpoint answered, the run ends instead of asking forever."""


def create(operator: Operator, target: TargetSpec, language: str, options: Mapping[str, object], seed: int) -> ChatProposer:
    """The proposer for a run; raises `BadInput` where model, key or options are missing or wrong."""
    settings = read(options)
    key_for(settings.base_url)
    notes = language_notes(language, target)
    return ChatProposer(operator, target, notes, settings, seed)


def language_notes(name: str, target: TargetSpec) -> LanguageNotes:
    """What prompts say about a registered language; raises `BadInput` where it does not serve the target."""
    language = registry.load("languages", name)
    if not language.supports(target):
        raise BadInput(f"Kernels in '{name}' cannot be built for {target.name}; choose another language or target.")
    tag = {"native": "cpp", "python": "python"}[language.binding]
    return LanguageNotes(language.title, tag, language.binding, language.guide(), "#" if language.binding == "python" else "//")


class ChatProposer:
    """Writes candidates with a language model. See `proposers.base.Proposer`."""

    name = "chat"

    def __init__(self, operator: Operator, target: TargetSpec, language: LanguageNotes, settings: ChatSettings, seed: int) -> None:
        self.concurrency = settings.concurrency
        self._operator, self._target, self._language, self._settings, self._seed = operator, target, language, settings, seed
        self._model = next(iter(settings.models))
        self._adviser = Adviser(settings, language)
        self._client: ChatClient | None = None
        self._purse: Purse | None = None
        self._outages = 0
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
        model, cap = self._model, request.state.budget.cost
        price = self._settings.price(model)
        if cap is not None and price is None:
            return Proposal(
                None,
                f"the price of '{model}' is not known, so a cost cap of {cap:g} USD cannot be kept: add it to the price file, "
                "set price_input and price_output, or leave the cap out",
                exhausted=True,
            )
        if self._client is None:
            self._purse = Purse(request.state.cost)
            self._client = ChatClient(self._settings, self._purse, self._seed)
        advice = await asyncio.to_thread(self._adviser.advise, request)
        prompt = compose(request, self._language, advice, self._context_tokens, self._settings.tunable)
        messages: list[dict] = [*prompt.messages]
        exchange = _Exchange(prompt)
        for attempt in range(self._settings.repairs + 1):
            try:
                answer = await self._client.ask(messages, model, price=price, cap=cap, emit=request.emit)
            except CapReached as error:
                return exchange.failed(f"the cost cap is reached: {error}", exhausted=True)
            except ChatFailed as error:
                exchange.spent(error.usage, error.partial)
                return self._after_failure(error, exchange)
            self._outages = 0
            exchange.spent(answer.usage, answer.text)
            try:
                parsed = reply.parse(
                    answer.text,
                    binding=self._language.binding,
                    parent=prompt.parent_source,
                    finish_reason=answer.finish_reason,
                    refusal=answer.refusal,
                )
                self._must_be_new(parsed.source, request)
            except reply.ReplyProblem as problem:
                exchange.problem = f"{problem}"
                if attempt == self._settings.repairs:
                    break
                question = render("repair", problem=problem)
                messages += [{"role": "assistant", "content": answer.text or "(empty)"}, {"role": "user", "content": question}]
                exchange.said(question)
                continue
            candidate = Candidate(
                language=request.language,
                source=parsed.source,
                parents=request.parents,
                proposer=self.name,
                title=parsed.title or "untitled",
                notes=parsed.notes,
            )
            return exchange.proposal(candidate)
        return exchange.failed(exchange.problem)

    def _after_failure(self, error: ChatFailed, exchange: _Exchange) -> Proposal:
        if error.failure.kind == "too_long":
            sent = estimate(exchange.prompt)
            if sent > 1.2 * self._context_tokens:
                return exchange.failed(f"{error}; even the shortest prompt for this task does not fit", exhausted=True)
            self._context_tokens = min(self._context_tokens, int(0.6 * sent))
            return exchange.failed(f"{error}; the next prompts will be shorter")
        if error.failure.kind == "fatal":
            return exchange.failed(str(error), exhausted=True)
        self._outages += 1
        return exchange.failed(str(error), exhausted=self._outages >= OUTAGES)

    def _must_be_new(self, source: str, request: ProposalRequest) -> None:
        known = candidate_id(request.language, source)
        if known in request.state.entries:
            raise reply.ReplyProblem(
                "duplicate", f"this source is, character by character, candidate {known}, which is already in the run; send a different one"
            )


class _Exchange:
    """What was said and spent in one request, over all its turns."""

    def __init__(self, prompt: Prompt) -> None:
        self.prompt = prompt.text
        self._replies: list[str] = []
        self._usage = Usage()
        self.problem = ""

    def spent(self, usage: Usage, text: str) -> None:
        self._usage += usage
        self._replies.append(text)

    def said(self, question: str) -> None:
        self._replies.append(f"\n\n===== user =====\n{question}\n\n===== assistant =====\n")

    def proposal(self, candidate: Candidate) -> Proposal:
        return Proposal(
            candidate,
            prompt=self.prompt,
            reply="".join(self._replies),
            input_tokens=self._usage.input,
            output_tokens=self._usage.output,
            cost=self._usage.cost or 0.0,
        )

    def failed(self, reason: str, exhausted: bool = False) -> Proposal:
        return replace(
            self.proposal(None),  # type: ignore[arg-type]
            reason=reason,
            exhausted=exhausted,
        )
