"""The Python interface: what `import kernelevolve_lab as kel` offers.

`Run` is the engine's handle of a run with display, tables and export added; everything here also works without a front end.
"""

from __future__ import annotations

import difflib
import random
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kernelevolve_lab import paths, registry
from kernelevolve_lab.engine.handle import RunHandle
from kernelevolve_lab.engine.recorded import shipped
from kernelevolve_lab.engine.replay import Replay
from kernelevolve_lab.engine.start import start
from kernelevolve_lab.errors import BadInput, UnknownName
from kernelevolve_lab.records import Candidate, Evaluation, OperatorRef, Profile
from kernelevolve_lab.records.run_state import Entry, RunState
from kernelevolve_lab.rendering import report, words
from kernelevolve_lab.store import Store

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

BUNDLE_SUFFIX = ".kevrun"
_here: weakref.WeakSet[Run] = weakref.WeakSet()


class Run(RunHandle):
    """One search, live or from the store.

    Displaying it in a notebook gives the live view; `await run` waits for its end without blocking; `run.wait()` blocks. Steer it with
    `reject`, `pin`, `hint`, `enqueue`, `branch`, `appeal`, `overrule`, `pause`, `resume`, `stop` and `extend`.
    """

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        _here.add(self)

    def leaderboard(self) -> pd.DataFrame:
        """All candidates, best first: one row each, speedups with their 95 % intervals, evidence in a column of its own."""
        import pandas as pd

        return (
            pd.DataFrame([_row(rank, entry) for rank, entry in enumerate(self.state.ranked(), 1)]).set_index("rank")
            if self.state.entries
            else pd.DataFrame()
        )

    def source(self, candidate: str) -> str:
        """The source text of a candidate."""
        return self.candidate(candidate).candidate.source

    def diff(self, a: str, b: str | None = None) -> Diff:
        """The difference between two candidates; from its first parent to `a` when only one is named."""
        one = self.candidate(a)
        if b is None:
            if not one.candidate.parents:
                raise BadInput(f"{one.candidate.id} has no parent to compare with; name a second candidate.")
            return Diff(self.candidate(one.candidate.parents[0]), one)
        return Diff(one, self.candidate(b))

    def export(self, out: str | Path, format: str = "module", candidate: str | None = None) -> tuple[Path, ...]:
        """Write the best candidate (or the one named) to a folder as a `module`, `torch-op`, `package`, `kernelbench` files or a `report`;
        returns what was written, the main file or folder first."""
        entry = self.candidate(candidate) if candidate else self.best
        if entry is None:
            raise BadInput(f"Run {self.id} has no correct candidate yet, so there is nothing to export.")
        return _export(self.store, self.state, entry, Path(out), format)

    def prompt(self, parent: str | None = None) -> str:
        """What a model would be asked now, to be copied into any chat: the next version of `parent`, or a first version without one. Paste
        the answer back with `reply`."""
        from kernelevolve_lab.proposers.chat import by_hand

        parents = (self.candidate(parent).id,) if parent else ()
        self._refuse_foreign_code()
        state = self.state
        made = by_hand.prompt(state, self._services.load_operator(state.config), parents)
        return f"{made.system}\n\n{made.user}\n"

    def reply(self, text: str, parent: str | None = None, prompt: str = "") -> str:
        """Have the kernel in a model's answer judged next (a whole source, or edits of `parent`); returns its candidate id. The answer is
        kept with the candidate, and so is the `prompt` that it answers. Raises `LabError` with what is wrong with it."""
        from kernelevolve_lab.proposers.chat import by_hand

        parents = (self.candidate(parent).id,) if parent else ()
        parsed = by_hand.read(text, self.state, parents)
        return self.enqueue(
            parsed.source, title=parsed.title or "pasted reply", parents=parents, notes=parsed.notes, prompt=prompt, reply=text
        )

    def suggested_parent(self) -> str | None:
        """The candidate that a person who writes by hand had better build on next, None for a first version: what somebody asked to branch
        from, else what the run's policy chooses once there is one draft."""
        state = self.state
        for request in state.pending_requests:
            named = getattr(request.command, "candidate", "") if request.command.command == "branch" else ""
            if named in state.entries and not state.entries[named].banned:
                return named
        policy = registry.load("policies", state.config.policy)()
        choice = policy.choose(state, random.Random(f"{state.config.seed}/{len(state.entries)}"), 1)
        return next(iter(choice.parents), None)

    def save(self, path: str | Path) -> Path:
        """Write the whole run to one file, which `kel.open` reads on any machine."""
        from kernelevolve_lab.store.bundle import export_run

        return export_run(self.store, self.id, path)

    def roofline(self, case: str | None = None) -> go.Figure:
        """The roofline as a plotly figure: of the case that takes longest, or of the one named."""
        from kernelevolve_lab.widgets.figures import roofline_figure

        return roofline_figure(self.state, case)

    def progress(self) -> go.Figure:
        """Speedup over the candidates judged, as a plotly figure."""
        from kernelevolve_lab.widgets.figures import progress_figure

        return progress_figure(self.state)

    def text_table(self, rows: int = 10) -> str:
        """The run as plain text."""
        return report.text(self.state, rows)

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> Any:
        from kernelevolve_lab.widgets.run_view import view_of

        return view_of(self)._repr_mimebundle_(include=include, exclude=exclude)

    def _ipython_display_(self, **options: Any) -> None:
        """The live view, and the static report that stays in a saved notebook."""
        from kernelevolve_lab.widgets.run_view import view_of

        view_of(self)._ipython_display_(**options)


