"""Python for any device: a module with `kernel(*inputs)`, or KernelBench's `class ModelNew(nn.Module)`, run as it is."""

from __future__ import annotations

import ast
import hashlib
import os
import platform
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from kernelevolve_lab.languages import build_cache, diagnostics
from kernelevolve_lab.languages.base import Build, Workload
from kernelevolve_lab.languages.process import Sandbox
from kernelevolve_lab.records import Diagnostic, TargetSpec

HERE = Path(__file__).parent
ENTRIES = ("kernel", "ModelNew")


class Python:
    """The language `python`; see `languages.base.Language`. Nothing is compiled here: a module may compile what it needs when it is
    imported, inside the worker's sandbox."""

    name = "python"
    title = "Python"
    suffix = ".py"
    lexer = "python"
    binding: Literal["native", "python"] = "python"
    emulated = False

    def supports(self, target: TargetSpec) -> bool:
        """True for the CPU and the NVIDIA GPU of this machine."""
        return target.vendor in ("cpu", "nvidia") and target.present

    def toolchain(self) -> dict[str, str]:
        """The interpreter."""
        return {"python": platform.python_version()}

    def build(
        self,
        source: str,
        target: TargetSpec,
        cache: Path,
        timeout: float = 60.0,
        *,
        sandbox: Sandbox | None = None,
        workloads: Sequence[Workload] = (),
    ) -> Build:
        """Parse the module and see that it defines `kernel` or `ModelNew`; never runs it. Raises `BadInput` for text that is not UTF-8."""
        started = time.perf_counter()
        encoded = build_cache.encoded(source, "Python")
        problem = check(source)
        if problem is not None:
            return Build(None, (problem,), time.perf_counter() - started)
        place = cache / self.name / f"{hashlib.sha256(encoded).hexdigest()[:32]}.py"
        cached = place.exists()
        if not cached:
            place.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=place.parent, delete=False) as file:
                file.write(encoded)
            os.replace(file.name, place)
        return Build(place, (), time.perf_counter() - started, cached=cached, metrics={})

    def guide(self) -> str:
        """What to know to write a Python kernel here, as markdown."""
        return (HERE / "guide_python.md").read_text()


def check(source: str) -> Diagnostic | None:
    """What keeps a text from being a candidate: a syntax error, or no entry."""
    wrong = diagnostics.of_python(source)
    if wrong is not None:
        return wrong
    tree = ast.parse(source)
    if not any(name in ENTRIES for node in ast.walk(tree) for name in _bound(node)):
        return Diagnostic(severity="error", message="the module defines neither a function kernel(*inputs) nor a class ModelNew(nn.Module)")
    return None


def _bound(node: ast.AST) -> tuple[str, ...]:
    """The names that a statement binds."""
    if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
        return (node.name,)
    if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
        return (node.id,)
    if isinstance(node, (ast.Import, ast.ImportFrom)):
        return tuple(alias.asname or alias.name for alias in node.names)
    return ()


PYTHON = Python()
