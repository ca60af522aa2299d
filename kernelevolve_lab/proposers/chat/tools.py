"""Tools that a model may call before it answers: read pages and candidates, and compile. None of them runs a candidate.

Whatever a call asks for, it is answered with text: also a call of a tool that there is not, or with arguments that do not fit.
"""

from __future__ import annotations

import difflib
import json
from functools import cache
from importlib import resources
from typing import Any

from kernelevolve_lab import paths, registry
from kernelevolve_lab.errors import LabError
from kernelevolve_lab.harness import sandbox
from kernelevolve_lab.harness.locks import MachineLock
from kernelevolve_lab.knowledge.calm import calmest
from kernelevolve_lab.knowledge.retrieval import KnowledgeBase, Query
from kernelevolve_lab.proposers.base import ProposalRequest
from kernelevolve_lab.proposers.chat.client import ToolCall
from kernelevolve_lab.proposers.chat.findings import describe
from kernelevolve_lab.proposers.chat.render import fenced

LONGEST = 16_000
HITS = 8
COMPILE_SECONDS = 60.0


@cache
def _descriptions() -> list[dict[str, Any]]:
    return json.loads(resources.files(__package__).joinpath("prompt/tools.json").read_text("utf-8"))


def specifications() -> list[dict[str, Any]]:
    """The tools in the format of the chat-completions interface."""
    return [{"type": "function", "function": description} for description in _descriptions()]


class Toolbox:
    """Answers calls for one request. All may block: run it in a thread."""

    def __init__(self, pages: KnowledgeBase, request: ProposalRequest) -> None:
        self._pages, self._request = pages, request

    def answer(self, call: ToolCall) -> str:
        """The tool's answer, at most `LONGEST` characters."""
        tools = {description["name"]: description for description in _descriptions()}
        if call.name not in tools:
            return f"There is no tool '{call.name}'; there are: {', '.join(tools)}."
        try:
            arguments = json.loads(call.arguments or "{}")
        except json.JSONDecodeError as error:
            return f"The arguments are not valid JSON: {error}."
        (wanted,) = tools[call.name]["parameters"]["required"]
        value = arguments.get(wanted) if isinstance(arguments, dict) else None
        if not isinstance(value, str) or not value.strip():
            return f"The tool '{call.name}' needs the argument '{wanted}', a text."
        try:
            text = getattr(self, f"_{call.name}")(value)
        except LabError as error:
            text = str(error)
        return text if len(text) <= LONGEST else f"{text[:LONGEST]}\n[cut here; {len(text)} characters in all]"

    def _search_knowledge(self, words: str) -> str:
        hits = self._pages.search(Query(self._request.target.vendor, self._request.language, words=words), HITS)
        return "\n".join(f"{hit.page.name}: {hit.page.title}. {hit.page.summary}" for hit in hits) or "No page fits."

    def _read_page(self, name: str) -> str:
        page = self._pages.page(name)
        return f"# {page.title}\n{page.teaching}"

    def _read_candidate(self, name: str) -> str:
        entries = self._request.state.entries
        found = [entry for key, entry in entries.items() if key.startswith(name.strip())]
        if len(found) != 1:
            near = difflib.get_close_matches(name, entries, n=3, cutoff=0.4)
            return f"There is no such candidate; near: {', '.join(near)}." if near else "There is no such candidate in this run."
        entry = found[0]
        return f"{fenced(entry.candidate.source)}\n\n{describe(entry.evaluation, self._request.operator, calmest(self._request.state))}"

    def _compile(self, source: str) -> str:
        language = registry.load("languages", self._request.language)
        cache = paths.cache_dir()
        with MachineLock(cache).building():
            build = language.build(source, self._request.target, cache / "builds", COMPILE_SECONDS, sandbox=sandbox.compiler_sandbox)
        shown = [item for item in build.diagnostics if "error" in item.severity or item.file.startswith("candidate")]
        messages = "\n".join(f"{item.line}:{item.column}: {item.severity}: {item.message}" for item in shown[:20])
        metrics = ", ".join(f"{name} {value}" for name, value in sorted((build.metrics or {}).items()) if value not in (0, "", False))
        parts = ["It compiles." if build.ok else "It does not compile.", fenced(messages, "text") if messages else "", metrics]
        return "\n\n".join(filter(None, parts))
