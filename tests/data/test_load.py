"""What names a data set, and what does not."""

import numpy as np
import pytest

from jaxcl.data import from_arrays, load


@pytest.mark.parametrize(
    ("spec", "guess"),
    [
        ("digit", "digits"),
        ("digits:32", "digits"),
        ("cifar10", "tfds:cifar10"),
        ("cifar-10", "tfds:cifar10"),
        ("tdfs:mnist", "tfds:mnist"),
        ("foldr:/x", "folder:/x"),
        ("images.npz", "npz:images.npz"),
        ("images.npy", "npy:images.npy"),
        ("/", "folder:/"),
    ],
)
def test_an_unknown_spec_names_what_is_understood_and_the_nearest(spec, guess):
    with pytest.raises(ValueError, match="digits .*tfds:NAME .*folder:PATH .*npz:PATH") as error:
        load(spec, "train")
    assert str(error.value).endswith(f"Did you mean {guess}?")


@pytest.mark.parametrize("spec", ["", "tfds:", "folder:", "npz", "::", "xyzzy:1"])
def test_nonsense_gets_no_guess_but_the_list(spec):
    with pytest.raises(ValueError, match="names no data set. Understood are: digits"):
        load(spec, "train")


@pytest.mark.parametrize("size", [0, -1, 2.5, True, "32"])
def test_a_size_that_is_none_is_an_error(size):
    with pytest.raises(ValueError, match="positive int"):
        load("digits", "train", size=size)


@pytest.mark.parametrize("spec", ["digits", "npy:/x.npy", "npz:/x.npz"])
def test_splits_are_train_and_test(spec):
    with pytest.raises(ValueError, match='"train" or "test"'):
        load(spec, "validation")


def test_splits_of_folders_are_called_as_splits():
    with pytest.raises(ValueError, match="as train, test, val; 'cats' names no split"):
        load("folder:/", "cats")


@pytest.mark.parametrize(
    ("spec", "option", "says"),
    [
        ("digits", {"labels": "x.csv"}, "goes with folder:PATH"),
        ("digits", {"value_range": (0, 1)}, "those of digits have 8"),
        ("folder:/x", {"value_range": (1, 0)}, "LOW below HIGH"),
    ],
)
def test_options_that_a_kind_of_data_has_no_use_for(spec, option, says):
    with pytest.raises(ValueError, match=says):
        load(spec, "train", **option)


def test_arrays_are_looked_at_and_kept_as_they_are():
    images, labels = np.zeros((20, 6, 6, 3), np.uint8), np.arange(20) % 3
    data = from_arrays(images, labels.astype(np.uint8), name="mine")
    assert data.images is images
    assert data.labels.dtype == np.int32
    assert data.name == "mine"
