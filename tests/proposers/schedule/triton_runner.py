"""Runs rendered Triton modules without a GPU, as a program in a process of its own: `python triton_runner.py interpret|compile JOBS`.

JOBS is a JSON file: a list of objects with `name`, `source` (a path), `operator` and, to compile, `targets`. For each job a line of JSON
goes to standard output: `name` and `wrong`, a list of sentences (nothing: all is well), and for compiled ones `kernels`, a list of objects.

`interpret` calls the module on small inputs by Triton's interpreter (the environment must say TRITON_INTERPRET=1) and compares with the
operator's reference under the operator's own tolerance. `compile` calls it on empty tensors of the shapes of the operator's GPU cases with
launching taken out, so that exactly the kernels are compiled that a device would compile for these cases.
"""

from __future__ import annotations

import importlib.util
import json
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

import torch
from kernel_runner import SIZES, as_tuple, fault

from kernelevolve_lab import registry
from kernelevolve_lab.operators.base import Operator
from kernelevolve_lab.records import Case

SEED = 7
# Small sizes beyond those of the C++ kernels: whole tiles, and rows whose starts are aligned (what tensor descriptors need).
MORE: dict[str, list[dict[str, int]]] = {
    "matmul": [{"m": 96, "n": 160, "k": 200}],
    "conv1d": [{"batch": 3, "c_in": 40, "c_out": 24, "length": 72}, {"batch": 2, "c_in": 96, "c_out": 96, "length": 200}],
    "optimized_fm": [{"b": 2, "n": 70, "d": 40, "k": 72}, {"b": 2, "n": 150, "d": 40, "k": 72}],
    "pffn": [{"b": 2, "n": 70, "d": 96, "k": 160}, {"b": 1, "n": 20, "d": 600, "k": 530}],
    "map_id_transform": [{"ids": 3000, "values": 40_000}],
    "merge_bucketized_dense": [{"features": 2, "batch": 300, "borders": 100}],
    "batch_event_truncate": [{"features": 3, "users": 300, "events": 6, "limit": 5, "attributes": 2}],
}


def load(path: Path) -> ModuleType:
    """The module in that file; Triton needs the file itself."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def dtypes(operator: Operator) -> list[str]:
    """The dtypes of the operator's cases, visible and held out."""
    return sorted({case.dtype for cases in operator.cases.values() for case in cases})


def interpret(job: dict[str, Any]) -> list[str]:
    """What is wrong with the module's results on small inputs, a sentence each."""
    operator = registry.load("operators", job["operator"])
    kernel = load(Path(job["source"])).kernel
    wrong = []
    for dtype in job["dtypes"]:
        sizes_of_all = [*SIZES[operator.name], *MORE.get(operator.name, [])]
        for i, sizes in enumerate(sizes_of_all):
            distribution = operator.distributions[i % len(operator.distributions)]
            case = Case(name="small", sizes=sizes, dtype=dtype, distribution=distribution)
            inputs = operator.make_inputs(case, torch.Generator().manual_seed(SEED))
            before = [x.clone() for x in inputs]
            reference = as_tuple(operator.reference(*inputs))
            golden = as_tuple(operator.reference(*(x.double() if x.is_floating_point() else x for x in inputs)))
            where = f"{sizes}, {dtype}, {distribution}"
            got = as_tuple(kernel(*inputs))
            if len(got) != len(reference):
                wrong.append(f"{where}: {len(got)} outputs instead of {len(reference)}")
                continue
            if any(not torch.equal(x, y) for x, y in zip(inputs, before, strict=True)):
                wrong.append(f"{where}: an input was changed")
            for index, (mine, want, own) in enumerate(zip(got, golden, reference, strict=True)):
                if (mine.shape, mine.dtype, mine.is_contiguous()) != (own.shape, own.dtype, True):
                    wrong.append(f"{where}: output {index} is {mine.dtype} {list(mine.shape)} instead of {own.dtype} {list(own.shape)}")
                elif text := fault(operator.tolerance, mine, want, own):
                    wrong.append(f"{where}: output {index} {text}")
    return wrong


