"""Figures as inline SVG in the page's own colours (see `styles/theme.css`); the numbers come from `figures`, here they find their place.

A page may hold several: no ids, no scripts, nothing fetched. Each has a title and a description for readers who cannot see it.
"""

from __future__ import annotations

from collections.abc import Callable
from html import escape
from math import floor, log10

from kernelevolve_lab.records.run_state import RunState
from kernelevolve_lab.rendering import words
from kernelevolve_lab.rendering.figures import Dot, RooflineFrame, candidate_dots, progress_info, roofline_frame

WIDTH, HEIGHT = 520, 320
LEFT, RIGHT, TOP, BOTTOM = 58, 16, 16, 36
MAX_DOTS = 400

Scale = Callable[[float], float]


def _scale(low: float, high: float, start: float, end: float) -> Scale:
    a, b = log10(low), log10(high)
    return lambda value: start + (log10(value) - a) / (b - a) * (end - start)


def _ticks(low: float, high: float) -> list[float]:
    decades = log10(high / low)
    steps = (1,) if decades > 3 else (1, 2, 5) if decades > 1.2 else (1, 1.5, 2, 3, 4, 5, 7)
    powers = range(floor(log10(low)), floor(log10(high)) + 1)
    return [step * 10.0**power for power in powers for step in steps if low <= step * 10.0**power <= high]


def _short(value: float) -> str:
    for factor, prefix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= factor:
            return f"{value / factor:.3g}{prefix}"
    return f"{value:.2g}"


def _line(x1: float, y1: float, x2: float, y2: float, style: str) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" style="{style}"/>'


def _text(x: float, y: float, text: str, anchor: str = "start", style: str = "") -> str:
    styled = f' style="{style}"' if style else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{styled}>{escape(text)}</text>'


def _circle(x: float, y: float, radius: float, style: str, title: str = "") -> str:
    inner = f"<title>{escape(title)}</title>" if title else ""
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius}" style="{style}">{inner}</circle>'


def _path(d: str, style: str, title: str = "") -> str:
    inner = f"<title>{escape(title)}</title>" if title else ""
    return f'<path d="{d}" style="{style}">{inner}</path>'


def _figure(title: str, description: str, parts: list[str], height: int = HEIGHT) -> str:
    return (
        f'<svg class="kl-figure" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" role="img" aria-label="{escape(title)}">'
        f"<title>{escape(title)}</title><desc>{escape(description)}</desc>{''.join(parts)}</svg>"
    )


def _axes(sx: Scale, sy: Scale, xs: list[float], ys: list[float], x_name: str, y_name: str, height: int = HEIGHT) -> list[str]:
    foot = height - BOTTOM
    parts = []
    for value in ys:
        parts.append(_line(LEFT, sy(value), WIDTH - RIGHT, sy(value), "stroke:var(--kel-grid)"))
        parts.append(_text(LEFT - 6, sy(value) + 4, _short(value), "end"))
    for value in xs:
        parts.append(_line(sx(value), TOP, sx(value), foot, "stroke:var(--kel-grid)"))
        parts.append(_text(sx(value), foot + 15, _short(value), "middle"))
    parts.append(_text(WIDTH - RIGHT, foot + 30, x_name, "end"))
    parts.append(_text(LEFT - 6, TOP - 5, y_name, "end"))
    return parts