class ReplayedRun(Replay, Run):
    """A recorded run that plays again, with the display and the tables of a run; it cannot be steered."""


class Diff:
    """What changed from one candidate to another: text, and side by side in a notebook."""

    def __init__(self, before: Entry, after: Entry) -> None:
        self.before, self.after = before.candidate, after.candidate

    def __str__(self) -> str:
        lines = (self.before.source.splitlines(), self.after.source.splitlines())
        return "\n".join(difflib.unified_diff(*lines, self.before.id, self.after.id, lineterm=""))

    __repr__ = __str__

    def _repr_html_(self) -> str:
        from kernelevolve_lab.rendering.source import diff_html

        body = diff_html(self.before.source, self.after.source, self.after.language, (self.before.id, self.after.id))
        return f"<style>{report.stylesheet()}</style><div class='kel'>{body}</div>"


def search(operator: object, target: str = "cpu", *, store: Store | str | None = None, **settings: Any) -> Run:
    """Begin a search and return at once; it goes on in a thread of this process.

    `operator` is a registered name, the path of a KernelBench task file, or what `kel.operator` returned. Settings: `language`, `proposer`,
    `policy`, `max_candidates`, `max_seconds`, `max_cost`, `stall`, `fitness`, `seed`, `profile` and options of the proposer.

        >>> run = kel.search("rms_norm", target="cpu", max_candidates=40)
        >>> run.wait()
        >>> run.best.source
    """
    return start(operator, target, store=_store(store), handle_type=Run, **settings)


def use_key(key: str | None = None, base_url: str = "") -> None:
    """Keep the key of a chat endpoint in this process, and nowhere else: not in the store, the notebook or the environment. Without `key` a
    prompt asks for it and hides what is typed. `base_url` names the endpoint that it is for (default: any)."""
    from kernelevolve_lab.proposers.chat.settings import use_key as use

    if key is None:
        import getpass

        key = getpass.getpass(f"Key for {base_url or 'the chat endpoint'} (kept in this process only): ")
    use(key, base_url)


def operator(thing: object, inputs: object = None, name: str | None = None) -> OperatorRef:
    """Make an operator of a Python function or `nn.Module` with example `inputs`, or of the path of a KernelBench task file."""
    from kernelevolve_lab.operators.loading import ref_of

    return ref_of(thing, inputs=inputs, name=name)


def evaluate(
    source: str | Path,
    operator: object,
    target: str = "cpu",
    *,
    language: str | None = None,
    profile: Profile | None = None,
    unsandboxed: bool = False,
    progress: Callable[[str], None] = lambda text: None,
) -> Evaluation:
    """Judge one source (text, or the path of a file) and return what the judge found; blocks until it is done."""
    from kernelevolve_lab.harness.judge import Judge
    from kernelevolve_lab.operators.loading import ref_of
    from kernelevolve_lab.targets import measure, resolve
    from kernelevolve_lab.targets import profile as profile_of

    text, suffix = _read(source) if isinstance(source, Path) else (source, "")
    ref = operator if isinstance(operator, OperatorRef) else ref_of(operator)
    spec = resolve(target)
    name = language or _language_of(suffix)
    chosen = registry.load("languages", name)
    if not chosen.supports(spec):
        raise BadInput(f"{chosen.title} cannot be judged on {spec.title}; name another language or target.")
    chosen.toolchain()
    spec = measure(spec, paths.cache_dir(), progress=progress)
    with Judge(ref, spec, profile=profile or profile_of(spec), unsandboxed=unsandboxed) as judge:
        judge.open(progress)
        progress("judging")
        return judge.evaluate(Candidate(language=name, source=text), final=True)


def runs(store: Store | str | None = None) -> pd.DataFrame:
    """The runs in the store, newest first."""
    import pandas as pd

    rows = [summary.model_dump(mode="json") for summary in _store(store).runs()]
    return pd.DataFrame(rows).set_index("id") if rows else pd.DataFrame()


