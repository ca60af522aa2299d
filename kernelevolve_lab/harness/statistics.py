"""Statistics of paired timings: medians of ratios with bootstrap intervals. Pure functions of numbers.

A ratio is baseline time / candidate time of one round; ratios of a case are summarised by their median (robust against the odd
interruption), cases by the geometric mean of their medians. Intervals are 95 % percentile bootstrap intervals (Efron & Tibshirani 1993,
section 13.3): rounds are drawn with replacement within each case, cases independently.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from kernelevolve_lab.records import Ratio, Timing

RESAMPLES = 1000
LEVEL = 0.95


def _resampled_medians(values: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return np.median(values[rng.integers(0, len(values), (RESAMPLES, len(values)))], axis=1)


def _interval(statistic: np.ndarray, value: float) -> tuple[float, float]:
    low, high = np.quantile(statistic, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return min(float(low), value), max(float(high), value)


def median_ratio(ratios: Sequence[float], baseline: str, rng: np.random.Generator) -> Ratio:
    """The median of paired ratios with its interval."""
    values = np.asarray(ratios, float)
    median = float(np.median(values))
    low, high = _interval(_resampled_medians(values, rng), median)
    return Ratio(value=median, low=low, high=high, baseline=baseline)


def geometric_mean(cases: Sequence[Sequence[float]], baseline: str, rng: np.random.Generator) -> Ratio:
    """The geometric mean over cases of each case's median ratio, with the interval of joint resampling."""
    logs = [np.log(np.asarray(ratios, float)) for ratios in cases]
    value = math.exp(float(np.mean([np.median(case) for case in logs])))
    statistic = np.exp(np.mean([_resampled_medians(case, rng) for case in logs], axis=0))
    low, high = _interval(statistic, value)
    return Ratio(value=value, low=low, high=high, baseline=baseline)


def timing(seconds: Sequence[float], rng: np.random.Generator, cache: str = "warm") -> Timing:
    """The median of times with its interval."""
    values = np.asarray(seconds, float)
    median = float(np.median(values))
    low, high = _interval(_resampled_medians(values, rng), median)
    return Timing(median=median, low=low, high=high, samples=len(values), cache=cache)


def rank_interval(ratios: Sequence[float]) -> tuple[float, float]:
    """A distribution-free 95 % interval of the median from order statistics (binomial, normal approximation of the ranks): cheap enough to
    look at after every round. With fewer than six values it is their whole range."""
    values = sorted(ratios)
    count = len(values)
    if count < 6:
        return values[0], values[-1]
    reach = 1.96 * math.sqrt(count) / 2
    low = max(0, math.floor(count / 2 - reach))
    high = min(count - 1, math.ceil(count / 2 + reach) - 1)
    return values[low], values[high]
