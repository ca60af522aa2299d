"""Statistics of paired timings. Pure functions of numbers; no random numbers, so the same measurement always says the same.

A ratio is baseline time / candidate time of one round. The logarithms of a case's ratios are summarised by their pseudo-median (Hodges
and Lehmann 1963), which is nearly as precise as the mean where noise is normal and as unmoved by interruptions as a median, with the
interval of Wilcoxon's signed ranks (Hollander, Wolfe and Chicken, Nonparametric Statistical Methods, 3rd ed., sections 3.2 and 3.3). It
asks only that noise is symmetric, which pairing in balanced order gives: of two kernels that are alike, either is as likely to be ahead.
Rounds that follow each other may be alike, so the interval is widened by sqrt((1 + r) / (1 - r)) for their first autocorrelation r where
that is positive, as the variance of a mean of such values grows (Box, Jenkins and Reinsel, Time Series Analysis, section 2.1.5).

Cases are put together as the geometric mean, their intervals by recovery of variances (Zou and Donner 2008, Statistics in Medicine 27).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache

import numpy as np

from kernelevolve_lab.records import Ratio, Timing

LEVEL = 0.95
_NORMAL = 1.959964  # the 97.5 % quantile
_FEW = 8
"""With fewer values than this an autocorrelation cannot be told from chance."""


@cache
def _outside(count: int) -> int:
    """How many Walsh averages lie outside the interval at each end: the largest k with P(T+ <= k) <= (1 - LEVEL) / 2 for Wilcoxon's T+ of
    `count` values, 0 where there is none."""
    if count > 50:
        pairs = count * (count + 1) / 4
        return math.floor(pairs - _NORMAL * math.sqrt(pairs * (2 * count + 1) / 6)) - 1
    ways = np.ones(1)
    for rank in range(1, count + 1):
        longer = np.zeros(len(ways) + rank)
        longer[: len(ways)] += ways
        longer[rank:] += ways
        ways = longer
    below = np.cumsum(ways) / 2.0**count
    return max(0, int(np.searchsorted(below, (1 - LEVEL) / 2, side="right")) - 1)


def centre(values: Sequence[float]) -> tuple[float, float, float]:
    """The pseudo-median of values and its 95 % interval; with fewer than six values, which can bear no such claim, their whole range."""
    given = np.asarray(values, float)
    count = len(given)
    rows, columns = np.triu_indices(count)
    walsh = np.sort((given[rows] + given[columns]) / 2)
    middle = float(np.median(walsh))
    low, high = float(walsh[_outside(count)]), float(walsh[-1 - _outside(count)])
    spread = _widening(given) if count >= _FEW else 1.0
    return middle, middle - spread * (middle - low), middle + spread * (high - middle)


def _widening(values: np.ndarray) -> float:
    """The factor of the interval's width that likeness of neighbours asks for, from the autocorrelation of ranks. An estimate from few
    values is too low by about (1 + 3 r) / n (Kendall 1954, Biometrika 41), which is put right."""
    ranks = np.sign(values[:, None] - values).sum(1)
    total = float((ranks**2).sum())
    if total == 0.0:
        return 1.0
    found = float((ranks[1:] * ranks[:-1]).sum()) / total
    again = min(0.9, max(0.0, found + (1 + 3 * found) / len(values)))
    return math.sqrt((1 + again) / (1 - again))


def paired_ratio(ratios: Sequence[float], baseline: str) -> Ratio:
    """The typical value of paired ratios with its interval."""
    return _ratio(*centre(np.log(np.asarray(ratios, float))), baseline)


def geometric_mean(cases: Sequence[Sequence[float]], baseline: str) -> Ratio:
    """The geometric mean over cases of each case's typical ratio."""
    found = [centre(np.log(np.asarray(ratios, float))) for ratios in cases]
    value = sum(middle for middle, _, _ in found) / len(found)
    below = math.sqrt(sum((middle - low) ** 2 for middle, low, _ in found)) / len(found)
    above = math.sqrt(sum((high - middle) ** 2 for middle, _, high in found)) / len(found)
    return _ratio(value, value - below, value + above, baseline)


def _ratio(value: float, low: float, high: float, baseline: str) -> Ratio:
    return Ratio(value=math.exp(value), low=math.exp(min(low, value)), high=math.exp(max(high, value)), baseline=baseline)


def timing(seconds: Sequence[float], cache: str = "warm") -> Timing:
    """The median of times with the interval of its ranks (binomial; Hollander, Wolfe and Chicken, section 3.6)."""
    values = sorted(float(second) for second in seconds)
    count = len(values)
    reach = _NORMAL * math.sqrt(count) / 2
    low, high = max(0, math.floor(count / 2 - reach)), min(count - 1, math.ceil(count / 2 + reach))
    return Timing(median=float(np.median(values)), low=values[low], high=values[high], samples=count, cache=cache)
