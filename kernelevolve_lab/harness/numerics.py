"""Error against a float64 golden, in PyTorch; used by the reference worker alone.

The error of an output is max |got - golden| / rms(golden), over the elements where the golden is finite; where it is not, `got` must be
the same infinity or a NaN too. Scaling by the root mean square keeps small outputs from passing by being small, and large ones from
failing by being large. Integer and boolean outputs count the elements that differ.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

CHUNK = 1 << 17  # elements; the float64 temporaries of a chunk stay in the L2 cache


@dataclass(frozen=True)
class Golden:
    """One expected output. `values` is float64, or the reference's own output where the dtype is not floating; `dtype` what a candidate
    must return; `reference` the reference's own error, `gate` what a candidate's must not pass."""

    values: torch.Tensor
    dtype: torch.dtype
    rms: float
    finite: bool
    reference: float
    gate: float

    @property
    def exact(self) -> bool:
        return not self.dtype.is_floating_point


@dataclass(frozen=True)
class Found:
    """The error of one output, the flat index of its worst element, and how many elements have the poison's bits."""

    error: float
    worst: int
    unwritten: int


def rms_of(values: torch.Tensor) -> tuple[float, bool]:
    """Root mean square of the finite elements (1 if they are all zero), and whether all are finite."""
    finite = bool(torch.isfinite(values).all())
    kept = values if finite else values[torch.isfinite(values)]
    square = math.sqrt(float((kept.double() ** 2).mean())) if kept.numel() else 0.0
    return (square if square > 0 and math.isfinite(square) else 1.0), finite


def golden(reference: Sequence[torch.Tensor], double: Sequence[torch.Tensor], factor: float, floors: dict[str, float]) -> list[Golden]:
    """What outputs must be, from the reference's outputs in their own dtype and with float64 inputs.

    Raises `ValueError` for a dtype without a floor.
    """
    expected = []
    for own, wide in zip(reference, double, strict=True):
        if not own.dtype.is_floating_point:
            expected.append(Golden(own.contiguous(), own.dtype, 1.0, True, 0.0, 0.0))
            continue
        name = str(own.dtype).removeprefix("torch.")
        if name not in floors:
            raise ValueError(f"the operator's tolerance has no floor for {name}")
        values = wide.double().contiguous()
        rms, finite = rms_of(values)
        bare = Golden(values, own.dtype, rms, finite, 0.0, 0.0)
        error = compare(own.contiguous(), bare).error
        gate = max(floors[name], factor * error) if math.isfinite(error) else floors[name]
        expected.append(Golden(values, own.dtype, rms, finite, error, gate))
    return expected


def compare(got: torch.Tensor, want: Golden, poison: int | None = None) -> Found:
    """The error of an output of the golden's shape; `poison` are the bits, a signed integer, that it was filled with."""
    flat, values = got.reshape(-1), want.values.reshape(-1)
    unwritten = int((flat.view(_BITS[flat.element_size()]) == poison).sum()) if poison is not None else 0
    worst, error = 0, 0.0
    for start in range(0, flat.numel(), CHUNK):
        part, wanted = flat[start : start + CHUNK], values[start : start + CHUNK]
        if want.exact:
            # Compared as bits: a bool that is neither 0 nor 1 is not a bool.
            bits = _BITS[part.element_size()]
            wrong = part.view(bits) != wanted.view(bits)
            count = int(wrong.sum())
            if count and error == 0:
                worst = start + int(wrong.int().argmax())
            error += count
            continue
        difference = (part.double() - wanted).abs_()
        if not want.finite:
            same = (wanted == part.double()) | (wanted.isnan() & part.isnan())
            difference[same] = 0.0
        largest = float(difference.max())
        if math.isnan(largest) or math.isinf(largest):
            bad = ~torch.isfinite(difference)
            return Found(math.inf, start + int(bad.int().argmax()), unwritten)
        if largest / want.rms > error:
            error, worst = largest / want.rms, start + int(difference.argmax())
    return Found(error, worst, unwritten)


def trivial_errors(wanted: Sequence[Golden], inputs: Sequence[torch.Tensor]) -> dict[str, float]:
    """By trivial answer (`zeros`, `mean`, `copy of input i`), its error over its gate, the worst of the outputs; above 1 fails, as it must.
    A copy takes the place of each output whose shape the input has."""
    found: dict[str, float] = {}

    def score(answer: torch.Tensor, want: Golden) -> float:
        error = compare(answer, want).error
        return math.inf if want.gate == 0 and error > 0 else (error / want.gate if want.gate else 0.0)

    for want in wanted:
        zeros = torch.zeros(want.values.shape, dtype=want.dtype)
        mean = torch.full(want.values.shape, float(want.values.double().mean()), dtype=torch.float64).to(want.dtype)
        for name, answer in (("zeros", zeros), ("the mean", mean)):
            found[name] = max(found.get(name, 0.0), score(answer, want))
    for index, tensor in enumerate(inputs):
        scores = [score(tensor.to(want.dtype).contiguous(), want) if tensor.shape == want.values.shape else math.inf for want in wanted]
        if any(math.isfinite(s) for s in scores) or any(tensor.shape == want.values.shape for want in wanted):
            found[f"a copy of input {index}"] = max(scores)
    return found


_BITS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
