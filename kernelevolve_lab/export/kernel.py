"""What the exported forms of a kernel share: which candidates have them, and what their templates are filled with."""

from __future__ import annotations

import json
import pprint
import re
from dataclasses import dataclass
from typing import Any

from kernelevolve_lab import registry
from kernelevolve_lab.errors import BadInput
from kernelevolve_lab.export.base import ExportRequest
from kernelevolve_lab.export.evidence import accepted_inputs, evidence_lines
from kernelevolve_lab.export.source import self_contained
from kernelevolve_lab.export.templates import environment
from kernelevolve_lab.languages import abi, cpp
from kernelevolve_lab.languages.base import Language
from kernelevolve_lab.operators.base import Operator
from kernelevolve_lab.records import CaseResult, TargetSpec, TensorSpec, Verdict

NAMESPACE = "kernelevolve"
"""Under `torch.ops`."""
DEVICES = {"cpu": "cpu", "nvidia": "cuda", "amd": "cuda"}
"""What PyTorch calls the device of a target, by vendor."""
MODULE_ENTRY = re.compile(r"^\s*(def kernel\(|kernel\s*=|from .* import .*\bkernel\b)", re.MULTILINE)


@dataclass(frozen=True)
class Form:
    """How a kernel is written out: the template's suffix, and the device it runs on."""

    template: str
    device: str
    language: Language

    @property
    def native(self) -> bool:
        return self.template == "cpp"


def name_of(request: ExportRequest) -> str:
    """A Python identifier for what is exported."""
    name = re.sub(r"\W+", "_", request.state.config.operator.name).strip("_") or "kernel"
    return f"{name}_{request.entry.candidate.id}"


def form_of(request: ExportRequest) -> Form:
    """How this candidate is written out; raises `BadInput` where it is not correct, or nothing can call it outside the lab."""
    evaluation, candidate = request.entry.evaluation, request.entry.candidate
    if evaluation is None or evaluation.verdict is not Verdict.CORRECT:
        raise BadInput(f"Candidate {candidate.id} is not judged correct, so it cannot be exported; choose another.")
    language: Language = registry.load("languages", candidate.language)
    device = DEVICES.get(evaluation.target.split(":")[0])
    if language.binding == "python" and device:
        return Form("python", device, language)
    if language.binding == "native" and evaluation.target == "cpu":
        return Form("cpp", "cpu", language)
    raise BadInput(
        f"A {candidate.language} kernel for {evaluation.target} can only be exported as a report: nothing outside the lab can call it."
    )


def module_text(request: ExportRequest, *, op: bool = False, files: bool = False) -> str:
    """One Python module with the kernel, its guard, the reference, a self-test and the evidence; with `op` it also registers an operator
    of PyTorch, with `files` it reads the kernel from files beside it and is the module `module` of a package.

    Raises `BadInput` where the candidate has no such form or the reference's source cannot be had.
    """
    form = form_of(request)
    candidate, evaluation = request.entry.candidate, request.entry.evaluation
    operator = request.operator()
    if not form.native and not MODULE_ENTRY.search(candidate.source):
        raise BadInput(f"Candidate {candidate.id} defines no function 'kernel'; export it as kernelbench or as a report.")
    functions = {"reference": operator.reference, "make_inputs": operator.make_inputs}
    if operator.allocate is not None and form.native:
        functions["allocate"] = operator.allocate
    name = name_of(request)
    dependencies = dependencies_of(form)
    return (
        environment()
        .get_template(f"module_{form.template}.py.j2")
        .render(
            **facts(request, operator),
            **source_facts(request, form),
            module=name,
            run=f"-m {name}" if files else f"{name}.py",
            needs=" and ".join(dependencies),
            functions=self_contained(functions),
            accepted=literal(accepted_inputs(request)),
            gates=literal(_gates(operator, evaluation.cases)),
            cases=[result.case for result in evaluation.cases],
            device=form.device,
            where="the CPU" if form.device == "cpu" else "a GPU",
            lacking="no compiler" if form.native else "it cannot be loaded",
            language=form.language.title,
            allocates=operator.allocate is not None,
            files=files,
            op=op_facts(request, operator) if op else None,
        )
    )


