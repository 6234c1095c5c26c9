import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from jaxcl.augment import ops

# Every op once, and the shape it makes of [24, 24, 3].
OPS = {
    "crop": (ops.random_resized_crop(16), (16, 16, 3)),
    "crop_height_law": (ops.random_resized_crop((12, 20), law=ops.uniform_height), (12, 20, 3)),
    "crop_bilinear_antialias": (ops.random_resized_crop(8, method="bilinear", antialias=True), (8, 8, 3)),
    "flip": (ops.flip(), (24, 24, 3)),
    "rotate90": (ops.rotate90(), (24, 24, 3)),
    "translate": (ops.translate(4), (24, 24, 3)),
    "jitter": (ops.color_jitter(0.8, 0.8, 0.8, 0.2), (24, 24, 3)),
    "jitter_add": (ops.color_jitter(0.8, 0.8, 0.8, 0.2, brightness_form="add"), (24, 24, 3)),
    "grayscale": (ops.grayscale(), (24, 24, 3)),
    "drop_channels": (ops.drop_channels(), (24, 24, 3)),
    "solarize": (ops.solarize(), (24, 24, 3)),
    "blur": (ops.gaussian_blur(), (24, 24, 3)),
    "clip": (ops.clip(), (24, 24, 3)),
}
NEVER = {
    "flip": ops.flip(probability=0.0),
    "rotate90": ops.rotate90(probability=0.0),
    "translate": ops.translate(0),
    "jitter, probability": ops.color_jitter(0.8, 0.8, 0.8, 0.2, probability=0.0),
    "jitter, strength": ops.color_jitter(0.0, 0.0, 0.0, 0.0, probability=1.0),
    "grayscale": ops.grayscale(probability=0.0),
    "drop_channels": ops.drop_channels(probability=0.0),
    "solarize": ops.solarize(probability=0.0),
    "blur": ops.gaussian_blur(probability=0.0),
    "whole crop": ops.random_resized_crop(24, area=(1.0, 1.0), ratio=(1.0, 1.0)),
}


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).random((6, 24, 24, 3), np.float32)


@functools.cache
def keys(n, seed=0):
    return jax.random.split(jax.random.key(seed), n)


@functools.cache
def sampler(op, shape):
    return jax.jit(jax.vmap(lambda key: op.sample(key, shape)))


def drawn(op, shape=(24, 24, 3), seed=0):
    """4000 draws of an op's parameters, as numpy."""
    return jax.tree.map(np.asarray, sampler(op, shape)(keys(4000, seed)))


@pytest.mark.parametrize("name", OPS)
def test_an_op_keeps_its_promises_on_shapes_types_and_range(name, images):
    op, shape = OPS[name]

    @jax.jit
    def both(keys, images):
        params = jax.vmap(lambda key: op.sample(key, images.shape[1:]))(keys)
        return params, jax.vmap(op.apply)(params, images)

    params, out = jax.device_get(both(keys(6), images))
    assert out.shape == (6, *shape)
    assert out.dtype == jnp.float32
    assert np.all(np.isfinite(out))
    overshoot = 0.3 if name == "crop" or name == "crop_height_law" else 0.0
    assert -overshoot <= out.min()
    assert out.max() <= 1 + overshoot
    if name in ("jitter", "rotate90"):
        # For an image by itself a switch is a switch, and not a choice among all that it could do.
        single = jax.jit(op.apply)(jax.tree.map(lambda field: field[2], params), images[2])
        np.testing.assert_allclose(single, out[2], atol=1e-5)


@pytest.mark.parametrize("name", [name for name in OPS if name != "clip"])
def test_a_key_draws_the_same_wherever_it_stands_and_another_key_something_else(name):
    op, _ = OPS[name]
    params = drawn(op)
    backwards = sampler(op, (24, 24, 3))(keys(4000)[::-1])
    jax.tree.map(lambda x, y: np.testing.assert_array_equal(x, y[::-1]), params, backwards)
    assert all(len(np.unique(field, axis=0)) > 1 for field in params)


