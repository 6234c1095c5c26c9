"""Data sets with competing features: what is on an image, and that it is there again the next time."""

import numpy as np
import pytest

from jaxcl import data
from jaxcl.data.suppression import codes, resized
from jaxcl.typing import Images


def blobs(n=40, size=28, channels=1):
    """Images that are nowhere zero, with labels; each has a value of its own."""
    images = np.random.default_rng(0).integers(1, 256, (n, size, size, channels), dtype=np.uint8)
    return Images("blobs", images, np.arange(n) % 10, tuple("0123456789"))


# --- random bits


def test_the_bits_are_appended_and_the_picture_is_untouched():
    images = blobs(channels=3)
    coded = data.rand_bits(images, bits=5, seed=0)
    np.testing.assert_array_equal(coded.images[..., :3], images.images)
    assert coded.images.shape[-1] == 8
    bits = coded.images[..., 3:]
    assert set(np.unique(bits)) == {0, 255}
    assert (bits == bits[:, :1, :1]).all()


def test_no_bits_change_nothing():
    np.testing.assert_array_equal(data.rand_bits(blobs(), bits=0, seed=0).images, blobs().images)


def test_a_code_hangs_on_the_pixels_alone():
    images = blobs().images
    swapped = codes(images[::-1], bits=16, seed=0)[::-1]
    np.testing.assert_array_equal(swapped, codes(images, bits=16, seed=0))
    changed = images.copy()
    changed[0, 0, 0] ^= 1
    differs = (codes(changed, bits=64, seed=0) != codes(images, bits=64, seed=0)).any(axis=1)
    assert differs.tolist() == [True] + [False] * (len(images) - 1)


def test_fewer_bits_are_the_lowest_of_more_and_a_seed_gives_other_codes():
    images = blobs().images
    np.testing.assert_array_equal(codes(images, bits=5, seed=0), codes(images, bits=64, seed=0)[:, :5])
    assert (codes(images, bits=64, seed=0) != codes(images, bits=64, seed=1)).any(axis=1).all()


def test_codes_are_the_hash_modulo_a_power_of_two_lowest_bit_first():
    import hashlib

    images, key = blobs(3).images, (7).to_bytes(8, "little")
    for image, code in zip(images, codes(images, bits=9, seed=7), strict=True):
        digest = hashlib.blake2b(image.tobytes(), digest_size=8, key=key).digest()
        number = int.from_bytes(digest, "little") % 2**9
        assert [number >> i & 1 for i in range(9)] == code.tolist()


def test_every_bit_is_a_fair_and_separate_coin():
    images = np.random.default_rng(1).integers(0, 256, (4000, 2, 2, 1), dtype=np.uint8)
    signs = 2.0 * codes(images, bits=20, seed=0) - 1
    # Means and correlations have standard deviation 1/sqrt(4000) = 0.016.
    assert np.abs(signs.mean(axis=0)).max() < 0.08
    assert np.abs(signs.T @ signs / 4000 - np.eye(20)).max() < 0.08


@pytest.mark.parametrize("bits", [-1, 65])
def test_impossible_numbers_of_bits_are_refused(bits):
    with pytest.raises(ValueError, match="bits must be from 0 to 64"):
        data.rand_bits(blobs(), bits=bits, seed=0)


# --- digits on a canvas


def test_a_single_digit_stands_whole_on_its_canvas_under_its_label():
    images = blobs()
    canvases, classes = data.multi_digits(images, digits=1, count=30, seed=0)
    assert canvases.images.shape == (30, 112, 112, 1)
    np.testing.assert_array_equal(canvases.labels, classes[:, 0])
    of_value = {image.tobytes(): label for image, label in zip(images.images, images.labels, strict=True)}
    corners = set()
    for canvas, label in zip(canvases.images, canvases.labels, strict=True):
        rows, columns = np.nonzero(canvas[..., 0])
        top, left = rows.min(), columns.min()
        assert (rows.max() - top, columns.max() - left) == (27, 27)
        assert of_value[canvas[top : top + 28, left : left + 28].tobytes()] == label
        corners.add((top, left))
    assert len(corners) > 25


def test_a_grid_of_sixteen_is_full_and_nothing_overlaps():
    canvases, classes = data.multi_digits(blobs(), digits=16, count=3, seed=0, placement="grid")
    assert (canvases.images > 0).all()
    assert classes.shape == (3, 16)
    assert canvases.labels is None
    cells = canvases.images[0].reshape(4, 28, 4, 28).transpose(0, 2, 1, 3).reshape(16, -1)
    originals = {image.tobytes(): label for image, label in zip(blobs().images, blobs().labels, strict=True)}
    assert sorted(originals[cell.tobytes()] for cell in cells) == sorted(classes[0])


def test_overlapping_digits_are_added_and_clipped():
    bright = Images("bright", np.full((1, 4, 4, 1), 200, np.uint8), np.array([3]))
    canvases, _ = data.multi_digits(bright, digits=3, count=1, seed=0, canvas=4)
    assert (canvases.images == 255).all()
    dim = bright._replace(images=np.full((1, 4, 4, 1), 50, np.uint8))
    canvases, _ = data.multi_digits(dim, digits=3, count=1, seed=0, canvas=4)
    assert (canvases.images == 150).all()


