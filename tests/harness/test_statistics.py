"""Intervals of paired ratios."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from kernelevolve_lab.harness import statistics

RATIOS = st.lists(st.floats(0.01, 100.0), min_size=1, max_size=40)


def _rng() -> np.random.Generator:
    return np.random.default_rng(7)


@given(RATIOS)
@settings(deadline=None)
def test_an_interval_holds_its_value_and_lies_within_the_data(ratios):
    for found in (statistics.median_ratio(ratios, "eager", _rng()), statistics.geometric_mean([ratios], "eager", _rng())):
        assert found.low <= found.value <= found.high
        assert min(ratios) * (1 - 1e-9) <= found.low and found.high <= max(ratios) * (1 + 1e-9)


@given(RATIOS, st.floats(0.1, 10.0))
@settings(deadline=None)
def test_scaling_the_ratios_scales_the_result(ratios, factor):
    one = statistics.median_ratio(ratios, "eager", _rng())
    scaled = statistics.median_ratio([r * factor for r in ratios], "eager", _rng())
    for name in ("low", "value", "high"):
        assert math.isclose(getattr(scaled, name), factor * getattr(one, name), rel_tol=1e-9)


@given(st.lists(st.floats(0.1, 10.0), min_size=1, max_size=6))
@settings(deadline=None)
def test_the_geometric_mean_of_constant_cases_is_exact(values):
    found = statistics.geometric_mean([[value] * 5 for value in values], "eager", _rng())
    expected = math.exp(sum(map(math.log, values)) / len(values))
    assert all(math.isclose(getattr(found, name), expected, rel_tol=1e-9) for name in ("low", "value", "high"))


def test_intervals_cover_the_truth_about_as_often_as_they_say():
    rng = np.random.default_rng(0)
    truth, inside, rank_inside, trials = 1.25, 0, 0, 400
    for _ in range(trials):
        ratios = truth * np.exp(rng.standard_t(3, 25) * 0.05)
        found = statistics.median_ratio(ratios, "eager", rng)
        inside += found.low <= truth <= found.high
        low, high = statistics.rank_interval(list(ratios))
        rank_inside += low <= truth <= high
    assert 0.90 <= inside / trials <= 0.99
    assert 0.90 <= rank_inside / trials <= 0.995


def test_two_cases_of_equal_noise_are_narrower_than_one():
    rng = np.random.default_rng(1)
    first, second = np.exp(rng.normal(0, 0.1, 30)), np.exp(rng.normal(0, 0.1, 30))
    one, both = statistics.geometric_mean([first], "eager", rng), statistics.geometric_mean([first, second], "eager", rng)
    assert math.log(both.high / both.low) < math.log(one.high / one.low)


@given(st.lists(st.floats(1e-6, 1.0), min_size=1, max_size=50))
@settings(deadline=None)
def test_the_rank_interval_holds_the_median(values):
    low, high = statistics.rank_interval(values)
    assert low <= float(np.median(values)) <= high
