"""What several seeds say: a mean with its confidence interval, and whether two settings differ.

Two settings that were run with the same seeds share their data order and initial weights, so their difference is taken
seed by seed: its interval is narrower than the two intervals suggest. Student's t throughout; with fewer than three
seeds an interval is too wide to tell settings apart.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats


class Estimate(NamedTuple):
    """A mean of n values and half the width of its confidence interval: mean - half to mean + half."""

    mean: float
    half: float  # nan with fewer than two values
    n: int


class Difference(NamedTuple):
    """The mean of b - a over the seeds that both have, half the width of its interval, and the p value of "none"."""

    mean: float
    half: float
    n: int
    p: float  # nan with fewer than two values, and where they are all the same


def mean_interval(values: Sequence[float] | np.ndarray, *, level: float = 0.95) -> Estimate:
    """The mean of independent values with its confidence interval: mean ± t(n - 1) s / sqrt(n).

    >>> mean_interval([1.0, 2.0, 3.0])._replace(half=0.0), round(mean_interval([1.0, 2.0, 3.0]).half, 3)
    (Estimate(mean=2.0, half=0.0, n=3), 2.484)
    """
    numbers = np.asarray(values, float)
    n = len(numbers)
    if n == 0:
        raise ValueError("A mean needs at least one value; got none.")
    if n == 1:
        return Estimate(float(numbers[0]), math.nan, 1)
    half = stats.t.ppf((1 + level) / 2, n - 1) * numbers.std(ddof=1) / math.sqrt(n)
    return Estimate(float(numbers.mean()), float(half), n)


def paired_difference(
    a: Mapping[str, float], b: Mapping[str, float], *, level: float = 0.95
) -> Difference | None:
    """b - a, seed by seed: {seed: value} both. None where they share no seed.

    The p value is that of the paired t test of "their means are equal"; nan as for `contrast`.

    >>> found = paired_difference({"0": 1.0, "1": 5.0, "2": 9.0}, {"0": 2.0, "1": 6.5, "2": 9.5})
    >>> found.n, round(found.mean, 3), round(found.half, 3), round(found.p, 4)
    (3, 1.0, 1.242, 0.0742)
    """
    return contrast([(b, 1), (a, -1)], level=level)


def contrast(parts: Sequence[tuple[Mapping[str, float], float]], *, level: float = 0.95) -> Difference | None:
    """sum_i weight_i value_i, seed by seed, over the seeds that all parts have: ({seed: value}, weight) each. None
    where there is no such seed.

    A difference has the weights 1 and -1; how much a difference is larger elsewhere, (a - b) - (c - d), has four. The
    p value is that of the t test of "its mean is 0". It is nan with fewer than two such seeds, and where all have the
    same sum: the test divides by their spread.

    >>> a, b = {"0": 1.0, "1": 5.0}, {"0": 3.0, "1": 6.0}
    >>> contrast([(b, 1), (a, -1)]).mean, contrast([(a, 1), ({}, -1)])
    (1.5, None)
    """
    shared = [seed for seed in parts[0][0] if all(seed in values for values, _ in parts)]
    if not shared:
        return None
    sums = np.array([sum(weight * values[seed] for values, weight in parts) for seed in shared], float)
    mean, half, n = mean_interval(sums, level=level)
    if n < 2:
        return Difference(mean, half, n, math.nan)
    # Equal but for rounding, as 50.3 - 47.1 and 51.3 - 48.1 are.
    largest = max(abs(weight * values[seed]) for values, weight in parts for seed in shared)
    if np.ptp(sums) <= 1e-12 * largest:
        return Difference(mean, 0.0, n, math.nan)
    return Difference(mean, half, n, float(stats.ttest_1samp(sums, 0.0).pvalue))


def holm(p: Sequence[float]) -> list[float]:
    """P values corrected for being many (Holm, 1979, Scandinavian Journal of Statistics 6): the chance that any
    of those below 0.05 is a false alarm stays below 0.05. nan stays nan and is not counted.

    The i-th smallest of m becomes the largest of (m - j) p_j over j <= i, counted from 0, and at most 1.

    >>> [round(q, 3) for q in holm([0.01, 0.04, 0.03])]
    [0.03, 0.06, 0.06]
    """
    known = sorted((value, i) for i, value in enumerate(p) if not math.isnan(value))
    corrected, largest = [math.nan] * len(p), 0.0
    for j, (value, i) in enumerate(known):
        largest = max(largest, (len(known) - j) * value)
        corrected[i] = min(1.0, largest)
    return corrected
