"""Data sets restricted to a list of classes."""

import hashlib

import numpy as np
import pytest
from PIL import Image

from jaxcl import data
from jaxcl.data import classes as lists
from jaxcl.data.classes import IMAGENET100, chosen_rows, without_list

NAMES = ("cat", "dog", "eel", "fox")


@pytest.fixture
def animals(tmp_path, monkeypatch):
    """A folder of 12 images of four classes, whose color tells the class; and the list "some", of two of them."""
    monkeypatch.setitem(lists.CLASS_LISTS, "some", ("fox", "dog"))
    for i in range(12):
        path = tmp_path / "images#" / ("test" if i >= 8 else "train") / NAMES[i % 4] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((9, 9 + i, 3), 20 * (i % 4), np.uint8)).save(path)
    return f"folder:{tmp_path / 'images#'}"


def test_imagenet100_is_a_hundred_classes_of_imagenet():
    assert len(set(IMAGENET100)) == 100
    assert all(len(name) == 9 and name[0] == "n" and name[1:].isdigit() for name in IMAGENET100)
    assert (IMAGENET100[0], IMAGENET100[-1]) == ("n01558993", "n13040303")


def test_imagenet100_is_the_list_of_cmcs_code():
    """The names in HobbitLong/CMC's imagenet100.txt, sorted, a line each; feature transformation and LooC have it."""
    digest = hashlib.sha256("\n".join(sorted(IMAGENET100)).encode()).hexdigest()
    assert digest == "d61d354b64beb3ce2c2c9cf04a874298362dc9fcd589e15ee34c5e4592145746"


def test_images_in_memory_are_those_of_the_list(animals):
    images = data.load(f"{animals}#some", "train", size=8)
    assert images.classes == ("dog", "fox")
    # The class's color: 20 for dogs, 60 for foxes.
    np.testing.assert_array_equal(images.images[:, 4, 4, 0], np.array([20, 60])[images.labels])
    assert sorted(images.labels) == [0, 0, 1, 1]


def test_encoded_images_are_those_of_the_list(animals):
    found = data.find_images(f"{animals}#some", "train")
    whole = data.find_images(animals, "train")
    assert found.classes == ("dog", "fox")
    assert set(found.paths) == {path for path in whole.paths if "/dog/" in path or "/fox/" in path}
    sizes = dict(zip(whole.paths, whole.sizes.tolist(), strict=True))
    assert [sizes[path] for path in found.paths] == found.sizes.tolist()
    assert [found.classes[label] for label in found.labels] == [path.split("/")[-2] for path in found.paths]


@pytest.mark.parametrize("encoded", [False, True])
def test_a_restricted_data_set_says_how_many_images_it_has(animals, encoded):
    opened = data.open(f"{animals}#some", size=8, encoded=encoded)
    assert opened.about == (4, (8, 8, 3), ("dog", "fox"))
    assert len(opened.test.images) == 2
    assert data.open(animals, size=8, encoded=encoded).about.count == 8


def test_a_number_sign_in_a_path_stays_there(animals):
    assert without_list(animals) == (animals, None)
    with pytest.raises(ValueError, match="known list of classes; there are imagenet100"):
        data.open("tfds:imagenet2012#imagenet10", size=8)


def test_classes_that_are_not_there_are_named():
    with pytest.raises(ValueError, match=r"and 2 of them are not there: cow, pig"):
        chosen_rows("animals", np.arange(4), NAMES, ("cow", "cat", "pig"))
    with pytest.raises(ValueError, match="restricted to 1 classes"):
        chosen_rows("animals", None, (), ("cow",))
