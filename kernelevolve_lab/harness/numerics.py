"""Error against a float64 golden, in PyTorch; used by the reference worker alone.

The error of an element is |got - golden| / (s + |golden|), where s is the root mean square of the golden over the element's slice: its row
(the last dimension, or as many trailing dimensions as hold at least `SMALLEST_SLICE` elements). That is the mixed absolute and relative
form of `numpy.allclose` with the absolute part scaled by the data. Why this form:

- relative to the element alone, an honest sum that happens to cancel would fail: the error of a sum is bounded by n u sum |terms|, not
  by the sum itself (Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed., section 4.2);
- relative to the whole output's root mean square, rows that are small beside the others could be zeros and pass;
- the terms that make a row have the row's size: inner products err by at most n u |a_i|.|b_j| (Higham, section 3.1), and a norm, a softmax
  or an activation keeps rows apart. Where terms of a row cancel as a whole, the reference's own error in that row shows it.

So the gate is kept by slice as well: max(floor of the dtype, k x the reference's own largest error in that slice). A slice whose golden is
zero (to 1e-12 of the whole) is held to k unit roundoffs of the whole output's root mean square. Where the golden is not finite `got` must
be the same infinity, or a NaN too. Integer and boolean outputs count the elements that differ.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

CHUNK = 1 << 17  # elements; the float64 temporaries of a chunk stay in the L2 cache
DEVICE_CHUNK = 1 << 26  # on a GPU, where each chunk costs a wait for the device
SMALLEST_SLICE = 32
SAMPLED = 4096
"""Elements of each output of each input set that `Sample` keeps."""
_ZERO = 1e-12


@dataclass(frozen=True)
class Golden:
    """One expected output. `values` is float64, or the reference's own output where the dtype is not floating; `dtype` what a candidate
    must return. By slice of `width` elements: `scale` is s, `reference` the reference's own error, `gate` what a candidate's must not
    pass."""

    values: torch.Tensor
    dtype: torch.dtype
    finite: bool
    width: int
    scale: torch.Tensor
    reference: torch.Tensor
    gate: torch.Tensor
    near: torch.Tensor | None = None  # the values in single precision, to look at most elements fast
    near_enough: torch.Tensor | None = None  # by slice: how far from `near` an element may surely be

    @property
    def exact(self) -> bool:
        return not self.dtype.is_floating_point

    @property
    def widest_gate(self) -> float:
        """The largest gate of a slice."""
        return float(self.gate.max()) if self.gate.numel() else 0.0


@dataclass(frozen=True)
class Found:
    """The error of the element that is worst when measured by its slice's gate; that gate and the reference's error there; the element's
    flat index; and how many elements have the poison's bits."""

    error: float
    worst: int
    unwritten: int
    gate: float
    reference: float

    @property
    def ok(self) -> bool:
        return self.error <= self.gate


