"""Runs rendered Triton modules by Triton's interpreter, as a program in a process of its own: `python triton_runner.py JOBS`, with
TRITON_INTERPRET=1 in its environment.

JOBS is a JSON file: a list of objects with `name`, `source` (a path), `operator`, `dtypes` and `sizes` (a list). For each job a line of
JSON goes to standard output: `name` and `wrong`, a list of sentences, none if the module agrees with the operator's reference under the
operator's own tolerance on all these sizes.
"""

from __future__ import annotations

import importlib.util
import json
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from kernel_runner import as_tuple, fault

from kernelevolve_lab import registry
from kernelevolve_lab.languages import triton_interpreter
from kernelevolve_lab.operators.base import Operator
from kernelevolve_lab.records import Case

SEED = 7
TARGET = {"title": "none", "arch": "sm_90a", "units": 4, "memory_bytes": 1 << 30, "l2_bytes": 1 << 20}


def load(path: Path) -> Callable[..., Any]:
    """The function `kernel` of the module in that file; Triton needs the file itself."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.kernel


def check(operator: Operator, kernel: Callable[..., Any], case: Case) -> list[str]:
    """What is wrong with the kernel's results on one case, a sentence each."""
    inputs = operator.make_inputs(case, torch.Generator().manual_seed(SEED))
    before = [x.clone() for x in inputs]
    reference = as_tuple(operator.reference(*inputs))
    golden = as_tuple(operator.reference(*(x.double() if x.is_floating_point() else x for x in inputs)))
    where = f"{dict(case.sizes)}, {case.dtype}, {case.distribution}"
    got = as_tuple(kernel(*inputs))
    if len(got) != len(reference):
        return [f"{where}: {len(got)} outputs instead of {len(reference)}"]
    wrong = []
    if any(not torch.equal(x, y) for x, y in zip(inputs, before, strict=True)):
        wrong.append(f"{where}: an input was changed")
    for index, (mine, want, own) in enumerate(zip(got, golden, reference, strict=True)):
        if (mine.shape, mine.dtype, mine.is_contiguous()) != (own.shape, own.dtype, True):
            wrong.append(f"{where}: output {index} is {mine.dtype} {list(mine.shape)} instead of {own.dtype} {list(own.shape)}")
        elif text := fault(operator.tolerance, mine, want, own):
            wrong.append(f"{where}: output {index} {text}")
    return wrong


def allow_any_offset() -> None:
    """Let descriptors load blocks from any offset, as the hardware does; the interpreter insists on multiples of 16 bytes."""
    from triton.runtime import interpreter

    def pointers(block: Any, offsets: list[Any]) -> tuple[Any, Any]:
        size = block.base.dtype.element_ty.primitive_bitwidth // 8
        address, inside = np.broadcast_to(block.base.data, block.block_shape), np.ones(block.block_shape, bool)
        for axis, extent in enumerate(block.block_shape):
            shape = [extent if other == axis else 1 for other in range(len(block.block_shape))]
            at = (offsets[axis].data + np.arange(extent)).reshape(shape)
            address = address + (size * at * block.strides[axis].data).astype(np.uint64)
            inside = inside & (at >= 0) & (at < block.shape[axis].data)
        return interpreter.TensorHandle(address, block.base.dtype.scalar), interpreter.TensorHandle(inside, interpreter.tl.int1)

    interpreter.TensorDescHandle.materialize_pointers = pointers


def main() -> None:
    triton_interpreter.install(TARGET)
    allow_any_offset()
    for job in json.loads(Path(sys.argv[1]).read_text()):
        wrong = []
        try:
            operator, kernel = registry.load("operators", job["operator"]), load(Path(job["source"]))
            for dtype in job["dtypes"]:
                for i, sizes in enumerate(job["sizes"]):
                    distribution = operator.distributions[i % len(operator.distributions)]
                    wrong += check(operator, kernel, Case(name="small", sizes=sizes, dtype=dtype, distribution=distribution))
        except Exception:
            wrong.append(traceback.format_exc())
        print(json.dumps({"name": job["name"], "wrong": wrong}), flush=True)


if __name__ == "__main__":
    main()
