"""Intervals of paired ratios."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kernelevolve_lab.harness import statistics

# Thousandths, so that no two ratios differ by a rounding error, which scaling would turn into a tie.
RATIOS = st.lists(st.integers(10, 100_000).map(lambda thousandths: thousandths / 1000), min_size=1, max_size=40)


@given(RATIOS)
@settings(deadline=None)
def test_an_interval_holds_its_value_which_lies_within_the_data(ratios):
    for found in (statistics.paired_ratio(ratios, "eager"), statistics.geometric_mean([ratios], "eager")):
        assert found.low <= found.value <= found.high
        assert min(ratios) * (1 - 1e-9) <= found.value <= max(ratios) * (1 + 1e-9)


@given(RATIOS, st.floats(0.1, 10.0))
@settings(deadline=None)
def test_scaling_the_ratios_scales_the_result(ratios, factor):
    one, scaled = statistics.paired_ratio(ratios, "eager"), statistics.paired_ratio([r * factor for r in ratios], "eager")
    for name in ("low", "value", "high"):
        assert math.isclose(getattr(scaled, name), factor * getattr(one, name), rel_tol=1e-6)


@given(RATIOS)
@settings(deadline=None)
def test_the_inverse_of_the_ratios_has_the_inverse_interval(ratios):
    one, inverse = statistics.paired_ratio(ratios, "eager"), statistics.paired_ratio([1 / r for r in ratios], "eager")
    assert math.isclose(one.low, 1 / inverse.high, rel_tol=1e-6) and math.isclose(one.value, 1 / inverse.value, rel_tol=1e-6)


@given(st.lists(st.floats(0.1, 10.0), min_size=1, max_size=6))
@settings(deadline=None)
def test_the_geometric_mean_of_constant_cases_is_exact(values):
    found = statistics.geometric_mean([[value] * 7 for value in values], "eager")
    expected = math.exp(sum(map(math.log, values)) / len(values))
    assert all(math.isclose(getattr(found, name), expected, rel_tol=1e-9) for name in ("low", "value", "high"))


def _coverage(noise, trials: int = 600) -> float:
    """How often the interval of 1.25 times noise holds 1.25."""
    found = [statistics.paired_ratio(1.25 * np.exp(noise()), "eager") for _ in range(trials)]
    return sum(ratio.low <= 1.25 <= ratio.high for ratio in found) / trials


@pytest.mark.parametrize("count", [6, 8, 12, 25, 60])
def test_intervals_cover_the_truth_about_as_often_as_they_say(count):
    rng = np.random.default_rng(count)
    assert 0.93 <= _coverage(lambda: rng.standard_t(3, count) * 0.05) <= 0.995


@pytest.mark.parametrize(("count", "least"), [(12, 0.88), (60, 0.9)])
def test_they_do_so_too_where_rounds_are_like_those_before(count, least):
    rng = np.random.default_rng(0)

    def noise() -> np.ndarray:
        values = rng.normal(size=count)
        for index in range(1, count):
            values[index] = 0.4 * values[index - 1] + math.sqrt(1 - 0.16) * values[index]
        return 0.05 * values

    assert _coverage(noise) >= least


def test_they_do_so_too_where_whoever_comes_second_is_faster():
    rng = np.random.default_rng(2)
    order = np.resize([0.05, -0.05], 24)
    assert _coverage(lambda: rng.normal(0, 0.02, 24) + order) >= 0.95


def test_too_few_values_claim_no_more_than_their_range():
    ratios = [1.0, 1.1, 1.2, 1.3, 1.4]
    found = statistics.paired_ratio(ratios, "eager")
    assert math.isclose(found.low, 1.0) and math.isclose(found.high, 1.4)


def test_two_cases_of_equal_noise_are_narrower_than_one():
    rng = np.random.default_rng(1)
    first, second = np.exp(rng.normal(0, 0.1, 30)), np.exp(rng.normal(0, 0.1, 30))
    one, both = statistics.geometric_mean([first], "eager"), statistics.geometric_mean([first, second], "eager")
    assert math.log(both.high / both.low) < math.log(one.high / one.low)


@given(st.lists(st.floats(1e-6, 1.0), min_size=1, max_size=50))
@settings(deadline=None)
def test_the_interval_of_times_holds_their_median(values):
    found = statistics.timing(values)
    assert found.low <= found.median <= found.high and found.samples == len(values)
