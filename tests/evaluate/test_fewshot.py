"""Few-shot: the draw, the fit against Adam in a loop, and data where the right answer is known."""

import jax
import numpy as np
import pytest
from scipy import stats

from jaxcl.evaluate import balanced_subset, few_shot, fewshot

KEY = jax.random.key(3)


def gaussians(n, distance, seed):
    """Two classes of unit Gaussians in 8 dimensions, so far apart along one of them."""
    rng = np.random.default_rng(seed)
    y = np.arange(n) % 2
    x = rng.normal(size=(n, 8))
    x[:, 0] += distance * y
    return x, y


def test_a_subset_has_so_many_of_every_class_and_hangs_on_the_key():
    labels = np.repeat([4, 7, 9], [30, 20, 3])
    rows = balanced_subset(KEY, labels, 5)
    assert np.unique(labels[rows], return_counts=True)[1].tolist() == [5, 5, 3]
    assert len(set(rows)) == 13
    np.testing.assert_array_equal(rows, balanced_subset(KEY, labels, 5))
    assert rows.tolist() != balanced_subset(jax.random.key(4), labels, 5).tolist()


def test_the_fit_is_adam_in_float64():
    rng = np.random.default_rng(0)
    # Classes of unlike sizes: with equal ones the bias has no gradient at zero, and Adam would blow up its rounding.
    x, y = rng.normal(size=(12, 3)), np.array([0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 3])
    theta, m, v = np.zeros((4, 4)), np.zeros((4, 4)), np.zeros((4, 4))
    inputs = np.column_stack([x, np.ones(12)])
    for t in range(1, 41):
        z = inputs @ theta
        p = np.exp(z - z.max(1, keepdims=True))
        p /= p.sum(1, keepdims=True)
        g = inputs.T @ (p - np.eye(4)[y]) / 12
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        theta -= 0.03 * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
    weights, bias = fewshot._adam(x.astype(np.float32), y.astype(np.int32), 0.03, classes=4, steps=40)
    np.testing.assert_allclose(weights, theta[:-1], atol=2e-4)
    np.testing.assert_allclose(bias, theta[-1], atol=2e-4)


def test_many_shots_come_near_the_best_that_any_classifier_reaches_and_few_do_not():
    train, test = gaussians(4000, 2.0, 0), gaussians(4000, 2.0, 1)
    best = stats.norm.cdf(1.0)  # of two unit Gaussians two apart
    many = few_shot(KEY, *train, *test, shots=500, draws=3)
    few = few_shot(KEY, *train, *test, shots=5, draws=10)
    assert many.mean == pytest.approx(best, abs=0.02)
    assert 0.5 < few.mean < many.mean
    assert few.interval > many.interval


def test_the_confidence_interval_is_students_over_the_draws():
    score = few_shot(KEY, *gaussians(200, 1.0, 0), *gaussians(200, 1.0, 1), shots=5, draws=4)
    low, high = stats.t.interval(0.95, 3, score.mean, stats.sem(score.accuracies))
    assert score.mean == pytest.approx(score.accuracies.mean())
    assert score.interval == pytest.approx((high - low) / 2)


def test_the_scale_and_the_offset_of_the_features_change_nothing():
    (x, y), (u, v) = gaussians(200, 1.5, 0), gaussians(200, 1.5, 1)
    here = few_shot(KEY, x, y, u, v, shots=5, draws=3)
    there = few_shot(KEY, 100 * x + 7, y, 100 * u + 7, v, shots=5, draws=3)
    np.testing.assert_allclose(here.accuracies, there.accuracies, atol=0.011)


def test_a_class_with_too_few_images_is_named():
    x, y = gaussians(20, 1.0, 0)
    with pytest.raises(ValueError, match="draws 11 images of every class, but class 0 has only 10"):
        few_shot(KEY, x, y, x, y, shots=11)
