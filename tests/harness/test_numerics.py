"""Errors against a golden."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch

from kernelevolve_lab.harness import numerics

FLOORS = {"float32": 2e-6, "float64": 1e-12, "bfloat16": 1.6e-2}


def _golden(double: torch.Tensor, dtype: torch.dtype = torch.float32) -> numerics.Golden:
    return numerics.golden([double.to(dtype)], [double], 4.0, FLOORS)[0]


def test_the_error_is_scaled_by_the_row_and_the_element():
    want = _golden(torch.full((300, 1000), 1e-6, dtype=torch.float64))
    got = torch.full((300, 1000), 1e-6)
    assert numerics.compare(got, want).ok
    got[200, 1] = 1.1e-6
    found = numerics.compare(got, want)
    assert not found.ok and math.isclose(found.error, 0.05, rel_tol=1e-3) and found.worst == 200_001
    assert numerics.compare(torch.zeros(300, 1000), want).error > 0.49


@pytest.mark.parametrize("shape", [(64, 256), (16, 64, 32), (512, 40)])
def test_rows_that_are_small_beside_others_cannot_be_zeros(shape):
    scales = torch.logspace(-5, 6, shape[0], dtype=torch.float64).view(-1, *[1] * (len(shape) - 1))
    double = torch.randn(shape, dtype=torch.float64) * scales
    want = _golden(double)
    assert numerics.compare(double.float(), want).ok
    for row in range(shape[0]):
        got = double.float()
        got[row] = 0.0
        found = numerics.compare(got, want)
        assert not found.ok and found.worst // double[0].numel() == row
        got[row] = double[row].bfloat16().float()
        assert not numerics.compare(got, want).ok


def test_a_row_of_zeros_may_be_off_by_a_rounding_of_the_others():
    double = torch.randn(8, 64, dtype=torch.float64)
    double[3] = 0.0
    want = _golden(double)
    got = double.float()
    got[3, 5] = 1e-7
    assert numerics.compare(got, want).ok
    got[3, 5] = 1e-5
    assert not numerics.compare(got, want).ok


def test_the_gate_of_a_row_is_the_floor_or_a_multiple_of_the_references_own_error_there():
    values = torch.randn(10, 100, dtype=torch.float64)
    exact = _golden(values)
    assert torch.all(exact.gate == FLOORS["float32"])
    own = values.float()
    own[4] += 1e-4
    rough = numerics.golden([own], [values], 4.0, FLOORS)[0]
    assert torch.allclose(rough.gate[4], 4 * rough.reference[4]) and rough.gate[4] > 1e-4
    assert torch.all(rough.gate[torch.arange(10) != 4] == FLOORS["float32"])


@pytest.mark.parametrize(("shape", "width"), [((7, 100), 100), ((7, 10, 4), 40), ((100,), 100), ((5,), 5), ((3, 0), 0), ((), 1)])
def test_slices_are_rows_or_what_it_takes_for_enough_elements(shape, width):
    assert numerics.slice_width(shape) == width


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
    scores = numerics.trivial_errors([_golden(x.double())], [x, torch.randn(3)], [torch.randn(50, 60)])
    assert scores["zeros"] > 1 and scores["the mean"] > 1 and scores["a copy of input 0"] <= 1
    assert "a copy of input 1" not in scores and scores["what other inputs give"] > 1
    assert numerics.trivial_errors([_golden(x.double())], [], [x])["what other inputs give"] <= 1


def test_a_dtype_without_a_floor_is_an_error():
    with pytest.raises(ValueError, match="no floor for float16"):
        _golden(torch.ones(3, dtype=torch.float64), torch.float16)


def test_empty_outputs_are_right():
    for shape in ((0,), (3, 0), (0, 3)):
        assert numerics.compare(torch.empty(shape), _golden(torch.empty(shape, dtype=torch.float64))).ok
        assert numerics.Sample.of(torch.empty(shape)).compare(torch.empty(shape), 1e-5).ok


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int64, torch.bool])
def test_a_sample_sees_work_that_was_left_out(dtype):
    own = (torch.randn(300, 200) * torch.logspace(-6, 6, 300).unsqueeze(1)).to(dtype)
    sample = numerics.Sample.of(own)
    assert sample.compare(own.clone(), 1e-5).ok
    for count in (1, 30):
        got = own.clone()
        got[-count:] = 0 if dtype is not torch.bool else ~got[-count:]
        assert not sample.compare(got, 1e-5).ok
    if dtype.is_floating_point:
        got = own.clone()
        got[7] = math.nan
        assert sample.compare(got, 1e-5).error == math.inf


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("error", [0.0, 1e-7, 0.4, 0.9, 0.95, 1.05, 1.5, 30.0])
def test_the_fast_look_lets_pass_only_what_the_close_one_does(dtype, error):
    """`error` is of one element, in parts of the gate."""
    torch.manual_seed(int(error * 1000))
    values = torch.randn(40, 300, dtype=torch.float64) * torch.logspace(-4, 4, 40).unsqueeze(1)
    own = values.to(dtype)
    want = numerics.golden([own], [values], 4.0, FLOORS)[0]
    assert want.near is not None
    got = own.clone()
    got[11, 7] = values[11, 7] + error * want.gate[11] * (want.scale[11] + values[11, 7].abs())
    quick, close = numerics.compare(got, want), numerics.compare(got, dataclasses.replace(want, near=None))
    assert quick.ok == close.ok
    if dtype is torch.float32:
        assert quick.ok == (error < 1) and abs(quick.error - close.error) <= 0.5 * close.gate


@pytest.mark.parametrize("count", [0, 1, 8, 1000, 1003])
def test_same_bits(count):
    first = torch.randint(0, 256, (count,), dtype=torch.uint8)
    assert numerics.same_bits(first, first.clone())
    for place in {0, count // 2, count - 1} & set(range(count)):
        second = first.clone()
        second[place] ^= 1
        assert not numerics.same_bits(first, second)
