"""Export as a module: one Python file that needs only torch, with the kernel, its guard, a self-test and the evidence."""

from __future__ import annotations

import json
import pprint
import re
from pathlib import Path
from typing import Any

from kernelevolve_lab import registry
from kernelevolve_lab.errors import BadInput
from kernelevolve_lab.export.base import ExportRequest
from kernelevolve_lab.export.evidence import accepted_inputs, evidence_lines
from kernelevolve_lab.export.source import self_contained
from kernelevolve_lab.export.templates import environment
from kernelevolve_lab.languages import abi, cpp
from kernelevolve_lab.operators.base import Operator
from kernelevolve_lab.records import TargetSpec, Verdict


def export(request: ExportRequest) -> tuple[Path, ...]:
    """Write `<operator>_<candidate>.py` to `request.out`.

    Raises `BadInput` where the candidate is not correct, its language has no module form, or the reference's source cannot be had.
    """
    text = module_text(request)
    path = request.out / f"{module_name(request)}.py"
    path.write_text(text)
    return (path,)


def module_name(request: ExportRequest) -> str:
    """A Python identifier for the exported module."""
    name = re.sub(r"\W+", "_", request.state.config.operator.name).strip("_") or "kernel"
    return f"{name}_{request.entry.candidate.id}"


def module_text(request: ExportRequest) -> str:
    """The file's text."""
    evaluation, candidate = request.entry.evaluation, request.entry.candidate
    if evaluation is None or evaluation.verdict is not Verdict.CORRECT:
        raise BadInput(f"Candidate {candidate.id} is not judged correct, so it cannot be exported; choose another.")
    if registry.load("languages", candidate.language).binding != "native" or evaluation.target != "cpu":
        raise BadInput(f"A {candidate.language} kernel for {evaluation.target} has no module form yet; export its report instead.")
    operator = request.operator()
    functions = {"reference": operator.reference, "make_inputs": operator.make_inputs}
    if operator.allocate is not None:
        functions["allocate"] = operator.allocate
    header = cpp.HEADER.read_text()
    for name, text in (("source", candidate.source), ("kel.h", header)):
        if "'''" in text or text.endswith("\\"):
            raise BadInput(f"The {name} of candidate {candidate.id} holds ''' and cannot stand in a Python string; change it there.")
    return (
        environment()
        .get_template("module_cpp.py.j2")
        .render(
            title=_plain(operator.title),
            evidence=[_plain(line) for line in evidence_lines(request)],
            module=module_name(request),
            inputs=", ".join(operator.input_names),
            signature=_plain(operator.semantics.strip().splitlines()[0]),
            functions=self_contained(functions),
            source=candidate.source.strip("\n"),
            header=header.strip("\n"),
            flags=_literal(_flags(request.state.target)),
            accepted=_literal(accepted_inputs(request)),
            allocates=operator.allocate is not None,
            max_dims=abi.MAX_DIMS,
            dtypes=_literal(abi.DTYPES),
            gates=_literal(_gates(operator, evaluation.cases)),
            cases=[result.case for result in evaluation.cases],
        )
    )


def _flags(target: TargetSpec | None) -> tuple[str, ...]:
    """The options the judged build was made with, less those that only one compiler knows."""
    return (*cpp.FLAGS, *(cpp.WIDE if target and cpp.WIDE_FEATURE in target.features else ()))


def _gates(operator: Operator, cases: tuple) -> dict[str, float]:
    """The widest gate the judge used, by dtype; the operator's floor where a dtype was not judged."""
    gates = dict(operator.tolerance.floors)
    for result in cases:
        if result.error:
            gates[result.case.dtype] = max(gates.get(result.case.dtype, 0.0), result.error.gate)
    return gates


def _plain(text: str) -> str:
    """Text that can stand in a docstring: on one line, without what would end it."""
    return json.dumps(" ".join(text.split()), ensure_ascii=False)[1:-1].replace('\\"', "'")


def _literal(value: Any) -> str:
    return pprint.pformat(value, width=130, compact=True, sort_dicts=False)
