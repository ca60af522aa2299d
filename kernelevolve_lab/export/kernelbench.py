"""Export for KernelBench: the operator as a task file, and the kernel as a `ModelNew` file, by its rules."""

from __future__ import annotations

from pathlib import Path

from kernelevolve_lab.errors import BadInput
from kernelevolve_lab.export.base import ExportRequest
from kernelevolve_lab.export.kernel import facts, form_of, main_case, name_of, output_specs, source_facts
from kernelevolve_lab.export.source import self_contained
from kernelevolve_lab.export.templates import environment


def export(request: ExportRequest) -> tuple[Path, ...]:
    """Write `<operator>_<candidate>_new.py` (the kernel) and `<operator>_<candidate>_task.py` to `request.out`.

    A KernelBench task has one shape: that of the first visible case. A candidate that answers a KernelBench task goes out as it came, with
    its task. Raises `BadInput` where the operator has several outputs, which KernelBench does not know, and as `module.export` does.
    """
    form = form_of(request)
    candidate, ref = request.entry.candidate, request.state.config.operator
    if ref.kind == "task":
        if "class ModelNew" not in candidate.source:
            raise BadInput(f"Candidate {candidate.id} is no ModelNew of its task; export its report instead.")
        task, new = ref.text, candidate.source
    else:
        operator = request.operator()
        outputs = output_specs(request, operator)
        if len(outputs) != 1 or operator.allocate is not None:
            raise BadInput(f"KernelBench knows one output of a fixed size, which '{ref.name}' has not; export it as a module.")
        case = main_case(request).case
        values = facts(request, operator) | source_facts(request, form)
        values |= {"output_shape": outputs[0].shape, "output_dtype": outputs[0].dtype}
        functions = self_contained({"reference": operator.reference, "make_inputs": operator.make_inputs})
        task = environment().get_template("kernelbench_task.py.j2").render(values, functions=functions, case=case)
        template = f"kernelbench_{form.template}.py.j2"
        new = candidate.source if "class ModelNew" in candidate.source else environment().get_template(template).render(values)
    paths = tuple(request.out / f"{name_of(request)}_{part}.py" for part in ("new", "task"))
    for path, text in zip(paths, (new, task), strict=True):
        path.write_text(text, encoding="utf-8")
    return paths