def facts(request: ExportRequest, operator: Operator) -> dict[str, Any]:
    """Names and words, fit to stand in code and docstrings."""
    return {
        "title": plain(operator.title),
        "evidence": [plain(line) for line in evidence_lines(request)],
        "inputs": ", ".join(operator.input_names),
        "signature": plain(operator.semantics.strip().splitlines()[0]),
        "namespace": NAMESPACE,
    }


def source_facts(request: ExportRequest, form: Form) -> dict[str, Any]:
    """The candidate's source and, where it is compiled, what it is compiled with. Raises `BadInput` for a source that cannot stand in a
    Python string."""
    source = request.entry.candidate.source
    header = cpp.HEADER.read_text() if form.native else ""
    for name, text in (("source", source), ("kel.h", header)):
        if "'''" in text or text.endswith("\\"):
            raise BadInput(
                f"The {name} of candidate {request.entry.candidate.id} holds ''' and cannot stand in a Python string; change it there."
            )
    return {
        "source": source.strip("\n"),
        "header": header.strip("\n"),
        "flags": literal(_flags(request.state.target)),
        "max_dims": abi.MAX_DIMS,
        "dtypes": literal(abi.DTYPES),
    }


def op_facts(request: ExportRequest, operator: Operator) -> dict[str, str]:
    """Name and schema of the operator of PyTorch."""
    count = len(output_specs(request, operator))
    return {
        "name": name_of(request),
        "arguments": ", ".join(f"Tensor {name}" for name in operator.input_names),
        "returns": "Tensor" if count == 1 else f"({', '.join(['Tensor'] * count)})",
    }


def main_case(request: ExportRequest) -> CaseResult:
    """The first visible case that was judged."""
    results = request.entry.evaluation.cases
    found = next((r for r in results if not r.case.held_out), next(iter(results), None))
    if found is None:
        raise BadInput(f"Candidate {request.entry.candidate.id} was judged on no case, so its outputs are not known.")
    return found


def output_specs(request: ExportRequest, operator: Operator) -> tuple[TensorSpec, ...]:
    """Shapes and dtypes of the outputs on the main case; sizes that depend on values are those of one draw."""
    import torch

    result = main_case(request)
    if operator.allocate is not None:
        outputs: Any = operator.allocate(*operator.make_inputs(result.case, torch.Generator().manual_seed(0)))
    else:
        outputs = operator.reference(*(torch.empty(s.shape, dtype=getattr(torch, s.dtype), device="meta") for s in result.inputs))
    outputs = outputs if isinstance(outputs, (tuple, list)) else (outputs,)
    return tuple(TensorSpec(shape=tuple(t.shape), dtype=str(t.dtype).removeprefix("torch.")) for t in outputs)


def dependencies_of(form: Form) -> tuple[str, ...]:
    """The Python packages that an exported kernel needs."""
    own = {"triton": ("triton",), "cute": ("nvidia-cutlass-dsl",)}
    return ("torch", *own.get(form.language.name, ()))


def _flags(target: TargetSpec | None) -> tuple[str, ...]:
    """The options the judged build was made with, less those that only one compiler knows."""
    return (*cpp.FLAGS, *(cpp.WIDE if target and cpp.WIDE_FEATURE in target.features else ()))


def _gates(operator: Operator, cases: tuple[CaseResult, ...]) -> dict[str, float]:
    """The widest gate the judge used, by dtype; the operator's floor where a dtype was not judged."""
    gates = dict(operator.tolerance.floors)
    for result in cases:
        if result.error:
            gates[result.case.dtype] = max(gates.get(result.case.dtype, 0.0), result.error.gate)
    return gates


def plain(text: str) -> str:
    """Text that can stand in a docstring: on one line, without what would end it."""
    return json.dumps(" ".join(text.split()), ensure_ascii=False)[1:-1].replace('\\"', "'")


def literal(value: Any) -> str:
    """Data as Python source."""
    return pprint.pformat(value, width=130, compact=True, sort_dicts=False)
