"""Searches in sorted tables, from feature preprocessing: MapIdTransform and MergeBucketizedDense.

Definitions and shapes: arXiv 2512.23236, sections 5.4.1 and 5.4.2. The paper's equation (2) has x < border, its example and
`torch.bucketize` put x == border into the lower bin; the latter is followed here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kernelevolve_lab.operators import draw
from kernelevolve_lab.operators.base import Operator, Work
from kernelevolve_lab.records import Case

if TYPE_CHECKING:
    import torch

    from kernelevolve_lab.operators.base import Tensors


STRAY = 256
"""Of so many values one lies anywhere."""


def _map_case(ids: int, values: int, distribution: str = "half", held_out: bool = False) -> Case:
    return Case(
        name=f"{ids} ids, {values} values",
        sizes={"ids": ids, "values": values},
        dtype="int64",
        distribution=distribution,
        held_out=held_out,
    )


def map_id_transform(values: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
    """1 + the place of each value in the sorted table, 0 where the table lacks it."""
    import torch

    index = torch.bucketize(values, table).clamp(max=table.numel() - 1)
    return torch.where(table[index] == values, index + 1, 0)


def map_id_transform_inputs(case: Case, generator: torch.Generator) -> Tensors:
    """values [values], table [ids] sorted without repeats. `half`: about half found; `rare`: one in eight; `found`: nearly all;
    `dense`: ids follow each other without gaps; `skewed`: few ids take most values; `wide`: ids over half the int64 range.

    One value in 256 is an id with one of its 64 bits flipped: anywhere in the int64 range, and the same as an id to whoever looks at a part
    of it alone. The least and the greatest int64 are among the values, too."""
    import torch

    ids, count = int(case.sizes["ids"]), int(case.sizes["values"])
    gaps = torch.ones(ids, dtype=torch.int64)
    if case.distribution == "wide":
        gaps = torch.randint(2, max(3, 2**63 // ids), (ids,), generator=generator)
    elif case.distribution != "dense":
        gaps = torch.randint(2, 50, (ids,), generator=generator)
    table = gaps.cumsum(0) + torch.randint(1000, 100_000, (1,), generator=generator)
    if case.distribution == "wide":
        table -= 2**62
    place = torch.randint(0, ids, (count,), generator=generator)
    if case.distribution == "skewed":
        place = place * torch.randint(0, ids, (count,), generator=generator) // ids
    values = table[place]
    missing = {"half": 2, "rare": 8, "skewed": 4, "wide": 2, "dense": 4}.get(case.distribution)
    if missing is not None:
        lot = torch.randint(0, missing, (count,), generator=generator)
        absent = lot > 0 if case.distribution == "rare" else lot == 0
        # One below an id of the table is no id, as gaps are at least 2; without gaps only the far side of the table lacks values.
        values = torch.where(absent, values - 1 if case.distribution != "dense" else values + ids, values)
    strays = -(-count // STRAY)
    where = torch.randint(0, count, (strays + 2,), generator=generator)
    values[where[:-2]] = table[place[where[:-2]]] ^ (1 << torch.randint(0, 64, (strays,), generator=generator))
    values[where[-2:]] = torch.tensor([torch.iinfo(torch.int64).min, torch.iinfo(torch.int64).max])
    return values, table


def map_id_transform_work(case: Case) -> Work:
    """See `MAP_ID_TRANSFORM.work_formula`."""
    ids, count = int(case.sizes["ids"]), int(case.sizes["values"])
    return Work(flops=float(count * (ids.bit_length() + 1)), bytes=8.0 * (2 * count + ids))


MAP_ID_TRANSFORM = Operator(
    name="map_id_transform",
    title="MapIdTransform: ids to dense indices",
    family="search",
    semantics="""\
