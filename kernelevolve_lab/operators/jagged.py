"""Operators on jagged sequences: BatchEventTruncate.

Definition and shapes: arXiv 2512.23236, section 5.5.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kernelevolve_lab.operators import draw
from kernelevolve_lab.operators.base import Operator, Work
from kernelevolve_lab.records import Case

if TYPE_CHECKING:
    import torch

    from kernelevolve_lab.operators.base import Tensors


def _case(
    features: int,
    users: int,
    events: int,
    limit: int,
    attributes: int,
    dtype: str = "int64",
    distribution: str = "ragged",
    held_out: bool = False,
) -> Case:
    return Case(
        name=f"{features} features, {users} users, {events} events, first {limit}{', ' + dtype if dtype != 'int64' else ''}",
        sizes={"features": features, "users": users, "events": events, "limit": limit, "attributes": attributes},
        dtype=dtype,
        distribution=distribution,
        held_out=held_out,
    )


def batch_event_truncate(outer: torch.Tensor, inner: torch.Tensor, values: torch.Tensor, limit: torch.Tensor) -> Tensors:
    """Keep the first `limit` events of each user of each feature, with their attributes."""
    import torch

    events = outer.reshape(-1)
    first = events.cumsum(0) - events
    position = torch.arange(inner.numel(), device=inner.device) - first.repeat_interleave(events, output_size=inner.numel())
    keep = position < limit
    kept_values = values[keep.repeat_interleave(inner, output_size=values.numel())]
    return torch.minimum(outer, limit), inner[keep], kept_values


def event_counts(case: Case) -> list[int]:
    """The multiset of events per user of one feature: about `events` on average, some users above `limit`, the same for every draw.
    `ragged`: 0 to 2 `events`; `clustered`: most users have few, one in eight many; `edge`: one less than `limit`, exactly that, or one
    more."""
    users, events, limit = (int(case.sizes[key]) for key in ("users", "events", "limit"))
    match case.distribution:
        case "clustered":
            counts = [6 * events + i % 7 if i % 8 == 7 else events // 4 + i % 3 for i in range(users)]
        case "edge":
            counts = [limit - 1 + i % 3 for i in range(users)]
        case _:
            counts = [i * (2 * events + 1) // users for i in range(users)]
    counts[-1] = max(counts[-1], limit + 1)
    return counts


LONG_EVENT, LONG_EVERY = 300, 4096
"""One event in so many has so many attributes: more than a byte counts."""


def _attributes(events: int, attributes: int) -> torch.Tensor:
    """The multiset of attributes of that many events: 0 to 2 `attributes` each, in turn, but for a few long ones."""
    import torch

    counts = torch.arange(events) % (2 * attributes + 1)
    counts[::LONG_EVERY] = LONG_EVENT
    return counts


def _total_attributes(events: int, attributes: int) -> int:
    """The sum of `_attributes`."""
    period = 2 * attributes + 1
    full, rest = divmod(events, period)
    longer = sum(LONG_EVENT - index % period for index in range(0, events, LONG_EVERY))
    return full * period * attributes + rest * (rest - 1) // 2 + longer


def _shuffled(values: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    import torch

    return values[torch.randperm(values.numel(), generator=generator)]


def batch_event_truncate_inputs(case: Case, generator: torch.Generator) -> Tensors:
    """outer [features, users]; inner [all events]; values [all attributes]; limit []: shuffles of fixed multisets, kept and dropped
    events apart, so that all shapes and the work depend on the case alone."""
    import torch

    features, limit, attributes = (int(case.sizes[key]) for key in ("features", "limit", "attributes"))
    counts = torch.tensor(event_counts(case))
    outer = torch.stack([_shuffled(counts, generator) for _ in range(features)])
    flat = outer.reshape(-1)
    total = int(flat.sum())
    keep = torch.arange(total) - (flat.cumsum(0) - flat).repeat_interleave(flat, output_size=total) < limit
    kept = int(keep.sum())
    inner = torch.empty(total, dtype=torch.int64)
    inner[keep] = _shuffled(_attributes(kept, attributes), generator)
    inner[~keep] = _shuffled(_attributes(total - kept, attributes), generator)
    count = _total_attributes(kept, attributes) + _total_attributes(total - kept, attributes)
    dtype = draw.dtype_of(case.dtype)
    if dtype.is_floating_point:
        values = draw.floats((count,), "normal", generator, dtype)
    else:
        ends = torch.iinfo(dtype)
        pool = torch.randint(ends.min, ends.max, (min(count, draw.POOL),), generator=generator)
        values = draw.spread_out(pool, (count,), generator)
    return outer, inner, values, torch.tensor(limit)


def batch_event_truncate_work(case: Case) -> Work:
    """See `BATCH_EVENT_TRUNCATE.work_formula`."""
    features, users, limit, attributes = (int(case.sizes[key]) for key in ("features", "users", "limit", "attributes"))
    counts = event_counts(case)
    events, kept = features * sum(counts), features * sum(min(count, limit) for count in counts)
    lengths = 8.0 * (2 * features * users + events + kept + 1)
    values = 2.0 * _total_attributes(kept, attributes) * draw.itemsize(case.dtype)
    return Work(flops=float(events + features * users), bytes=lengths + values)


def batch_event_truncate_outputs(outer: torch.Tensor, inner: torch.Tensor, values: torch.Tensor, limit: torch.Tensor) -> Tensors:
    """Empty outputs of the right sizes, from prefix sums of the counts."""
    import torch

    users = outer.reshape(-1)
    kept = torch.minimum(users, limit)
    after = torch.cat([inner.new_zeros(1), inner.cumsum(0)])
    first = users.cumsum(0) - users
    count = int((after[first + kept] - after[first]).sum())
    return torch.empty_like(outer), inner.new_empty(int(kept.sum())), values.new_empty(count)


BATCH_EVENT_TRUNCATE = Operator(
    name="batch_event_truncate",
    title="BatchEventTruncate: keep each user's first events",
    family="jagged",
    semantics="""\
