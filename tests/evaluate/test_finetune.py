"""Fine-tuning: it trains the encoder, by the rule it says, on the labels it says."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcl.evaluate import Subject, finetune, sgd
from jaxcl.typing import Images

KEY = jax.random.key(0)


def squares(n, seed, *, shuffled=False):
    """Whether the left half is brighter than the right; everything else is noise."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % 2
    images = rng.integers(80, 120, (n, 4, 4, 1))
    images[:, :, :2] += 30 * labels[:, None, None, None]
    images[:, :, 2:] += 30 * (1 - labels)[:, None, None, None]
    return Images("squares", images.astype(np.uint8), rng.permutation(labels) if shuffled else labels)


TRAIN, TEST = squares(200, 0), squares(100, 1)


def as_is(key, batch):
    """A view that changes nothing (a flip would change the class)."""
    return (jnp.asarray(batch["image"], jnp.float32) / 255,)


def network(params, state, images):
    """A hidden layer that, as it starts, adds up all pixels: blind to left and right."""
    return jax.nn.relu((images - state).reshape(len(images), -1) @ params["kernel"] + params["bias"])


def blind():
    rng = np.random.default_rng(0)
    params = {"kernel": np.ones((16, 1)) * rng.uniform(0.5, 1, (1, 8)), "bias": np.zeros(8)}
    params = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), params)
    return functools.partial(network, params, jnp.float32(0.4))


def tune(encoder, train, test, **settings):
    settings = {"views": as_is, "fraction": 1.0, "batch_size": 50, **settings}
    return finetune(KEY, Subject(encoder, train, test), **settings)


def test_it_teaches_an_encoder_what_no_classifier_reads_from_its_features():
    encoder = blind()
    frozen = tune(lambda x: encoder(x), TRAIN, TEST, epochs=30, learning_rate=1.0)
    tuned = tune(encoder, TRAIN, TEST, epochs=30, learning_rate=1.0)
    assert frozen.accuracy < 0.65
    assert tuned.accuracy > 0.85
    assert frozen.details["trained_parameters"] == 8 * 2 + 2
    assert tuned.details["trained_parameters"] == 8 * 2 + 2 + 16 * 8 + 8


def test_the_encoder_that_was_given_is_left_as_it_was():
    encoder = blind()
    before = jax.tree.map(np.array, encoder.args)
    tuned = tune(encoder, TRAIN, TEST, epochs=2, learning_rate=1.0)
    jax.tree.map(np.testing.assert_array_equal, before, encoder.args)
    changed = jax.tree.map(
        lambda a, b: float(np.abs(a - np.asarray(b)).max()), before[0], tuned.encoder.args[0]
    )
    assert min(jax.tree.leaves(changed)) > 0
    assert float(tuned.encoder.args[1]) == pytest.approx(0.4)


def test_two_epochs_are_nesterovs_rule_along_a_cosine():
    encoder = blind()
    tuned = finetune(
        KEY,
        Subject(encoder, TRAIN, TEST),
        views=as_is,
        fraction=1.0,
        batch_size=200,
        epochs=2,
        learning_rate=0.5,
    )
    params = {**encoder.args[0], "weights": jnp.zeros((8, 2)), "head": jnp.zeros(2)}
    x, y = TRAIN.images / np.float32(255), jnp.asarray(TRAIN.labels)

    def loss(params):
        logits = network(params, 0.4, x) @ params["weights"] + params["head"]
        return -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(logits), y[:, None], 1))

    velocity = jax.tree.map(jnp.zeros_like, params)
    for rate in (0.5 * 200 / 256, 0.25 * 200 / 256):
        grads = jax.grad(loss)(params)
        velocity = jax.tree.map(lambda v, g: 0.9 * v + g, velocity, grads)
        params = jax.tree.map(lambda w, v, g, r=rate: w - r * (g + 0.9 * v), params, velocity, grads)
    np.testing.assert_allclose(tuned.weights, params["weights"], rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(tuned.encoder.args[0]["kernel"], params["kernel"], rtol=1e-4)
    assert tuned.details["losses"][0] == pytest.approx(np.log(2), rel=1e-5)


@pytest.mark.parametrize("nesterov", [None, True])
def test_lars_is_that_of_simclrs_code_written_out(nesterov):
    """lars_optimizer.py, classic momentum: the trust ratio after the decay, the rate within the buffer; neither biases
    nor the classifier (head_supervised) are adapted. Rate 0.01 sqrt(200), then half of it."""
    encoder = blind()
    tuned = tune(
        encoder,
        TRAIN,
        TEST,
        batch_size=200,
        epochs=2,
        optimizer="lars",
        learning_rate=0.01,
        rate_rule="sqrt",
        trust_coefficient=0.1,
        weight_decay=0.01,
        nesterov=nesterov,
    )
    params = {**encoder.args[0], "weights": jnp.zeros((8, 2)), "head": jnp.zeros(2)}
    x, y = TRAIN.images / np.float32(255), jnp.asarray(TRAIN.labels)

    def loss(params):
        logits = network(params, 0.4, x) @ params["weights"] + params["head"]
        return -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(logits), y[:, None], 1))

    velocity = {name: np.zeros(w.shape) for name, w in params.items()}
    for rate in (0.01 * 200**0.5, 0.005 * 200**0.5):
        grads = jax.grad(loss)(params)
        for name in params:
            w, g = np.float64(params[name]), np.float64(grads[name])
            g = g + 0.01 * w if name in ("kernel", "weights") else g
            trust = 0.1 * np.linalg.norm(w) / np.linalg.norm(g) if name == "kernel" and g.any() else 1.0
            velocity[name] = 0.9 * velocity[name] + rate * trust * g
            step = 0.9 * velocity[name] + rate * trust * g if nesterov else velocity[name]
            params[name] = jnp.asarray(w - step, jnp.float32)
    np.testing.assert_allclose(tuned.weights, params["weights"], rtol=2e-3, atol=1e-5)
    np.testing.assert_allclose(tuned.encoder.args[0]["kernel"], params["kernel"], rtol=1e-4)
    assert np.abs(tuned.encoder.args[0]["kernel"] - encoder.args[0]["kernel"]).max() > 1e-3


