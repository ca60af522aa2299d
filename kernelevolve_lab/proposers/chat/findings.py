"""Says in words what the judge found, for a model: only what a proposer may know.

Held-out cases are never shown: neither their names nor their sizes, values or times. That one of them failed is said, and no more.
"""

from __future__ import annotations

import re

from kernelevolve_lab.operators.base import Operator
from kernelevolve_lab.proposers.chat.render import duration, oneline, rate, render
from kernelevolve_lab.records import CaseResult, Diagnosis, Evaluation, Verdict

HELD_OUT_FAILED = (
    "It failed on a case that is not shown to you: other sizes, among them odd ones, and other input distributions must work too."
)
_MESSAGES = 12


def describe(evaluation: Evaluation | None, operator: Operator, *, full: bool = True) -> str:
    """The judge's findings as markdown; `full` adds static metrics and all visible cases."""
    if evaluation is None:
        return render("evaluation", evaluation=None)
    shown = [result for result in evaluation.cases if not result.case.held_out]
    lines = [_case(result) for result in shown] if full else []
    return render(
        "evaluation",
        evaluation=evaluation,
        flags=[flag.value for flag in evaluation.flags],
        reasons=visible_reasons(evaluation, operator),
        cases=lines,
        diagnostics=_diagnostics(evaluation, _secret(evaluation, operator), _MESSAGES if full else 3),
        metrics=", ".join(f"{name} {value}" for name, value in sorted(evaluation.metrics.items())) if full else "",
    )


def visible_reasons(evaluation: Evaluation, operator: Operator) -> list[str]:
    """The reasons of a verdict, without those that tell of a held-out case, for which one general sentence stands."""
    secret = _secret(evaluation, operator)
    kept, hidden = [], False
    for reason in evaluation.reasons:
        if secret.search(reason):
            hidden = True
        else:
            kept.append(oneline(reason, 600))
    bad = [result for result in evaluation.cases if result.case.held_out and result.verdict is not Verdict.CORRECT]
    return [*kept, HELD_OUT_FAILED] if hidden or bad else kept


def visible_diagnosis(diagnosis: Diagnosis | None, evaluation: Evaluation, operator: Operator) -> Diagnosis | None:
    """The judge's diagnosis without findings that tell of a held-out case."""
    if diagnosis is None:
        return None
    secret = _secret(evaluation, operator)
    findings = tuple(finding for finding in diagnosis.findings if not secret.search(f"{finding.what} {finding.advice}"))
    summary = "" if secret.search(diagnosis.summary) else diagnosis.summary
    return diagnosis.model_copy(update={"findings": findings, "summary": summary})


def in_short(evaluation: Evaluation | None, operator: Operator) -> str:
    """One clause: the speedup where it is correct, else the verdict with its first reason."""
    if evaluation is None:
        return "not judged yet"
    if evaluation.verdict is Verdict.CORRECT:
        if evaluation.speedup is None:
            return f"correct, {evaluation.evidence.value}, no speed"
        ratio = evaluation.speedup
        return f"correct, {ratio.value:.3f}× over {ratio.baseline} [{ratio.low:.3f}, {ratio.high:.3f}]"
    reasons = visible_reasons(evaluation, operator)
    first = next((d.message for d in evaluation.diagnostics if d.severity.endswith("error")), "")
    return f"{evaluation.verdict.value}: {oneline(first or (reasons[0] if reasons else ''), 240)}"


def _secret(evaluation: Evaluation, operator: Operator) -> re.Pattern[str]:
    """What no proposer may read: names of held-out cases, and what the judge wrote about them."""
    cases = [case for group in operator.cases.values() for case in group]
    results = [result for result in evaluation.cases if result.case.held_out]
    names = {case.name for case in cases if case.held_out} | {result.case.name for result in results}
    names -= {case.name for case in cases if not case.held_out}
    patterns = [rf"(?<![\w-]){re.escape(name)}(?![\w-])" for name in sorted(names, key=len, reverse=True)]
    patterns += [re.escape(result.reason) for result in results if result.reason]
    return re.compile("|".join([*patterns, r"\bheld[- ]out\b"]), re.IGNORECASE)


def _case(result: CaseResult) -> str:
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
    if result.times:
        parts.append(", ".join(f"{name} {duration(timing.median)}" for name, timing in result.times.items()))
    parts.extend(f"{ratio.value:.3f}× over {ratio.baseline}" for ratio in result.speedups)
    if result.roofline is not None:
        point = result.roofline
        rates = f"{rate(point.bytes_per_second, 'B/s')}, {rate(point.flops_per_second, 'FLOP/s')}"
        parts.append(f"{point.fraction:.0%} of the {point.bound_by} roof ({rates})")
    return "; ".join(parts)


def _diagnostics(evaluation: Evaluation, secret: re.Pattern[str], most: int) -> str:
    shown = [item for item in evaluation.diagnostics if not secret.search(item.message)]
    ranked = sorted(shown, key=lambda item: "error" not in item.severity)
    lines = []
    for item in ranked[:most]:
        place = f"{item.line}:{item.column}: " if item.line else ""
        lines.append(f"{place}{item.severity}: {item.message[:500]}")
        if item.source_line:
            lines.append(f"    {item.source_line.strip()[:200]}")
    if len(ranked) > most:
        lines.append(f"… and {len(ranked) - most} more")
    return "\n".join(lines)