@pytest.mark.parametrize("placement", ["random", "grid"])
def test_more_canvases_begin_with_those_of_fewer(placement):
    few, _ = data.multi_digits(blobs(), digits=3, count=5, seed=0, placement=placement)
    many, _ = data.multi_digits(blobs(), digits=3, count=9, seed=0, placement=placement)
    other, _ = data.multi_digits(blobs(), digits=3, count=5, seed=1, placement=placement)
    np.testing.assert_array_equal(many.images[:5], few.images)
    assert (other.images != few.images).any()


def test_two_digits_have_their_sizes_and_either_label():
    white = Images("white", np.full((10, 28, 28, 1), 255, np.uint8), np.arange(10))
    kinds = data.two_digits(white, sizes=(20, 60), count=40, seed=0)
    assert list(kinds) == ["first digit", "second digit"]
    first, second = kinds.values()
    assert first.images is second.images
    assert (first.labels != second.labels).any()
    areas = (first.images > 0).sum(axis=(1, 2, 3))
    assert areas.max() == 20**2 + 60**2  # side by side
    assert areas.min() >= 60**2


def test_what_cannot_be_placed_is_refused():
    with pytest.raises(ValueError, match="17 digits of 28 pixels do not fit on a grid of 4 x 4 cells"):
        data.multi_digits(blobs(), digits=17, count=1, seed=0, placement="grid")
    with pytest.raises(ValueError, match="do not fit on a canvas of 20"):
        data.multi_digits(blobs(), digits=1, count=1, seed=0, canvas=20)
    with pytest.raises(ValueError, match='placement must be "random" or "grid"'):
        data.multi_digits(blobs(), digits=1, count=1, seed=0, placement="circle")
    with pytest.raises(ValueError, match="blobs has no labels"):
        data.multi_digits(blobs()._replace(labels=None), digits=1, count=1, seed=0)
    with pytest.raises(ValueError, match="at least one digit"):
        data.multi_digits(blobs(), digits=0, count=1, seed=0)
    with pytest.raises(ValueError, match="two sizes in pixels"):
        data.two_digits(blobs(), sizes=(20,), count=1, seed=0)


# --- digits on photographs


def test_a_digit_stands_at_nine_places_and_the_brighter_pixel_counts():
    digits = Images("digits", np.full((5, 28, 28, 1), 90, np.uint8), np.array([5, 0, 4, 1, 9]))
    photos = Images("photos", np.array([40, 200], np.uint8).repeat(2 * 50 * 3).reshape(2, 10, 10, 3), [0, 1])
    kinds = data.digit_on_image(photos, digits, unique=1, seed=0)
    dark, light = kinds["photo"].images
    assert dark.shape == (224, 224, 3)
    assert (light == 200).all()
    here = np.zeros((224, 224, 1), bool)
    for top in (33, 100, 168):
        for left in (33, 100, 168):
            here[top : top + 28, left : left + 28] = True
    np.testing.assert_array_equal(dark, np.where(here, 90, 40) * np.ones(3, int))


def test_the_digit_label_is_that_of_what_was_pasted():
    ramps = np.full((4, 28, 28, 1), 10, np.uint8) * (1 + np.arange(4, dtype=np.uint8))[:, None, None, None]
    digits = Images("digits", ramps, np.array([7, 1, 8, 2]), tuple("0123456789"))
    photos = Images("photos", np.zeros((30, 16, 16, 3), np.uint8), np.arange(30) % 3, ("a", "b", "c"))
    kinds = data.digit_on_image(photos, digits, unique=3, seed=0, size=64)
    assert list(kinds) == ["photo", "digit"]
    np.testing.assert_array_equal(kinds["photo"].labels, photos.labels)
    brightest = kinds["digit"].images.reshape(30, -1).max(axis=1)
    np.testing.assert_array_equal(kinds["digit"].labels, digits.labels[brightest // 10 - 1])
    assert set(brightest) == {10, 20, 30}  # the fourth is not among the first three


def test_a_kind_of_label_that_is_not_there_is_left_out():
    photos = Images("photos", np.zeros((2, 16, 16, 3), np.uint8))
    assert list(data.digit_on_image(photos, blobs(), unique=2, seed=0, size=32)) == ["digit"]
    with pytest.raises(ValueError, match="Neither photos nor blobs has labels"):
        data.digit_on_image(photos, blobs()._replace(labels=None), unique=2, seed=0, size=32)
    with pytest.raises(ValueError, match="unique must be from 1 to the 40 digits"):
        data.digit_on_image(photos, blobs(), unique=41, seed=0, size=32)
    with pytest.raises(ValueError, match="square and gray"):
        data.digit_on_image(photos, blobs(channels=3), unique=1, seed=0, size=32)


def test_presence_forgets_how_often_and_in_which_order():
    present = data.presence(np.array([[1, 1, 3], [3, 1, 3]]), count=4)
    np.testing.assert_array_equal(present, [[False, True, False, True]] * 2)


def test_resizing_keeps_what_is_constant():
    flat = np.full((28, 28, 1), 77, np.uint8)
    assert resized(flat, 28) is flat
    assert (resized(flat, 80) == 77).all()
    assert resized(np.zeros((5, 9, 3), np.uint8), 4).shape == (4, 4, 3)