def roofline_svg(state: RunState) -> str:
    """The roofline of the case that takes longest: ceilings, baselines as hollow diamonds, candidates, and an arrow to the best. Empty
    text while neither ceilings nor times are known."""
    frame = roofline_frame(state)
    if not frame.cases or not frame.roofs:
        return ""
    case = frame.main
    if frame.cases[case].intensity <= 0:
        return _bandwidth_svg(state, frame, case)
    intensity = frame.cases[case].intensity
    dots = [d for entry in state.entries.values() for d in candidate_dots(entry, frame) if d.case == case][-MAX_DOTS:]
    baselines = [d for d in frame.baselines if d.case == case]
    values = [d.flops for d in (*dots, *baselines) if d.flops > 0]
    roofs = [roof for roof in frame.roofs if roof.threads == 0]
    tops = [roof.value for roof in roofs if roof.kind == "compute"]
    peak = max((*tops, *values))
    low, high = intensity / 4, max(intensity, frame.ridge or intensity) * 5
    floor_, top = min((*values, peak / 100)) / 2.2, peak * 1.8
    sx, sy = _scale(low, high, LEFT, WIDTH - RIGHT), _scale(floor_, top, HEIGHT - BOTTOM, TOP)
    parts = _axes(sx, sy, _ticks(low, high), _ticks(floor_, top), "FLOP / byte", "FLOP/s")
    for roof in sorted(roofs, key=lambda roof: roof.primary):
        style = f"stroke:var({'--kel-accent' if roof.primary else '--kel-fg3'});stroke-width:{2 if roof.primary else 1}"
        style += "" if roof.primary else ";stroke-dasharray:4 3"
        text = f"fill:var({'--kel-accent' if roof.primary else '--kel-fg2'});{'font-weight:600' if roof.primary else ''}"
        if roof.kind == "compute":
            parts.append(_line(LEFT, sy(roof.value), WIDTH - RIGHT, sy(roof.value), style))
            parts.append(_text(WIDTH - RIGHT - 3, sy(roof.value) - 4, roof.label, "end", text))
            continue
        start, end = max(low, floor_ / roof.value), min(high, peak / roof.value)
        if start < end:
            parts.append(_line(sx(start), sy(roof.value * start), sx(end), sy(roof.value * end), style))
            parts.append(_text(sx(start) + 4, sy(roof.value * start) - 6, roof.label, "start", text))
    if frame.ridge:
        parts.append(_circle(sx(frame.ridge), sy(peak), 3, "fill:var(--kel-accent)", frame.ridge_label))
    parts += _marks(state, dots, baselines, lambda d: (sx(intensity), sy(d.flops)), spread=10)
    shown = frame.cases[case]
    title = f"Roofline of {frame.target}, {shown.label}, {shown.dtype}"
    parts.append(_text(LEFT, HEIGHT - 6, f"{shown.label} · {shown.dtype}"))
    return _figure(title, _description(state, case), parts)


def _bandwidth_svg(state: RunState, frame: RooflineFrame, case: int) -> str:
    """Bytes per second of an operator without arithmetic, candidate by candidate, under the memory ceilings."""
    dots = [d for entry in state.entries.values() for d in candidate_dots(entry, frame) if d.case == case][-MAX_DOTS:]
    baselines = [d for d in frame.baselines if d.case == case]
    roofs = [roof for roof in frame.roofs if roof.kind == "bandwidth" and roof.threads == 0]
    values = [d.bytes for d in (*dots, *baselines) if d.bytes > 0] + [roof.value for roof in roofs]
    sy = _scale(min(values) / 2, max(values) * 1.6, HEIGHT - BOTTOM, TOP)
    count = max(10, len(state.entries))
    parts = _axes(lambda x: x, sy, [], _ticks(min(values) / 2, max(values) * 1.6), "candidate", "byte/s")
    for roof in roofs:
        style = f"stroke:var({'--kel-accent' if roof.primary else '--kel-fg3'});stroke-width:{2 if roof.primary else 1}"
        parts.append(_line(LEFT, sy(roof.value), WIDTH - RIGHT, sy(roof.value), style))
        parts.append(_text(WIDTH - RIGHT - 3, sy(roof.value) - 4, roof.label, "end"))

    def place(d: Dot) -> tuple[float, float]:
        entry = state.entries.get(d.who)
        return (LEFT + 16 + (entry.order / count * (WIDTH - LEFT - RIGHT - 20) if entry else 0), sy(d.bytes))

    parts += _marks(state, dots, baselines, place, spread=0)
    return _figure(f"Achieved bandwidth on {frame.target}, {frame.cases[case].label}", _description(state, case), parts)


def _description(state: RunState, case: int) -> str:
    best = state.best
    if best is None:
        return "No correct candidate yet."
    found = next((d for d in candidate_dots(best, roofline_frame(state)) if d.case == case), None)
    return f"Best candidate {best.candidate.id}: {words.headline(best.evaluation)}" + (
        f"; {found.fraction:.0%} of {found.bound_by}." if found else ""
    )


