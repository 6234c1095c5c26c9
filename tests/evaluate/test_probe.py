"""The linear probe against scikit-learn and theory."""

import importlib

import jax
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from jaxcl.cost import cost
from jaxcl.evaluate import hold_out, linear_path, linear_probe
from jaxcl.evaluate.lbfgs import fit_logistic

module = importlib.import_module("jaxcl.evaluate.probe")

L2 = (1e-3, 1e-2, 0.1, 1.0)


def overlapping(n=300, d=8, seed=0):
    """Four classes that overlap, named 2, 5, 7, 11; features of unlike scales, off center."""
    rng = np.random.default_rng(seed)
    centers = np.random.default_rng(99).normal(size=(4, d))
    y = rng.integers(0, 4, n)
    x = (centers[y] + rng.normal(size=(n, d))) * np.geomspace(0.3, 3, d) + 1
    return x.astype(np.float32), np.array([2, 5, 7, 11])[y]


X, Y = overlapping()


def objective(weights, bias, x, y, l2, classes):
    z = x.astype(np.float64) @ weights + bias
    right = z[np.arange(len(y)), np.searchsorted(classes, y)]
    return np.mean(np.log(np.exp(z - right[:, None]).sum(axis=1))) + 0.5 * l2 * np.square(weights).sum()


@pytest.fixture(scope="module")
def path():
    return linear_path(X, Y, l2=L2, standardize=False, tolerance=1e-6)


def fitted_by_scikit_learn(x, y, c):
    return LogisticRegression(C=c, solver="newton-cg", tol=1e-8, max_iter=1000).fit(x.astype(np.float64), y)


@pytest.mark.parametrize("standardize", [False, True])
def test_every_value_of_the_path_reaches_scikit_learns_optimum(path, standardize):
    x = StandardScaler().fit_transform(X.astype(np.float64)) if standardize else X
    ours = linear_path(X, Y, l2=L2, tolerance=1e-6) if standardize else path
    assert ours.converged.all()
    for i, l2 in enumerate(L2):
        peer = fitted_by_scikit_learn(x, Y, 1 / (len(X) * l2))
        best = objective(peer.coef_.T, peer.intercept_, x, Y, l2, path.classes)
        assert abs(ours.objective[i] / best - 1) < 1e-6
        # The classifier applies to the features as given, standardized or not.
        assert np.mean(ours.predict(X)[i] == peer.predict(x)) > 0.995
        if not standardize:
            np.testing.assert_allclose(path.weights[i], peer.coef_.T, atol=2e-3)
            here = objective(path.weights[i].astype(np.float64), path.bias[i], X, Y, l2, path.classes)
            assert abs(here / best - 1) < 1e-6


def test_two_classes_follow_the_documented_map_to_c():
    y = (Y > 5).astype(int)
    path = linear_path(X, y, l2=(0.01,), standardize=False, tolerance=1e-6)
    peer = fitted_by_scikit_learn(X, y, 2 / (len(X) * 0.01))
    np.testing.assert_allclose(path.weights[0, :, 1] - path.weights[0, :, 0], peer.coef_[0], atol=1e-3)


def test_stronger_regularization_gives_smaller_weights_and_a_larger_loss(path):
    norms = np.square(path.weights).sum(axis=(1, 2))
    assert (np.diff(norms) < 0).all()
    assert (np.diff(path.cross_entropy) > 0).all()
    assert (np.diff(path.objective) > 0).all()


def test_the_loss_is_lower_than_that_of_any_nearby_classifier(path):
    rng = np.random.default_rng(0)
    for i, l2 in enumerate(L2):
        weights, bias = path.weights[i].astype(np.float64), path.bias[i].astype(np.float64)
        for _ in range(10):
            other = weights + 0.03 * rng.normal(size=weights.shape), bias + 0.03 * rng.normal(size=bias.shape)
            assert objective(*other, X, Y, l2, path.classes) > path.objective[i]


def test_a_path_is_its_values_fitted_one_by_one(path, monkeypatch):
    monkeypatch.setattr(module.np, "clip", lambda *_: 3)  # Groups of three: the second one is filled up.
    grouped = linear_path(X, Y, l2=L2, standardize=False, tolerance=1e-6)
    monkeypatch.undo()
    np.testing.assert_allclose(grouped.objective, path.objective, rtol=1e-6)
    np.testing.assert_allclose(grouped.weights, path.weights, atol=2e-3)


def test_a_fit_that_is_watched_finds_the_same_and_says_how_far_it_is(monkeypatch):
    monkeypatch.setattr(module, "MOST", 3 * 300 * 4)  # two groups, the second filled up
    said, alone = [], linear_path(X, Y, l2=L2)
    monkeypatch.setattr("jaxcl.evaluate.lbfgs.SECONDS_WATCHED", 0.0)  # an iteration at a time
    watched = linear_path(X, Y, l2=L2, told=said.append)
    for one, other in zip(watched, alone, strict=True):
        np.testing.assert_array_equal(one, other)  # wherever the minimizer paused
    assert said == sorted(said)
    assert 0 < said[0] < said[-1] < 1
    assert len(said) >= alone.iterations.max() - 1


