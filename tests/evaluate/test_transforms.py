"""Which rotation, which hue: encoders that keep it, and encoders that provably cannot."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from jaxcl.evaluate import Subject, hue_probe, rotation_probe
from jaxcl.evaluate.transforms import _transform_probe
from jaxcl.typing import Images

KEY = jax.random.key(0)


def corner_lit(n, seed):
    """Images whose upper left corner is bright and red: their rotation and their hue can be recognized."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 60, (n, 4, 4, 3))
    images[:, :2, :2, 0] += 150
    return images.astype(np.uint8)


TRAIN, TEST = corner_lit(60, 0), corner_lit(40, 1)


def of(encoder, train=TRAIN, test=TEST):
    return Subject(encoder, Images("corners", train), Images("corners", test))


def pixels(x):
    return x.reshape(len(x), -1)


def symmetric(x):
    """The mean over all four rotations: no rotation changes it."""
    return pixels(sum(jnp.rot90(x, k, axes=(1, 2)) for k in range(4)))


def colorless(x):
    """The greatest and the least channel, which a shift of hue keeps."""
    return pixels(jnp.stack([x.max(axis=3), x.min(axis=3)], axis=3))


def test_pixels_tell_rotation_and_hue():
    for probe in (rotation_probe, hue_probe):
        score = probe(KEY, of(pixels))
        assert score.accuracy > 0.97
        assert score.accuracy == pytest.approx(score.by_transform.mean())
        assert score.probe.accuracy == pytest.approx(score.accuracy)
        assert score.train_images == 60


def test_a_representation_that_no_rotation_changes_scores_chance():
    score = rotation_probe(KEY, of(symmetric))
    assert score.accuracy == pytest.approx(0.25, abs=0.1)


def test_a_representation_that_no_hue_changes_scores_chance():
    score = hue_probe(KEY, of(colorless))
    assert score.accuracy == pytest.approx(0.25, abs=0.1)


def test_every_image_is_shown_in_every_rotation_with_its_own_label():
    shown = []

    def features_of(images, which, progress):
        shown.append((len(images), which))
        return np.full((len(images), 1), 10.0 * which, np.float32)

    score = _transform_probe(KEY, features_of, 4, TRAIN, TEST, 25, None)
    assert shown == [(25, 0), (25, 1), (25, 2), (25, 3), (40, 0), (40, 1), (40, 2), (40, 3)]
    assert score.train_images == 25
    assert score.by_transform.shape == (4,)


def test_the_classifier_of_rotations_is_logistic_regression_of_four_angles():
    """scikit-learn's, by L-BFGS, of every training image in every rotation; its C is 1 / (n l2) with four classes."""
    score = rotation_probe(KEY, of(pixels), l2=(0.1,), standardize=False, tolerance=1e-6)
    turned = np.concatenate([np.rot90(TRAIN, k, axes=(1, 2)) for k in range(4)]).reshape(240, -1) / 255
    peer = LogisticRegression(C=1 / (240 * 0.1), solver="lbfgs", tol=1e-8, max_iter=1000)
    peer.fit(turned, np.repeat(np.arange(4), 60))
    np.testing.assert_allclose(score.probe.weights, peer.coef_.T, atol=2e-3)
    seen = np.concatenate([np.rot90(TEST, k, axes=(1, 2)) for k in range(4)]).reshape(160, -1) / 255
    right = (peer.predict(seen) == np.repeat(np.arange(4), 40)).reshape(4, 40)
    np.testing.assert_allclose(score.by_transform, right.mean(axis=1))


def test_labels_are_not_needed_and_shapes_are_checked():
    with pytest.raises(ValueError, match="must be square"):
        rotation_probe(KEY, of(pixels, TRAIN[:, :3], TEST[:, :3]))
    with pytest.raises(ValueError, match="three channels"):
        hue_probe(KEY, of(pixels, TRAIN[..., :1], TEST[..., :1]))
