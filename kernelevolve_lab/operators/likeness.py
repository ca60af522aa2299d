"""Fresh tensors that are like an example: same shape, dtype and range, without keeping the example itself."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kernelevolve_lab.operators import draw

if TYPE_CHECKING:
    import torch

SAMPLE = 1 << 14

DISTRIBUTIONS = {
    "alike": "drawn again from the values of the example (integers: shuffled, so that their sum stays)",
    "spread": "uniform over the range of the example",
    "skewed": "within the range of the example, most values near its lower end",
}


@dataclass(frozen=True)
class Likeness:
    """What is kept of an example: up to `SAMPLE` of its values, its range, and whether it was ascending (a table, offsets)."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    sample: torch.Tensor
    low: float
    high: float
    ascending: bool

    @classmethod
    def of(cls, example: torch.Tensor) -> Likeness:
        """The likeness of a tensor; a random sample of its values where it has more than `SAMPLE`."""
        import torch

        flat = example.detach().cpu().reshape(-1)
        sample = flat
        if flat.numel() > SAMPLE:
            sample = flat[torch.randint(0, flat.numel(), (SAMPLE,), generator=torch.Generator().manual_seed(0))]
        if flat.numel() == 0 or flat.dtype == torch.bool or flat.is_complex():
            return cls(tuple(example.shape), flat.dtype, sample.clone(), 0, 1, False)
        low, high = flat.min().item(), flat.max().item()
        ascending = example.dim() == 1 and low < high and bool((flat[1:] >= flat[:-1]).all())
        return cls(tuple(example.shape), flat.dtype, sample.clone(), low, high, ascending)

    def draw(self, distribution: str, generator: torch.Generator) -> torch.Tensor:
        """A fresh contiguous tensor in one of `DISTRIBUTIONS`; what was ascending is so again, with the same ends."""
        count = math.prod(self.shape)
        if count == 0:
            return self.sample.new_empty(self.shape)
        pool = self._pool(min(count, draw.POOL), distribution, generator).to(self.dtype)
        values = draw.spread_out(pool, (count,), generator)
        if self.ascending:
            values = values.sort().values
            values[0], values[-1] = self.low, self.high
        return values.view(self.shape)

    def _pool(self, count: int, distribution: str, generator: torch.Generator) -> torch.Tensor:
        import torch

        if self.dtype == torch.bool:
            share = float(self.sample.float().mean())
            return torch.rand(count, generator=generator) < {"alike": share, "spread": 0.5, "skewed": share / 2}[distribution]
        if self.dtype.is_complex:
            return self.sample[torch.randint(0, self.sample.numel(), (count,), generator=generator)]
        return (
            self._floats(count, distribution, generator) if self.dtype.is_floating_point else self._integers(count, distribution, generator)
        )

    def _floats(self, count: int, distribution: str, generator: torch.Generator) -> torch.Tensor:
        import torch

        if self.low == self.high:
            return self.low + 0.1 * max(abs(self.low), 1.0) * torch.randn(count, generator=generator)
        if distribution == "alike":
            return self.sample[torch.randint(0, self.sample.numel(), (count,), generator=generator)]
        uniform = torch.rand(count, generator=generator, dtype=torch.float64)
        return self.low + (self.high - self.low) * (uniform**4 if distribution == "skewed" else uniform)

    def _integers(self, count: int, distribution: str, generator: torch.Generator) -> torch.Tensor:
        import torch

        if distribution == "alike":
            if self.sample.numel() == count:
                return self.sample[torch.randperm(count, generator=generator)]
            return self.sample[torch.randint(0, self.sample.numel(), (count,), generator=generator)]
        low, high = int(self.low), int(self.high)
        # randint's upper end is open: a range that reaches the end of int64 loses its largest value.
        top = max(min(high + 1, torch.iinfo(torch.int64).max), low + 1)
        if distribution == "spread":
            return torch.randint(low, top, (count,), generator=generator)
        few = torch.randint(low, low + max(1, math.isqrt(top - low)), (count,), generator=generator)
        return torch.where(torch.rand(count, generator=generator) < 0.9, few, torch.randint(low, top, (count,), generator=generator))
