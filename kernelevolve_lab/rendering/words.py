"""Numbers and states as short text: the same words and units on every screen, in every report and in plain text."""

from __future__ import annotations

import time
from typing import NamedTuple

from kernelevolve_lab.records import Evaluation, Evidence, Ratio, RooflinePoint, TargetSpec, Verdict
from kernelevolve_lab.records.run_state import Entry

NO_VALUE = "–"


class Look(NamedTuple):
    """How a state is shown: a symbol and a word, never colour alone; `tone` is `good`, `bad`, `warn`, `busy` or `quiet`."""

    symbol: str
    word: str
    tone: str


VERDICTS = {
    Verdict.CORRECT: Look("✓", "correct", "good"),
    Verdict.INCORRECT: Look("≠", "incorrect", "bad"),
    Verdict.BUILD_FAILED: Look("✗", "build failed", "bad"),
    Verdict.CRASHED: Look("!", "crashed", "bad"),
    Verdict.TIMED_OUT: Look("◷", "timed out", "warn"),
    Verdict.CHEATING: Look("⊘", "cheating", "bad"),
    Verdict.UNSUPPORTED: Look("∅", "unsupported", "quiet"),
    Verdict.INFRA_ERROR: Look("?", "infra error", "warn"),
}
JUDGING = Look("◐", "judging", "busy")
QUEUED = Look("·", "queued", "quiet")
DROPPED = Look("–", "dropped", "quiet")

EVIDENCE = {
    Evidence.MEASURED: "ran on the target's own hardware",
    Evidence.EMULATED: "ran elsewhere, emulated: correctness only",
    Evidence.MODELLED: "a cost model gave the time",
    Evidence.COMPILED: "built and statically analysed only",
}

LEVEL_NAMES = {"l1": "L1", "l2": "L2", "l3": "L3", "dram": "DRAM", "hbm": "HBM"}


def look(entry: Entry) -> Look:
    """The look of a candidate: its verdict, or where it stands on the way there."""
    if entry.evaluation is not None:
        return VERDICTS[entry.evaluation.verdict]
    if entry.judging:
        return JUDGING
    return DROPPED if entry.banned else QUEUED


def flags(entry: Entry) -> list[str]:
    """The flags of a candidate; one that a person overruled says so, with the reason."""
    found = entry.evaluation.flags if entry.evaluation else ()
    return [f"{flag}, overruled by a person: {said.reason}" if (said := entry.overruling(flag)) else str(flag) for flag in found]


def when(at: float) -> str:
    """A moment, in UTC."""
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(at))


def times(value: float | None) -> str:
    """A ratio such as `1.82×`."""
    if value is None:
        return NO_VALUE
    return f"{value:.0f}×" if value >= 100 else f"{value:.1f}×" if value >= 20 else f"{value:.2f}×"


def interval(ratio: Ratio | None) -> str:
    """The 95 % interval of a ratio, such as `[1.79, 1.86]`."""
    return NO_VALUE if ratio is None else f"[{ratio.low:.2f}, {ratio.high:.2f}]"


def ratio_text(ratio: Ratio | None) -> str:
    """A ratio with its interval and baseline, such as `1.82× [1.79, 1.86] vs torch.compile`."""
    return NO_VALUE if ratio is None else f"{times(ratio.value)} {interval(ratio)} vs {ratio.baseline}"


def scaled(value: float, unit: str) -> str:
    """A value with an SI prefix and three digits, such as `23.1 GB/s`."""
    for factor, prefix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= factor:
            return f"{value / factor:.3g} {prefix}{unit}"
    return f"{value:.3g} {unit}"


def seconds(value: float | None) -> str:
    """The duration of a call, such as `12.3 µs`."""
    if value is None:
        return NO_VALUE
    for factor, unit in ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs")):
        if value >= factor:
            return f"{value / factor:.3g} {unit}"
    return f"{value / 1e-9:.3g} ns"


def duration(value: float | None) -> str:
    """A span of a search for people, such as `45 s`, `3 min 20 s` or `1 h 05 min`."""
    if value is None:
        return NO_VALUE
    whole = max(0, round(value))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def money(value: float) -> str:
    """A cost in US dollars."""
    return f"${value:.2f}" if value >= 0.01 or value == 0 else "<$0.01"


def level(name: str) -> str:
    """The name of a roof for people: `DRAM`, `L2`, `float32`."""
    return LEVEL_NAMES.get(name.lower(), name)


def is_bandwidth(bound_by: str, target: TargetSpec | None) -> bool:
    """Whether a roof is one of memory."""
    if target is not None:
        return any(c.kind == "bandwidth" and c.name == bound_by for c in target.ceilings)
    return bound_by.lower() in LEVEL_NAMES


def roof_text(point: RooflinePoint | None, target: TargetSpec | None = None) -> str:
    """Where a kernel stands, such as `memory-bound, 71 % of DRAM bandwidth (23.1 GB/s)`."""
    if point is None:
        return NO_VALUE
    if is_bandwidth(point.bound_by, target):
        return f"memory-bound, {point.fraction:.0%} of {level(point.bound_by)} bandwidth ({scaled(point.bytes_per_second, 'B/s')})".replace(
            "%", " %"
        )
    return f"compute-bound, {point.fraction:.0%} of {level(point.bound_by)} peak ({scaled(point.flops_per_second, 'FLOP/s')})".replace(
        "%", " %"
    )


def sizes(evaluation_case) -> str:
    """The sizes of a case, such as `rows 4096 · cols 1024`."""
    return " · ".join(f"{name} {value}" for name, value in evaluation_case.sizes.items())


def headline(evaluation: Evaluation | None) -> str:
    """One line on an evaluation with its evidence."""
    if evaluation is None:
        return "not judged yet"
    if evaluation.verdict is not Verdict.CORRECT:
        return f"{VERDICTS[evaluation.verdict].word}: {evaluation.reasons[0]}"
    if not evaluation.speedups:
        return f"correct ({evaluation.evidence})"
    return f"{', '.join(ratio_text(r) for r in evaluation.speedups)} ({evaluation.evidence})"
