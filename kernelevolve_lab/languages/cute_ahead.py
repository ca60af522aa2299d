"""Compiles the kernels of a CuTe DSL module ahead of time: runs in a confined process of its own, because it imports the module.

The module's host code is called as `ahead_process` says. What it compiles is compiled for the target at once, by CuTe DSL itself; what it
launches is noted by `absent_cuda`.
"""

from __future__ import annotations

import ast
import contextlib
import json
import math
import os
import re
import time
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

from kernelevolve_lab.languages import absent_cuda, absent_gpu, cubin, diagnostics
from kernelevolve_lab.languages.ahead_process import SOURCE_NAME, Stopped, answer, call_each, load, own_line

MANGLED = "kernel_cutlass_"
"""What CuTe DSL begins the names of compiled kernels with; the function's name follows, and the types of its arguments."""

_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_PLACE = re.compile(r"^\s*--> (?P<file>.+?):(?P<line>\d+)(?::(?P<column>\d+))?\s*$", re.MULTILINE)
_SNIPPET = re.compile(r"^\s*(?:>\s*)?\d*\s*\|")
_ASIDE = re.compile(
    r"^\s*(?:in function `|suggestion: (?:Re-run with|re-run with|read the ptxas log|Check the source location)|= note: Caused exception)"
)
_ITEM = re.compile(r"^\s*(?:error|note|suggestion|warning)\b|^\s*= ")


class Recorder:
    """Keeps the kernels that were launched, each once a workload, as `gpu_metrics.Kernel.of` reads them."""

    def __init__(self, runtime: absent_cuda.Runtime, arch: str, scratch: Path):
        self.launches: list[dict[str, Any]] = []
        self._runtime, self._arch, self._scratch = runtime, arch, scratch
        self._found: dict[bytes, dict[str, Any]] = {}

    @contextlib.contextmanager
    def recording(self, workload: int) -> Iterator[None]:
        """Record the launches made in the context."""
        self._runtime.launched.clear()
        try:
            yield
        finally:
            known = set()
            for launched in self._runtime.launched:
                if (launched.name, launched.cubin) not in known:
                    known.add((launched.name, launched.cubin))
                    self.launches.append({**self._described(launched), "config": "", "workload": workload})

    def _described(self, launched: absent_cuda.Launched) -> dict[str, Any]:
        kernel = self._kernels_of(launched.cubin)[launched.name]
        threads = math.prod(launched.block)
        own = {**kernel, "shared": kernel["shared"] + launched.shared, "threads": threads}
        return {"name": self._plain(launched.name), "programs": launched.grid, "kernel": own}

    def _kernels_of(self, machine: bytes) -> dict[str, Any]:
        if machine not in self._found:
            path = self._scratch / f"{len(self._found)}.cubin"
            path.write_bytes(machine)
            mixes = cubin.mixes(path, self._scratch)
            self._found[machine] = {
                name: {
                    "registers": own.registers,
                    "stack": own.stack,
                    "shared": own.shared,
                    "code": own.code,
                    "mix": vars(mixes[name]) if name in mixes else None,
                }
                for name, own in cubin.resources(machine, self._arch).items()
            }
        return self._found[machine]

    def _plain(self, mangled: str) -> str:
        """The name that the function has in the source."""
        rest = mangled.removeprefix(MANGLED)
        return max((name for name in self._functions if rest.startswith(f"{name}_") or rest == name), key=len, default=mangled)

    @cached_property
    def _functions(self) -> set[str]:
        return {node.name for node in ast.walk(ast.parse(Path(SOURCE_NAME).read_text())) if isinstance(node, ast.FunctionDef)}


def explain(error: BaseException) -> dict[str, Any] | None:
    """What CuTe DSL says of the candidate's kernels and `@cute.jit` functions, None for an exception of other code."""
    from cutlass.base_dsl.common import DSLBaseError

    # CuTe DSL marks what passes through it, also plain exceptions that the tracing of a kernel raises.
    if not isinstance(error, DSLBaseError) and not hasattr(error, "_dsl_env_manager"):
        return None
    text = _COLOUR.sub("", str(error))
    place = next((found for found in _PLACE.finditer(text) if Path(found["file"]).name == SOURCE_NAME), None)
    line, column = (int(place["line"]), int(place["column"] or 0)) if place else (own_line(error), 0)
    message = sentences(text) if isinstance(error, DSLBaseError) else f"{type(error).__name__}: {text.strip() or 'no message'}"
    return {"message": diagnostics.clean(message), "line": line, "column": column}


def sentences(text: str) -> str:
    """A report of CuTe DSL without the excerpt of the source and without advice that is of no use here, as one line."""
    items: list[str] = []
    kept = True
    for raw in text.splitlines():
        if not raw.strip() or _PLACE.match(raw) or _SNIPPET.match(raw):
            continue
        if _ITEM.match(raw) or not items:
            kept = not _ASIDE.match(raw)
        elif _ASIDE.match(raw):
            continue
        if kept:
            items.append(raw.strip().removeprefix("error: "))
    return " ".join(items)


def main() -> None:
    """Answer the request in the working folder."""
    request = json.loads(Path("request.json").read_text())
    deadline = time.monotonic() + request["seconds"]
    target, scratch = request["target"], Path("compiled")
    scratch.mkdir()
    # Read when CuTe DSL is imported. Line information costs no instruction, and its errors have their lines by it.
    os.environ.update(
        {
            "CUTE_DSL_ARCH": target["arch"],
            "CUTE_DSL_LINEINFO": "1",
            "CUTE_DSL_DISABLE_FILE_CACHING": "1",
            "CUTE_DSL_DUMP_DIR": str(scratch.absolute()),
            "HOME": os.getcwd(),
        }
    )
    result: dict[str, Any] = {"notes": [], "launches": [], "configs": {}}
    try:
        absent_gpu.stand_in(target)
        recorder = Recorder(absent_cuda.serve(target), target["arch"], scratch)
        module = load(Path(SOURCE_NAME).absolute(), explain)
        result["notes"] = call_each(module, request["workloads"], recorder.recording, explain, deadline)
        result["launches"] = recorder.launches
    except Stopped as stopped:
        result["notes"].append(stopped.note)
    answer(result)
