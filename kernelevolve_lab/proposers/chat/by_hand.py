"""The prompt to copy into whatever model a person has, and the reply that comes back: `chat` without an endpoint."""

from __future__ import annotations

from kernelevolve_lab import registry
from kernelevolve_lab.errors import BadInput
from kernelevolve_lab.knowledge.diagnosis import diagnose
from kernelevolve_lab.operators.base import Operator
from kernelevolve_lab.proposers import novelty
from kernelevolve_lab.proposers.base import ProposalRequest
from kernelevolve_lab.proposers.chat import reply
from kernelevolve_lab.proposers.chat.advice import Adviser
from kernelevolve_lab.proposers.chat.context import LanguageNotes, Prompt, compose
from kernelevolve_lab.proposers.chat.proposer import language_notes
from kernelevolve_lab.proposers.chat.render import render
from kernelevolve_lab.proposers.chat.settings import ChatSettings
from kernelevolve_lab.records.run_state import RunState


class UnusableReply(BadInput):
    """There is no candidate in a reply; `repair` is what to tell the model, so that it answers again."""

    def __init__(self, problem: str) -> None:
        super().__init__(f"That reply cannot be used: {problem.rstrip('.')}.")
        self.repair = render("repair", problem=problem)


def prompt(state: RunState, operator: Operator, parents: tuple[str, ...] = ()) -> Prompt:
    """What `chat` would send now for these parents (none: a draft): with diagnosis, pages, lessons and the person's steering.

    Raises `BadInput` while the run has not said what its target is.
    """
    language = _language(state)
    settings = ChatSettings(model="by hand")
    pending = tuple(entry.id for entry in state.entries.values() if entry.evaluation is None and not entry.banned)
    index = len(state.entries)
    request = ProposalRequest(operator, state.target, state.config.language, state, index, state.config.seed, parents, "both", pending)
    analysis = diagnose(operator, state.target, state, parents)
    return compose(request, language, Adviser(settings, language).advise(request, analysis), settings.context_tokens)


def read(text: str, state: RunState, parents: tuple[str, ...] = ()) -> reply.Parsed:
    """The source, title and plan in a model's reply; edits apply to the first parent. Raises `UnusableReply` where there is no candidate in
    it, also for a source that the run has already."""
    binding = registry.load("languages", state.config.language).binding
    parent = state.entries[parents[0]].candidate.source if parents else None
    try:
        parsed = reply.parse(text, binding=binding, parent=parent)
    except reply.ReplyProblem as problem:
        raise UnusableReply(str(problem)) from None
    known = novelty.twin(state.config.language, parsed.source, state.entries.values())
    if known is not None:
        raise UnusableReply(
            f"it brings nothing new: its source is that of candidate {known.id}, but perhaps for blanks, comments and names"
        )
    return parsed


def _language(state: RunState) -> LanguageNotes:
    if state.config is None or state.target is None:
        raise BadInput("The run has not looked at its target yet; come back when it searches.")
    return language_notes(state.config.language, state.target)