def open_run(run: str | Path, store: Store | str | None = None) -> Run:
    """The run with this id (or the start of it), the one in a file that `Run.save` wrote, or a shipped recording by its name."""
    opened = _store(store)
    run = recordings().get(str(run), run)
    if str(run).endswith(BUNDLE_SUFFIX):
        from kernelevolve_lab.store.bundle import import_run

        return Run(opened, import_run(opened, Path(run)))
    return Run(opened, str(run))


def newest() -> Run | None:
    """Of the runs that this process knows and that go on, the one that was begun last."""
    going = [run for run in _here if run.status in ("running", "paused")]
    return max(going, key=lambda run: run.state.started_at, default=None)


def language_for(source: str, target: str) -> str:
    """The language that a source seems to be in, of those that serve the target: a compiled one where it says `extern "C"`, else a Python
    one; of several the one that the source names (`import triton`)."""
    from kernelevolve_lab.targets import resolve

    spec, binding = resolve(target), "native" if 'extern "C"' in source else "python"
    known = {name: registry.load("languages", name) for name in registry.names("languages")}
    serving = [name for name, language in known.items() if language.supports(spec) and language.binding == binding]
    if not serving:
        kind = "C++" if binding == "native" else "Python"
        raise BadInput(f"The kernel is {kind} by its looks, and no such language serves {spec.title}; name its language.")
    return min(serving, key=lambda name: (name not in source, known[name].emulated))


def recordings() -> dict[str, Path]:
    """The recordings of real runs that come with this package: `kel.replay(name)` plays one."""
    return shipped()


def replay(run: str | Path, speed: float = 8.0, store: Store | str | None = None) -> ReplayedRun:
    """Show a recorded run again, at `speed` times its own; nothing is proposed, judged or measured."""
    return ReplayedRun(open_run(run, store), speed)


def export(what: str, out: str | Path, format: str, store: Store | str | None = None) -> tuple[Path, ...]:
    """Export the best candidate of a run, or a candidate by its id, from the store."""
    opened = _store(store)
    try:
        run = Run(opened, what)
        return run.export(out, format)
    except UnknownName:
        for summary in opened.runs():
            state = opened.state(summary.id)
            if what in state.entries:
                return _export(opened, state, state.entries[what], Path(out), format)
    raise UnknownName(f"There is no run and no candidate named '{what}' in the store; list the runs with: kernelevolve-lab runs.")


def summary_of(evaluation: Evaluation) -> str:
    """An evaluation in a few lines of text."""
    lines = [words.headline(evaluation), *evaluation.reasons]
    if evaluation.diagnosis:
        lines.append(evaluation.diagnosis.summary)
    return "\n".join(lines)


def _export(store: Store, state: RunState, entry: Entry, out: Path, format: str) -> tuple[Path, ...]:
    from kernelevolve_lab.export.base import ExportRequest

    exporter = registry.load("exporters", format)
    try:
        out.mkdir(parents=True, exist_ok=True)
        return exporter(ExportRequest(entry, state, out, imported=store.is_imported(state.run)))
    except OSError as error:
        raise BadInput(f"The export cannot be written to '{out}': {error.strerror}; name another folder.") from error


def _store(store: Store | str | None) -> Store:
    return store if isinstance(store, Store) else Store.open(store)


def _read(path: Path) -> tuple[str, str]:
    try:
        return path.read_text(encoding="utf-8"), path.suffix
    except UnicodeDecodeError as error:
        raise BadInput(f"The candidate '{path}' is not UTF-8 text (byte {error.start}); save it as UTF-8.") from error
    except OSError as error:
        raise BadInput(f"The candidate '{path}' cannot be read: {error.strerror}.") from error


def _language_of(suffix: str) -> str:
    names = [name for name in registry.names("languages") if registry.load("languages", name).suffix == suffix]
    if len(names) != 1:
        raise BadInput(f"Name the language of the candidate with --language; known: {', '.join(registry.names('languages'))}.")
    return names[0]


def _row(rank: int, entry: Entry) -> dict[str, Any]:
    evaluation, candidate = entry.evaluation, entry.candidate
    row = {
        "rank": rank,
        "candidate": candidate.id,
        "title": candidate.title,
        "verdict": evaluation.verdict.value if evaluation else "waiting",
        "evidence": evaluation.evidence.value if evaluation else "",
    }
    for ratio in evaluation.speedups if evaluation else ():
        row |= {f"vs {ratio.baseline}": ratio.value, f"vs {ratio.baseline} low": ratio.low, f"vs {ratio.baseline} high": ratio.high}
    return row | {
        "flags": "; ".join(words.flags(entry)),
        "language": candidate.language,
        "proposer": candidate.proposer,
        "generation": entry.generation,
        "parents": ", ".join(candidate.parents),
        "pinned": entry.pinned,
        "rejected": entry.rejected or "",
    }
