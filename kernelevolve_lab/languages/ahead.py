"""What the languages share whose candidates are Python modules with kernels that are compiled ahead.

The module is untrusted Python, so it is imported in a confined process of its own (`ahead_process.py` and the language's own code beside
it), never in this one; what that process tells is read here, with suspicion.
"""

import importlib.metadata
import json
import os
import stat
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Literal

from kernelevolve_lab.languages import absent_gpu, build_cache, diagnostics, gpu_metrics, occupancy
from kernelevolve_lab.languages.base import KERNELS, Build, Workload
from kernelevolve_lab.languages.process import Finished, Sandbox, run
from kernelevolve_lab.records import Diagnostic, Scalar, TargetSpec

HERE = Path(__file__).parent
ARTIFACT_NAME = "candidate.py"
MAX_RESULT = 8 << 20
SHARED_CODE = ("ahead.py", "ahead_process.py", "absent_gpu.py", "cubin.py", "gpu_metrics.py", "occupancy.py", "occupancy.toml")
"""The files here that decide what such a build holds, besides the language's own."""


class Ahead:
    """What such languages have in common of `languages.base.Language`. `process` is the module here whose `main` compiles, in a process of
    its own: it answers the file `request.json` of the working folder by `result.json` (see `ahead_process`). `code` are the files here that
    decide what a build holds beside the shared ones, `layout` is to be raised when what a cache entry holds changes."""

    name: str
    title: str
    process: str
    code: tuple[str, ...]
    layout = "1"
    suffix = ".py"
    lexer = "python"
    binding: Literal["native", "python"] = "python"

    def version(self) -> str:
        """The compiler's version; raises `MissingTool` without it."""
        raise NotImplementedError

    def key(self, source: str, target: TargetSpec, workloads: Sequence[Workload]) -> str:
        """The content address of a build: source, shapes, target, versions and the code that compiles."""
        versions = (self.version(), importlib.metadata.version("torch"), sys.version)
        shapes, code = repr(tuple(workloads)), _address_of(*self.code, *SHARED_CODE)
        return build_cache.address(source, shapes, target.arch, str(target.units), *versions, code, self.layout)

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
        """Import the module in a process of its own, call it with fake tensors of each workload's shapes, and compile what it launches.

        Without workloads only the import and the contract are checked. A failed build is an ordinary outcome. Raises `MissingTool` without
        the compiler, `BadInput` for text that is not UTF-8. Builds that ran out of time, or whose process ended without an answer, are not
        cached.
        """
        self.version()
        build_cache.encoded(source, self.title)
        wrong = diagnostics.of_python(source)
        if wrong is not None:
            return Build(None, (wrong,), 0.0)
        place = cache / self.name / self.key(source, target, workloads)

        def make(scratch: Path) -> build_cache.Made:
            # What the module can write to is apart from what is kept of its source.
            work, artifact = scratch / "work", scratch / ARTIFACT_NAME
            work.mkdir()
            artifact.write_bytes(source.encode())
            (work / ARTIFACT_NAME).write_bytes(source.encode())
            (work / "request.json").write_text(json.dumps(_request(target, workloads, place / KERNELS, 0.8 * timeout)))
            outcome = run(_command(self.process), work, timeout, sandbox, libraries=True)
            result = _result(work)
            messages, metrics = _read(result, outcome, source, target, timeout)
            if outcome.timed_out or result is None:
                return build_cache.Made([], messages, {}, lasting=False)
            if any(d.severity == "error" for d in messages):
                return build_cache.Made([], messages, metrics)
            kernels = work / KERNELS
            compiled = [kernels] if kernels.is_dir() and not kernels.is_symlink() else []
            return build_cache.Made([artifact, *compiled], messages, metrics)

        return build_cache.through(place, ARTIFACT_NAME, make)

    def guide(self) -> str:
        """What to know to write a kernel here, as markdown."""
        return (HERE / f"guide_{self.name}.md").read_text()


@cache
def _address_of(*names: str) -> str:
    return build_cache.address(*((HERE / name).read_text() for name in names))


def _command(process: str) -> list[str]:
    paths = [str(HERE.parent.parent), *(path for path in sys.path if "site-packages" in path)]
    boot = f"import sys; sys.path[:0] = {paths!r}; from kernelevolve_lab.languages.{process} import main; main()"
    return [sys.executable, "-I", "-B", "-c", boot]


