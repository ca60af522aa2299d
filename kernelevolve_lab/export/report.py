"""Export as a report: one HTML file with no script and nothing fetched."""

from __future__ import annotations

from pathlib import Path

from kernelevolve_lab.export.base import ExportRequest
from kernelevolve_lab.export.evidence import evidence_lines
from kernelevolve_lab.export.templates import environment
from kernelevolve_lab.rendering import fragments, report

LEADERS = 25


def export(request: ExportRequest) -> tuple[Path, ...]:
    """Write `<run>.html` to `request.out`: leaderboard, figures, the winner with its source, and the candidate's evidence."""
    path = request.out / f"{request.state.run}.html"
    path.write_text(page(request), encoding="utf-8")
    return (path,)


def page(request: ExportRequest) -> str:
    """The report as a whole HTML page; everything that came from outside is escaped."""
    state = request.state
    config = state.config
    facts = {
        "run": state.run,
        "operator": config.operator.name,
        "target": config.target,
        "language": config.language,
        "proposer": config.proposer,
        "policy": config.policy,
        "seed": config.seed,
        "size profile": config.profile,
        "sandboxed": not config.unsandboxed,
        "candidates judged": state.judged,
        "seconds": round(state.active_seconds, 1),
        "cost in USD": state.cost,
        **request.entry.evaluation.environment,
    }
    return (
        environment()
        .get_template("report.html.j2")
        .render(
            title=report.title(state),
            styles=report.stylesheet(),
            body=report.body_html(state, LEADERS),
            evidence=evidence_lines(request),
            rows=len(state.entries),
            everything=report.leaderboard_html(state, len(state.entries)),
            run=fragments.pairs_html("How it was run", facts),
        )
    )
