"""Export as an operator of PyTorch: a module that registers itself with `torch.library`, so that `torch.compile` keeps it as one call."""

from __future__ import annotations

from pathlib import Path

from kernelevolve_lab.export.base import ExportRequest
from kernelevolve_lab.export.kernel import module_text, name_of


def export(request: ExportRequest) -> tuple[Path, ...]:
    """Write `<operator>_<candidate>_op.py` to `request.out`; importing it registers `torch.ops.kernelevolve.<operator>_<candidate>`.

    The operator has a fake kernel (shapes without data, by the reference) and gradients (the reference's); raises as `module.export` does.
    """
    path = request.out / f"{name_of(request)}_op.py"
    path.write_text(module_text(request, op=True), encoding="utf-8")
    return (path,)
