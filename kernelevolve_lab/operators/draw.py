"""Fast fresh inputs: random floating-point tensors in a named distribution.

The judge draws new inputs for every timed call, so drawing must not cost more than the call. Values come from a freshly drawn pool of
2^18 numbers, of which the tensor takes windows of 1024 at random places: about 1 ms for 16 MB, where independent draws take 17 ms. Every
draw has another pool and other windows, so nothing can be learned from one call for the next.

Like all files of this folder this imports torch in functions alone, so that operators can be listed and described without it.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

POOL = 1 << 18
WINDOW = 1024

DISTRIBUTIONS = {
    "normal": "N(0, 1)",
    "shifted": "U[1, 3): all positive, a mean far from 0",
    "heavy_tailed": "N(0, 1), about one value in 512 times 8",
    "large": "N(0, 1) times 1000",
    "small": "N(0, 1) times 0.001: as small as what is added to keep a norm from dividing by zero",
    "ties": "2 N(0, 1) rounded to integers: equal neighbours, exact zeros",
}

ITEMSIZES = {"float64": 8, "float32": 4, "float16": 2, "bfloat16": 2, "int64": 8, "int32": 4, "bool": 1}


def _pool(count: int, distribution: str, generator: torch.Generator) -> torch.Tensor:
    import torch

    if distribution == "shifted":
        return torch.rand(count, generator=generator).mul_(2.0).add_(1.0)
    values = torch.randn(count, generator=generator)
    match distribution:
        case "normal":
            pass
        case "heavy_tailed":
            values[torch.randint(0, count, (count // 512,), generator=generator)] *= 8.0
        case "large":
            values *= 1000.0
        case "small":
            values *= 0.001
        case "ties":
            values.mul_(2.0).round_()
        case _:
            raise ValueError(f"no distribution '{distribution}' of floating-point inputs; there are {', '.join(DISTRIBUTIONS)}")
    return values


def floats(shape: tuple[int, ...], distribution: str, generator: torch.Generator, dtype: torch.dtype | None = None) -> torch.Tensor:
    """A contiguous tensor of that shape and dtype (default float32) in one of `DISTRIBUTIONS`."""
    import torch

    pool = _pool(min(math.prod(shape), POOL), distribution, generator).to(dtype or torch.float32)
    return spread_out(pool, shape, generator)


def spread_out(pool: torch.Tensor, shape: tuple[int, ...], generator: torch.Generator) -> torch.Tensor:
    """A contiguous tensor of that shape: the pool itself where it has as many values, else windows of it at random places."""
    import torch

    count = math.prod(shape)
    if count == pool.numel():
        return pool.view(shape)
    starts = torch.randint(0, pool.numel() - WINDOW + 1, (-(-count // WINDOW),), generator=generator)
    return pool.unfold(0, WINDOW, 1).index_select(0, starts).view(-1)[:count].view(shape)


def gain(length: int, generator: torch.Generator, dtype: torch.dtype) -> torch.Tensor:
    """Random affine weights [length], N(1, 0.5): leaving them out always shows."""
    import torch

    return torch.randn(length, generator=generator).mul_(0.5).add_(1.0).to(dtype)


def dtype_of(name: str) -> torch.dtype:
    """The torch dtype of that name, e.g. `float32`."""
    import torch

    return getattr(torch, name)


def itemsize(name: str) -> int:
    """Bytes per element of the dtype of that name."""
    return ITEMSIZES[name]
