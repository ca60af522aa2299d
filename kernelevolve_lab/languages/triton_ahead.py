"""Compiles the kernels of a Triton module ahead of time: runs in a confined process of its own, because it imports the module.

The module's host code is called as `ahead_process` says, while every launch is recorded rather than made; then what was recorded is
compiled for the target, several at a time, exactly as the launch itself would have had it compiled.
"""

from __future__ import annotations

import ast
import contextlib
import json
import os
import re
import time
import types
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kernelevolve_lab.languages import absent_gpu, cubin, diagnostics, occupancy
from kernelevolve_lab.languages.ahead_process import SOURCE_NAME, Stopped, answer, call_each, load, note

KERNELS = "kernels"
MAX_CONFIGS = 64


@dataclass
class Launch:
    """One kernel to compile: what `triton.compile` takes, where it came from, and the programs of its first launch."""

    source: Any
    target: Any
    options: dict[str, Any]
    kernel: str
    config: str
    workload: int
    programs: tuple[int, ...] = ()


class Recorder:
    """Stands where Triton compiles and launches, and keeps what it is asked for."""

    def __init__(self) -> None:
        self.launches: list[Launch] = []
        self.configs: dict[str, int] = {}
        self._workload = 0
        self._config = ""

    @contextlib.contextmanager
    def recording(self, workload: int) -> Iterator[None]:
        """Record the launches made in the context."""
        import triton.compiler as compiler
        from triton.runtime.autotuner import Autotuner
        from triton.runtime.jit import JITFunction

        self._workload = workload
        launch = JITFunction.run
        kept = compiler.compile, launch, Autotuner.run

        def run(function: Any, *args: Any, grid: Any, warmup: bool, **kwargs: Any) -> Any:
            known = len(self.launches)
            kernel = launch(function, *args, grid=grid, warmup=True, **kwargs)
            if grid is not None and len(self.launches) > known:
                self.launches[-1].programs = _programs(function, args, kwargs, grid)
            return kernel

        def tune(tuner: Any, *args: Any, **kwargs: Any) -> None:
            self._tune(tuner, args, kwargs)

        compiler.compile, JITFunction.run, Autotuner.run = self._compile, run, tune
        try:
            yield
        finally:
            compiler.compile, JITFunction.run, Autotuner.run = kept

    def _compile(self, source: Any, target: Any = None, options: Mapping[str, Any] | None = None, **_: Any) -> Any:
        self.launches.append(Launch(source, target, dict(options or {}), source.fn.__name__, self._config, self._workload))
        return types.SimpleNamespace(metadata=types.SimpleNamespace(**dict(options or {})))

    def _tune(self, tuner: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        tuner.nargs = dict(zip(tuner.arg_names, args, strict=False))
        configs = tuner.prune_configs(kwargs)
        name = tuner.base_fn.__name__
        self.configs[name] = max(len(configs), self.configs.get(name, 0))
        for config in configs[:MAX_CONFIGS]:
            if config.pre_hook is not None:
                config.pre_hook({**tuner.nargs, **kwargs, **config.all_kwargs()})
            self._config = ", ".join(f"{key}={value}" for key, value in config.all_kwargs().items())
            tuner.fn.run(*args, **kwargs, **config.all_kwargs())
        self._config = ""
        tuner.nargs = None


def _programs(function: Any, args: tuple, kwargs: Mapping[str, Any], grid: Any) -> tuple[int, ...]:
    if callable(grid):
        bound = function.signature.bind(*args, **{key: value for key, value in kwargs.items() if key in function.signature.parameters})
        bound.apply_defaults()
        grid = grid(dict(bound.arguments))
    return tuple(int(extent) for extent in grid)


def _compilation_error(error: BaseException) -> dict[str, Any] | None:
    """Message and place of the innermost error of Triton's front end, in the candidate's own lines."""
    from triton.compiler.errors import CompilationError

    innermost, seen = None, error
    while isinstance(seen, BaseException):
        if isinstance(seen, CompilationError):
            innermost = seen
        seen = seen.__cause__
    if innermost is None:
        return None
    cause = innermost.error_message or (str(innermost.__cause__) if innermost.__cause__ else "") or type(innermost).__name__
    text, node = innermost.src or "", innermost.node
    place = {"line": 0, "column": 0}
    name = re.search(r"def\s+(\w+)", text)
    if name and hasattr(node, "lineno"):
        source = Path(SOURCE_NAME).read_text()
        for found in ast.walk(ast.parse(source)):
            if isinstance(found, ast.FunctionDef) and found.name == name[1]:
                place = {"line": found.lineno + node.lineno - 1, "column": found.col_offset + node.col_offset + 1}
                break
    return {"message": diagnostics.clean(str(cause)), **place}


def compile_all(launches: list[Launch], processes: int, deadline: float) -> list[dict[str, Any]]:
    """Compile every launch, in `processes` forked processes; answers one object a launch, in order."""
    folder = Path("compiled")
    folder.mkdir()
    workers = []
    for number in range(min(processes, len(launches))):
        pid = os.fork()
        if pid == 0:
            try:
                for index in range(number, len(launches), processes):
                    _compile_one(launches[index], folder, index, deadline)
            finally:
                os._exit(0)
        workers.append(pid)
    for pid in workers:
        os.waitpid(pid, 0)
    return [_read(folder, index) for index in range(len(launches))]


def _read(folder: Path, index: int) -> dict[str, Any]:
    try:
        return json.loads((folder / f"{index}.json").read_text())
    except (OSError, ValueError):
        return {"error": note("error", "Triton's compiler ended abnormally on this kernel"), "log": _tail(folder / f"{index}.log")}


def _tail(path: Path) -> str:
    return path.read_text(errors="replace")[:20_000] if path.exists() else ""


def _compile_one(launch: Launch, folder: Path, index: int, deadline: float) -> None:
    import triton

    if time.monotonic() > deadline:
        told: dict[str, Any] = {"skipped": True}
    else:
        log = os.open(folder / f"{index}.log", os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
        os.dup2(log, 2)
        started = time.perf_counter()
        try:
            compiled = triton.compile(launch.source, target=launch.target, options=launch.options)
            told = {"kernel": _describe(compiled, launch, folder, index)}
            _prepare_launcher(compiled)
        except Exception as error:
            place = _compilation_error(error) or {"message": diagnostics.clean(f"{type(error).__name__}: {str(error).strip()}")}
            told = {"error": note("error", **place), "log": _tail(folder / f"{index}.log")}
        told["seconds"] = time.perf_counter() - started
    written = folder / f"{index}.part"
    written.write_text(json.dumps(told))
    written.rename(folder / f"{index}.json")


def _prepare_launcher(compiled: Any) -> None:
    """Have Triton compile the C that launches the kernel into its cache, too, or each process of the candidate would do so. Needs the
    driver's library, so it is left to them where no GPU is."""
    with contextlib.suppress(Exception):
        from triton.backends.nvidia import driver

        driver.CudaUtils()
        driver.CudaLauncher(compiled.src, compiled.metadata)


def _describe(compiled: Any, launch: Launch, folder: Path, index: int) -> dict[str, Any]:
    """Static metrics of a compiled kernel; the machine code's are absent without a disassembler."""
    machine = compiled.asm["cubin"]
    path = folder / f"{index}.cubin"
    path.write_bytes(machine)
    own = cubin.resources(machine, f"sm_{compiled.metadata.target.arch}")[compiled.metadata.name]
    mix = cubin.mixes(path, folder).get(compiled.metadata.name)
    return {
        "registers": own.registers,
        "stack": own.stack,
        "shared": compiled.metadata.shared,
        "threads": own.threads or compiled.metadata.num_warps * occupancy.WARP,
        "code": own.code,
        "mix": None if mix is None else vars(mix),
    }


def _rename_groups(kernels: Path, kept_at: str) -> None:
    """Let Triton's cache name its files where they will lie: it keeps absolute paths."""
    here = str(kernels.absolute())
    for group in kernels.glob("*/__grp__*.json"):
        group.write_text(group.read_text().replace(json.dumps(here)[1:-1], json.dumps(kept_at)[1:-1]))


def main() -> None:
    """Answer the request in the working folder."""
    request = json.loads(Path("request.json").read_text())
    os.environ.update({"TRITON_CACHE_DIR": str(Path(KERNELS).absolute()), "TRITON_HOME": os.getcwd(), "HOME": os.getcwd()})
    deadline = time.monotonic() + request["seconds"]
    result: dict[str, Any] = {"notes": [], "launches": [], "configs": {}}
    try:
        absent_gpu.stand_in(request["target"])
        recorder = Recorder()
        module = load(Path(SOURCE_NAME).absolute(), _compilation_error)
        result["notes"] = call_each(module, request["workloads"], recorder.recording, _compilation_error, deadline)
        result["configs"] = recorder.configs
        told = compile_all(recorder.launches, request["processes"], deadline)
        for launch, outcome in zip(recorder.launches, told, strict=True):
            result["launches"].append(
                {"name": launch.kernel, "config": launch.config, "workload": launch.workload, "programs": launch.programs, **outcome}
            )
        _rename_groups(Path(KERNELS), request["kept_at"])
    except Stopped as stopped:
        result["notes"].append(stopped.note)
    answer(result)
