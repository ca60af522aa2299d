"""What a person can tell a run from a view."""

from __future__ import annotations

from typing import Any, Protocol

from kernelevolve_lab.records.run_state import RunState


class Handle(Protocol):
    """What a view needs of a run: its state and the commands that steer it (`engine.handle.RunHandle` has them)."""

    @property
    def state(self) -> RunState: ...
    @property
    def status(self) -> str: ...
    def reject(self, candidate: str, reason: str) -> Any: ...
    def pin(self, candidate: str, pinned: bool = True) -> Any: ...
    def hint(self, text: str) -> Any: ...
    def enqueue(self, source: str, language: str | None = None, title: str = "", parents: tuple[str, ...] = ()) -> Any: ...
    def branch(self, candidate: str) -> Any: ...
    def appeal(self, candidate: str, reason: str) -> Any: ...
    def overrule(self, candidate: str, flag: str, reason: str) -> Any: ...
    def pause(self) -> Any: ...
    def resume(self) -> Any: ...
    def stop(self) -> Any: ...
    def extend(self, candidates: int = 0, seconds: float = 0.0, cost: float = 0.0) -> Any: ...


def give(run: Handle | None, verb: str, asked: dict) -> str:
    """Give a run the command that a view asked for; returns what to say about it, mostly nothing. Raises the run's own `LabError`s."""
    if run is None:
        return "There is no run to steer."
    match verb:
        case "reject":
            run.reject(asked["id"], asked["reason"])
        case "pin":
            run.pin(asked["id"], bool(asked.get("pinned", True)))
        case "branch":
            run.branch(asked["id"])
        case "appeal":
            run.appeal(asked["id"], asked["reason"])
        case "overrule":
            run.overrule(asked["id"], asked["flag"], asked["reason"])
        case "hint":
            run.hint(asked["text"])
        case "enqueue":
            run.enqueue(asked["source"], language=asked["language"], title=asked.get("title", ""), parents=tuple(asked.get("parents", ())))
        case "extend":
            more = {name: float(asked.get(name, 0.0)) for name in ("seconds", "cost")}
            run.extend(candidates=int(asked.get("candidates", 0)), **more)
        case "pause" | "resume" | "stop":
            getattr(run, verb)()
        case _:
            raise ValueError(f"no such command: {verb}")
    return ""
