"""Intervals cover what they should, pairs see more than means, and many comparisons are paid for."""

import math

import numpy as np
import pytest
from scipy import stats

from jaxcl.statistics import contrast, holm, mean_interval, paired_difference


def test_an_interval_covers_the_true_mean_as_often_as_it_says():
    rng = np.random.default_rng(0)
    found = [mean_interval(rng.normal(3.0, 2.0, 4)) for _ in range(2000)]
    covered = np.mean([abs(one.mean - 3.0) < one.half for one in found])
    assert abs(covered - 0.95) < 3 * math.sqrt(0.95 * 0.05 / 2000)


def test_an_interval_of_three_values_by_hand():
    # s = 1, t(2) at 97.5 % = 4.302653
    found = mean_interval([4.0, 5.0, 6.0])
    assert found.mean == 5.0
    assert found.half == pytest.approx(4.302653 / math.sqrt(3), rel=1e-6)
    assert math.isnan(mean_interval([4.0]).half)
    with pytest.raises(ValueError, match="at least one"):
        mean_interval([])


def test_pairs_see_a_difference_that_seeds_hide():
    rng = np.random.default_rng(1)
    hard = {str(i): value for i, value in enumerate(rng.normal(50, 10, 6))}
    better = {seed: value + 1 + 0.1 * rng.normal() for seed, value in hard.items()}
    found = paired_difference(hard, better)
    assert found.mean - found.half > 0
    assert found.half < mean_interval(list(hard.values())).half / 20
    assert found.p < 0.001


def test_pairs_are_of_the_seeds_that_both_have():
    assert paired_difference({"0": 1.0}, {"1": 2.0}) is None
    found = paired_difference({"0": 1.0, "1": 2.0}, {"1": 5.0, "2": 9.0})
    assert (found.mean, found.n) == (3.0, 1)
    assert math.isnan(found.p)
    # Of equal differences there is no test: it divides by their spread.
    assert math.isnan(paired_difference({"0": 1.0, "1": 2.0}, {"0": 1.0, "1": 2.0}).p)


def test_holm_keeps_false_alarms_below_the_level_and_beats_bonferroni():
    rng = np.random.default_rng(2)
    alarms = np.mean([min(holm(rng.uniform(size=5))) < 0.05 for _ in range(2000)])
    assert alarms < 0.05 + 3 * math.sqrt(0.05 * 0.95 / 2000)
    p = [0.001, 0.02, 0.04, 0.5, math.nan]
    corrected = holm(p)
    assert corrected[:4] == pytest.approx([0.004, 0.06, 0.08, 0.5])
    assert math.isnan(corrected[4])
    assert all(mine <= min(1, 4 * own) for mine, own in zip(corrected[:4], p[:4], strict=True))


def test_a_contrast_of_differences_is_the_difference_of_contrasts():
    rng = np.random.default_rng(0)
    a, b, c, d = ({str(seed): float(x) for seed, x in enumerate(rng.normal(size=6))} for _ in range(4))
    found = contrast([(a, 1), (b, -1), (c, -1), (d, 1)])
    first = {seed: a[seed] - b[seed] for seed in a}
    second = {seed: c[seed] - d[seed] for seed in c}
    assert found == pytest.approx(paired_difference(second, first))
    # Scipy's own interval of the same sums.
    sums = np.array([first[seed] - second[seed] for seed in a])
    low, high = stats.ttest_1samp(sums, 0).confidence_interval()
    assert (found.mean - found.half, found.mean + found.half) == pytest.approx((low, high))
