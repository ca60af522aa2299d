"""Export as a module: one Python file that needs only torch, with the kernel, its guard, a self-test and the evidence."""

from __future__ import annotations

from pathlib import Path

from kernelevolve_lab.export.base import ExportRequest
from kernelevolve_lab.export.kernel import module_text, name_of


def export(request: ExportRequest) -> tuple[Path, ...]:
    """Write `<operator>_<candidate>.py` to `request.out`.

    Raises `BadInput` where the candidate is not correct, nothing outside the lab can call it, or the reference's source cannot be had.
    """
    path = request.out / f"{name_of(request)}.py"
    path.write_text(module_text(request), encoding="utf-8")
    return (path,)
