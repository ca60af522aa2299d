"""The diagnosis by a model: it reads what the rules found, the kernel and the judge's findings, and says what limits it and what to try.

Whatever goes wrong (no reply, not JSON, an unknown bottleneck), the diagnosis by rules stands.
"""

from __future__ import annotations

import json
import re
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, field_validator

from kernelevolve_lab.knowledge.diagnosis import Analysis
from kernelevolve_lab.knowledge.page import TAGS
from kernelevolve_lab.proposers.base import ProposalRequest
from kernelevolve_lab.proposers.chat.context import LanguageNotes, diagnosis_parts
from kernelevolve_lab.proposers.chat.render import render

Line = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
_OBJECT = re.compile(r"\{.*\}", re.DOTALL)


class _Answer(BaseModel):
    model_config = ConfigDict(extra="ignore")

    bottleneck: str
    evidence: list[Line] = Field(default_factory=list)
    advice: list[Line] = Field(default_factory=list)
    avoid: list[Line] = Field(default_factory=list)

    @field_validator("bottleneck")
    @classmethod
    def _known(cls, value: str) -> str:
        if value.lower() not in TAGS["bottleneck"]:
            raise ValueError("not a known bottleneck")
        return value.lower()


def question(request: ProposalRequest, language: LanguageNotes, analysis: Analysis) -> list[dict[str, Any]]:
    """The messages that ask a model for its diagnosis of the first parent."""
    task, target, parent = diagnosis_parts(request, language)
    system = render("diagnose_system", bottlenecks=sorted(TAGS["bottleneck"]))
    user = render("diagnose", task=task, target=target, parent=parent, analysis=analysis)
    return [{"role": "system", "content": system}, {"role": "user", "content": user}]


def refined(analysis: Analysis, reply: str) -> Analysis:
    """The analysis with a model's answer in place of what the rules said; unchanged where the answer is of no use."""
    found = _OBJECT.search(reply)
    if found is None:
        return analysis
    try:
        answer = _Answer.model_validate(json.loads(found[0]))
    except (json.JSONDecodeError, ValidationError, RecursionError):
        return analysis
    return Analysis(
        analysis.phase,
        answer.bottleneck,
        (*answer.evidence[:5],) or analysis.evidence,
        (*answer.advice[:5],) or analysis.advice,
        (*analysis.avoid, *answer.avoid[:3]),
    )
