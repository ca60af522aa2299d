"""What the figures show, as plain data: every number of a drawing is computed here and tested here, whoever draws it.

The live canvas, the SVG of a saved report and the plotly figure all draw these. Units are FLOP/s, byte/s, FLOP/byte and seconds.
"""

from __future__ import annotations

from dataclasses import dataclass

from kernelevolve_lab.records import Case, Ceiling, RooflinePoint, TargetSpec
from kernelevolve_lab.records.run_state import Entry, RunState
from kernelevolve_lab.rendering import words


@dataclass(frozen=True)
class Roof:
    """One ceiling: a slanted line (`bandwidth`, byte/s) or a flat one (`compute`, FLOP/s). `primary` roofs bound the cases shown; the
    others are context."""

    kind: str
    name: str
    label: str
    value: float
    threads: int
    evidence: str
    source: str
    primary: bool


@dataclass(frozen=True)
class RooflineCase:
    """One case on the roofline. `intensity` is 0 where the operator does no arithmetic: then only bytes per second mean something."""

    name: str
    label: str
    dtype: str
    intensity: float


@dataclass(frozen=True)
class Dot:
    """A measured point. `who` is a baseline's name or a candidate id, `case` an index into the cases."""

    who: str
    case: int
    flops: float
    bytes: float
    fraction: float
    bound_by: str
    seconds: float | None = None


@dataclass(frozen=True)
class RooflineFrame:
    """All of a roofline but the candidates. `ridge` is the intensity (FLOP/byte) where the main memory roof meets the main compute roof,
    None where one is unknown; `main` the index of the case that matters most: the one whose baselines take longest."""

    target: str
    cases: tuple[RooflineCase, ...]
    roofs: tuple[Roof, ...]
    ridge: float | None
    ridge_label: str
    baselines: tuple[Dot, ...]
    main: int = 0


EMPTY_FRAME = RooflineFrame("", (), (), None, "", ())


def dot(who: str, case: int, point: RooflinePoint, seconds: float | None = None) -> Dot:
    """The dot of a roofline point."""
    return Dot(who, case, point.flops_per_second, point.bytes_per_second, point.fraction, point.bound_by, seconds)


def _timed(state: RunState) -> dict[str, tuple[Case, RooflinePoint, float]]:
    """For each case whose work is known: the case, a point on the roofline and the seconds that go with it. Useful work per call is the
    same for all kernels of a case, so that any one of them tells where another time would stand."""
    found: dict[str, tuple[Case, RooflinePoint, float]] = {}
    for baseline in state.baselines:
        if baseline.roofline is not None:
            found.setdefault(baseline.case.name, (baseline.case, baseline.roofline, baseline.timing.median))
    visible = {baseline.case.name for baseline in state.baselines}
    for entry in state.entries.values():
        if visible and visible <= found.keys():
            break
        for result in entry.evaluation.cases if entry.evaluation else ():
            if result.roofline is not None and "candidate" in result.times and not result.case.held_out:
                found.setdefault(result.case.name, (result.case, result.roofline, result.times["candidate"].median))
    return found


def _at(point: RooflinePoint, seconds: float, other: float) -> RooflinePoint:
    """Where the same work stands when it takes `other` seconds instead of `seconds`."""
    faster = seconds / other
    return point.model_copy(
        update={
            "flops_per_second": point.flops_per_second * faster,
            "bytes_per_second": point.bytes_per_second * faster,
            "fraction": point.fraction * faster,
        }
    )


def _of_dtypes(ceiling: Ceiling, dtypes: set[str]) -> bool:
    return any(ceiling.name == dtype or ceiling.name.startswith(f"{dtype}-") for dtype in dtypes)


def _primary(target: TargetSpec, dtypes: set[str]) -> tuple[Ceiling | None, Ceiling | None]:
    """The memory roof furthest from the cores and the highest compute roof of the cases' dtypes, for the whole device."""
    memory = [c for c in target.ceilings if c.kind == "bandwidth" and c.threads == 0]
    far = next((c for name in ("hbm", "dram") for c in memory if c.name == name), None) or min(memory, key=lambda c: c.value, default=None)
    compute = [c for c in target.ceilings if c.kind == "compute" and c.threads == 0]
    own = [c for c in compute if _of_dtypes(c, dtypes)]
    return far, max(own or compute, key=lambda c: c.value, default=None)