def test_scales_of_whole_maps_are_no_kernels():
    found = sgd.kernels(
        {"norm": {"scale": np.ones((7, 7, 2)), "bias": np.ones((7, 7, 2))}, "kernel": np.ones((2, 3))}
    )
    assert found == {"norm": {"scale": False, "bias": False}, "kernel": True}


def test_it_sees_the_labels_of_a_balanced_fraction_and_no_others():
    tuned = tune(blind(), TRAIN, TEST, fraction=0.1, epochs=1)
    assert np.bincount(TRAIN.labels[tuned.rows]).tolist() == [10, 10]
    unseen = np.setdiff1d(np.arange(200), tuned.rows)
    images = TRAIN.images.copy()
    images[unseen] = 0
    again = tune(blind(), TRAIN._replace(images=images), TEST, fraction=0.1, epochs=1)
    np.testing.assert_array_equal(tuned.weights, again.weights)


def test_shuffled_labels_score_chance():
    tuned = tune(
        blind(), squares(200, 0, shuffled=True), squares(100, 1, shuffled=True), epochs=3, learning_rate=0.1
    )
    assert abs(tuned.accuracy - 0.5) < 0.2


def test_without_views_images_are_cropped_and_flipped():
    # A class that a flip turns into the other cannot be learnt from flipped images.
    tuned = finetune(
        KEY, Subject(blind(), TRAIN, TEST), fraction=1.0, batch_size=50, epochs=20, learning_rate=1.0
    )
    assert tuned.accuracy < 0.8


def test_mistakes_are_answered_with_a_sentence():
    with pytest.raises(ValueError, match='optimizer must be "sgd" or "lars"; got'):
        tune(blind(), TRAIN, TEST, optimizer="adam")
    with pytest.raises(ValueError, match='rate_rule must be "linear" or "sqrt"'):
        tune(blind(), TRAIN, TEST, rate_rule="none")
    with pytest.raises(ValueError, match="fraction is the part of the labels"):
        tune(blind(), TRAIN, TEST, fraction=0.0)
    with pytest.raises(ValueError, match="needs labels"):
        tune(blind(), TRAIN._replace(labels=None), TEST)


def test_weight_decay_pulls_at_kernels_and_leaves_biases():
    """One step of a whole batch: v = g + decay w, and Nesterov's step goes along g + momentum v."""
    encoder, rate = blind(), 0.1
    settings = {"epochs": 1, "batch_size": 200, "learning_rate": rate * 256 / 200, "momentum": 0.5}
    plain, decayed = (tune(encoder, TRAIN, TEST, **settings, weight_decay=decay) for decay in (0.0, 0.25))
    start = np.asarray(encoder.args[0]["kernel"])
    pull = np.asarray(decayed.encoder.args[0]["kernel"]) - np.asarray(plain.encoder.args[0]["kernel"])
    np.testing.assert_allclose(pull, -rate * 1.5 * 0.25 * start, rtol=1e-3)
    np.testing.assert_allclose(decayed.encoder.args[0]["bias"], plain.encoder.args[0]["bias"], atol=1e-7)


def test_all_labels_are_all_of_them_however_many_a_class_has():
    few = TRAIN._replace(images=TRAIN.images[:150], labels=(np.arange(150) < 20).astype(int))
    assert len(tune(blind(), few, TEST, epochs=1).rows) == 150
