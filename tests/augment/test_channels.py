"""Ops on the picture alone, with a code in the channels behind it."""

import jax
import numpy as np
import pytest

from jaxcl import augment


def made(op):
    """(key, image) -> what the op makes of the image."""
    make = jax.jit(lambda key, image: op.apply(op.sample(key, image.shape), image))
    return lambda key, image: np.asarray(make(key, image))


def test_the_picture_is_changed_as_it_would_be_alone_and_the_code_is_kept():
    crop = augment.random_resized_crop(12, area=(0.5, 1.0), method="bilinear")
    wrapped = augment.first_channels(crop, 1)
    picture = np.random.default_rng(0).random((12, 12, 1), np.float32)
    code = np.broadcast_to(np.float32([1, 0, 1]), (12, 12, 3))
    image, key = np.concatenate([picture, code], axis=-1), jax.random.key(0)
    changed, alone = (made(op)(key, x) for op, x in ((wrapped, image), (crop, picture)))
    np.testing.assert_allclose(changed[..., :1], alone, atol=1e-6)
    np.testing.assert_array_equal(changed[..., 1:], code)
    assert np.abs(alone - picture).max() > 0.1


def test_ops_of_color_see_three_channels_of_five():
    jitter = augment.first_channels(augment.color_jitter(0.8, 0.8, 0.8, 0.2, probability=1.0), 3)
    image = np.random.default_rng(0).random((8, 8, 5)).astype(np.float32)
    changed = made(jitter)(jax.random.key(0), image)
    np.testing.assert_array_equal(changed[..., 3:], image[..., 3:])
    assert (changed[..., :3] != image[..., :3]).any()


def test_an_op_that_changes_the_size_is_refused():
    crop = augment.first_channels(augment.random_resized_crop(14), 1)
    image = np.zeros((28, 28, 3), np.float32)
    with pytest.raises(ValueError, match="keeps height and width"):
        made(crop)(jax.random.key(0), image)


def test_whole_images_are_cut_into_channels_as_views_are():
    images = np.random.default_rng(0).random((3, 4, 4, 3), np.float32)
    light, color = jax.jit(augment.split_channels(augment.lab(), (1, 2)))(images)
    assert (light.shape, color.shape) == ((3, 4, 4, 1), (3, 4, 4, 2))
    whole = augment.channel_views(augment.lab(), (1, 2))
    seen = jax.jit(whole)(jax.random.key(0), {"image": images, "index": np.arange(3)})
    np.testing.assert_allclose(seen[0], light, atol=1e-6)
    np.testing.assert_allclose(seen[1], color, atol=1e-6)
    with pytest.raises(ValueError, match="must sum"):
        jax.eval_shape(augment.split_channels(augment.lab(), (1, 1)), images)
