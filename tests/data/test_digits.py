"""The embedded digits are deterministic, split by original, and hard for raw pixels."""

import numpy as np
import pytest

from jaxcl.data import load, scattered_digits
from jaxcl.data.digits import LUMA, TRAIN_ORIGINALS, _enlarge, _originals


@pytest.fixture(scope="module")
def train():
    return scattered_digits("train")


@pytest.fixture(scope="module")
def test():
    return scattered_digits("test")


def test_they_are_what_the_vocabulary_says(train, test):
    for data, n in ((train, 8000), (test, 2000)):
        assert data.images.shape == (n, 32, 32, 3)
        assert data.images.dtype == np.uint8
        assert data.labels.shape == (n,)
        assert data.labels.dtype == np.int32
        assert data.classes == tuple("0123456789")
        # Each original is dealt once before one is dealt again, so the classes stay even.
        assert np.all(np.abs(np.bincount(data.labels, minlength=10) / n - 0.1) < 0.02)


def test_the_same_arguments_give_the_same_images():
    a, b = scattered_digits("test", n=50), scattered_digits("test", n=50)
    assert np.array_equal(a.images, b.images)
    assert np.array_equal(a.labels, b.labels)


def test_another_seed_scatters_otherwise():
    a, b = scattered_digits("test", n=50), scattered_digits("test", n=50, seed=1)
    assert np.mean(a.images != b.images) > 0.9


def test_no_original_is_in_both_splits():
    train, test = _originals("train")[0], _originals("test")[0]
    assert len(train) == TRAIN_ORIGINALS
    assert len(train) + len(test) == 1797
    assert not {x.tobytes() for x in train} & {x.tobytes() for x in test}


def knn_accuracy(train, test, of):
    """The majority of the 10 nearest by cosine, of 500 test images."""

    def unit(images):
        x = of(images.astype(np.float32)).reshape(len(images), -1)
        return x / np.linalg.norm(x, axis=1, keepdims=True)

    nearest = np.argpartition(unit(test.images[:500]) @ -unit(train.images).T, 10)[:, :10]
    votes = np.sum(train.labels[nearest][:, :, None] == np.arange(10), axis=1)
    return np.mean(np.argmax(votes, axis=1) == test.labels[:500])


def test_raw_pixels_say_little_and_gray_ones_more(train, test):
    def gray(images):
        x = images @ LUMA
        return x - x.mean(axis=(1, 2), keepdims=True)

    raw = knn_accuracy(train, test, lambda x: x)
    # Color is the nuisance, and no more than that.
    assert raw < 0.25
    assert knn_accuracy(train, test, gray) > raw + 0.2


def test_the_background_has_no_luminance_of_its_own():
    data = scattered_digits("test", n=50, clutter=0, colors=0.15, contrast=(0.0, 0.0))
    gray = data.images.astype(np.float32) @ LUMA
    # But for rounding.
    assert np.ptp(gray, axis=(1, 2)).max() < 2
    assert np.ptp(data.images.astype(int), axis=(1, 2)).min() > 25


def test_enlarging_by_one_onto_its_own_grid_changes_nothing():
    small = np.random.default_rng(0).random((3, 8, 8)).astype(np.float32)
    middle, one = np.full(3, 4.0, np.float32), np.ones(3, np.float32)
    np.testing.assert_allclose(_enlarge(small, middle, middle, one, one, 8), small, atol=1e-6)


@pytest.mark.parametrize("size", [16, 48])
def test_any_canvas_will_do(size):
    assert load("digits", "train", size=size).images.shape[1:] == (size, size, 3)


@pytest.mark.parametrize(
    "wrong",
    [
        {"n": 0},
        {"size": 8},
        {"clutter": -1.0},
        {"colors": -1.0},
        {"scale": (3.0, 2.0)},
        {"scale": (1.0, 9.0)},
    ],
)
def test_what_cannot_be_drawn_is_an_error(wrong):
    with pytest.raises(ValueError, match="expected"):
        scattered_digits("test", **wrong)


def test_an_unknown_split_is_an_error():
    with pytest.raises(ValueError, match="validation"):
        scattered_digits("validation")