out[i] = p + 1 where table[p] == values[i], 0 where the table lacks values[i].
Inputs, both contiguous int64: values [values]; table [ids], strictly increasing, at least one entry.
Output: out [values], int64. Example: values [100, 300, 500, 200, 999], table [100, 200, 300, 400, 500] gives [1, 3, 5, 2, 0].
Values may lie below, above and between the ids, anywhere in the int64 range; ids may follow each other without gaps or be far apart, so
that table[a] + table[b] may overflow. Results must be exact.""",
    input_names=("values", "table"),
    reference=map_id_transform,
    make_inputs=map_id_transform_inputs,
    cases={
        "laptop": (
            _map_case(10_000, 200_000),
            _map_case(500, 500_000, "skewed"),
            _map_case(200_003, 100_003, "wide", held_out=True),
        ),
        "emulated": (
            _map_case(500, 2000),
            _map_case(100, 3000, "skewed"),
            _map_case(1003, 1003, "wide", held_out=True),
        ),
        "gpu": (
            _map_case(100, 10_000),
            _map_case(10_000, 10_000, "skewed"),
            _map_case(10_000, 50_000),
            _map_case(1_000_000, 4_000_000, "rare"),
            _map_case(200_003, 1_000_003, "wide", held_out=True),
        ),
    },
    work=map_id_transform_work,
    work_formula="Operations (counted as FLOPs): one comparison per step of a binary search and one for equality, "
    "values (bits(ids) + 1). Bytes: read values and table, write out, each once: 8 (2 values + ids).",
    distributions=("half", "rare", "found", "dense", "skewed", "wide"),
)


def _merge_case(
    features: int, batch: int, borders: int, distribution: str = "normal", held_out: bool = False, dtype: str = "float32"
) -> Case:
    return Case(
        name=f"{features} features, batch {batch}, {borders} borders{'' if dtype == 'float32' else ', ' + dtype}",
        sizes={"features": features, "batch": batch, "borders": borders},
        dtype=dtype,
        distribution=distribution,
        held_out=held_out,
    )


def merge_bucketized_dense(x: torch.Tensor, borders: torch.Tensor, offsets: torch.Tensor) -> torch.Tensor:
    """The bucket of each value among its feature's borders, plus the feature's offset."""
    import torch

    return torch.searchsorted(borders, x) + offsets.unsqueeze(1)


def merge_bucketized_dense_inputs(case: Case, generator: torch.Generator) -> Tensors:
    """x [features, batch], borders [features, borders] with ragged rows filled up with inf, offsets [features] from the counts with up to 4
    unused buckets between features. `on_border`: half of the values equal a border; `repeated`: that, and borders repeat, zeros of either
    sign among them; `clustered`: most values in one bucket."""
    import torch

    features, batch, width = (int(case.sizes[key]) for key in ("features", "batch", "borders"))
    dtype = draw.dtype_of(case.dtype)
    scale = 0.05 if case.distribution == "clustered" else 1.0
    base = "heavy_tailed" if case.distribution == "heavy_tailed" else "normal"
    x = draw.floats((features, batch), base, generator, dtype)
    borders = torch.randn(features, width, generator=generator)
    if case.distribution == "repeated":
        borders = borders.mul_(2.0).round_().div_(2.0)
    borders = borders.to(dtype).sort(dim=1).values
    counts = torch.randint(1, width + 1, (features,), generator=generator)
    counts[0] = width
    if scale != 1.0:
        x = x * scale
    if case.distribution in ("on_border", "repeated"):
        place = torch.randint(0, 2 * width, (features, batch), generator=generator)
        x = torch.where(place < width, borders.gather(1, place.clamp(max=width - 1)), x)
    borders = borders.masked_fill(torch.arange(width) >= counts.unsqueeze(1), float("inf"))
    sizes = counts + torch.randint(1, 6, (features,), generator=generator)
    first = torch.randint(1, 100, (1,), generator=generator)
    return x, borders, sizes.cumsum(0) - sizes + first


def merge_bucketized_dense_work(case: Case) -> Work:
    """See `MERGE_BUCKETIZED_DENSE.work_formula`."""
    features, batch, width = (int(case.sizes[key]) for key in ("features", "batch", "borders"))
    size = draw.itemsize(case.dtype)
    steps = width.bit_length() + 1
    return Work(flops=float(features * batch * steps), bytes=float(features * (batch * (size + 8) + width * size + 8)))


MERGE_BUCKETIZED_DENSE = Operator(
    name="merge_bucketized_dense",
    title="MergeBucketizedDense: values to global buckets",
    family="search",
    semantics="""\
out[f, i] = offsets[f] + the number of borders of feature f that are strictly less than x[f, i]; a value equal to a border falls into the
lower bucket, as in torch.bucketize with right=False.
Inputs, all contiguous and row-major: x [features, batch] floating point, finite; borders [features, borders] of the same dtype, each row
ascending (repeats allowed) and filled up with +inf where a feature has fewer; offsets [features], int64.
Output: out [features, batch], int64. Example: x [[.1, .4, .8], [.2, .5, .9]], borders [[.3, .6], [.4, .7]], offsets [0, 3] gives
[[0, 1, 2], [3, 4, 5]].
Rows have from 1 to `borders` finite entries. Values may lie exactly on borders; -0 and 0 are equal. Offsets need not follow from the
counts. Results must be exact.""",
    input_names=("x", "borders", "offsets"),
    reference=merge_bucketized_dense,
    make_inputs=merge_bucketized_dense_inputs,
    cases={
        "laptop": (
            _merge_case(32, 16_384, 4),
            _merge_case(64, 4096, 10, "on_border"),
            _merge_case(29, 8_191, 13, "repeated", held_out=True),
        ),
        "emulated": (
            _merge_case(4, 128, 4),
            _merge_case(8, 64, 10, "on_border"),
            _merge_case(3, 65, 13, "repeated", held_out=True),
        ),
        "gpu": (
            _merge_case(2, 64, 2),
            _merge_case(2, 2048, 4, "on_border"),
            _merge_case(64, 65_536, 10),
            _merge_case(64, 65_536, 10, "heavy_tailed", dtype="float16"),
            _merge_case(61, 65_521, 13, "repeated", held_out=True),
        ),
    },
    work=merge_bucketized_dense_work,
    work_formula="Operations (counted as FLOPs): one comparison per step of a binary search and the offset, "
    "features batch (bits(borders) + 1). Bytes: read x, borders and offsets, write out (int64), each once.",
    distributions=("normal", "heavy_tailed", "clustered", "on_border", "repeated"),
)
