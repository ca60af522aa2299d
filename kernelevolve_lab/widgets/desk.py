"""The desk of a person who carries prompts to a model of their own: the prompt to copy, the reply as far as it is written, and what became
of the last one.

A desk belongs to a run and not to a view, so that a half-written reply is there again when the run is shown again. While nothing is being
written, the prompt follows the run; once it was copied or a reply was begun it stays, and is only said to be behind.
"""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass, replace
from typing import Any, Protocol

from kernelevolve_lab.errors import LabError
from kernelevolve_lab.records.run_state import RunState, Status

_log = logging.getLogger(__name__)


class Writable(Protocol):
    """What a desk needs of a run (`api.Run` has it)."""

    @property
    def state(self) -> RunState: ...
    def suggested_parent(self) -> str | None: ...
    def prompt(self, parent: str | None = None) -> str: ...
    def reply(self, text: str, parent: str | None = None, prompt: str = "") -> str: ...


@dataclass(frozen=True)
class Sheet:
    """What lies on a desk. `prompt` asks for the next version of `parent` (empty: a first version) and was composed from what the run knew
    then; `behind` says that it knows more now. `trouble` is why there is no prompt. `said` is why the last reply was sent back and `repair`
    what to tell the model about it; `taken` is the candidate that the last usable reply became, `turns` how many there were."""

    parent: str = ""
    prompt: str = ""
    behind: bool = False
    trouble: str = ""
    said: str = ""
    repair: str = ""
    taken: str = ""
    turns: int = 0


class Desk:
    """One run's desk; may be used from any thread. Composing a prompt happens in a thread of its own."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sheet = Sheet()
        self._known: tuple = ()
        self._begun = self._composing = False
        self.draft = ""

    @property
    def sheet(self) -> Sheet:
        with self._lock:
            return self._sheet

    def look(self, run: Writable, state: RunState) -> None:
        """See whether the run knows something new; compose a new prompt where nothing that was begun would be lost by it."""
        known = _knowledge(state)
        with self._lock:
            if known == self._known or self._composing or state.status in (Status.EMPTY, Status.ENDED):
                return
            if self._sheet.prompt and (self._begun or self.draft.strip()):
                self._sheet = replace(self._sheet, behind=True)
                return
        self.compose(run, asked=False)

    def compose(self, run: Writable, parent: str | None = None, asked: bool = True) -> None:
        """Compose the prompt anew: for `parent`, empty for a first version, None for what the run suggests. Unless a person `asked` for it,
        it does not take the place of one that somebody began to use meanwhile."""
        with self._lock:
            if self._composing:
                return
            self._composing = True
        threading.Thread(target=self._compose, args=(run, parent, asked), daemon=True, name="kel-work").start()

    def _compose(self, run: Writable, parent: str | None, asked: bool) -> None:
        known, prompt, trouble = _knowledge(run.state), "", ""
        about = parent
        try:
            about = (run.suggested_parent() or "") if parent is None else parent
            prompt = run.prompt(about or None)
        except LabError as error:
            trouble = str(error)
        except Exception as error:
            _log.exception("the prompt could not be composed")
            trouble = f"The prompt could not be composed: {type(error).__name__}: {error}"
        with self._lock:
            self._composing = False
            if not asked and self._sheet.prompt and (self._begun or self.draft.strip()):
                self._sheet = replace(self._sheet, behind=True)
                return
            self._known, self._begun = known, False
            self._sheet = replace(self._sheet, parent=about or "", prompt=prompt, trouble=trouble, behind=False)

    def begin(self) -> None:
        """The prompt was copied: somebody is asking a model, so it stays."""
        with self._lock:
            self._begun = True

    def submit(self, run: Writable, text: str) -> str:
        """Have the reply judged; returns its candidate's id. Raises the `LabError` that says why it cannot be used."""
        sheet = self.sheet
        self.draft = text
        try:
            taken = run.reply(text, sheet.parent or None, sheet.prompt)
        except LabError as error:
            with self._lock:
                self._sheet = replace(self._sheet, said=str(error), repair=getattr(error, "repair", ""))
            raise
        with self._lock:
            self.draft, self._begun = "", False
            self._sheet = replace(self._sheet, said="", repair="", taken=taken, turns=self._sheet.turns + 1)
        return taken


def _knowledge(state: RunState) -> tuple:
    """What a prompt depends on, as far as it tells that a new one would differ."""
    out = sum(entry.banned for entry in state.entries.values())
    return (state.run, state.target is not None, len(state.entries), state.judged, len(state.hints), out)


_desks: dict[str, Desk] = {}


def desk_of(run: Any, state: RunState) -> Desk | None:
    """The desk of a run that a person writes for, None for any other."""
    if state.config is None or state.config.proposer != "manual" or not hasattr(run, "prompt"):
        return None
    return _desks.setdefault(state.run, Desk())