def _marks(state: RunState, dots: list[Dot], baselines: list[Dot], place: Callable[[Dot], tuple[float, float]], spread: float) -> list[str]:
    parts = []
    best = next((d for d in dots if d.who == state.best_id), None)
    for banned, style in ((False, "fill:var(--kel-dot);opacity:.5"), (True, "fill:var(--kel-fg3);opacity:.35")):
        inside = []
        for d in dots:
            entry = state.entries[d.who]
            if d is not best and entry.banned is banned:
                x, y = place(d)
                x += ((entry.order * 7919) % 100 / 100 - 0.5) * 2 * spread
                inside.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3"/>')
        if inside:
            parts.append(f'<g style="{style}">{"".join(inside)}</g>')
    for d in baselines:
        x, y = place(d)
        title = f"{d.who}: {words.seconds(d.seconds)}, {d.fraction:.0%} of {d.bound_by}"
        parts.append(_path(f"M{x:.1f} {y - 5:.1f}l5 5l-5 5l-5 -5z", "fill:none;stroke:var(--kel-ghost);stroke-width:1.5", title))
        parts.append(_text(x - 9 if spread else x + 9, y + 4, d.who, "end" if spread else "start"))
    if best:
        x, y = place(best)
        main = state.best.evaluation.speedup.baseline
        start = next((place(d) for d in baselines if d.who == main), None)
        if start and abs(start[1] - y) > 22:
            way = 1 if y > start[1] else -1
            parts.append(_line(x, start[1] + 7 * way, x, y - 10 * way, "stroke:var(--kel-good);stroke-width:1.5"))
            parts.append(_path(f"M{x:.1f} {y - 7 * way:.1f}l-4 {8 * way}h8z", "fill:var(--kel-good)"))
        parts.append(_circle(x, y, 8, "fill:var(--kel-good);opacity:.25"))
        parts.append(_circle(x, y, 4.5, "fill:var(--kel-good)", words.headline(state.best.evaluation)))
        parts.append(
            _text(
                x + 13, y + 4, f"best, {best.fraction:.0%} of {words.level(best.bound_by)}", "start", "fill:var(--kel-good);font-weight:600"
            )
        )
    return parts


def progress_svg(state: RunState) -> str:
    """Speedup over the candidates judged: the best so far as a line, failures as ticks along the foot. Empty text before the first."""
    info = progress_info(state)
    if not info.points:
        return ""
    lows = [p.low for p in info.points if p.low] or [0.9]
    highs = [p.high for p in info.points if p.high] or [1.2]
    low, high = min(0.9, *lows) * 0.94, max(1.2, *highs) * 1.08
    sy = _scale(low, high, HEIGHT - BOTTOM - 10, TOP)

    def sx(index: float) -> float:
        return LEFT + (index - 0.5) / max(8, len(info.points)) * (WIDTH - LEFT - RIGHT)

    parts = []
    for value in _ticks(low, high):
        style = "stroke:var(--kel-fg3)" if value == 1 else "stroke:var(--kel-grid)"
        parts.append(_line(LEFT, sy(value), WIDTH - RIGHT, sy(value), style))
        parts.append(_text(LEFT - 6, sy(value) + 4, f"{value:g}×", "end"))
    path: list[str] = []
    whiskers: list[str] = []
    circles: list[str] = []
    failures: list[str] = []
    last: float | None = None
    for p in info.points:
        x = sx(p.index)
        if p.value is None:
            failures.append(f"M{x:.1f} {HEIGHT - BOTTOM - 5}v5")
        else:
            whiskers.append(f"M{x:.1f} {sy(p.low):.1f}V{sy(p.high):.1f}")
            circles.append(f'<circle cx="{x:.1f}" cy="{sy(p.value):.1f}" r="2.5"/>')
        if p.best is not None:
            path.append(f"M{x:.1f} {sy(p.best):.1f}" if last is None else f"H{x:.1f}V{sy(p.best):.1f}")
            last = p.best
    parts.append(_path("".join(whiskers), "stroke:var(--kel-dot);opacity:.4"))
    parts.append(_path("".join(failures), "stroke:var(--kel-bad);stroke-width:2;opacity:.7"))
    parts.append(f'<g style="fill:var(--kel-dot);opacity:.75">{"".join(circles)}</g>')
    if path:
        parts.append(_path("".join(path), "fill:none;stroke:var(--kel-good);stroke-width:2"))
    parts.append(_text(WIDTH - RIGHT, HEIGHT - BOTTOM + 16, f"{len(info.points)} candidates in the order of judging", "end"))
    parts.append(_text(LEFT, HEIGHT - BOTTOM + 16, f"vs {info.baseline or 'the baseline'} ({info.evidence})"))
    best = f"Best {words.times(last)} against {info.baseline}, {info.evidence}." if last else "Nothing correct yet."
    return _figure("Speedup over the candidates judged", best, parts)
