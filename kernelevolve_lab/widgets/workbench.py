"""The workbench: choosers that start a search or open an earlier run, and the live view of it, as one widget.

Whatever takes longer than a moment (making a run, opening one, asking what toolchains can build) happens in threads of its own, so that
the view stays alive; what they bring back goes through the same queue as what people do.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

from kernelevolve_lab import api, registry, targets
from kernelevolve_lab.errors import LabError
from kernelevolve_lab.store import RunSummary, Store
from kernelevolve_lab.widgets import options
from kernelevolve_lab.widgets.commands import Handle
from kernelevolve_lab.widgets.run_view import PANELS, Done, RunView

RUNS = 40
_log = logging.getLogger(__name__)


class Workbench(RunView):
    """Choosers and a live view.

    Displayed, it offers the registered operators, targets, languages, proposers and policies; Start searches in a thread and shows the run.

    `operators` offers operators of your own by name besides the registered ones, `chosen` preselects (`{"operator": "softmax"}`), `store`
    is where runs are kept (by default the user's own). The functions stand in for those of the public API: `search(operator, target=…,
    language=…, proposer=…, policy=…, max_candidates=…, max_seconds=…, max_cost=…, **options)` starts a run and returns its handle,
    `open_run(run_id)` returns a stored one's, `runs()` lists what is stored.

    A key that is typed into the box goes where `kel.use_key` puts it, and nowhere else.
    """

    def __init__(
        self,
        operators: Mapping[str, Any] | None = None,
        chosen: Mapping[str, str] | None = None,
        store: Store | str | None = None,
        *,
        search: Callable[..., Handle] | None = None,
        open_run: Callable[[str], Handle] | None = None,
        runs: Callable[[], Iterable[RunSummary]] | None = None,
    ) -> None:
        super().__init__(None, panels=("launcher", *PANELS))
        self._search = search or partial(api.search, store=store)
        self._open_run = open_run or partial(api.open_run, store=store)
        self._list_runs = runs or partial(_stored, store)
        self._operators = dict(operators or {})
        self._chosen = dict(chosen or {})
        self._obstacles: dict[str, str] | None = None
        self._absent: list[str] = []
        self._serving: dict[str, list[str]] = {}
        self._options: dict[str, list[dict]] = {}
        self._otherwise: dict[str, str] = {}

    @property
    def run(self) -> Handle | None:
        """The run that is shown, or None."""
        return self._handle

    def _greet(self) -> None:
        self._offer()
        if self._obstacles is None:
            self._obstacles = {}
            threading.Thread(target=self._probe, daemon=True, name="kel-probe").start()

    def _offer(self) -> None:
        """Tell the front end what there is to choose."""
        self.send(
            {
                "t": "choices",
                "operators": [*self._operators, *registry.names("operators")],
                "targets": list(targets.names()),
                "absent": self._absent,
                "serving": self._serving,
                "languages": list(registry.names("languages")),
                "proposers": [name for name in registry.names("proposers") if name != "replay"],
                "options": self._options,
                "otherwise": self._otherwise,
                "policies": list(registry.names("policies")),
                "chosen": self._chosen,
                "obstacles": self._obstacles or {},
                "runs": self._stored(),
            }
        )

    def _stored(self) -> list[dict]:
        try:
            stored = sorted(self._list_runs(), key=lambda run: -run.updated)[:RUNS]
        except LabError as error:
            self.send({"t": "notice", "tone": "bad", "text": str(error)})
            return []
        return [
            {
                "run": run.id,
                "title": run.title,
                "target": run.target,
                "status": run.status,
                "best": run.speedup,
                "when": time.strftime("%d %b %H:%M", time.localtime(run.updated)),
            }
            for run in stored
        ]

    def _probe(self) -> None:
        """Find out which targets are here, which languages serve them, and what a language lacks."""
        lacking = {language: self._lacking(language) for language in registry.names("languages")}
        absent: list[str] = []
        serving: dict[str, list[str]] = {}
        obstacles: dict[str, str] = {}
        for target in targets.names():
            spec = targets.resolve(target)
            tools = {language: registry.load("languages", language) for language in lacking}
            # What can be emulated is the same with the hardware and without.
            fit = [name for name, tool in tools.items() if tool.supports(spec)]
            serving[target] = sorted(fit, key=lambda name: not tools[name].emulated)
            obstacles |= {f"{target}/{language}": lacking[language] for language in serving[target] if lacking[language]}
            if not spec.present:
                absent.append(target)
        self._otherwise = options.otherwise()
        self._options = {name: self._offered(name) for name in registry.names("proposers")}
        self._absent, self._serving, self._obstacles = absent, serving, obstacles
        self._put(Done(None, {}))

    def _offered(self, proposer: str) -> list[dict]:
        """What the proposer lets people set; nothing where it cannot be loaded, which starting a run with it will say."""
        try:
            return options.offered(proposer)
        except LabError:
            return []

    def _lacking(self, language: str) -> str:
        """Why kernels in that language cannot be built here; empty if they can."""
        try:
            registry.load("languages", language).toolchain()
        except LabError as error:
            return str(error)
        except Exception as error:
            _log.exception("probing %s", language)
            return f"{language} does not work here: {error}"
        return ""

    def _do(self, asked: dict) -> dict | None:
        match asked:
            case {"t": "start", "operator": str(name)}:
                return self._later(asked, lambda: Done(asked.get("ticket"), {}, self._start(name, asked)))
            case {"t": "endpoint", "proposer": str(name), "options": dict(chosen)}:
                return self._later(asked, lambda: Done(asked.get("ticket"), options.endpoint(name, chosen, asked.get("cost"))))
            case {"t": "key", "key": str(key), "base_url": str(base_url)}:
                options.remember_key(key, base_url)
                return {}
            case {"t": "open", "run": str(run)}:
                return self._later(asked, lambda: Done(asked.get("ticket"), {}, self._open_run(run)))
        return super()._do(asked)

    def _start(self, name: str, asked: dict) -> Handle:
        seconds, cost = asked.get("seconds"), asked.get("cost")
        known = {option["name"] for option in self._options.get(asked["proposer"], ())}
        return self._search(
            self._operators.get(name, name),
            target=asked["target"],
            language=asked["language"],
            proposer=asked["proposer"],
            policy=asked["policy"],
            max_candidates=int(asked["candidates"]),
            max_seconds=float(seconds) if seconds else None,
            max_cost=float(cost) if cost else None,
            **{name: value for name, value in asked.get("options", {}).items() if name in known},
        )

    def _finish(self, done: Done) -> bool:
        whole = super()._finish(done)
        if whole or done.ticket is None:
            self._offer()
        return whole


def _stored(store: Store | str | None) -> Iterable[RunSummary]:
    opened = store if isinstance(store, Store) else Store.open(store)
    return opened.runs()