@pytest.mark.parametrize("name", NEVER)
def test_without_probability_or_strength_nothing_happens(name, images):
    op = NEVER[name]
    out = jax.jit(jax.vmap(lambda key, image: op.apply(op.sample(key, image.shape), image)))(keys(6), images)
    np.testing.assert_allclose(out, images, atol=0 if name != "whole crop" else 1e-6)


@pytest.mark.parametrize("name", [name for name in OPS if name != "rotate90"])
def test_a_gray_oblong_image_goes_through(name, images):
    op, _ = OPS[name]
    image = images[0, :20, :, :1]
    out = jax.jit(lambda key, image: op.apply(op.sample(key, image.shape), image))(jax.random.key(1), image)
    assert out.shape[2] == 1
    assert np.all(np.isfinite(out))


def test_with_one_channel_color_has_nothing_to_change(images):
    gray = images[0, :, :, :1]
    colors = ops.color_jitter(0.0, 0.0, 0.9, 0.5, probability=1.0)
    for op in (colors, ops.grayscale(probability=1.0)):
        do = jax.jit(lambda key, op=op: op.apply(op.sample(key, gray.shape), gray))
        np.testing.assert_array_equal(do(jax.random.key(0)), gray)


# -------------------------------------------------------------------------------------------- what is drawn


@pytest.mark.parametrize("size", [(48, 20), (7, 9), (1, 1)])
@pytest.mark.parametrize("law", [ops.uniform_area, ops.uniform_height])
def test_every_box_lies_within_the_image(law, size):
    h, w = size
    box = drawn(ops.random_resized_crop(8, law=law), shape=(h, w, 3))
    for start, length, n in ((box.top, box.height, h), (box.left, box.width, w)):
        assert start.min() >= 0
        assert length.min() >= 1
        assert (start + length).max() <= n


def test_area_and_aspect_are_uniform_where_every_box_fits():
    op = ops.random_resized_crop(8, area=(0.1, 0.5))
    box = drawn(op, shape=(1000, 1000, 3))
    share, aspect = box.height * box.width / 1e6, box.width / box.height
    assert stats.kstest(share, stats.uniform(0.1, 0.4).cdf).pvalue > 1e-3
    assert stats.kstest(aspect, stats.uniform(3 / 4, 4 / 3 - 3 / 4).cdf).pvalue > 1e-3
    assert abs(np.corrcoef(share, aspect)[0, 1]) < 4 / np.sqrt(4000)


def test_places_are_uniform_and_reach_both_borders():
    box = drawn(ops.random_resized_crop(8, area=(0.25, 0.25), ratio=(1.0, 1.0)), shape=(8, 8, 3))
    assert set(box.height) == set(box.width) == {4}
    counts = np.bincount(box.top * 5 + box.left, minlength=25)
    assert stats.chisquare(counts).pvalue > 1e-3


def test_under_the_height_law_heights_are_uniform():
    box = drawn(
        ops.random_resized_crop(8, area=(0.25, 1.0), ratio=(1.0, 1.0), law=ops.uniform_height),
        shape=(8, 8, 3),
    )
    counts = np.bincount(box.height, minlength=9)
    assert set(np.flatnonzero(counts)) == {4, 5, 6, 7, 8}
    assert stats.chisquare(counts[4:]).pvalue > 1e-3


def test_the_aspect_ratio_is_relative_to_the_size_made():
    box = drawn(ops.random_resized_crop((10, 20), area=(0.1, 0.2), ratio=(1.0, 1.0)), shape=(500, 500, 3))
    np.testing.assert_allclose(box.width / box.height, 2.0, atol=0.02)


def test_where_no_box_is_allowed_the_whole_image_is_taken():
    box = drawn(ops.random_resized_crop(8, area=(0.9, 1.0), ratio=(1.0, 1.0)), shape=(10, 90, 3))
    assert set(box.height) == {10}
    assert set(box.width) == {90}


