"""Probes by SGD: the update written out, the same on any number of devices."""

import jax
import numpy as np
import pytest

from jaxcl.evaluate import Subject, linear_sgd
from jaxcl.typing import Images


def pictures(n, seed, name="squares"):
    """Two classes: bright above, bright below."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, n)
    images = rng.integers(0, 120, (n, 4, 4, 1))
    images[labels == 0, :2] += 60
    images[labels == 1, 2:] += 60
    return Images(name, images.astype(np.uint8), labels)


TRAIN, TEST = pictures(70, 0), pictures(100, 1)


def flat(x):
    return x.reshape(len(x), -1)


def unchanged(key, batch):
    return (batch["image"] / 255.0,)


def jittered(key, batch):
    def one(image, index):
        return image / 255.0 + 0.05 * jax.random.normal(jax.random.fold_in(key, index), image.shape)

    return (jax.vmap(one)(batch["image"], batch["index"]),)


def sgd(views, *, train=TRAIN, key=0, **settings):
    settings = {"epochs": 3, "batch_size": 32, "learning_rate": 0.8, **settings}
    return linear_sgd(jax.random.key(key), Subject(flat, train, TEST), views=views, **settings)


def test_sgd_is_nesterovs_update_with_a_cosine_written_out():
    probe = sgd(unchanged, weight_decay=0.01)
    x, y = TRAIN.images.reshape(70, -1) / 255, np.eye(2)[TRAIN.labels]
    order_key, _ = jax.random.split(jax.random.key(0))
    w, b = np.zeros((16, 2)), np.zeros(2)
    mw, mb = np.zeros((16, 2)), np.zeros(2)
    for step in range(6):
        order = np.asarray(jax.random.permutation(jax.random.fold_in(order_key, step // 2), 70))
        rows = order[step % 2 * 32 : step % 2 * 32 + 32]
        p = np.exp(x[rows] @ w + b)
        residual = (p / p.sum(axis=1, keepdims=True) - y[rows]) / 32
        gw, gb = x[rows].T @ residual + 0.01 * w, residual.sum(axis=0)
        mw, mb = 0.9 * mw + gw, 0.9 * mb + gb
        rate = 0.8 * 32 / 256 * 0.5 * (1 + np.cos(np.pi * step / 6))
        w, b = w - rate * (gw + 0.9 * mw), b - rate * (gb + 0.9 * mb)
    np.testing.assert_allclose(probe.weights, w, atol=1e-5)
    np.testing.assert_allclose(probe.bias, b, atol=1e-5)
    assert probe.details["steps"] == 6


def test_without_views_the_features_are_those_of_the_images_as_they_are():
    a, b = sgd(unchanged), sgd(None)
    np.testing.assert_allclose(a.weights, b.weights, atol=1e-6)
    assert a.details["losses"] == pytest.approx(b.details["losses"], rel=1e-5)


def test_sgd_learns_what_can_be_learnt():
    probe = sgd(jittered, epochs=60)
    assert probe.accuracy > 0.95
    assert probe.details["losses"][0] > 0.5 > probe.details["losses"][-1]


def test_one_device_and_eight_train_the_same_classifier(monkeypatch):
    many = sgd(jittered)
    one = jax.local_devices()[:1]
    monkeypatch.setattr(jax, "local_devices", lambda: one)
    np.testing.assert_allclose(sgd(jittered).weights, many.weights, atol=1e-6)


def test_the_same_key_trains_the_same_classifier_and_another_key_another():
    np.testing.assert_array_equal(sgd(jittered).weights, sgd(jittered).weights)
    assert np.abs(sgd(jittered).weights - sgd(jittered, key=1).weights).max() > 1e-5


def test_another_learning_rate_compiles_nothing_new():
    traces = []

    def views(key, batch):
        traces.append(None)
        return unchanged(key, batch)

    sgd(views)
    once = len(traces)
    sgd(views, learning_rate=0.1, momentum=0.0)
    assert len(traces) == once


def test_errors_say_what_to_do():
    with pytest.raises(ValueError, match=r"linear probe on 'squares' needs labels"):
        sgd(None, train=TRAIN._replace(labels=None))
    with pytest.raises(ValueError, match="batch_size must be between 1 and the 70 training images; got 512"):
        sgd(None, batch_size=512)
    with pytest.raises(ValueError, match="diverged"):
        sgd(None, weight_decay=1e15)