def _request(target: TargetSpec, workloads: Sequence[Workload], kept_at: Path, seconds: float) -> dict[str, Any]:
    calls = [
        {
            "inputs": [(spec.shape, spec.dtype) for spec in workload.inputs],
            "init_inputs": repr(workload.init_inputs),
            "arguments": workload.arguments,
            "constants": repr(dict(workload.constants)),
        }
        for workload in workloads
    ]
    processes = len(os.sched_getaffinity(0))
    return {
        "target": absent_gpu.about(target),
        "workloads": calls,
        "kept_at": str(kept_at.absolute()),
        "seconds": seconds,
        "processes": processes,
    }


def _result(work: Path) -> dict[str, Any] | None:
    """What the process wrote, None when it is not there or not to be trusted to be a file."""
    try:
        fd = os.open(work / "result.json", os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(fd, "rb") as file:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                return None
            read = json.loads(file.read(MAX_RESULT))
    except (OSError, ValueError):
        return None
    return read if isinstance(read, dict) else None


def _read(
    result: Mapping[str, Any] | None, outcome: Finished, source: str, target: TargetSpec, timeout: float
) -> tuple[tuple[Diagnostic, ...], dict[str, Scalar]]:
    if outcome.timed_out:
        return (Diagnostic(severity="error", message=f"compiling was stopped after {timeout:g} s", file="compiler"),), {}
    try:
        if result is None:
            raise ValueError("no result")
        launches = [gpu_metrics.Kernel.of(entry, target.arch) for entry in result["launches"]]
        messages = _messages(result, launches, source, target)
        metrics = gpu_metrics.flat(launches, {str(k): int(v) for k, v in result["configs"].items()})
        return messages, metrics
    except (KeyError, TypeError, ValueError, AttributeError):
        last = diagnostics.clean((outcome.errors.strip().splitlines() or ["no message"])[-1])
        told = f"the process that compiles ended with status {outcome.status}: {last}"
        return (Diagnostic(severity="error", message=told, file="compiler"),), {}


def _messages(result: Mapping[str, Any], launches: Sequence[gpu_metrics.Kernel], source: str, target: TargetSpec) -> tuple[Diagnostic, ...]:
    lines = source.splitlines()
    found = [_diagnostic(note, lines) for note in result["notes"]]
    limit = occupancy.limits(target.arch).shared_block
    works: dict[str, bool] = {}
    failures: list[tuple[str, list[Diagnostic]]] = []
    for entry, launch in zip(result["launches"], launches, strict=True):
        problems = []
        if "error" in entry:
            problems = [d for d in diagnostics.parse(str(entry.get("log", "")), source, ARTIFACT_NAME) if d.severity == "error"]
            problems = [_diagnostic(entry["error"], lines)] if entry["error"]["line"] or not problems else problems
        elif launch.compiled and launch.shared > limit:
            message = f"out of resources: {launch.name} needs {launch.shared} bytes of shared memory a block, the limit is {limit}"
            problems = [Diagnostic(severity="error", message=message)]
        works[launch.name] = works.get(launch.name, False) or not problems
        if problems:
            failures.append((launch.name, [_of_config(problem, launch.config) for problem in problems]))
    for name, problems in failures:
        # One configuration of several that fails is left out when the kernel is tuned; that is no failure of the module.
        severity = "warning" if works[name] else "error"
        found += [problem.model_copy(update={"severity": severity}) for problem in problems]
    order = ("error", "warning", "note")
    unique = list(dict.fromkeys(found))
    return tuple(sorted(unique, key=lambda d: order.index(d.severity)))[: diagnostics.MAX_DIAGNOSTICS]


def _diagnostic(note: Mapping[str, Any], lines: Sequence[str]) -> Diagnostic:
    severity, line = str(note["severity"]), int(note["line"])
    shown = lines[line - 1][: diagnostics.MAX_SOURCE_LINE] if 0 < line <= len(lines) else ""
    known = severity if severity in ("error", "warning", "note") else "error"
    return Diagnostic(
        severity=known, message=diagnostics.clean(str(note["message"])), line=line, column=int(note["column"]), source_line=shown
    )


def _of_config(problem: Diagnostic, config: str) -> Diagnostic:
    return problem.model_copy(update={"message": f"with {config}: {problem.message}"}) if config else problem
