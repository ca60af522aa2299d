"""What a proposer may know of an evaluation.

Held-out cases are never shown: neither their names nor their sizes, values or times, wherever in an evaluation they stand. That one of them
failed is said, and no more.
"""

from __future__ import annotations

import re

from kernelevolve_lab.operators.base import Operator
from kernelevolve_lab.records import Diagnosis, Evaluation, Flag, Verdict

HELD_OUT_FAILED = "It failed on a case that you are not shown: other sizes, odd ones among them, and other distributions must work too."
HELD_OUT_SLOW = "On a case that you are not shown its gain does not carry over: it must not be tuned to the sizes that are listed."


def visible(evaluation: Evaluation, operator: Operator) -> Evaluation:
    """The evaluation without anything that tells of a held-out case."""
    secret = _secret(evaluation, operator)
    shown = tuple(result for result in evaluation.cases if not result.case.held_out)
    reasons = [reason for reason in evaluation.reasons if not secret.search(reason)]
    hidden = len(reasons) < len(evaluation.reasons)
    if fails_elsewhere(evaluation) or (not reasons and evaluation.verdict is not Verdict.CORRECT):
        reasons.append(HELD_OUT_FAILED)
    elif hidden:
        reasons.append(HELD_OUT_SLOW if Flag.SPECIALISED in evaluation.flags else HELD_OUT_FAILED)
    return evaluation.model_copy(
        update={
            "cases": shown,
            "reasons": tuple(reasons),
            "diagnostics": tuple(item for item in evaluation.diagnostics if not secret.search(item.message)),
            "diagnosis": _diagnosis(evaluation.diagnosis, secret),
        }
    )


def fails_elsewhere(evaluation: Evaluation) -> bool:
    """Whether it is wrong on a case that proposers are not shown, whatever its verdict is for those that they are."""
    return any(result.case.held_out and result.verdict is not Verdict.CORRECT for result in evaluation.cases)


def _diagnosis(diagnosis: Diagnosis | None, secret: re.Pattern[str]) -> Diagnosis | None:
    if diagnosis is None:
        return None
    findings = tuple(finding for finding in diagnosis.findings if not secret.search(f"{finding.what} {finding.advice}"))
    summary = "" if secret.search(diagnosis.summary) else diagnosis.summary
    return diagnosis.model_copy(update={"findings": findings, "summary": summary})


def _secret(evaluation: Evaluation, operator: Operator) -> re.Pattern[str]:
    """The names of held-out cases, and what the judge wrote about them."""
    cases = [case for group in operator.cases.values() for case in group]
    results = [result for result in evaluation.cases if result.case.held_out]
    names = {case.name for case in cases if case.held_out} | {result.case.name for result in results}
    names -= {case.name for case in cases if not case.held_out}
    patterns = [rf"(?<![\w-]){re.escape(name)}(?![\w-])" for name in sorted(names, key=len, reverse=True)]
    patterns += [re.escape(result.reason) for result in results if result.reason]
    return re.compile("|".join([*patterns, r"\bheld[- ]out\b", r"\bshapes? that it was not told\b"]), re.IGNORECASE)