class _NoDevice:
    """Stands for the driver of a GPU that is not there: `target` is what to compile for."""

    target: Any = None

    def get_current_target(self) -> Any:
        return self.target

    def get_current_device(self) -> int:
        return self.target.arch

    def get_current_stream(self, device: int = 0) -> int:
        return 0


def shapes(operator: Operator, case: Case) -> tuple[torch.Tensor, ...]:
    """Inputs of the case with any content; those of jagged operators, whose shapes depend on values, are drawn."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    if operator.family == "jagged":
        case = case.model_copy(update={"sizes": SIZES[operator.name][-1]})
        return operator.make_inputs(case, torch.Generator().manual_seed(SEED))
    with FakeTensorMode():
        drawn = operator.make_inputs(case, torch.Generator().manual_seed(SEED))
    return tuple(torch.empty(x.shape, dtype=x.dtype) for x in drawn)


def compile_job(job: dict[str, Any], report: Callable[[Any, str], dict[str, Any]]) -> Iterator[dict[str, Any] | str]:
    """Every kernel that the module launches for the operator's GPU cases, or a sentence about what does not compile."""
    from triton.backends.compiler import GPUTarget
    from triton.runtime import driver, jit

    operator = registry.load("operators", job["operator"])
    device = _NoDevice()
    driver.set_active(device)
    compiled: dict[str, Any] = {}
    run = jit.JITFunction.run

    def without_launch(self, *args, grid, warmup, **kwargs):
        kernel = run(self, *args, grid=grid, warmup=True, **kwargs)
        compiled[kernel.hash] = kernel
        return kernel

    jit.JITFunction.run = without_launch
    try:
        module = load(Path(job["source"]))
        for arch in job["targets"]:
            device.target = GPUTarget("cuda", arch, 32)
            for case in operator.cases["gpu"]:
                compiled.clear()
                inputs = shapes(operator, case)
                try:
                    with mock.patch.object(torch, "empty", torch.zeros):  # sizes that kernels would have written are read as 0
                        module.kernel(*inputs)
                except Exception as error:
                    yield f"sm_{arch}, {case.name}: {type(error).__name__}: {str(error)[-1500:]}"
                for kernel in compiled.values():
                    yield report(kernel, case.name)
    finally:
        jit.JITFunction.run = run


def summary(kernel: Any, case: str) -> dict[str, Any]:
    """What the tests look at: matrix instructions, asynchronous copies and the shared memory of one compiled kernel."""
    ptx = kernel.asm["ptx"]
    words = (
        "wgmma.mma_async",
        "mma.sync",
        "tcgen05.mma",
        "cp.async.bulk.tensor",
        "cp.async.c",
        "ld.global",
        "st.global",
        "ld.local",
        "fma.rn.f32",
    )
    return {
        "case": case,
        "kernel": kernel.metadata.name,
        "arch": kernel.metadata.target.arch,
        "warps": kernel.metadata.num_warps,
        "shared": kernel.metadata.shared,
        "counts": {word: ptx.count(word) for word in words if word in ptx},
        "ptx": kernel.asm["ptx"],
    }


def main() -> None:
    verb, jobs = sys.argv[1], json.loads(Path(sys.argv[2]).read_text())
    for job in jobs:
        answer: dict[str, Any] = {"name": job["name"], "wrong": []}
        try:
            if verb == "interpret":
                answer["wrong"] = interpret(job)
            else:
                found = list(compile_job(job, summary))
                answer["wrong"] = [thing for thing in found if isinstance(thing, str)]
                answer["kernels"] = [thing for thing in found if not isinstance(thing, str)]
        except Exception:
            answer["wrong"].append(traceback.format_exc())
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
