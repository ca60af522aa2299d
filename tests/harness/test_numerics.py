"""Errors against a golden."""

from __future__ import annotations

import math

import pytest
import torch

from kernelevolve_lab.harness import numerics

FLOORS = {"float32": 2e-6, "float64": 1e-12, "bfloat16": 1.6e-2}


def _golden(double: torch.Tensor, dtype: torch.dtype = torch.float32) -> numerics.Golden:
    return numerics.golden([double.to(dtype)], [double], 4.0, FLOORS)[0]


def test_the_error_is_scaled_by_the_root_mean_square():
    want = _golden(torch.full((300_000,), 1e-6, dtype=torch.float64))
    got = torch.full((300_000,), 1e-6)
    assert numerics.compare(got, want).error < 1e-6
    got[200_001] = 1.1e-6
    found = numerics.compare(got, want)
    assert math.isclose(found.error, 0.1, rel_tol=1e-3) and found.worst == 200_001
    assert numerics.compare(torch.zeros(300_000), want).error > 0.99


def test_the_gate_is_the_floor_or_a_multiple_of_the_references_own_error():
    values = torch.randn(1000, dtype=torch.float64)
    exact = _golden(values)
    assert exact.gate == FLOORS["float32"] and exact.reference < exact.gate
    rough = numerics.golden([values.float() + 1e-4], [values], 4.0, FLOORS)[0]
    assert math.isclose(rough.gate, 4 * rough.reference) and rough.gate > 1e-4


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_infinitely_wrong(bad):
    want = _golden(torch.ones(10, dtype=torch.float64))
    got = torch.ones(10)
    got[3] = bad
    found = numerics.compare(got, want)
    assert found.error == math.inf and found.worst == 3


def test_infinities_and_nans_of_the_golden_must_be_met():
    values = torch.tensor([1.0, math.inf, -math.inf, math.nan], dtype=torch.float64)
    want = _golden(values)
    assert numerics.compare(values.float(), want).error == 0.0
    for index, other in ((1, -math.inf), (1, 1e30), (2, math.nan), (3, 1.0), (0, math.nan)):
        got = values.float()
        got[index] = other
        assert numerics.compare(got, want).error == math.inf


def test_integers_and_bools_are_exact():
    want = numerics.golden([torch.arange(10)], [torch.arange(10)], 4.0, FLOORS)[0]
    assert numerics.compare(torch.arange(10), want).error == 0
    got = torch.arange(10)
    got[7] += 1
    assert (numerics.compare(got, want).error, numerics.compare(got, want).worst) == (1, 7)
    truth = torch.tensor([True, False])
    flags = numerics.golden([truth], [truth], 4.0, FLOORS)[0]
    assert numerics.compare(torch.tensor([2, 0], dtype=torch.uint8).view(torch.bool), flags).error == 1


def test_unwritten_elements_are_counted():
    want = _golden(torch.ones(10, dtype=torch.float64))
    poison = int.from_bytes(b"\xa5\xa5\xff\xff", "little", signed=True)
    got = torch.ones(10)
    got.view(torch.int32)[4:6] = poison
    assert numerics.compare(got, want, poison).unwritten == 2


def test_trivial_answers_are_scored():
    x = torch.randn(50, 60)
    scores = numerics.trivial_errors([_golden(x.double())], [x, torch.randn(3)])
    assert scores["zeros"] > 1 and scores["the mean"] > 1 and scores["a copy of input 0"] <= 1
    assert "a copy of input 1" not in scores


def test_a_dtype_without_a_floor_is_an_error():
    with pytest.raises(ValueError, match="no floor for float16"):
        _golden(torch.ones(3, dtype=torch.float64), torch.float16)


def test_empty_outputs_are_right():
    assert numerics.compare(torch.empty(0), _golden(torch.empty(0, dtype=torch.float64))).error == 0.0
