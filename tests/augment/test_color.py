"""Jitter, grayscale and solarization: what is drawn, and what is done with it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from jaxcl import augment
from jaxcl.augment import color


def test_with_one_channel_color_has_nothing_to_change(images):
    gray = images[0, :, :, :1]
    colors = augment.color_jitter(0.0, 0.0, 0.9, 0.5, probability=1.0)
    for op in (colors, augment.grayscale(probability=1.0)):
        do = jax.jit(lambda key, op=op: op.apply(op.sample(key, gray.shape), gray))
        np.testing.assert_array_equal(do(jax.random.key(0)), gray)


@pytest.mark.parametrize("channels", [2, 4, 13])
def test_of_other_than_three_channels_each_is_made_brighter_and_richer_by_itself(channels):
    image = np.random.default_rng(0).uniform(0.3, 0.6, (6, 6, channels)).astype(np.float32)
    op = augment.color_jitter(0.3, 0.3, 0.9, 0.5, probability=1.0)
    others = augment.grayscale(probability=1.0), augment.drop_channels(probability=1.0)

    @jax.jit
    def changed(image):
        params = op.sample(jax.random.key(1), image.shape)
        # One program for all channels, each an image of one.
        alone = jax.vmap(lambda one: op.apply(params, one), in_axes=2, out_axes=2)(image[..., None])
        same = [other.apply(other.sample(jax.random.key(0), image.shape), image) for other in others]
        return op.apply(params, image), alone[..., 0], same

    together, alone, same = jax.device_get(changed(image))
    np.testing.assert_allclose(together, alone, atol=1e-6)
    assert np.abs(together - image).max() > 0.01
    for one in same:
        np.testing.assert_array_equal(one, image)
    fused = augment.fuse(augment.simclr(6, blur=False))
    made = jax.eval_shape(lambda key: fused.apply(fused.sample(key, image.shape), image), jax.random.key(0))
    assert made.shape == image.shape


def test_jitter_draws_uniform_strengths_in_any_order(drawn):
    params = drawn(augment.color_jitter(1.2, 0.4, 0.3, 0.1))
    ranges = {"brightness": (0, 2.2), "contrast": (0.6, 1.4), "saturation": (0.7, 1.3), "hue": (-0.1, 0.1)}
    for name, (low, high) in ranges.items():
        assert stats.kstest(getattr(params, name), stats.uniform(low, high - low).cdf).pvalue > 1e-3, name
    added = drawn(augment.color_jitter(0.4, 0.4, 0.3, 0.1, brightness_form="add"))
    assert stats.kstest(added.brightness, stats.uniform(-0.4, 0.8).cdf).pvalue > 1e-3
    orders, counts = np.unique(params.order, axis=0, return_counts=True)
    assert len(orders) == 24
    assert stats.chisquare(counts).pvalue > 1e-3


def test_solarize_inverts_what_is_bright():
    image = jnp.array([0.0, 0.49, 0.5, 1.0]).reshape(1, 4, 1)
    out = augment.solarize().apply(color.Solarize(jnp.bool_(True)), image)
    np.testing.assert_allclose(out.ravel(), [0.0, 0.49, 0.5, 0.0])


def test_shifting_the_hue_by_thirds_permutes_the_channels(images):
    shift = jax.jit(color.adjust_hue)
    np.testing.assert_allclose(shift(1 / 3, images[0]), np.roll(images[0], 1, axis=2), atol=1e-5)
    np.testing.assert_allclose(shift(1.0, images[0]), images[0], atol=1e-5)


def test_saturation_zero_is_the_value_and_one_is_the_identity(images):
    saturate = jax.jit(color.adjust_saturation)
    np.testing.assert_allclose(saturate(1.0, images[0]), images[0], atol=1e-6)
    value = np.max(images[0], axis=2, keepdims=True)
    np.testing.assert_allclose(saturate(0.0, images[0]), np.broadcast_to(value, (24, 24, 3)), atol=1e-6)


def test_contrast_keeps_every_channels_mean(images):
    out = np.asarray(jax.jit(color.adjust_contrast)(0.3, images[0]))
    np.testing.assert_allclose(out.mean((0, 1)), images[0].mean((0, 1)), atol=1e-6)
    np.testing.assert_allclose(out.std((0, 1)), 0.3 * images[0].std((0, 1)), rtol=1e-5)


def test_jitter_clips_between_its_changes():
    # Twice as bright clips half of the image; halving the contrast afterwards cannot bring it back.
    image = jnp.array([0.2, 0.6]).reshape(1, 2, 1)
    op = augment.color_jitter(1.0, 1.0, 0.0, 0.0)
    apply = jax.jit(op.apply)
    params = color.Jitter(on=True, order=None, brightness=2.0, contrast=0.5, saturation=1.0, hue=0.0)
    first = apply(params._replace(order=np.array([0, 1, 2, 3])), image)
    last = apply(params._replace(order=np.array([1, 0, 2, 3])), image)
    np.testing.assert_allclose(first.ravel(), [0.55, 0.85], atol=1e-6)
    np.testing.assert_allclose(last.ravel(), [0.6, 1.0], atol=1e-6)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: augment.color_jitter(-0.1, 0, 0, 0), "brightness is a strength"),
        (lambda: augment.color_jitter(0, 0, 0, 0.6), "at most 0.5"),
        (lambda: augment.color_jitter(0, 0, 0, 0, brightness_form="mul"), "multiply"),
        (lambda: augment.grayscale().apply(color.Grayscale(True), jnp.zeros((2, 8, 8, 3))), "vmap"),
    ],
)
def test_what_is_wrong_is_said(make, says):
    with pytest.raises(ValueError, match=says):
        make()
