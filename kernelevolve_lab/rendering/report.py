"""A run as a document: plain text, a short table, and a self-contained HTML report. No scripts, nothing fetched."""

from __future__ import annotations

from functools import cache
from html import escape
from pathlib import Path

from kernelevolve_lab.records.run_state import Entry, RunState, Status
from kernelevolve_lab.rendering import fragments, svg, words
from kernelevolve_lab.rendering.source import diff_html, source_html

NOTEBOOK_ROWS = 15
NOTEBOOK_SOURCE_LINES = 400


@cache
def stylesheet(*names: str) -> str:
    """Style sheets by name (all of a static report's by default): light and dark by JupyterLab's theme where there is one, else by
    `prefers-color-scheme`."""
    folder = Path(__file__).parent / "styles"
    return "\n".join((folder / f"{name}.css").read_text("utf-8") for name in names or ("theme", "fragments", "report"))


def title(state: RunState) -> str:
    """What is searched, where and in what."""
    if state.config is None:
        return "No run yet"
    where = state.target.title if state.target else state.config.target
    return f"{state.title or state.config.operator.name} on {where} in {state.config.language}"


def summary(state: RunState) -> str:
    """Where the run stands, in one sentence."""
    if state.config is None:
        return "Nothing has been searched."
    doing = f"{state.outcome}: {state.reason}" if state.status is Status.ENDED else f"{state.status}, {state.phase}".rstrip(", ")
    spent = f"{state.judged} of {len(state.entries)} candidates judged in {words.duration(state.active_seconds)}"
    cost = f", {words.money(state.cost)}" if state.cost else ""
    return f"{doing}; {spent}{cost}."


def text(state: RunState, rows: int = 10) -> str:
    """The run as plain text with its numbers and their evidence."""
    lines = [title(state), summary(state)]
    if state.best:
        lines.append(f"best {state.best.candidate.id} {state.best.candidate.title}: {words.headline(state.best.evaluation)}")
    for rank, entry in enumerate(state.ranked()[:rows], 1):
        lines.append(f"{rank:3}  {entry.candidate.id}  {entry.candidate.title[:40]:40}  {words.headline(entry.evaluation)[:110]}")
    return "\n".join(lines)


def leaderboard_html(state: RunState, rows: int) -> str:
    """The best candidates as a table."""
    ranked = state.ranked()
    baselines = list(dict.fromkeys(r.baseline for e in ranked if e.evaluation for r in e.evaluation.speedups))
    body = [_row(rank, entry, baselines) for rank, entry in enumerate(ranked[:rows], 1)]
    if not body:
        return '<p class="kl-empty">No candidate yet.</p>'
    caption = f"The first {len(body)} of {len(ranked)} candidates; speedups with 95 % intervals"
    return fragments.table(caption, ["#", "candidate", "verdict", *(f"vs {b}" for b in baselines), "evidence", "gen", "proposer"], body)


def _row(rank: int, entry: Entry, baselines: list[str]) -> list[str]:
    evaluation = entry.evaluation
    marks = (" · pinned" if entry.pinned else "") + (f" · rejected: {entry.rejected}" if entry.rejected else "")
    return [
        str(rank),
        f'<code>{entry.candidate.id}</code> {escape(entry.candidate.title)}<span class="kl-ci">{escape(marks)}</span>',
        fragments.verdict_html(entry),
        *(fragments.ratio_html(evaluation.ratio(b) if evaluation else None) for b in baselines),
        f'<span title="{escape(words.EVIDENCE[evaluation.evidence])}">{evaluation.evidence}</span>' if evaluation else words.NO_VALUE,
        str(entry.generation),
        escape(entry.candidate.proposer),
    ]


def stub_html(state: RunState) -> str:
    """What stands in for the live view where no kernel is behind the page: the run in three lines; the report says the rest."""
    best = f"<br><b>{escape(words.headline(state.best.evaluation))}</b>" if state.best else ""
    return f"<p><b>{escape(title(state))}</b><br>{escape(summary(state))}{best}</p>"


def _head(state: RunState) -> str:
    best = state.best
    won = f'<p class="kl-lead">{escape(words.headline(best.evaluation))}</p>' if best else ""
    return f'<header><h3>{escape(title(state))}</h3><p class="kl-ci">{escape(summary(state))}</p>{won}</header>'


def body_html(state: RunState, rows: int, source_lines: int | None = None) -> str:
    """The report without its page: head, leaderboard, figures, and the best candidate with cases, diagnosis, source and difference."""
    parts = [
        _head(state),
        leaderboard_html(state, rows),
        f'<div class="kl-figures">{svg.roofline_svg(state)}{svg.progress_svg(state)}</div>',
    ]
    best = state.best
    if best:
        parts.append(f"<h4>Best candidate <code>{best.candidate.id}</code> {escape(best.candidate.title)}</h4>")
        parts.append(fragments.cases_html(best.evaluation, state.target))
        parts.append(fragments.diagnosis_html(best))
        parts.append(_sources(state, best, source_lines))
    return "".join(parts)


def _sources(state: RunState, best: Entry, most: int | None) -> str:
    """The best one's source and what it changed, cut after `most` lines where that is not None."""
    code, language = best.candidate.source, best.candidate.language
    if most is not None and code.count("\n") > most:
        cut = "\n".join(code.split("\n")[:most])
        return f"<details open><summary>Source, the first {most} lines</summary>{source_html(cut, language)}</details>"
    shown = f"<details open><summary>Source</summary>{source_html(code, language)}</details>"
    parent = next((state.entries[p] for p in best.candidate.parents if p in state.entries), None)
    if parent is None or (most is not None and parent.candidate.source.count("\n") > most):
        return shown
    names = (f"parent {parent.candidate.id}", f"best {best.candidate.id}")
    diff = diff_html(parent.candidate.source, code, language, names)
    return f"{shown}<details><summary>Difference from its parent</summary>{diff}</details>"


def notebook_html(state: RunState, view: str) -> str:
    """The report for a notebook's output: small, and hidden by its own style while the live view named `view` is on the page."""
    hide = f'body:has(.kl-view[data-view="{escape(view)}"]) .kel-report[data-of="{escape(view)}"]{{display:none}}'
    body = body_html(state, NOTEBOOK_ROWS, NOTEBOOK_SOURCE_LINES)
    return f'<div class="kel-report" data-of="{escape(view)}"><style>{stylesheet()}{hide}</style>{body}</div>'
