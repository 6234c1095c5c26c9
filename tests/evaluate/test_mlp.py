"""A probe with a hidden layer sees what no linear one can, and computes AMDIM's loss."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcl.evaluate import Subject, linear_probe, mlp_probe
from jaxcl.evaluate.mlp import clipped_cross_entropy, mlp_logits

SHORT = {"hidden": 16, "epochs": 40, "batch_size": 100, "learning_rate": 2e-2}


def quadrants(n, seed):
    """Points of which the sign of x y is the class: no line parts them."""
    x = np.random.default_rng(seed).uniform(-1, 1, (n, 2)).astype(np.float32)
    return x, (x[:, 0] * x[:, 1] > 0).astype(np.int32)


def subject():
    return Subject.of_features(*quadrants(400, 0), *quadrants(200, 1))


@pytest.fixture(scope="module")
def probe():
    return mlp_probe(jax.random.key(0), subject(), **SHORT)


def test_it_parts_what_no_line_parts(probe):
    assert probe.accuracy > 0.9
    assert linear_probe(*quadrants(400, 0), *quadrants(200, 1), l2=(1e-3,)).accuracy < 0.7
    assert probe.details["losses"][-1] < probe.details["losses"][0]
    assert probe.details["steps"] == 160


def test_it_is_the_same_for_the_same_key_and_another_for_another(probe):
    again, other = (mlp_probe(jax.random.key(seed), subject(), **SHORT) for seed in (0, 1))
    np.testing.assert_array_equal(again.params["weights"], probe.params["weights"])
    assert not np.allclose(other.params["weights"], probe.params["weights"])


def test_its_statistics_are_those_of_its_hidden_layer(probe):
    """Over the last batches, so roughly those of all images, whatever dropout changed."""
    x, _ = quadrants(400, 0)
    y = x.astype(np.float64) @ probe.params["hidden"]
    np.testing.assert_allclose(probe.params["mean"], y.mean(axis=0), atol=0.2 * y.std())
    assert np.all(np.abs(np.log(probe.params["var"] / (y.var(axis=0) / 0.8))) < 0.7)


def test_an_image_is_scored_the_same_whatever_is_tested_beside_it(probe):
    """Where AMDIM's utils.py would estimate the batch statistics anew, on the test images."""
    x, labels = quadrants(200, 1)
    beside, others = quadrants(200, 2)
    test = np.concatenate([x, 5 + 3 * beside]), np.concatenate([labels, others])
    more = mlp_probe(jax.random.key(0), Subject.of_features(*quadrants(400, 0), *test), **SHORT)
    for name, array in probe.params.items():
        np.testing.assert_array_equal(more.params[name], array)
    np.testing.assert_array_equal(more.hits.first[:200], probe.hits.first)


def test_what_it_says_is_a_dense_layer_a_norm_a_relu_and_a_dense_layer(probe):
    x, _ = quadrants(5, 2)
    p = {name: w.astype(np.float64) for name, w in probe.params.items()}
    for row, logits in zip(x.astype(np.float64), mlp_logits(probe.params, x), strict=True):
        y = (row @ p["hidden"] - p["mean"]) / np.sqrt(p["var"] + 1e-5) * p["scale"] + p["offset"]
        np.testing.assert_allclose(logits, np.maximum(y, 0) @ p["weights"] + p["bias"], rtol=1e-4, atol=1e-5)


def test_the_loss_clips_logits_softly_and_penalizes_their_squares():
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(0, 12, (6, 5)), rng.integers(0, 5, 6)
    total = 0.0
    for row, label in zip(logits, labels, strict=True):
        clipped = 10 * np.tanh(row / 10)
        total -= (clipped[label] - np.log(np.exp(clipped).sum())) / 6
    total += 1e-3 * (logits**2).sum() / 30
    got = clipped_cross_entropy(jnp.asarray(logits, jnp.float32), jnp.asarray(labels))
    np.testing.assert_allclose(got, total, rtol=1e-5)


def test_the_rate_falls_to_a_fifth_at_each_drop():
    """Of three epochs of one step each, of all images: the drops change the last two by 0.2 and by 0.04."""
    settings = SHORT | {"batch_size": 400, "weight_decay": 0.0, "dropout": 0.0}

    def offset(epochs, drops=()):
        """Of the norm, which starts at 0."""
        probe = mlp_probe(jax.random.key(0), subject(), **settings | {"epochs": epochs}, drops=drops)
        return probe.params["offset"]

    first = offset(1)
    np.testing.assert_allclose(
        np.abs(first), 2e-2, rtol=1e-2
    )  # Adam's first step is the sign of the gradient
    np.testing.assert_allclose(offset(2, (0.5,)) - first, 0.2 * (offset(2) - first), atol=1e-5)
    np.testing.assert_allclose(offset(2, (0.5, 0.5)) - first, 0.04 * (offset(2) - first), atol=1e-5)


def test_without_a_hidden_layer_it_is_amdims_linear_classifier():
    """MLPClassifier(n_hidden=None): dense, by the same loss and Adam. The first step of it, written out."""
    x, y = quadrants(400, 0)
    settings = SHORT | {"hidden": 0, "batch_size": 400, "weight_decay": 0.1}
    one, two = (mlp_probe(jax.random.key(0), subject(), **settings | {"epochs": n}) for n in (1, 2))
    assert set(one.params) == {"weights", "bias"}
    np.testing.assert_allclose(mlp_logits(one.params, x), x @ one.params["weights"] + one.params["bias"])
    # Adam's second step from the first, whose moments are those of a gradient g1 with |step| = rate sign(g1).
    assert 0.3 < one.accuracy < 0.7  # no line parts the quadrants
    start = mlp_probe(jax.random.key(0), subject(), **settings | {"epochs": 1, "learning_rate": 0.0}).params
    assert np.abs(start["weights"]).max() <= 2**-0.5
    logits = x.astype(np.float64) @ start["weights"] + start["bias"]
    soft = 10 * np.tanh(logits / 10)
    p = np.exp(soft) / np.exp(soft).sum(1, keepdims=True)
    slope = (p - np.eye(2)[y]) * (1 - np.tanh(logits / 10) ** 2) / 400 + 1e-3 * 2 * logits / logits.size
    g = x.T @ slope + 0.1 * start["weights"]
    np.testing.assert_allclose(one.params["weights"], start["weights"] - 2e-2 * np.sign(g), atol=1e-5)
    assert np.abs(two.params["weights"] - one.params["weights"]).max() > 1e-3


def test_first_weights_are_uniform_as_those_of_amdims_code():
    """utils.py, init_pytorch_defaults: within 1 / sqrt(fan in); scales of the norm in [0, 1]."""
    start = mlp_probe(
        jax.random.key(0), subject(), **SHORT | {"epochs": 1, "learning_rate": 0.0, "hidden": 256}
    )
    for name, fan_in in (("hidden", 2), ("weights", 256), ("bias", 256)):
        w = start.params[name] * fan_in**0.5
        assert np.abs(w).max() <= 1 + 1e-6
        assert w.size < 100 or abs(w.std() - 3**-0.5) < 0.05
    assert 0 <= start.params["scale"].min() <= start.params["scale"].max() <= 1
    assert abs(start.params["scale"].mean() - 0.5) < 0.06


@pytest.mark.parametrize("settings", [{"batch_size": 401}, {"dropout": 1.0}, {"epochs": 0}, {"hidden": -1}])
def test_numbers_out_of_range_are_refused(settings):
    with pytest.raises(ValueError, match="batch_size must be|needs epochs of 1"):
        mlp_probe(jax.random.key(0), subject(), **SHORT | settings)
