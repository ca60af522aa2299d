"""The roofline as a plotly figure; its numbers come from `rendering.figures`."""

from __future__ import annotations

import plotly.graph_objects as go

from kernelevolve_lab.errors import BadInput
from kernelevolve_lab.records.run_state import RunState
from kernelevolve_lab.rendering import words
from kernelevolve_lab.rendering.figures import Dot, RooflineFrame, candidate_dots, roofline_frame


def roofline_figure(state: RunState, case: str | None = None) -> go.Figure:
    """The roofline of one case, by default the one that takes longest: ceilings, baselines, candidates and the best.

    Axes are FLOP per byte and FLOP/s; for an operator without arithmetic, the candidate's number and byte/s. Raises `BadInput` while
    nothing is measured, and for a case that the run does not have.
    """
    frame = roofline_frame(state)
    if not frame.cases:
        raise BadInput("There is no roofline yet: nothing of this run was measured under known ceilings.")
    names = [one.name for one in frame.cases]
    if case is not None and case not in names:
        raise BadInput(f"This run has no case '{case}' on its roofline; known: {', '.join(names)}.")
    index = frame.main if case is None else names.index(case)
    arithmetic = frame.cases[index].intensity > 0
    figure = go.Figure(
        layout={
            "title": {"text": f"{state.title} on {frame.target}<br><sub>{frame.cases[index].label}, {frame.cases[index].dtype}</sub>"},
            "xaxis": {"title": {"text": "FLOP / byte" if arithmetic else "candidate"}, "type": "log" if arithmetic else "linear"},
            "yaxis": {"title": {"text": "FLOP/s" if arithmetic else "byte/s"}, "type": "log", "exponentformat": "SI"},
            "paper_bgcolor": "rgba(0,0,0,0)",
            "plot_bgcolor": "rgba(0,0,0,0)",
            "height": 460,
        }
    )
    _roofs(figure, frame, index, state)
    _dots(figure, frame, index, state)
    return figure


def _roofs(figure: go.Figure, frame: RooflineFrame, index: int, state: RunState) -> None:
    intensity = frame.cases[index].intensity
    low, high = (intensity / 8, max(intensity, frame.ridge or intensity) * 8) if intensity > 0 else (0, max(10, len(state.entries)))
    peak = max((r.value for r in frame.roofs if r.kind == "compute"), default=None)
    for roof in frame.roofs:
        if roof.threads:
            continue
        if intensity <= 0:
            if roof.kind == "compute":
                continue
            xs, ys = [low, high], [roof.value, roof.value]
        elif roof.kind == "compute":
            xs, ys = [low, high], [roof.value, roof.value]
        else:
            end = min(high, peak / roof.value) if peak else high
            xs, ys = [low, end], [roof.value * low, roof.value * end]
        line = {
            "width": 2.5 if roof.primary else 1,
            "dash": "solid" if roof.primary else "dash",
            "color": "#4a7fe0" if roof.primary else "#8b939e",
        }
        figure.add_scatter(x=xs, y=ys, mode="lines", name=f"{roof.label} ({roof.evidence})", line=line, hoverinfo="name")


def _dots(figure: go.Figure, frame: RooflineFrame, index: int, state: RunState) -> None:
    intensity = frame.cases[index].intensity

    def place(dot: Dot) -> tuple[float, float]:
        if intensity > 0:
            return intensity, dot.flops
        entry = state.entries.get(dot.who)
        return (entry.order if entry else 0), dot.bytes

    dots = [d for entry in state.entries.values() for d in candidate_dots(entry, frame) if d.case == index]
    baselines = [d for d in frame.baselines if d.case == index]
    groups = (
        ("candidates", [d for d in dots if d.who != state.best_id], {"symbol": "circle", "size": 7, "color": "#4a7fe0", "opacity": 0.5}),
        ("baselines", baselines, {"symbol": "diamond-open", "size": 11, "color": "#6b7280"}),
        ("best", [d for d in dots if d.who == state.best_id], {"symbol": "circle", "size": 13, "color": "#1a9a5a"}),
    )
    for name, group, marker in groups:
        places = [place(d) for d in group]
        figure.add_scatter(
            x=[x for x, _ in places],
            y=[y for _, y in places],
            mode="markers+text" if name == "baselines" else "markers",
            text=[d.who for d in group] if name == "baselines" else None,
            textposition="middle right",
            hovertext=[_hover(d, state) for d in group],
            hoverinfo="text",
            name=name,
            marker=marker,
        )


def _hover(dot: Dot, state: RunState) -> str:
    entry = state.entries.get(dot.who)
    head = f"#{entry.order} {words.headline(entry.evaluation)}" if entry else dot.who
    return f"{head}<br>{words.seconds(dot.seconds)}, {dot.fraction:.0%} of {words.level(dot.bound_by)}"
