"""Says in words what the judge found, for a model: only what a proposer may know."""

from __future__ import annotations

from kernelevolve_lab.knowledge.calm import Calm, busyness
from kernelevolve_lab.knowledge.floors import level_name
from kernelevolve_lab.knowledge.visible import visible
from kernelevolve_lab.operators.base import Operator
from kernelevolve_lab.proposers.chat.render import duration, oneline, render
from kernelevolve_lab.records import CaseResult, Evaluation, Ratio, Verdict

_MESSAGES = 12
_UNTOLD = ("threads_at_start", "threads_at_end")
"""Metrics that say nothing to whoever writes kernels."""
_SAID_BY_THE_FLAG = "timings were noisy"


def describe(evaluation: Evaluation | None, operator: Operator, calm: Calm, *, full: bool = True) -> str:
    """The judge's findings as markdown; `calm` are the baselines' calmest times in the run, `full` adds static metrics and all visible
    cases."""
    if evaluation is None:
        return render("evaluation", evaluation=None)
    shown = visible(evaluation, operator)
    busy = busyness(shown, calm)
    return render(
        "evaluation",
        evaluation=shown,
        flags=[flag.value for flag in shown.flags],
        reasons=[oneline(reason, 600) for reason in shown.reasons if not reason.startswith(_SAID_BY_THE_FLAG)],
        cases=[_case(result, placed=not busy) for result in shown.cases] if full else [],
        diagnostics=_diagnostics(shown, _MESSAGES if full else 3),
        metrics=_metrics(shown) if full else "",
        guessed="hot_loop_function" in shown.metrics,
        busy=busy,
    )


def in_short(evaluation: Evaluation | None, operator: Operator) -> str:
    """One clause: the speedup where it is correct, else the verdict with its first reason."""
    if evaluation is None:
        return "not judged yet"
    if evaluation.verdict is Verdict.CORRECT:
        if evaluation.speedup is None:
            return f"correct, {evaluation.evidence.value}, no speed"
        return f"correct, {interval(evaluation.speedup)} over {evaluation.speedup.baseline}"
    shown = visible(evaluation, operator)
    first = next((item.message for item in shown.diagnostics if "error" in item.severity), "")
    return f"{evaluation.verdict.value}: {oneline(first or shown.reasons[0], 240)}"


def interval(ratio: Ratio) -> str:
    """A speedup with its interval."""
    return f"{ratio.value:.3f}× [{ratio.low:.3f}, {ratio.high:.3f}]"


def _case(result: CaseResult, placed: bool) -> str:
    """What was found on a case; its place under the roof only where the machine let it show (`placed`)."""
    parts = [f"case `{result.case.name}`: {result.verdict.value}"]
    if result.verdict is not Verdict.CORRECT and result.reason:
        parts.append(oneline(result.reason, 400))
    if result.error is not None:
        error = result.error
        parts.append(f"error {error.candidate:.2g} of {error.gate:.2g} allowed")
        if error.candidate > error.gate and error.worst_index:
            where = ", ".join(map(str, error.worst_index))
            values = f", expected {error.expected:.7g}, got {error.got:.7g}" if None not in (error.expected, error.got) else ""
            parts.append(f"worst at output {error.worst_output}[{where}]{values}")
    if "candidate" in result.times:
        parts.append(f"takes {duration(result.times['candidate'].median)}")
    for number, ratio in enumerate(result.speedups):
        took = f" ({duration(result.times[ratio.baseline].median)})" if ratio.baseline in result.times else ""
        parts.append(f"{f'{ratio.value:.2f}×' if number else interval(ratio)} over {ratio.baseline}{took}")
    if placed and result.roofline is not None:
        point = result.roofline
        parts.append(f"{point.fraction:.0%} of the {level_name(point.bound_by)} roof")
    return "; ".join(parts)


def _metrics(evaluation: Evaluation) -> str:
    """What the build has, without what it has none of."""
    told = [(name, value) for name, value in sorted(evaluation.metrics.items()) if value not in (0, "", False) and name not in _UNTOLD]
    return ", ".join(f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}" for name, value in told)


def _diagnostics(evaluation: Evaluation, most: int) -> str:
    """Errors first; of warnings only those about the candidate itself, since those in the compiler's own headers lead nowhere."""
    told = [item for item in evaluation.diagnostics if "error" in item.severity or item.file.startswith("candidate")]
    ranked = sorted(told, key=lambda item: "error" not in item.severity)
    lines = []
    for item in ranked[:most]:
        place = f"{item.line}:{item.column}: " if item.line else ""
        lines.append(f"{place}{item.severity}: {item.message[:500]}")
        if item.source_line:
            lines.append(f"    {item.source_line.strip()[:200]}")
    if len(ranked) > most:
        lines.append(f"… and {len(ranked) - most} more")
    return "\n".join(lines)
