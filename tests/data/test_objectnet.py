"""ObjectNet's images of classes that ImageNet-100 has as well."""

import numpy as np
import pytest
from PIL import Image

from jaxcl import data
from jaxcl.data.classes import IMAGENET100
from jaxcl.data.objectnet import OBJECTNET13

# WordNet's words for them, by the archive of ObjectNet's authors (mappings/objectnet_to_imagenet_1k.json) and by
# ImageNet's list of classes.
SAID = {
    "bench": "n03891251",  # park bench
    "chair": "n04099969",  # rocking chair
    "keyboard": "n03085013",  # computer keyboard, keypad
    "wheel": "n02974003",  # car wheel
}


@pytest.fixture
def folder(tmp_path):
    """One gray photograph of each class within a red line, 20 x 30 pixels, and one of a class that is none of them."""
    for k, name in enumerate([*OBJECTNET13, "air_freshener"]):
        pixels = np.full((20, 30, 3), 10 * k, np.uint8)
        pixels[:2] = pixels[-2:] = pixels[:, :2] = pixels[:, -2:] = (255, 0, 0)
        (tmp_path / name).mkdir()
        Image.fromarray(pixels).save(tmp_path / name / "a.png")
    return tmp_path


def test_the_thirteen_classes_are_classes_of_imagenet100():
    assert len(OBJECTNET13) == len(set(OBJECTNET13.values())) == 13
    assert set(OBJECTNET13.values()) <= set(IMAGENET100)
    assert {name: OBJECTNET13[name] for name in SAID} == SAID


def test_images_have_no_border_and_the_labels_of_imagenet100(folder):
    images = data.objectnet13(folder, size=8)
    assert len(images.images) == 13
    assert images.classes == tuple(sorted(IMAGENET100))
    found = {
        file.split("/")[0]: images.classes[k] for file, k in zip(images.files, images.labels, strict=True)
    }
    assert found == OBJECTNET13
    for k, pixels in enumerate(images.images):
        np.testing.assert_array_equal(pixels, 10 * k)  # nothing is red


def test_a_file_that_is_no_image_is_left_out_and_a_missing_folder_named(folder):
    (folder / "bench" / "b.png").write_text("no image")
    with pytest.warns(UserWarning, match="1 of 14 files"):
        assert data.objectnet13(folder, size=8).skipped[0].startswith("bench/b.png: no image")
    (folder / "wheel" / "a.png").unlink()
    with pytest.raises(ValueError, match="holds no image of wheel"):
        data.objectnet13(folder, size=8)
    (folder / "wheel").rmdir()
    with pytest.raises(FileNotFoundError, match="no folder .*wheel"):
        data.objectnet13(folder, size=8)
