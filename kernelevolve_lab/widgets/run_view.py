"""The live view of a run: one widget, one comm, one writer.

The front end says `hello` when a view appears (first display, reload, second view) or when it missed a message, and gets the whole state;
from then on it gets what changed. Whatever a person does comes back as a message, is put on a queue by the callback and carried out by the
pump thread, because callbacks may run on any thread and must not wait.
"""

from __future__ import annotations

import contextvars
import logging
import queue
import secrets
import threading
import time
import weakref
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import anywidget
import traitlets

from kernelevolve_lab import registry
from kernelevolve_lab.errors import BadInput, LabError
from kernelevolve_lab.records.run_state import RunState, Status
from kernelevolve_lab.rendering import report
from kernelevolve_lab.widgets import assets, commands, inspector
from kernelevolve_lab.widgets.commands import Handle
from kernelevolve_lab.widgets.desk import Sheet, desk_of
from kernelevolve_lab.widgets.feed import Feed
from kernelevolve_lab.widgets.pump import PERIOD, Pump

PANELS = ("header", "hand", "leaderboard", "charts", "inspector", "steering", "log")
IDLE_PERIOD = 1.0
UNHEARD_FIRST, UNHEARD_SLOWEST = 0.5, 16.0
WRITING_PERIOD, WRITING_REQUESTS, WRITING_CHARACTERS = 0.5, 6, 400
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Done:
    """What a thread brings back: the answer to what was asked for with `ticket`, and the run to show from now on, if any."""

    ticket: str | None
    answer: dict
    handle: Handle | None = None