def roofline_frame(state: RunState) -> RooflineFrame:
    """The frame of the roofline: roofs, cases and baselines of a run (empty tuples where nothing is known yet).

    A baseline stands where it was timed beside the best candidate, so that their distance is the speedup that is shown; before there is a
    best, where it was timed at the start of the run.
    """
    timed = _timed(state)
    names = list(timed)
    shown = tuple(RooflineCase(name, words.sizes(case) or name, case.dtype, point.intensity) for name, (case, point, _) in timed.items())
    paired = {r.case.name: r.times for r in state.best.evaluation.cases} if state.best else {}
    dots = []
    for baseline in state.baselines:
        if baseline.case.name in timed:
            _, point, seconds = timed[baseline.case.name]
            taken = paired.get(baseline.case.name, {}).get(baseline.name, baseline.timing).median
            dots.append(dot(baseline.name, names.index(baseline.case.name), _at(point, seconds, taken), taken))
    baselines = tuple(dots)
    main = max(dots, key=lambda d: d.seconds).case if dots else 0
    target = state.target
    if target is None:
        return RooflineFrame("", shown, (), None, "", baselines, main)
    memory, compute = _primary(target, {case.dtype for case in shown})
    best: dict[tuple[str, str, int], Ceiling] = {}
    dtypes = {case.dtype for case in shown}
    for ceiling in target.ceilings:
        if ceiling.kind == "compute" and ceiling is not compute and not _of_dtypes(ceiling, dtypes):
            continue
        key = (ceiling.kind, ceiling.name, ceiling.threads)
        best[key] = target.ceiling(*key) or ceiling
    roofs = tuple(
        Roof(c.kind, c.name, _roof_label(c), c.value, c.threads, str(c.evidence), c.source, c in (memory, compute)) for c in best.values()
    )
    ridge = compute.value / memory.value if memory and compute else None
    label = f"ridge {ridge:.3g} FLOP/byte" if ridge else ""
    return RooflineFrame(target.title, shown, roofs, ridge, label, baselines, main)


def _roof_label(ceiling: Ceiling) -> str:
    unit = "B/s" if ceiling.kind == "bandwidth" else "FLOP/s"
    one = " · 1 thread" if ceiling.threads == 1 else f" · {ceiling.threads} threads" if ceiling.threads else ""
    return f"{words.level(ceiling.name)} {words.scaled(ceiling.value, unit)}{one}"


def candidate_dots(entry: Entry, frame: RooflineFrame) -> tuple[Dot, ...]:
    """Where a correct candidate stands, for the cases of the frame that it was timed on."""
    if not entry.correct:
        return ()
    index = {case.name: position for position, case in enumerate(frame.cases)}
    return tuple(
        dot(entry.candidate.id, index[r.case.name], r.roofline, r.times["candidate"].median if "candidate" in r.times else None)
        for r in entry.evaluation.cases
        if r.roofline is not None and r.case.name in index
    )


@dataclass(frozen=True)
class ProgressPoint:
    """One judged candidate: `index` counts from 1 in the order of judging, `value` is its main speedup with its interval (None unless
    correct), `best` the best so far."""

    index: int
    who: str
    verdict: str
    value: float | None
    low: float | None
    high: float | None
    best: float | None


@dataclass(frozen=True)
class ProgressInfo:
    """Best so far over the candidates judged, against `baseline`."""

    baseline: str
    evidence: str
    points: tuple[ProgressPoint, ...]


def progress_info(state: RunState) -> ProgressInfo:
    """The course of a run. Rejected candidates and their descendants are shown but never the best; neither is what was not measured, unless
    nothing was measured at all."""
    judged = sorted((e for e in state.entries.values() if e.evaluation is not None), key=lambda e: (e.judged_at, e.order))
    kinds = {str(e.evaluation.evidence) for e in judged if e.evaluation.speedup}
    evidence = "measured" if "measured" in kinds or not kinds else sorted(kinds)[0]
    baseline = next((e.evaluation.speedup.baseline for e in judged if e.evaluation.speedup), "")
    best: float | None = None
    points = []
    for index, entry in enumerate(judged, 1):
        ratio = entry.evaluation.speedup
        if ratio and not entry.banned and entry.evaluation.evidence == evidence:
            best = ratio.value if best is None else max(best, ratio.value)
        points.append(
            ProgressPoint(
                index,
                entry.candidate.id,
                str(entry.evaluation.verdict),
                ratio and ratio.value,
                ratio and ratio.low,
                ratio and ratio.high,
                best,
            )
        )
    return ProgressInfo(baseline, evidence, tuple(points))
