"""What the judge found about one kernel, as the output of a cell."""

from __future__ import annotations

from html import escape

from kernelevolve_lab.engine.handle import RunHandle
from kernelevolve_lab.records import Candidate, Evaluation, TargetSpec, Verdict, candidate_id
from kernelevolve_lab.records.run import Enqueue
from kernelevolve_lab.records.run_state import Entry, Status
from kernelevolve_lab.rendering import fragments, report, source, words


class Judged:
    """An evaluation for reading; `evaluation` is the record itself."""

    def __init__(self, evaluation: Evaluation, text: str) -> None:
        self.evaluation = evaluation
        self._entry = Entry(Candidate(language=evaluation.language, source=text), 0, 0, evaluation=evaluation)

    def __repr__(self) -> str:
        return "\n".join([words.headline(self.evaluation), *self.evaluation.reasons[1:]])

    def _repr_html_(self) -> str:
        return _page(_found(self._entry))


class InRun:
    """A candidate of a run from when it was enqueued until its verdict; says the latest whenever it is shown."""

    def __init__(self, run: RunHandle, candidate: str) -> None:
        self._run, self._id = run, candidate

    @property
    def _entry(self) -> Entry | None:
        return self._run.state.entries.get(self._id)

    @property
    def settled(self) -> bool:
        """Whether there is nothing more to wait for."""
        entry, state = self._entry, self._run.state
        if entry is None and self._refused:
            return True
        return bool(entry and (entry.evaluation or entry.banned)) or (state.status is Status.ENDED and not self._run.is_driven)

    @property
    def _refused(self) -> str:
        """What the run said where it did not take the source in."""
        for request in self._run.state.requests:
            command = request.command
            if isinstance(command, Enqueue) and request.note and candidate_id(command.language, command.source) == self._id:
                return request.note
        return ""

    def __repr__(self) -> str:
        entry = self._entry
        if entry is None:
            return self._refused or f"{self._id} waits for run {self._run.id} to take it in."
        name = f"#{entry.order} {entry.candidate.title} ({entry.id}) in run {self._run.id}"
        if entry.evaluation is None:
            return f"{name}: {words.look(entry).word}{', and the run has ended' if self.settled else ''}."
        return f"{name}: {words.headline(entry.evaluation)}"

    def _repr_html_(self) -> str:
        entry = self._entry
        if entry is None or entry.evaluation is None:
            return _page(f'<p class="kl-empty">{escape(repr(self))}</p>')
        name = f'<p class="kl-ci">#{entry.order} {escape(entry.candidate.title)} <code>{entry.id}</code> in run {escape(self._run.id)}</p>'
        return _page(name + _found(entry, self._run.state.target))


class Progress:
    """What is being done just now; empty when it is done."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __repr__(self) -> str:
        return f"{self._text}…" if self._text else ""

    def _repr_html_(self) -> str:
        return f'<div style="opacity:.7">{escape(repr(self))}</div>' if self._text else "<div></div>"


def _page(body: str) -> str:
    return f"<style>{report.stylesheet('theme', 'fragments')}</style><div class='kel'>{body}</div>"


def _found(entry: Entry, target: TargetSpec | None = None) -> str:
    """Verdict, cases and diagnosis; of a source that does not build, the source with what the compiler says."""
    evaluation = entry.evaluation
    look = words.VERDICTS[evaluation.verdict]
    lead = f'<p class="kl-lead kl-tone-{look.tone}"><span aria-hidden="true">{look.symbol}</span> {escape(words.headline(evaluation))}</p>'
    if evaluation.verdict is Verdict.BUILD_FAILED:
        return lead + source.source_html(entry.candidate.source, entry.candidate.language, evaluation.diagnostics)
    return lead + fragments.cases_html(evaluation, target) + fragments.diagnosis_html(entry)