class RunView(anywidget.AnyWidget):
    """Shows a run while it searches and after, and steers it.

    Displaying it makes two outputs: the live view, and a static report that the page hides while the live view is there. The report is
    brought up to date when the run pauses or ends and when the view is closed, so that a saved notebook reads without a kernel.

    `panels` chooses what is shown (see `PANELS`); several views of one run may be open at once. The export button calls the handle's
    `export(folder, format=…, candidate=…)` where it has one, and says why it is off where not.
    """

    _esm = traitlets.Unicode(assets.bundle("view.js")).tag(sync=True)
    _css = traitlets.Unicode(assets.styles()).tag(sync=True)
    _view_count = traitlets.Int(0, allow_none=True).tag(sync=True)
    panels = traitlets.List(traitlets.Unicode()).tag(sync=True)
    name = traitlets.Unicode().tag(sync=True)

    def __init__(
        self,
        handle: Handle | None = None,
        panels: tuple[str, ...] = PANELS,
        period: float = PERIOD,
    ) -> None:
        super().__init__(panels=list(panels), name=secrets.token_hex(6))
        self._handle = handle
        self._feed = Feed()
        self._inbox: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._context = contextvars.copy_context()
        self._sent = 0
        self._known = False
        self._unheard_until = 0.0
        self._unheard_every = UNHEARD_FIRST
        self._shown: tuple[str, Status] | None = None
        self._reports: list[Any] = []
        self._stale = ""
        self._period = period
        self._asked_at = 0.0
        self._standing = ""
        self._writing: tuple[Any, ...] = ()
        self._write_again = 0.0
        self._sheet: Sheet | None = None
        self._pump = Pump(self, type(self)._tick, period)
        this = weakref.ref(self)
        self.on_msg(lambda _, content, __: (view := this()) is not None and view._receive(content))

    @property
    def state(self) -> RunState:
        """The run as it is now; an empty state while there is no run."""
        return self._handle.state if self._handle is not None else RunState()

    def show(self, handle: Handle | None) -> None:
        """Show another run in this view."""
        self._handle = handle
        self._put({"t": "hello"})

    def close(self) -> None:
        """End the thread, bring the static report up to date and free the widget."""
        self._pump.stop()
        if self.comm is not None:
            try:
                self._freeze(self.state)
            except Exception as error:
                self._complain(error)
            self.layout.close()
        super().close()

    def _receive(self, content: Any) -> None:
        if isinstance(content, dict):
            self._put(content)

    def _put(self, item: Any) -> None:
        """Hand something to the pump, from any thread."""
        self._inbox.put(item)
        self._pump.start()
        self._pump.wake()

    def _tick(self) -> bool:
        """One round of the pump: carry out what was asked for, tell what changed. False ends the pump."""
        if self.comm is None:
            return False
        try:
            whole = self._carry_out() or self._speak_unheard()
            state = self.state
            if whole or (self._known and (self._view_count != 0 or self._unheard_until)):
                self._tell(state, whole)
                self._tell_writing(whole)
                self._tell_desk(state, whole)
            self._keep_report(state)
            self._pump.base = self._period if state.status in (Status.RUNNING, Status.PAUSED) else max(self._period, IDLE_PERIOD)
            self._stale = ""
        except Exception as error:
            self._complain(error)
        return True

    def _speak_unheard(self) -> bool:
        """Whether to tell the whole state unasked: from the first display on, ever more rarely, until a view says hello. A cell that blocks
        the kernel holds its hello back, and nobody should look at nothing meanwhile."""
        if not self._unheard_until or time.monotonic() < self._unheard_until:
            return False
        self._unheard_every = min(UNHEARD_SLOWEST, 2 * self._unheard_every)
        self._unheard_until = time.monotonic() + self._unheard_every
        self._greet()
        return True

    def _tell(self, state: RunState, whole: bool) -> None:
        message = self._feed.message(state, self._stand(whole), whole)
        if message is not None:
            self._sent += 1
            self._known = True
            self.send({"t": "update", "n": self._sent, "now": time.time(), "exports": self._exports(), **message})

    def _tell_writing(self, whole: bool) -> None:
        """What models are writing just now, at most twice a second; in messages of their own, because nothing depends on it."""
        writing = getattr(self._handle, "writing", ())
        if not whole and (writing == self._writing or time.monotonic() < self._write_again):
            return
        if not writing and not self._writing:
            return
        shown = writing[:WRITING_REQUESTS]
        items = [asdict(reply) | {"text": reply.text[-WRITING_CHARACTERS:]} for reply in shown]
        self.send({"t": "writing", "items": items, "more": len(writing) - len(items)})
        self._writing, self._write_again = writing, time.monotonic() + WRITING_PERIOD

    def _tell_desk(self, state: RunState, whole: bool) -> None:
        """What lies on the desk of a run that a person writes for; the prompt is told only where it is new, the draft only to a view that
        has just appeared."""
        desk = desk_of(self._handle, state)
        if desk is None:
            if self._sheet is not None:
                self._sheet = None
                self.send({"t": "desk", "on": False})
            return
        desk.look(self._handle, state)
        sheet, last = desk.sheet, None if whole else self._sheet
        if sheet is last:
            return
        told = {"t": "desk", "on": True, **asdict(sheet)}
        if last is not None and last.prompt == sheet.prompt:
            del told["prompt"]
        if last is None:
            told["draft"] = desk.draft
        self._sheet = sheet
        self.send(told)

    def _at_desk(self, asked: dict) -> dict | None:
        """What a person does at the desk."""
        desk = desk_of(self._handle, self.state)
        if desk is None:
            raise BadInput("Nobody writes by hand for this run.")
        match asked:
            case {"act": "write", "text": str(text)}:
                desk.draft = text
            case {"act": "begin"}:
                desk.begin()
            case {"act": "compose"}:
                desk.compose(self._handle, asked.get("parent"))
            case {"act": "submit", "text": str(text)}:
                run = self._handle
                return self._later(asked, lambda: Done(asked.get("ticket"), {"taken": desk.submit(run, text)}))
        return {}

    def _exports(self) -> list[str]:
        """The formats that the shown run can be exported in."""
        return list(registry.names("exporters")) if hasattr(self._handle, "export") else []

    def _stand(self, now: bool) -> str:
        """The handle's word for where the run stands; asked at most once a second, because it looks for a live process in the store."""
        if self._handle is not None and (now or time.monotonic() - self._asked_at > 1):
            self._standing, self._asked_at = self._handle.status, time.monotonic()
        return self._standing

    def _carry_out(self) -> bool:
        """Empty the inbox; True when a view asked for the whole state."""
        whole = False
        while True:
            try:
                asked = self._inbox.get_nowait()
            except queue.Empty:
                return whole
            if isinstance(asked, Done):
                whole = self._finish(asked) or whole
            elif asked.get("t") == "hello":
                self._unheard_until = 0.0
                self._greet()
                whole = True
            else:
                self._answer(asked)

    def _greet(self) -> None:
        """Called when a view appears, before it gets the whole state."""

    def _later(self, asked: dict, work: Callable[[], Done]) -> None:
        """Do something slow in a thread of its own; what it brings back goes through the inbox, and its answer out when it is done."""

        def run() -> None:
            try:
                done = work()
            except LabError as error:
                done = Done(asked.get("ticket"), {"ok": False, "text": str(error)})
            except Exception as error:
                _log.exception("the view could not do what was asked: %s", asked.get("t"))
                done = Done(asked.get("ticket"), {"ok": False, "text": f"{type(error).__name__}: {error}"})
            self._put(done)

        threading.Thread(target=self._context.run, args=(run,), daemon=True, name="kel-work").start()

    def _finish(self, done: Done) -> bool:
        """Take in what a thread brought back; True when the whole state must be told."""
        if done.ticket is not None:
            self.send({"t": "answer", "ticket": done.ticket, "ok": True, **done.answer})
        if done.handle is not None:
            self._handle = done.handle
        return done.handle is not None

    def _answer(self, asked: dict) -> None:
        ticket = asked.get("ticket")
        try:
            told = self._do(asked)
        except LabError as error:
            told = {"ok": False, "text": str(error)}
        except Exception as error:
            _log.exception("the view could not do what was asked: %s", asked.get("t"))
            told = {"ok": False, "text": f"{type(error).__name__}: {error}"}
        if told is not None:
            self.send({"t": "answer", "ticket": ticket, "ok": True, **told})

    def _do(self, asked: dict) -> dict | None:
        """Carry out one wish; what is returned is the answer, None when the answer comes later."""
        match asked:
            case {"t": "inspect", "id": str(candidate), "tab": str(tab)}:
                return {"html": inspector.tab_html(self.state, candidate, tab, asked.get("against") or None)}
            case {"t": "source", "id": str(candidate)}:
                entry = self.state.entries.get(candidate)
                return {"source": entry.candidate.source if entry else "", "language": entry.candidate.language if entry else ""}
            case {"t": "export", "id": str(candidate), "format": str(form), "folder": str(folder)}:
                return self._later(asked, lambda: Done(asked.get("ticket"), self._write(candidate, form, folder)))
            case {"t": "desk"}:
                return self._at_desk(asked)
            case {"t": "command", "verb": str(verb)}:
                return {"text": commands.give(self._handle, verb, asked)}
        return {"ok": False, "text": f"The view was asked for something it does not know: {asked.get('t')}."}

    def _write(self, candidate: str, form: str, folder: str) -> dict:
        export = getattr(self._handle, "export", None)
        if export is None:
            raise BadInput("This run cannot be exported from here.")
        written = export(Path(folder or "exports").expanduser(), format=form, candidate=candidate)
        return {"text": "Written: " + ", ".join(str(path) for path in written)}

    def _complain(self, error: Exception) -> None:
        """Say once that the view is stale; the search is not touched by it."""
        text = f"{type(error).__name__}: {error}"
        if text != self._stale:
            self._stale = text
            _log.exception("the view could not be brought up to date")
            self.send({"t": "stale", "text": text})

    def _keep_report(self, state: RunState) -> None:
        shown = (state.run, state.status)
        if shown != self._shown:
            self._shown = shown
            if state.status in (Status.PAUSED, Status.ENDED):
                self._freeze(state)

    def _freeze(self, state: RunState) -> None:
        for handle in self._reports:
            handle.update(_Html(report.notebook_html(state, self.name), report.text(state)))

    def _repr_mimebundle_(self, **kwargs: Any) -> tuple[dict, dict] | None:
        bundle = super()._repr_mimebundle_(**kwargs)
        if bundle is None:
            return None
        data, metadata = bundle if isinstance(bundle, tuple) else (bundle, {})
        state = self.state
        self._pump.start()
        return {**data, "text/plain": report.text(state), "text/html": report.stub_html(state)}, metadata

    def _ipython_display_(self, **kwargs: Any) -> None:
        from IPython import get_ipython
        from IPython.display import display

        data, metadata = self._repr_mimebundle_()
        if not self._known:
            self._unheard_until = time.monotonic() + self._unheard_every
        display(data, raw=True, metadata=metadata)
        if not hasattr(get_ipython(), "kernel"):
            return
        state = self.state
        self._reports.append(display(_Html(report.notebook_html(state, self.name), report.text(state)), display_id=True))
        self._shown = (state.run, state.status)


class _Html:
    """HTML with a plain twin for front ends that show none."""

    def __init__(self, html: str, text: str) -> None:
        self._html, self._text = html, text

    def _repr_html_(self) -> str:
        return self._html

    def __repr__(self) -> str:
        return self._text


_views: weakref.WeakKeyDictionary[Any, weakref.ref[RunView]] = weakref.WeakKeyDictionary()


def view_of(handle: Handle, **options: Any) -> RunView:
    """The view of that run: the same one each time, so that showing a run twice costs one thread."""
    known = _views.get(handle)
    view = known() if known else None
    if view is None or view.comm is None:
        view = RunView(handle, **options)
        _views[handle] = weakref.ref(view)
    return view
