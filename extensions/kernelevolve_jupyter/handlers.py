"""REST handlers below `/kernelevolve`: runs, one run, one candidate, steering, and a new notebook.

The store is opened on first use and read in a thread, so that the server's loop never waits for a disk.
"""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import nbformat
from jupyter_server.base.handlers import APIHandler
from jupyter_server.utils import ensure_async, url_path_join
from pydantic import TypeAdapter, ValidationError
from tornado.web import HTTPError, authenticated

from kernelevolve_lab.errors import LabError
from kernelevolve_lab.records.events import SteeringAccepted
from kernelevolve_lab.records.run import Command
from kernelevolve_lab.records.run_state import Entry, RunState
from kernelevolve_lab.store import Store

ID = r"(?P<run>[A-Za-z0-9_-]{1,64})"
CANDIDATE = r"(?P<candidate>[0-9a-f]{12})"
ROWS = 200
WORKBENCH = "import kernelevolve_lab as kel\n\nkel.Workbench()"

COMMAND = TypeAdapter(Command)


class StoreDoor:
    """One store for all requests, opened when the first one comes."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._store: Store | None = None
        self._opening = asyncio.Lock()

    async def ask(self, question: Callable[[Store], Any]) -> Any:
        """Put a question to the store in a thread; what a user can mend becomes a 409 with its sentence."""
        try:
            async with self._opening:
                if self._store is None:
                    self._store = await asyncio.to_thread(Store.open, self.url)
            return await asyncio.to_thread(question, self._store)
        except LabError as error:
            raise HTTPError(409, reason=str(error).replace("\n", " ")) from error


class StoreHandler(APIHandler):
    """A handler that asks the store."""

    def initialize(self, door: StoreDoor) -> None:
        self.door = door

    async def state_of(self, run: str) -> RunState:
        def find(store: Store) -> RunState | None:
            return store.state(run) if any(summary.id == run for summary in store.runs()) else None

        state = await self.door.ask(find)
        if state is None:
            raise HTTPError(404, reason=f"There is no run {run} in the store.")
        return state


class RunsHandler(StoreHandler):
    @authenticated
    async def get(self) -> None:
        runs = await self.door.ask(lambda store: store.runs())
        self.finish(json.dumps({"runs": [run.model_dump(mode="json") for run in runs]}))


class RunHandler(StoreHandler):
    @authenticated
    async def get(self, run: str) -> None:
        state = await self.state_of(run)
        self.finish(json.dumps(run_object(state)))


class CandidateHandler(StoreHandler):
    @authenticated
    async def get(self, run: str, candidate: str) -> None:
        entry = (await self.state_of(run)).entries.get(candidate)
        if entry is None:
            raise HTTPError(404, reason=f"There is no candidate {candidate} in run {run}.")
        evaluation = entry.evaluation
        self.finish(
            json.dumps(
                {
                    **row(entry),
                    "source": entry.candidate.source,
                    "notes": entry.candidate.notes,
                    "reasons": list(evaluation.reasons) if evaluation else [],
                    "diagnosis": evaluation.diagnosis.summary if evaluation and evaluation.diagnosis else "",
                }
            )
        )


class SteerHandler(StoreHandler):
    @authenticated
    async def post(self, run: str) -> None:
        await self.state_of(run)
        try:
            command = COMMAND.validate_python(self.get_json_body())
        except ValidationError as error:
            raise HTTPError(400, reason="That is not a steering command.") from error
        logged = await self.door.ask(lambda store: store.append(run, SteeringAccepted(command=command, author="extension")))
        self.finish(json.dumps({"accepted": logged.seq}))


class NotebookHandler(APIHandler):
    """Makes a notebook with the workbench in it, through the contents manager, so that it works wherever notebooks are kept."""

    @authenticated
    async def post(self) -> None:
        folder = str((self.get_json_body() or {}).get("folder") or "")
        cells = [nbformat.v4.new_markdown_cell("# Kernel search"), nbformat.v4.new_code_cell(WORKBENCH)]
        notebook = nbformat.v4.new_notebook(cells=cells)
        notebook.metadata.kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
        name = await ensure_async(self.contents_manager.increment_filename("kernel-search.ipynb", folder))
        path = f"{folder}/{name}".lstrip("/")
        await ensure_async(self.contents_manager.save({"type": "notebook", "format": "json", "content": notebook}, path))
        self.finish(json.dumps({"path": path}))


def row(entry: Entry) -> dict[str, Any]:
    """One line of the leaderboard."""
    evaluation = entry.evaluation
    speedup = evaluation.speedup if evaluation else None
    return {
        "id": entry.candidate.id,
        "order": entry.order,
        "generation": entry.generation,
        "title": entry.candidate.title,
        "language": entry.candidate.language,
        "verdict": evaluation.verdict.value if evaluation else ("judging" if entry.judging else "waiting"),
        "evidence": evaluation.evidence.value if evaluation else "",
        "speedup": speedup.model_dump(mode="json") if speedup else None,
        "pinned": entry.pinned,
        "rejected": entry.rejected,
        "banned": entry.banned,
    }


def run_object(state: RunState) -> dict[str, Any]:
    """A run as the panel shows it; at most `ROWS` lines of the leaderboard."""
    return {
        "id": state.run,
        "seq": state.seq,
        "title": state.title,
        "status": state.status.value,
        "phase": state.phase,
        "reason": state.reason,
        "target": state.config.target if state.config else "",
        "judged": state.judged,
        "budget": state.budget.candidates,
        "best": state.best_id,
        "rows": [row(entry) for entry in state.ranked()[:ROWS]],
    }


def handlers(base_url: str, store_url: str) -> list[tuple]:
    """The routes with their handlers."""
    door = {"door": StoreDoor(store_url)}

    def at(*parts: str) -> str:
        return url_path_join(base_url, "kernelevolve", *parts) + "$"

    return [
        (at("runs"), RunsHandler, door),
        (at("runs", ID), RunHandler, door),
        (at("runs", ID, "candidates", CANDIDATE), CandidateHandler, door),
        (at("runs", ID, "steer"), SteerHandler, door),
        (at("notebook"), NotebookHandler),
    ]
