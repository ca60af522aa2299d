"""Export as a package: a folder that pip installs, with the kernel in a file of its own, its operator of PyTorch, a self-test and the
evidence."""

from __future__ import annotations

import json
from pathlib import Path

from kernelevolve_lab.export.base import ExportRequest
from kernelevolve_lab.export.kernel import dependencies_of, facts, form_of, module_text, name_of, op_facts
from kernelevolve_lab.export.templates import environment
from kernelevolve_lab.languages import cpp
from kernelevolve_lab.records.contract import evaluation_object

FILES = {
    "pyproject.toml": "package_pyproject.toml.j2",
    "README.md": "package_readme.md.j2",
    "src/{module}/__init__.py": "package_init.py.j2",
    "src/{module}/__main__.py": "package_main.py.j2",
}


def export(request: ExportRequest) -> tuple[Path, ...]:
    """Write the folder `<operator>_<candidate>` to `request.out`; raises as `module.export` does."""
    form, module, operator = form_of(request), name_of(request), request.operator()
    candidate = request.entry.candidate
    values = facts(request, operator) | {
        "module": module,
        "op": op_facts(request, operator),
        "distribution": module.replace("_", "-"),
        "description": f"{operator.title}: a kernel found by search, and judged.",
        "dependencies": dependencies_of(form),
    }
    texts = {name.format(module=module): environment().get_template(file).render(values) for name, file in FILES.items()}
    source = f"src/{module}"
    texts[f"{source}/module.py"] = module_text(request, op=True, files=True)
    texts[f"{source}/evidence.json"] = json.dumps(evaluation_object(request.entry.evaluation), indent=1) + "\n"
    texts[f"{source}/{'kernel.cpp' if form.native else 'candidate.py'}"] = candidate.source
    if form.native:
        texts[f"{source}/kel.h"] = cpp.HEADER.read_text()
    folder = request.out / module
    for name, text in texts.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return (folder, *(folder / name for name in texts))
