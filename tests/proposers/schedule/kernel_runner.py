"""Runs built kernels against their operator's reference, in a process of its own: a kernel that reads or writes out of bounds ends that
process and not the tests."""

from __future__ import annotations

import ctypes
import mmap
from pathlib import Path

import torch

from kernelevolve_lab import registry
from kernelevolve_lab.languages import abi
from kernelevolve_lab.records import Case

PAGE = mmap.PAGESIZE
ROWS = [{"rows": r, "cols": c} for r, c in ((1, 1), (3, 5), (5, 33), (9, 64), (4, 257), (2, 1031))]
# Sizes of small cases by operator: one of everything, just below, at and above vector and tile sizes, and something longer.
SIZES: dict[str, list[dict[str, int]]] = {
    **{name: ROWS for name in ("softmax", "rms_norm", "layer_norm", "bias_gelu")},
    "matmul": [{"m": m, "n": n, "k": k} for m, n, k in ((1, 1, 1), (3, 5, 7), (17, 33, 9), (64, 64, 64), (70, 131, 259))],
    "conv1d": [
        {"batch": b, "c_in": i, "c_out": o, "length": n} for b, i, o, n in ((1, 1, 1, 1), (2, 3, 5, 7), (3, 16, 16, 32), (2, 33, 19, 70))
    ],
    "optimized_fm": [{"b": b, "n": n, "d": d, "k": k} for b, n, d, k in ((1, 1, 1, 1), (3, 5, 7, 2), (2, 17, 33, 19), (2, 24, 64, 130))],
    "pffn": [{"b": b, "n": n, "d": d, "k": k} for b, n, d, k in ((1, 1, 1, 1), (3, 5, 7, 2), (2, 17, 33, 19), (2, 40, 64, 48))],
    "map_id_transform": [{"ids": i, "values": n} for i, n in ((2, 1), (5, 33), (16, 100), (1000, 999), (70_000, 3001))],
    "merge_bucketized_dense": [
        {"features": f, "batch": b, "borders": n} for f, b, n in ((1, 1, 1), (2, 7, 2), (3, 33, 4), (5, 130, 10), (1, 1200, 300))
    ],
    "batch_event_truncate": [
        {"features": f, "users": u, "events": e, "limit": n, "attributes": a}
        for f, u, e, n, a in ((1, 1, 1, 1, 1), (2, 3, 4, 2, 2), (3, 17, 9, 5, 3), (2, 40, 50, 30, 7))
    ],
}


class Placed:
    """A tensor in memory of its own, directly before a page that may not be touched; `aligned` ones begin at a page's boundary instead."""

    def __init__(self, like: torch.Tensor, *, aligned: bool, fill: int | None = None) -> None:
        size = like.numel() * like.element_size()
        pages = -(-size // PAGE) + 1
        self._map = mmap.mmap(-1, (pages + 1) * PAGE)
        base = ctypes.addressof(ctypes.c_char.from_buffer(self._map))
        start = 0 if aligned else pages * PAGE - size
        self.address = base + start
        self.tensor = torch.frombuffer(self._map, dtype=torch.uint8, count=size, offset=start).view(like.dtype) if size else like.flatten()
        self.tensor = self.tensor.view(like.shape)
        if size and fill is None:
            self.tensor.copy_(like)
        elif size:
            self.tensor.view(-1).view(torch.uint8).fill_(fill)
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.mprotect(ctypes.c_void_p(base + pages * PAGE), ctypes.c_size_t(PAGE), 0):
            raise OSError(ctypes.get_errno(), "mprotect")

    def view(self) -> abi.Tensor:
        return abi.tensor(self.address, tuple(self.tensor.shape), str(self.tensor.dtype).removeprefix("torch."))


def check(operator_name: str, artifact: str) -> list[str]:
    """What is wrong with the built kernel, one sentence each; nothing if it agrees with the reference on all small cases."""
    operator = registry.load("operators", operator_name)
    kernel = abi.load(Path(artifact))
    wrong = []
    for sizes in SIZES[operator_name]:
        for distribution in operator.distributions:
            visible = operator.visible("laptop")[0]
            case = Case(name="small", sizes=sizes, dtype=visible.dtype, distribution=distribution)
            inputs = operator.make_inputs(case, torch.Generator().manual_seed(7))
            reference = as_tuple(operator.reference(*inputs))
            golden = as_tuple(operator.reference(*(x.double() if x.is_floating_point() else x for x in inputs)))
            for aligned, threads in ((True, 2), (False, 1), (False, 3)):
                placed = [Placed(x, aligned=aligned) for x in inputs]
                outputs = [Placed(x, aligned=aligned, fill=0xFF) for x in reference]
                kernel(abi.array([x.view() for x in placed]), abi.array([x.view() for x in outputs]), abi.Stream(None, threads, 0))
                where = f"{sizes}, {distribution}, {threads} threads, {'aligned' if aligned else 'unaligned'}"
                if any(not torch.equal(x.tensor, y) for x, y in zip(placed, inputs, strict=True)):
                    wrong.append(f"{where}: an input was changed")
                for index, (got, want, own) in enumerate(zip(outputs, golden, reference, strict=True)):
                    text = fault(operator.tolerance, got.tensor, want, own)
                    if text:
                        wrong.append(f"{where}: output {index} {text}")
    return wrong


def as_tuple(outputs: object) -> tuple[torch.Tensor, ...]:
    return tuple(outputs) if isinstance(outputs, tuple | list) else (outputs,)


def fault(tolerance: object, got: torch.Tensor, want: torch.Tensor, own: torch.Tensor) -> str:
    if want.numel() == 0:
        return ""
    if not want.is_floating_point():
        return "" if torch.equal(got, want) else f"differs in {int((got != want).sum())} of {want.numel()} elements"
    if got.dtype is torch.float32 and torch.equal(got.double(), want.double()):
        return ""
    scale = float(want.double().square().mean().sqrt()) or 1.0
    error = float((got.double() - want.double()).abs().max()) / scale
    gate = max(tolerance.floors[str(got.dtype).removeprefix("torch.")], tolerance.factor * float((own - want).abs().max()) / scale)
    return "" if error <= gate else f"has an error of {error:.2g}, above {gate:.2g}"  # NaN is above everything