@pytest.mark.parametrize(
    ("op", "probability"),
    [
        (ops.flip(), 0.5),
        (ops.color_jitter(0.4, 0.4, 0.4, 0.1), 0.8),
        (ops.grayscale(), 0.2),
        (ops.gaussian_blur(), 0.5),
        (ops.solarize(probability=0.3), 0.3),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_coins_fall_as_often_as_they_should(op, probability):
    sigma = np.sqrt(probability * (1 - probability) / 4000)
    assert abs(drawn(op).on.mean() - probability) < 4 * sigma


def test_jitter_draws_uniform_strengths_in_any_order():
    params = drawn(ops.color_jitter(1.2, 0.4, 0.3, 0.1))
    ranges = {"brightness": (0, 2.2), "contrast": (0.6, 1.4), "saturation": (0.7, 1.3), "hue": (-0.1, 0.1)}
    for name, (low, high) in ranges.items():
        assert stats.kstest(getattr(params, name), stats.uniform(low, high - low).cdf).pvalue > 1e-3, name
    added = drawn(ops.color_jitter(0.4, 0.4, 0.3, 0.1, brightness_form="add"))
    assert stats.kstest(added.brightness, stats.uniform(-0.4, 0.8).cdf).pvalue > 1e-3
    orders, counts = np.unique(params.order, axis=0, return_counts=True)
    assert len(orders) == 24
    assert stats.chisquare(counts).pvalue > 1e-3


def test_blur_turn_and_shift_are_uniform():
    assert stats.kstest(drawn(ops.gaussian_blur()).sigma, stats.uniform(0.1, 1.9).cdf).pvalue > 1e-3
    turns = np.bincount(drawn(ops.rotate90(probability=0.6)).turns, minlength=4)
    assert stats.chisquare(turns, np.array([0.4, 0.2, 0.2, 0.2]) * 4000).pvalue > 1e-3
    shift = drawn(ops.translate(2))
    assert stats.chisquare(np.bincount((shift.down + 2) * 5 + shift.right + 2, minlength=25)).pvalue > 1e-3


# -------------------------------------------------------------------------------------------- what is done


@pytest.mark.parametrize("method", ["bicubic", "bilinear"])
@pytest.mark.parametrize("antialias", [False, True])
@pytest.mark.parametrize("box", [(0, 0, 24, 24), (3, 5, 7, 11), (20, 1, 1, 23), (2, 2, 16, 16)])
def test_a_crop_is_jax_image_resize_of_the_box(box, antialias, method, images):
    top, left, height, width = box
    op = ops.random_resized_crop(16, method=method, antialias=antialias)
    out = op.apply(ops.Crop(*map(jnp.int32, box)), images[0])
    cut = images[0, top : top + height, left : left + width]
    kernel = {"bicubic": "cubic", "bilinear": "linear"}[method]
    np.testing.assert_allclose(
        out, jax.image.resize(cut, (16, 16, 3), kernel, antialias=antialias), atol=2e-6
    )


def test_a_crop_leaves_a_constant_image_constant_and_a_box_of_the_size_made_untouched(images):
    crop = jax.jit(ops.random_resized_crop(16).apply)
    np.testing.assert_allclose(crop(ops.Crop(2, 5, 16, 16), images[0]), images[0, 2:18, 5:21], atol=1e-6)
    constant = np.full((24, 24, 3), 0.3, np.float32)
    np.testing.assert_allclose(crop(ops.Crop(1, 2, 20, 7), constant), 0.3, atol=1e-6)


def test_flips_and_turns_are_those_of_numpy(images):
    image = images[0]
    np.testing.assert_array_equal(ops.flip().apply(ops.Flip(jnp.bool_(True)), image), np.fliplr(image))
    for turns in range(4):
        out = ops.rotate90().apply(ops.Turn(jnp.int32(turns)), image)
        np.testing.assert_array_equal(out, np.rot90(image, turns))


def test_a_shift_moves_pixels_and_repeats_the_border(images):
    image = np.asarray(images[0])
    out = ops.translate(3).apply(ops.Shift(jnp.int32(2), jnp.int32(-3)), images[0])
    np.testing.assert_array_equal(out[2:, :-3], image[:-2, 3:])
    np.testing.assert_array_equal(out[0, :-3], image[0, 3:])
    np.testing.assert_array_equal(out[2:, -1], image[:-2, -1])


def test_solarize_turns_over_what_is_bright():
    image = jnp.array([0.0, 0.49, 0.5, 1.0]).reshape(1, 4, 1)
    out = ops.solarize().apply(ops.Solarize(jnp.bool_(True)), image)
    np.testing.assert_allclose(out.ravel(), [0.0, 0.49, 0.5, 0.0])


def test_turning_the_hue_by_thirds_permutes_the_channels(images):
    turn = jax.jit(ops.adjust_hue)
    np.testing.assert_allclose(turn(1 / 3, images[0]), np.roll(images[0], 1, axis=2), atol=1e-5)
    np.testing.assert_allclose(turn(1.0, images[0]), images[0], atol=1e-5)


def test_saturation_zero_is_the_value_and_one_is_the_identity(images):
    saturate = jax.jit(ops.adjust_saturation)
    np.testing.assert_allclose(saturate(1.0, images[0]), images[0], atol=1e-6)
    value = np.max(images[0], axis=2, keepdims=True)
    np.testing.assert_allclose(saturate(0.0, images[0]), np.broadcast_to(value, (24, 24, 3)), atol=1e-6)


def test_contrast_keeps_every_channels_mean(images):
    out = np.asarray(jax.jit(ops.adjust_contrast)(0.3, images[0]))
    np.testing.assert_allclose(out.mean((0, 1)), images[0].mean((0, 1)), atol=1e-6)
    np.testing.assert_allclose(out.std((0, 1)), 0.3 * images[0].std((0, 1)), rtol=1e-5)


def test_jitter_clips_between_its_changes():
    # Twice as bright clips half of the image; halving the contrast afterwards cannot bring it back.
    image = jnp.array([0.2, 0.6]).reshape(1, 2, 1)
    op = ops.color_jitter(1.0, 1.0, 0.0, 0.0)
    apply = jax.jit(op.apply)
    params = ops.Jitter(on=True, order=None, brightness=2.0, contrast=0.5, saturation=1.0, hue=0.0)
    first = apply(params._replace(order=np.array([0, 1, 2, 3])), image)
    last = apply(params._replace(order=np.array([1, 0, 2, 3])), image)
    np.testing.assert_allclose(first.ravel(), [0.55, 0.85], atol=1e-6)
    np.testing.assert_allclose(last.ravel(), [0.6, 1.0], atol=1e-6)


def test_blur_is_a_convolution_over_black():
    image = np.zeros((40, 40, 1), np.float32)
    image[0, 20] = 1
    out = np.asarray(jax.jit(ops.gaussian_blur().apply)(ops.Blur(True, 0.8), image))[..., 0]
    taps = np.exp(-(np.arange(-2, 3) ** 2) / (2 * 0.8**2))
    taps /= taps.sum()
    np.testing.assert_allclose(out[:3, 18:23], np.outer(taps[2:], taps), atol=1e-7)
    np.testing.assert_allclose(np.sum(out), taps[2:].sum(), atol=1e-6)


# -------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: ops.random_resized_crop(8, area=(0.0, 1.0)), "shares of the image"),
        (lambda: ops.random_resized_crop(8, area=(0.5, 0.2)), "shares of the image"),
        (lambda: ops.random_resized_crop(8, ratio=(2, 1)), "ratio must be"),
        (lambda: ops.random_resized_crop(8, method="lanczos"), "bicubic, bilinear"),
        (lambda: ops.color_jitter(-0.1, 0, 0, 0), "brightness is a strength"),
        (lambda: ops.color_jitter(0, 0, 0, 0.6), "at most 0.5"),
        (lambda: ops.color_jitter(0, 0, 0, 0, brightness_form="mul"), "multiply"),
        (lambda: ops.gaussian_blur(sigma=(0, 1)), "sigma"),
        (
            lambda: drawn(ops.random_resized_crop(8, area=(0.01, 0.05), law=ops.uniform_height)),
            "uniform_area",
        ),
        (lambda: ops.grayscale().apply(ops.Grayscale(True), jnp.zeros((2, 8, 8, 3))), "vmap"),
        (lambda: ops.grayscale().apply(ops.Grayscale(True), jnp.zeros((8, 8, 4))), "one channel or three"),
        (lambda: ops.rotate90().apply(ops.Turn(1), jnp.zeros((8, 9, 3))), "square"),
    ],
)
def test_what_is_wrong_is_said(make, says):
    with pytest.raises(ValueError, match=says):
        make()