Each of several features has, for each user, a list of events, and each event a list of attributes. Keep the first `limit` events of every
user in every feature, with their attributes; drop the rest; keep the order.
Inputs, all contiguous: outer [features, users] int64, events per user; inner [sum of outer] int64, attributes per event, feature after
feature and in each feature user after user; values [sum of inner], int64 or floating point, the attributes in the same order; limit []
int64, one number in the same memory as the rest, at least 1.
Outputs: outer_out [features, users] int64 = min(outer, limit); inner_out [sum of outer_out] int64; values_out [sum of inner_out], dtype of
values. The sizes of the last two depend on the data; they are allocated for you with the right size.
Example for one feature, limit 2: outer [3, 4, 1], inner [1,0,2, 0,3,1,1, 1], values 1..9 gives outer_out [2, 2, 1],
inner_out [1,0, 0,3, 1], values_out [1, 4, 5, 6, 9].
Users may have no events, events no attributes; lengths vary widely. Results must be exact.""",
    input_names=("outer", "inner", "values", "limit"),
    reference=batch_event_truncate,
    make_inputs=batch_event_truncate_inputs,
    cases={
        "laptop": (
            _case(8, 256, 200, 100, 2),
            _case(4, 512, 100, 100, 4, "float32", "clustered"),
            _case(7, 251, 97, 53, 3, distribution="edge", held_out=True),
        ),
        "emulated": (
            _case(2, 32, 20, 10, 2),
            _case(2, 24, 10, 10, 4, "float32", "clustered"),
            _case(3, 29, 17, 9, 3, distribution="edge", held_out=True),
        ),
        "gpu": (
            _case(1, 1024, 200, 100, 2),
            _case(9, 1024, 200, 200, 2),
            _case(32, 1024, 200, 100, 2),
            _case(32, 1024, 200, 200, 2, "float32", "clustered"),
            _case(7, 1021, 197, 89, 3, distribution="edge", held_out=True),
        ),
    },
    work=batch_event_truncate_work,
    work_formula="Operations (counted as FLOPs): one comparison per event and per user. Bytes: read outer, inner and limit, write "
    "outer_out and inner_out (8 bytes each); read and write the kept values alone, since dropped ones need not be touched.",
    distributions=("ragged", "clustered", "edge"),
    allocate=batch_event_truncate_outputs,
)
