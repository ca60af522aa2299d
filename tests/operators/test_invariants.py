"""References against plain Python and NumPy, over inputs that nobody chose."""

import math

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kernelevolve_lab.operators.jagged import batch_event_truncate
from kernelevolve_lab.operators.lookup import map_id_transform, merge_bucketized_dense
from kernelevolve_lab.operators.rows import softmax

INT64 = st.integers(-(2**63), 2**63 - 1)


@st.composite
def jagged(draw):
    """features x users lists of events, each a list of attributes."""
    features, users = draw(st.integers(1, 3)), draw(st.integers(1, 5))
    event = st.lists(st.integers(0, 99), max_size=3)
    return [[draw(st.lists(event, max_size=6)) for _ in range(users)] for _ in range(features)]


def packed(nested):
    outer = torch.tensor([[len(events) for events in users] for users in nested], dtype=torch.int64)
    flat = [event for users in nested for events in users for event in events]
    inner = torch.tensor([len(event) for event in flat], dtype=torch.int64)
    values = torch.tensor([value for event in flat for value in event], dtype=torch.int64)
    return outer, inner, values


@given(jagged(), st.integers(1, 7))
@settings(max_examples=200, deadline=None)
def test_truncating_is_slicing_each_users_list(nested, limit: int) -> None:
    got = batch_event_truncate(*packed(nested), torch.tensor(limit))
    expected = packed([[events[:limit] for events in users] for users in nested])
    assert all(torch.equal(a, b) for a, b in zip(got, expected, strict=True))


@given(jagged(), st.integers(1, 7))
@settings(max_examples=50, deadline=None)
def test_truncating_twice_changes_nothing(nested, limit: int) -> None:
    once = batch_event_truncate(*packed(nested), torch.tensor(limit))
    twice = batch_event_truncate(*once, torch.tensor(limit))
    assert all(torch.equal(a, b) for a, b in zip(once, twice, strict=True))


@given(st.sets(INT64, min_size=1, max_size=30), st.data())
@settings(max_examples=200, deadline=None)
def test_mapping_ids_is_a_dictionary(ids: set[int], data) -> None:
    table = sorted(ids)
    values = data.draw(st.lists(st.one_of(st.sampled_from(table), INT64), max_size=40))
    place = {value: i + 1 for i, value in enumerate(table)}
    got = map_id_transform(torch.tensor(values, dtype=torch.int64), torch.tensor(table, dtype=torch.int64))
    assert got.tolist() == [place.get(value, 0) for value in values]


@given(st.data())
@settings(max_examples=200, deadline=None)
def test_bucketizing_is_numpys_searchsorted(data) -> None:
    features, batch, width = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 20)), data.draw(st.integers(1, 6))
    number = st.floats(-8, 8, width=32).map(lambda x: round(x * 2) / 2)  # coarse, so that values fall on borders
    x = np.array(data.draw(st.lists(number, min_size=features * batch, max_size=features * batch)), dtype=np.float32).reshape(
        features, batch
    )
    borders = np.full((features, width), math.inf, dtype=np.float32)
    for feature in range(features):
        found = sorted(data.draw(st.lists(number, min_size=1, max_size=width)))
        borders[feature, : len(found)] = found
    offsets = np.array(data.draw(st.lists(st.integers(0, 1000), min_size=features, max_size=features)))
    got = merge_bucketized_dense(torch.from_numpy(x), torch.from_numpy(borders), torch.from_numpy(offsets))
    expected = [offset + np.searchsorted(row, values, side="left") for offset, row, values in zip(offsets, borders, x, strict=True)]
    assert np.array_equal(got.numpy(), np.stack(expected))


@given(st.lists(st.floats(-1e4, 1e4), min_size=1, max_size=20), st.data())
@settings(max_examples=100, deadline=None)
def test_softmax_is_a_distribution_over_what_the_mask_keeps(values: list[float], data) -> None:
    mask = data.draw(st.lists(st.booleans(), min_size=len(values), max_size=len(values)).filter(any))
    out = softmax(torch.tensor([values], dtype=torch.float64), torch.tensor([mask]))[0]
    kept = [value * 0.125 for value, keep in zip(values, mask, strict=True) if keep]
    total = sum(math.exp(value - max(kept)) for value in kept)
    assert abs(float(out.sum()) - 1) < 1e-9
    for got, value, keep in zip(out.tolist(), values, mask, strict=True):
        assert abs(got - (math.exp(value * 0.125 - max(kept)) / total if keep else 0.0)) < 1e-9
        assert keep or got == 0.0
