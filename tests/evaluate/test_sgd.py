"""Probes by SGD: the update written out, the same on any number of devices."""

import jax
import numpy as np
import pytest
from PIL import Image

from jaxcl import augment, data
from jaxcl.evaluate import Subject, finetune, linear_sgd
from jaxcl.evaluate.sgd import rates
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


MOCO = {"learning_rate": 30.0, "nesterov": False, "schedule": "steps", "start_std": 0.01}


def test_mocos_protocol_is_torchs_sgd_with_its_drops_written_out():
    """main_lincls.py: SGD(lr, momentum 0.9, wd 0), times 0.1 from epochs 60 and 80 of 100 on; weights N(0, 0.01^2)."""
    probe = sgd(unchanged, epochs=5, **MOCO)
    x, y = TRAIN.images.reshape(70, -1) / 255, np.eye(2)[TRAIN.labels]
    order_key, _ = jax.random.split(jax.random.key(0))
    first = sgd(unchanged, epochs=1, **{**MOCO, "learning_rate": 0.0})
    w, b = first.weights.astype(float), np.zeros(2)
    assert 0.005 < w.std() < 0.015
    mw, mb = np.zeros((16, 2)), np.zeros(2)
    for step in range(10):
        epoch, i = divmod(step, 2)
        order = np.asarray(jax.random.permutation(jax.random.fold_in(order_key, epoch), 70))
        rows = order[i * 32 : i * 32 + 32]
        logits = x[rows] @ w + b
        p = np.exp(logits - logits.max(axis=1, keepdims=True))
        residual = (p / p.sum(axis=1, keepdims=True) - y[rows]) / 32
        mw, mb = 0.9 * mw + x[rows].T @ residual, 0.9 * mb + residual.sum(axis=0)
        rate = 30 * 32 / 256 * {3: 0.1, 4: 0.01}.get(epoch, 1.0)  # 60 and 80 % of five epochs
        w, b = w - rate * mw, b - rate * mb
    np.testing.assert_allclose(probe.weights, w, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(probe.bias, b, rtol=1e-3, atol=1e-4)


def test_a_constant_rate_stays_and_a_wrong_schedule_is_refused():
    assert {rates("constant")(epoch, epoch / 9, 9) for epoch in range(9)} == {1.0}
    cmc = rates("steps", drops=(1 / 2, 2 / 3, 5 / 6), drop_factor=0.2)
    fallen = [round(np.log(cmc(epoch, epoch / 60, 60)) / np.log(0.2)) for epoch in range(60)]
    assert [fallen.index(k) for k in (1, 2, 3)] == [30, 40, 50]
    with pytest.raises(ValueError, match='schedule must be "cosine", "steps" or "constant"'):
        sgd(None, schedule="step")
    with pytest.raises(ValueError, match="drops are fractions of all epochs"):
        sgd(None, drops=(60, 80))


def test_encoded_images_are_cropped_whole(tmp_path):
    """The classes differ beside the centre square alone, which no crop of that square can tell."""
    pytest.importorskip("tensorflow", reason="TensorFlow is not installed")
    rng = np.random.default_rng(0)
    for i in range(48):
        picture = rng.integers(100, 156, (60, 160, 3), np.uint8)
        picture[:, :50] = picture[:, -50:] = 255 * (i % 2)
        path = tmp_path / ("train" if i < 32 else "test") / "ab"[i % 2] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(path)
    opened = data.open(f"folder:{tmp_path}", size=16, encoded=True)
    subject = Subject(lambda x: x.mean(axis=(1, 2)), opened.train, opened.test)
    settings = {"epochs": 12, "batch_size": 32, "learning_rate": 8.0}
    whole = linear_sgd(jax.random.key(0), subject, views=augment.probe_views(16), **settings)
    assert whole.details["losses"][-1] < 0.5
    # Views of one's own are made of what the device gets: the centre squares.
    middle = linear_sgd(jax.random.key(0), subject, views=unchanged, **settings)
    assert middle.details["losses"][-1] > 0.65
    tuned = finetune(jax.random.key(0), subject, fraction=1.0, epochs=12, batch_size=32, learning_rate=8.0)
    assert tuned.details["losses"][-1] < 0.5


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
