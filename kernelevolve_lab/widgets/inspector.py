"""What the inspector shows of one candidate, as escaped HTML made here in the kernel, one tab at a time and only when asked for."""

from __future__ import annotations

from kernelevolve_lab.errors import BadInput
from kernelevolve_lab.records.run_state import Entry, RunState
from kernelevolve_lab.rendering import fragments, source

TABS = ("source", "diff", "cases", "diagnosis", "evidence", "conversation")


def default_base(state: RunState, entry: Entry) -> Entry | None:
    """What a candidate is compared with unless told otherwise: its parent, else the first candidate made from the same template, else the
    first of the run."""
    for parent in entry.candidate.parents:
        if parent in state.entries:
            return state.entries[parent]
    others = [e for e in state.entries.values() if e is not entry]
    template = entry.candidate.template
    return next((e for e in others if template and e.candidate.template == template), next(iter(others), None))


def tab_html(state: RunState, candidate: str, tab: str, against: str | None = None) -> str:
    """The HTML of a tab. Raises `BadInput` for a candidate or tab that does not exist."""
    entry = state.entries.get(candidate)
    if entry is None:
        raise BadInput(f"There is no candidate {candidate} in this run.")
    if tab not in TABS:
        raise BadInput(f"There is no tab '{tab}'; known: {', '.join(TABS)}.")
    if tab == "source":
        return source.source_html(
            entry.candidate.source, entry.candidate.language, entry.evaluation.diagnostics if entry.evaluation else ()
        )
    if tab == "diff":
        return _diff(state, entry, against)
    if tab == "conversation":
        return fragments.conversation_html(entry)
    if tab == "evidence":
        return fragments.evidence_html(entry)
    if entry.evaluation is None:
        return '<p class="kl-empty">The judge has not finished with this candidate.</p>'
    return fragments.cases_html(entry.evaluation, state.target) if tab == "cases" else fragments.diagnosis_html(entry)


def _diff(state: RunState, entry: Entry, against: str | None) -> str:
    base = state.entries.get(against) if against else default_base(state, entry)
    if base is None:
        return '<p class="kl-empty">There is no other candidate to compare with yet.</p>'
    titles = tuple(f"{e.candidate.id} · #{e.order} {e.candidate.title}" for e in (base, entry))
    return source.diff_html(base.candidate.source, entry.candidate.source, entry.candidate.language, titles)
