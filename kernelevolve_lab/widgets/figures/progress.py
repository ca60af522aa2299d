"""Best so far as a plotly figure; its numbers come from `rendering.figures`."""

from __future__ import annotations

import plotly.graph_objects as go

from kernelevolve_lab.errors import BadInput
from kernelevolve_lab.records.run_state import RunState
from kernelevolve_lab.rendering.figures import progress_info


def progress_figure(state: RunState) -> go.Figure:
    """Speedup over the candidates in the order of judging, with 95 % intervals, and the best so far. Raises `BadInput` before the first."""
    info = progress_info(state)
    if not info.points:
        raise BadInput("There is nothing to draw yet: no candidate of this run was judged.")
    good = [p for p in info.points if p.value is not None]
    best = [p for p in info.points if p.best is not None]
    figure = go.Figure(
        layout={
            "title": {"text": f"{state.title}: speedup over {info.baseline or 'the baseline'} ({info.evidence})"},
            "xaxis": {"title": {"text": "candidates in the order of judging"}},
            "yaxis": {"title": {"text": "speedup"}, "type": "log"},
            "paper_bgcolor": "rgba(0,0,0,0)",
            "plot_bgcolor": "rgba(0,0,0,0)",
            "height": 360,
        }
    )
    figure.add_scatter(
        x=[p.index for p in good],
        y=[p.value for p in good],
        error_y={"type": "data", "array": [p.high - p.value for p in good], "arrayminus": [p.value - p.low for p in good], "width": 0},
        mode="markers",
        name="candidates",
        text=[p.who for p in good],
        marker={"size": 6, "color": "#4a7fe0", "opacity": 0.7},
    )
    figure.add_scatter(
        x=[p.index for p in best],
        y=[p.best for p in best],
        mode="lines",
        line={"shape": "hv", "color": "#1a9a5a", "width": 2},
        name="best so far",
    )
    figure.add_hline(y=1, line={"color": "#8b939e", "width": 1})
    return figure