@dataclass(frozen=True)
class Sample:
    """Some elements of one output as the reference computed it in its own precision: enough to see in a moment, after every timed call,
    that the work was done."""

    positions: torch.Tensor
    values: torch.Tensor
    weight: torch.Tensor
    exact: bool

    @classmethod
    def of(cls, own: torch.Tensor) -> Sample:
        """`SAMPLED` elements of `own`, at places drawn from the global generator."""
        flat = own.reshape(-1)
        positions = torch.randint(0, max(1, flat.numel()), (min(SAMPLED, flat.numel()),), device=own.device)
        values = flat[positions]
        if not own.dtype.is_floating_point:
            return cls(positions, values, torch.empty(0), True)
        if flat.numel() == 0:
            return cls(positions, values.double(), torch.empty(0, dtype=torch.float64), False)
        width = slice_width(own.shape)
        parts = flat.view(-1, width).split(max(1, _chunk(flat) // width))
        squares = torch.cat([part.double().square().nan_to_num(0.0, 0.0, 0.0).mean(1) for part in parts])
        whole = math.sqrt(float(squares.mean())) or 1.0
        scale = squares.sqrt()
        scale[scale <= _ZERO * whole] = whole
        return cls(positions, values.double(), scale[positions // width] + values.double().abs(), False)

    def on_host(self) -> Sample:
        """The same in host memory."""
        return Sample(self.positions.cpu(), self.values.cpu(), self.weight.cpu(), self.exact)

    def compare(self, got: torch.Tensor, gate: float) -> Found:
        """The error of the sampled elements; `worst` is an index into the output. Twice the gate is allowed: the reference errs, too."""
        taken = got.reshape(-1)[self.positions]
        if self.exact:
            bits = _BITS[taken.element_size()]
            wrong = taken.view(bits) != self.values.view(bits)
            count = int(wrong.sum())
            return Found(count, int(self.positions[int(wrong.int().argmax())]) if count else 0, 0, 0.0, 0.0)
        error = (taken.double() - self.values).abs_().div_(self.weight)
        error[(taken.double() == self.values) | (taken.isnan() & self.values.isnan())] = 0.0
        error.nan_to_num_(math.inf, math.inf)
        worst = int(error.argmax()) if error.numel() else 0
        largest = float(error[worst]) if error.numel() else 0.0
        return Found(largest, int(self.positions[worst]) if error.numel() else 0, 0, 2 * gate, 0.0)


def _chunk(tensor: torch.Tensor) -> int:
    return CHUNK if tensor.device.type == "cpu" else DEVICE_CHUNK


def slice_width(shape: Sequence[int]) -> int:
    """How many consecutive elements of an output are measured by one scale: its last dimension, or as many more as it takes to have
    `SMALLEST_SLICE` of them; all of them where that is never reached."""
    width = 1
    for size in reversed(shape):
        width *= size
        if width >= SMALLEST_SLICE:
            break
    return width


def golden(reference: Sequence[torch.Tensor], double: Sequence[torch.Tensor], factor: float, floors: dict[str, float]) -> list[Golden]:
    """What outputs must be, from the reference's outputs in their own dtype and with float64 inputs.

    Raises `ValueError` for a dtype without a floor.
    """
    expected = []
    for own, wide in zip(reference, double, strict=True):
        nothing = torch.zeros(0, dtype=torch.float64)
        if not own.dtype.is_floating_point:
            expected.append(Golden(own.contiguous(), own.dtype, True, max(1, own.numel()), nothing, nothing, nothing))
            continue
        name = str(own.dtype).removeprefix("torch.")
        if name not in floors:
            raise ValueError(f"the operator's tolerance has no floor for {name}")
        values = wide.double().contiguous()
        width = slice_width(values.shape)
        if values.numel() == 0:
            expected.append(Golden(values, own.dtype, True, 1, nothing, nothing, nothing))
            continue
        rows = values.view(-1, width)
        finite = bool(torch.isfinite(values).all())
        kept = rows if finite else rows.nan_to_num(0.0, 0.0, 0.0)
        squares = kept.square().mean(1) if finite else kept.square().sum(1) / torch.isfinite(rows).sum(1).clamp_(min=1)
        whole = math.sqrt(float(squares.mean())) or 1.0
        scale = squares.sqrt()
        none = scale <= _ZERO * whole
        scale[none] = whole
        bare = Golden(values, own.dtype, finite, width, scale, nothing, nothing)
        errors = torch.cat([part.amax(1) for _, part in _errors(own.contiguous(), bare)]).nan_to_num_(0.0, 0.0, 0.0)
        floor = torch.full_like(scale, floors[name])
        floor[none] = min(floors[name], factor * torch.finfo(own.dtype).eps)
        gate = torch.maximum(floor, factor * errors)
        near = near_enough = None
        if finite and own.dtype != torch.float64:
            near = values.float()
            near_enough = gate * scale - torch.finfo(torch.float32).eps * rows.abs().amax(1)
        expected.append(Golden(values, own.dtype, finite, width, scale, errors, gate, near, near_enough))
    return expected


def _errors(got: torch.Tensor, want: Golden):
    """The errors of all elements, some slices at a time: the first slice's number, and a matrix of slices."""
    rows, values = got.view(-1, want.width), want.values.view(-1, want.width)
    step = max(1, _chunk(rows) // want.width)
    for start in range(0, rows.shape[0], step):
        part, wanted = rows[start : start + step].double(), values[start : start + step]
        weight = wanted.abs().add_(want.scale[start : start + step].unsqueeze(1))
        difference = (part - wanted).abs_()
        if not want.finite:
            difference[(wanted == part) | (wanted.isnan() & part.isnan())] = 0.0
            weight[~torch.isfinite(weight)] = 1.0
        yield start, difference.div_(weight)


def compare(got: torch.Tensor, want: Golden, poison: int | None = None) -> Found:
    """The error of an output of the golden's shape; `poison` are the bits, a signed integer, that it was filled with."""
    flat = got.reshape(-1)
    unwritten = int((flat.view(_BITS[flat.element_size()]) == poison).sum()) if poison is not None else 0
    if flat.numel() == 0:
        return Found(0.0, 0, unwritten, 0.0, 0.0)
    if want.exact:
        return _compare_exactly(flat, want.values.reshape(-1), unwritten)
    if want.near is not None and (quick := _compare_fast(flat, want, unwritten)) is not None:
        return quick
    found, highest = Found(0.0, 0, unwritten, want.widest_gate, 0.0), -1.0
    for start, errors in _errors(flat, want):
        largest, where = errors.max(1)
        if not math.isfinite(float(largest.sum())):
            index = int((~torch.isfinite(errors)).reshape(-1).int().argmax())
            row = start + index // want.width
            return Found(math.inf, start * want.width + index, unwritten, float(want.gate[row]), float(want.reference[row]))
        excess = largest / want.gate[start : start + len(largest)]
        top = int(excess.argmax())
        if float(excess[top]) > highest:
            row, highest = start + top, float(excess[top])
            place = row * want.width + int(where[top])
            found = Found(float(largest[top]), place, unwritten, float(want.gate[row]), float(want.reference[row]))
    return found


def _compare_fast(flat: torch.Tensor, want: Golden, unwritten: int) -> Found | None:
    """What `compare` finds, where each slice is so near to the golden that single precision and the slice's scale alone show it to be
    right; the error is then that of the slice which is furthest. None where a closer look is needed."""
    assert want.near is not None and want.near_enough is not None
    rows, near = flat.view(-1, want.width), want.near.view(-1, want.width)
    step = max(1, 2 * CHUNK // want.width)
    furthest = [
        torch.linalg.vector_norm(rows[start : start + step].float() - near[start : start + step], math.inf, dim=1)
        for start in range(0, rows.shape[0], step)
    ]
    far = torch.cat(furthest).double()
    if not bool((far <= want.near_enough).all()):
        return None
    row = int((far / want.near_enough).argmax())
    values = want.values.view(-1, want.width)[row]
    errors = (rows[row].double() - values).abs_().div_(values.abs().add_(want.scale[row]))
    where = int(errors.argmax())
    return Found(float(errors[where]), row * want.width + where, unwritten, float(want.gate[row]), float(want.reference[row]))


def same_bits(first: torch.Tensor, second: torch.Tensor) -> bool:
    """Whether two contiguous tensors of bytes, at addresses that are multiples of eight, are equal."""
    words = first.numel() // 8 * 8
    return torch.equal(first[:words].view(torch.int64), second[:words].view(torch.int64)) and torch.equal(first[words:], second[words:])


def _compare_exactly(got: torch.Tensor, values: torch.Tensor, unwritten: int) -> Found:
    # Compared as bits: a bool that is neither 0 nor 1 is not a bool.
    bits = _BITS[got.element_size()]
    worst = count = 0
    step = _chunk(got)
    for start in range(0, got.numel(), step):
        wrong = got[start : start + step].view(bits) != values[start : start + step].view(bits)
        here = int(wrong.sum())
        if here and not count:
            worst = start + int(wrong.int().argmax())
        count += here
    return Found(float(count), worst, unwritten, 0.0, 0.0)


def set_vector_library_up() -> None:
    """Make the first calls of MKL's vector functions, which set it up and must not be made by two threads at once."""
    for function in (torch.sqrt, torch.exp, torch.log, torch.sin, torch.cos, torch.tanh, torch.erf):
        function(torch.ones(64))


def trivial_errors(
    wanted: Sequence[Golden], inputs: Sequence[torch.Tensor], others: Sequence[torch.Tensor] | None = None
) -> dict[str, float]:
    """By trivial answer (`zeros`, `the mean`, `a copy of input i`, `what other inputs give`), its error over its gate, the worst of the
    outputs; above 1 fails, as it must. A copy takes the place of each output whose shape the input has; `others` are the reference's
    outputs for another draw of inputs."""
    found: dict[str, float] = {}

    def score(answer: torch.Tensor, want: Golden) -> float:
        result = compare(answer.to(want.dtype).contiguous(), want)
        if result.gate == 0:
            return math.inf if result.error > 0 else 0.0
        return result.error / result.gate

    for want in wanted:
        zeros = torch.zeros(want.values.shape, dtype=want.dtype, device=want.values.device)
        mean = torch.full(want.values.shape, float(want.values.double().mean()), dtype=torch.float64, device=want.values.device)
        for name, answer in (("zeros", zeros), ("the mean", mean)):
            found[name] = max(found.get(name, 0.0), score(answer, want))
    for index, tensor in enumerate(inputs):
        if any(tensor.shape == want.values.shape for want in wanted):
            scores = [score(tensor, want) if tensor.shape == want.values.shape else math.inf for want in wanted]
            found[f"a copy of input {index}"] = max(scores)
    if others is not None:
        scores = [score(o, want) if o.shape == want.values.shape else math.inf for o, want in zip(others, wanted, strict=True)]
        found["what other inputs give"] = max(scores, default=0.0)
    return found


_BITS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
