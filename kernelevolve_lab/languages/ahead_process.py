"""What the processes share that import a candidate's module to compile its kernels ahead: loading it, calling it on fake inputs, and
telling what went wrong in its own lines.

The module's host code is called with fake tensors of each workload's shapes, while a recorder of the language stands where kernels are
launched. What such a process writes (`result.json`) is as untrusted as the module: it serves diagnostics and static metrics, never a
verdict on what the kernel computes.

A request is the file `request.json` in the working folder: `target` (see `absent_gpu.describe`), `workloads`, `kept_at`, `seconds`,
`processes`. The answer has `notes` (diagnostics), `configs` (how many of each tuned kernel) and `launches` (see `gpu_metrics.Kernel.of`).
"""

from __future__ import annotations

import ast
import contextlib
import importlib.util
import json
import sys
import time
import traceback
import types
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from kernelevolve_lab.languages import absent_gpu, diagnostics

MODULE = "candidate"
SOURCE_NAME = f"{MODULE}.py"

Explain = Callable[[BaseException], dict[str, Any] | None]
"""`message`, `line` and `column` of an exception that is the compiler's word on the candidate's kernels, None for any other."""


class Stopped(Exception):
    """The candidate's code failed; `note` is the diagnostic."""

    def __init__(self, note: dict[str, Any]):
        super().__init__(note["message"])
        self.note = note


def note(severity: str, message: str, line: int = 0, column: int = 0) -> dict[str, Any]:
    """A diagnostic as the answer holds it."""
    return {"severity": severity, "message": message, "line": line, "column": column}


def load(path: Path, explain: Explain) -> types.ModuleType:
    """Import the candidate; raises `Stopped` when that fails or the module has neither `kernel` nor `ModelNew`."""
    spec = importlib.util.spec_from_file_location(MODULE, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[MODULE] = module
    with absent_gpu.on_host(), blaming("error", explain):
        spec.loader.exec_module(module)
    if not callable(getattr(module, "kernel", None)) and not isinstance(getattr(module, "ModelNew", None), type):
        raise Stopped(note("error", "the module defines neither a function kernel(*inputs) nor a class ModelNew(nn.Module)"))
    return module


def entry(module: types.ModuleType, workload: Mapping[str, Any]) -> Callable[..., Any]:
    """What is called with a workload's inputs."""
    if callable(getattr(module, "kernel", None)):
        return module.kernel
    model = module.ModelNew(*ast.literal_eval(workload["init_inputs"]))
    constants = ast.literal_eval(workload["constants"])

    def call(*inputs: Any) -> Any:
        arguments = list(inputs[: workload["arguments"]])
        for position in sorted(constants):
            arguments.insert(position, constants[position])
        return model(*arguments)

    return call


def call_each(
    module: types.ModuleType,
    workloads: list[Mapping[str, Any]],
    recording: Callable[[int], AbstractContextManager[None]],
    explain: Explain,
    deadline: float,
) -> list[dict[str, Any]]:
    """Call the candidate on fake inputs of every workload, each within `recording` its number, until `deadline` (of `time.monotonic`);
    answers diagnostics of what failed or could not be seen ahead."""
    import torch
    from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException, FakeTensorMode

    notes = []
    for number, workload in enumerate(workloads):
        if time.monotonic() > deadline:
            notes.append(
                note("note", f"time was over after {number} of {len(workloads)} shapes; the others are compiled at the first call")
            )
            break
        try:
            with absent_gpu.on_host(), FakeTensorMode(allow_non_fake_inputs=True), recording(number), blaming("warning", explain):
                inputs = [torch.empty(tuple(shape), dtype=getattr(torch, dtype), device="cuda") for shape, dtype in workload["inputs"]]
                with torch.no_grad():
                    entry(module, workload)(*inputs)
        except Stopped as stopped:
            told = stopped.note
            if isinstance(stopped.__cause__, DataDependentOutputException | DynamicOutputShapeException):
                told = {
                    **told,
                    "severity": "note",
                    "message": "what is launched depends on the inputs' values, so it is compiled at the first call",
                }
            if told not in notes:
                notes.append(told)
    return notes


@contextlib.contextmanager
def blaming(severity: str, explain: Explain) -> Iterator[None]:
    """Turn any exception of the candidate into `Stopped` with the line of its own that raised it; what the compiler says is an error."""
    try:
        yield
    except Stopped:
        raise
    except BaseException as error:
        explained = explain(error)
        if explained is not None:
            raise Stopped(note("error", **explained)) from error
        message = diagnostics.clean(f"{type(error).__name__}: {str(error).strip() or 'no message'}")
        raise Stopped(note(severity, message, own_line(error))) from error


def own_line(error: BaseException) -> int:
    """The innermost line of the candidate that an exception went through, 0 for none."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename).name == SOURCE_NAME]
    return (frames[-1].lineno or 0) if frames else 0


def answer(result: Mapping[str, Any]) -> None:
    """Write what was found, in one step."""
    written = Path("result.part")
    written.write_text(json.dumps(result))
    written.rename("result.json")
