"""Crops, flips, rotations and shifts: what is drawn, and what is done with it."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from jaxcl import augment
from jaxcl.augment import geometry

KEY = jax.random.key(2)


@pytest.mark.parametrize("size", [(48, 20), (7, 9), (1, 1)])
@pytest.mark.parametrize(
    "distribution", [augment.uniform_area, augment.uniform_area_cut, augment.uniform_height]
)
def test_every_box_lies_within_the_image(drawn, distribution, size):
    h, w = size
    box = drawn(augment.random_resized_crop(8, distribution=distribution), shape=(h, w, 3))
    for start, length, n in ((box.top, box.height, h), (box.left, box.width, w)):
        assert start.min() >= 0
        assert length.min() >= 1
        assert (start + length).max() <= n


def test_area_and_aspect_are_uniform_where_every_box_fits(drawn):
    op = augment.random_resized_crop(8, area=(0.1, 0.5))
    box = drawn(op, shape=(1000, 1000, 3))
    fraction, aspect = box.height * box.width / 1e6, box.width / box.height
    assert stats.kstest(fraction, stats.uniform(0.1, 0.4).cdf).pvalue > 1e-3
    assert stats.kstest(aspect, stats.uniform(3 / 4, 4 / 3 - 3 / 4).cdf).pvalue > 1e-3
    assert abs(np.corrcoef(fraction, aspect)[0, 1]) < 4 / np.sqrt(4000)


def test_positions_are_uniform_and_reach_both_borders(drawn):
    box = drawn(augment.random_resized_crop(8, area=(0.25, 0.25), ratio=(1.0, 1.0)), shape=(8, 8, 3))
    assert set(box.height) == set(box.width) == {4}
    counts = np.bincount(box.top * 5 + box.left, minlength=25)
    assert stats.chisquare(counts).pvalue > 1e-3


def test_under_uniform_height_heights_are_uniform(drawn):
    box = drawn(
        augment.random_resized_crop(
            8, area=(0.25, 1.0), ratio=(1.0, 1.0), distribution=augment.uniform_height
        ),
        shape=(8, 8, 3),
    )
    counts = np.bincount(box.height, minlength=9)
    assert set(np.flatnonzero(counts)) == {4, 5, 6, 7, 8}
    assert stats.chisquare(counts[4:]).pvalue > 1e-3


def test_the_aspect_ratio_is_relative_to_the_size_made(drawn):
    box = drawn(augment.random_resized_crop((10, 20), area=(0.1, 0.2), ratio=(1.0, 1.0)), shape=(500, 500, 3))
    np.testing.assert_allclose(box.width / box.height, 2.0, atol=0.02)


def test_where_no_box_is_allowed_the_whole_image_is_taken(drawn):
    box = drawn(augment.random_resized_crop(8, area=(0.9, 1.0), ratio=(1.0, 1.0)), shape=(10, 90, 3))
    assert set(box.height) == {10}
    assert set(box.width) == {90}


def test_rotations_and_shifts_are_uniform(drawn):
    quarters = np.bincount(drawn(augment.rotate90(probability=0.6)).quarters, minlength=4)
    assert stats.chisquare(quarters, np.array([0.4, 0.2, 0.2, 0.2]) * 4000).pvalue > 1e-3
    shift = drawn(augment.translate(2))
    assert stats.chisquare(np.bincount((shift.down + 2) * 5 + shift.right + 2, minlength=25)).pvalue > 1e-3


KERNELS = {"bicubic": "cubic", "bilinear": "linear"}
BOXES = [(0, 0, 24, 24), (3, 5, 7, 11), (20, 1, 1, 23), (2, 2, 16, 16)]


@pytest.fixture(scope="module")
def resized(images):
    """(box, method, antialias) -> the crop, and the box resized by jax."""

    @jax.jit
    def all_of_them(image, boxes):
        made = {}
        for method, antialias in itertools.product(KERNELS, (False, True)):
            op = augment.random_resized_crop(16, method=method, antialias=antialias)
            crops = jax.vmap(lambda *box, op=op: op.apply(geometry.Crop(*box), image))(*boxes)
            for crop, box in zip(crops, BOXES, strict=True):
                top, left, height, width = box
                cut = image[top : top + height, left : left + width]
                want = jax.image.resize(cut, (16, 16, 3), KERNELS[method], antialias=antialias)
                made[box, method, antialias] = crop, want
        return made

    return all_of_them(images[0], np.int32(BOXES).T)


@pytest.mark.parametrize("method", KERNELS)
@pytest.mark.parametrize("antialias", [False, True])
@pytest.mark.parametrize("box", BOXES)
def test_a_crop_is_jax_image_resize_of_the_box(box, antialias, method, resized):
    np.testing.assert_allclose(*resized[box, method, antialias], atol=2e-6)


def test_a_crop_leaves_a_constant_image_constant_and_a_box_of_the_size_made_untouched(images):
    crop = jax.jit(augment.random_resized_crop(16).apply)
    np.testing.assert_allclose(crop(geometry.Crop(2, 5, 16, 16), images[0]), images[0, 2:18, 5:21], atol=1e-6)
    constant = np.full((24, 24, 3), 0.3, np.float32)
    np.testing.assert_allclose(crop(geometry.Crop(1, 2, 20, 7), constant), 0.3, atol=1e-6)


def test_flips_and_rotations_are_those_of_numpy(images):
    image = images[0]
    flip, rotate = jax.jit(augment.flip().apply), jax.jit(augment.rotate90().apply)
    np.testing.assert_array_equal(flip(geometry.Flip(np.bool_(True)), image), np.fliplr(image))
    for quarters in range(4):
        out = rotate(geometry.Rotation(np.int32(quarters)), image)
        np.testing.assert_array_equal(out, np.rot90(image, quarters))


def test_a_shift_moves_pixels_and_repeats_the_border(images):
    image = np.asarray(images[0])
    shift = jax.jit(augment.translate(3).apply)
    out = np.asarray(shift(geometry.Shift(np.int32(2), np.int32(-3)), image))
    np.testing.assert_array_equal(out[2:, :-3], image[:-2, 3:])
    np.testing.assert_array_equal(out[0, :-3], image[0, 3:])
    np.testing.assert_array_equal(out[2:, -1], image[:-2, -1])


def test_reflected_borders_are_those_of_numpy():
    image = np.random.default_rng(1).random((7, 9, 3), np.float32)
    padded = np.pad(image, ((4, 4), (4, 4), (0, 0)), mode="reflect")
    shift = jax.jit(augment.translate(4, border="reflect").apply)
    for down, right in [(0, 0), (4, -4), (-3, 2), (-4, 4)]:
        out = shift(geometry.Shift(np.int32(down), np.int32(right)), image)
        np.testing.assert_array_equal(out, padded[4 - down : 11 - down, 4 - right : 13 - right])
    with pytest.raises(ValueError, match="edge, reflect"):
        augment.translate(4, border="wrap")


def test_shifts_happen_as_often_as_asked(drawn):
    shifts = drawn(augment.translate(4, probability=0.3), shape=(8, 8, 3))
    moved = np.mean((shifts.down != 0) | (shifts.right != 0))
    assert abs(moved - 0.3 * (1 - 1 / 81)) < 0.04


@pytest.mark.parametrize("shape", [(20, 20), (33, 20), (20, 41)])
def test_the_center_crop_is_the_center_box_resized(shape):
    image = np.random.default_rng(3).random((*shape, 3), np.float32)
    side = round(0.875 * min(shape))
    top, left = ((n - side + 1) // 2 for n in shape)
    box = geometry.Crop(*map(np.int32, (top, left, side, side)))

    @jax.jit
    def three_ways(image, box):
        fused = augment.fuse(augment.evaluation(8)).apply(((), ()), image)
        crop = augment.random_resized_crop(8).apply(box, image)
        return augment.center_crop(8).apply((), image), crop, fused

    out, crop, fused = jax.device_get(three_ways(image, box))
    np.testing.assert_allclose(out, crop, atol=1e-6)
    np.testing.assert_allclose(fused, np.clip(out, 0, 1), atol=1e-6)


def test_the_logarithm_of_the_ratio_is_uniform(drawn):
    op = augment.random_resized_crop(
        8, area=(0.05, 0.1), distribution=augment.uniform_area_log_ratio, ratio=(0.5, 2.0)
    )
    boxes = drawn(op, shape=(400, 400, 3))
    ratio = np.log(boxes.width / boxes.height)
    assert abs(ratio.mean()) < 0.03
    np.testing.assert_allclose(np.quantile(ratio, [0.25, 0.75]), [-np.log(2) / 2, np.log(2) / 2], atol=0.04)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: augment.random_resized_crop(8, area=(0.0, 1.0)), "fractions of the image"),
        (lambda: augment.random_resized_crop(8, area=(0.5, 0.2)), "fractions of the image"),
        (lambda: augment.random_resized_crop(8, ratio=(2, 1)), "ratio must be"),
        (lambda: augment.random_resized_crop(8, method="lanczos"), "bicubic, bilinear"),
        (
            lambda: augment.random_resized_crop(
                8, area=(0.01, 0.05), distribution=augment.uniform_height
            ).sample(KEY, (24, 24, 3)),
            "uniform_area",
        ),
        (lambda: augment.rotate90().apply(geometry.Rotation(1), jnp.zeros((8, 9, 3))), "square"),
    ],
)
def test_what_is_wrong_is_said(make, says):
    with pytest.raises(ValueError, match=says):
        make()