def test_a_huge_penalty_leaves_the_class_frequencies():
    path = linear_path(X, np.repeat([0, 1, 2, 3], [30, 60, 90, 120]), l2=(1e4, 1e5, 1e6, 1e7), tolerance=1e-6)
    for weights, bias in zip(path.weights.astype(np.float64), path.bias, strict=True):
        odds = np.exp(bias + X.mean(axis=0) @ weights)
        np.testing.assert_allclose(odds / odds.sum(), [0.1, 0.2, 0.3, 0.4], atol=1e-3)


def test_separable_classes_without_a_penalty_end_with_a_loss_near_zero_and_no_nan():
    y = np.arange(300) % 4
    path = linear_path(np.eye(8)[y] + 0.1 * X, y, l2=(0.0, 1e-8, 1e-7, 1e-6), tolerance=1e-6)
    assert np.isfinite(path.weights).all()
    assert path.cross_entropy[:2].max() < 1e-3
    assert (path.predict(np.eye(8)[y] + 0.1 * X) == y).all()


def test_a_constant_feature_has_no_say():
    x = X.copy()
    x[:, 3] = 1234.5678
    path = linear_path(x, Y, l2=L2, tolerance=1e-6)
    assert np.isfinite(path.objective).all()
    assert np.abs(path.weights[:, 3]).max() == 0


def test_double_features_are_fitted_in_double_where_jax_is_set_to():
    with jax.enable_x64(True):
        path = linear_path(X.astype(np.float64), Y, l2=(1e-3,), standardize=False, tolerance=1e-9)
    assert path.weights.dtype == np.float64
    assert path.converged.all()


def test_too_few_iterations_are_reported():
    path = linear_path(X, Y, l2=L2, standardize=False, iterations=2)
    assert not path.converged.any()
    assert (path.iterations == 2).all()


def test_what_is_held_out_is_a_tenth_of_every_class_and_always_the_same():
    labels = np.repeat([3, 4, 5], [100, 50, 1])
    fitted, held = hold_out(labels, 0.1)
    assert sorted([*fitted, *held]) == list(range(151))
    assert np.bincount(labels[held], minlength=6).tolist() == [0, 0, 0, 10, 5, 0]
    np.testing.assert_array_equal(hold_out(labels, 0.1)[1], held)


@pytest.fixture(scope="module")
def probe():
    x, y = overlapping(200, seed=1)
    return linear_probe(X, Y, x, y, l2=(1e-3, 0.1, 1e3)), x, y


def test_the_probe_refits_the_chosen_l2_on_all_images(probe):
    probe, x, y = probe
    chosen = probe.details["l2"]
    scores = probe.details["held_out_accuracies"]
    best = [l2 for l2, score in zip(probe.details["l2_path"], scores, strict=True) if score == max(scores)]
    assert chosen == max(best)
    again = linear_path(X, Y, l2=(chosen,))
    np.testing.assert_allclose(probe.weights, again.weights[0], atol=1e-5)
    assert probe.accuracy == np.mean(again.predict(x)[0] == y)
    assert probe.accuracy > 0.6


def test_the_choice_never_sees_the_test_set(probe):
    probe, x, y = probe
    other = linear_probe(X, Y, x[::-1], np.roll(y, 1), l2=(1e-3, 0.1, 1e3))
    np.testing.assert_array_equal(probe.weights, other.weights)


# ---- errors


def test_errors_say_what_to_do():
    with pytest.raises(ValueError, match="linear probe needs labels: this data set has none"):
        linear_path(X, None)
    with pytest.raises(ValueError, match="needs two classes at least"):
        linear_path(X, np.zeros(len(X), int))
    with pytest.raises(ValueError, match="none of them negative"):
        linear_path(X, Y, l2=(-1.0,))
    with pytest.raises(ValueError, match="train_features hold NaN or infinity"):
        linear_path(np.where(np.arange(8) == 2, np.inf, X), Y)
    with pytest.raises(ValueError, match="every class has a single image"):
        hold_out(np.arange(5), 0.1)
    with pytest.raises(ValueError, match="between 0 and 1"):
        hold_out(Y, 1.0)


def test_features_of_another_width_are_refused(path):
    with pytest.raises(ValueError, match=r"must be \[n, 8\]"):
        path.predict(X[:, :3])


def test_devices_that_share_the_images_find_what_one_finds_and_do_their_part_each(monkeypatch):
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 61)  # no multiple of the devices
    x = rng.normal(size=(61, 5)).astype(np.float32) + np.eye(3, 5, dtype=np.float32)[y]
    alone = linear_path(x, y, l2=(1e-3, 1e-1), tolerance=1e-6)
    monkeypatch.setattr(module, "SHARED", 0)
    shared = linear_path(x, y, l2=(1e-3, 1e-1), tolerance=1e-6)
    np.testing.assert_allclose(shared.objective, alone.objective, rtol=1e-6)
    np.testing.assert_allclose(shared.cross_entropy, alone.cross_entropy, rtol=1e-4)
    np.testing.assert_allclose(shared.weights, alone.weights, atol=1e-3)

    rest = np.ones(2, np.float32), 1e-5, 10  # l2, tolerance, iterations
    inputs, targets, _ = module.shared_out(np.zeros((4096, 32), np.float32), np.zeros(4096, np.int32))
    of_one = fit_logistic.lower(np.zeros((4096, 32), np.float32), np.zeros(4096, np.int32), *rest, classes=3)
    of_each = fit_logistic.lower(inputs, targets, *rest, classes=3)
    one, each = (cost(program.compile()).products for program in (of_one, of_each))
    assert each < 1.1 * one / 8
