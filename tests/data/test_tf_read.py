"""Prepared TensorFlow data sets, read through tf.data: a tiny one is prepared here, without a network."""

import shutil

import numpy as np
import pytest

from jaxcl.cli import main
from jaxcl.data import arrays, classes, find_images, load, tf_read
from jaxcl.data import open as open_data
from jaxcl.data.decode import read_rgb
from jaxcl.data.everything import everything
from jaxcl.typing import About

pytest.importorskip("tensorflow", reason="TensorFlow is not installed")
tfds = pytest.importorskip("tensorflow_datasets", reason="TensorFlow Datasets is not installed")

pytestmark = pytest.mark.filterwarnings("ignore")


def pixels(i, height, width):
    return np.random.default_rng(i).integers(0, 256, (height, width, 3), dtype=np.uint8)


class TinyFlags(tfds.core.GeneratorBasedBuilder):
    """Images of one size, in two shards' worth of splits; the labels of "test" are secret, "unlabelled" has none."""

    VERSION = tfds.core.Version("1.0.0")
    SIZES = ((6, 8),)
    SHAPE = (6, 8, 3)

    def _info(self):
        features = tfds.features.FeaturesDict(
            {
                "image": tfds.features.Image(shape=self.SHAPE, encoding_format="png"),
                "label": tfds.features.ClassLabel(names=["nowhere", "somewhere"]),
                "note": tfds.features.Text(),
            }
        )
        return tfds.core.DatasetInfo(builder=self, features=features)

    def _split_generators(self, manager):
        return {name: self._generate_examples(name) for name in ("train", "validation", "test", "unlabelled")}

    def _generate_examples(self, split):
        for i in range({"train": 300, "validation": 5, "test": 4, "unlabelled": 7}[split]):
            image = pixels(i, *self.SIZES[i % len(self.SIZES)])
            yield (
                i,
                {"image": image, "label": -1 if split in ("test", "unlabelled") else i % 2, "note": str(i)},
            )


class TinyMixed(TinyFlags):
    """The same, of two sizes."""

    SIZES = ((6, 8), (12, 10))
    SHAPE = (None, None, 3)


class TinyUnlabelled(TinyFlags):
    """The only split beside "train" has secret labels."""

    def _split_generators(self, manager):
        return {"train": self._generate_examples("unlabelled"), "validation": self._generate_examples("test")}


class TinyTest(TinyFlags):
    """There is nothing to train on."""

    def _split_generators(self, manager):
        return {"test": self._generate_examples("validation")}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("tfds")
    tfds.disable_progress_bar()
    for builder in (TinyFlags, TinyMixed, TinyUnlabelled, TinyTest):
        builder(data_dir=root).download_and_prepare()
    return root


def test_every_image_comes_once_with_its_label(root):
    data = load("tfds:tiny_flags", "train", data_dir=root)
    assert data.images.shape == (300, 6, 8, 3)
    assert data.images.dtype == np.uint8
    assert data.classes == ("nowhere", "somewhere")
    number = {pixels(i, 6, 8).tobytes(): i for i in range(300)}
    found = [number[image.tobytes()] for image in data.images]
    assert sorted(found) == list(range(300))
    assert data.labels.tolist() == [i % 2 for i in found]


def test_the_order_is_the_same_every_time(root):
    first, second = (load("tfds:tiny_flags", "train", data_dir=root).images for _ in range(2))
    assert np.array_equal(first, second)


def test_where_the_test_labels_are_secret_validation_is_the_test(root):
    data = load("tfds:tiny_flags", "test", data_dir=root)
    assert data.name == "tfds:tiny_flags/validation"
    assert len(data.images) == 5


def test_other_splits_go_by_their_names(root):
    assert len(load("tfds:tiny_flags", "validation", data_dir=root).images) == 5


def test_images_of_different_sizes_want_a_size(root):
    with pytest.raises(ValueError, match="not all of one size. --size N"):
        load("tfds:tiny_mixed", "train", data_dir=root)
    assert load("tfds:tiny_mixed", "train", data_dir=root, size=4).images.shape == (300, 4, 4, 3)


def test_the_centre_square_at_its_own_size_is_untouched(root):
    whole = load("tfds:tiny_flags", "validation", data_dir=root).images
    assert np.array_equal(
        load("tfds:tiny_flags", "validation", data_dir=root, size=6).images, whole[:, :, 1:7]
    )


def test_resizing_agrees_with_that_of_folders(root):
    whole = load("tfds:tiny_flags", "validation", data_dir=root).images
    here = load("tfds:tiny_flags", "validation", data_dir=root, size=3).images
    there = arrays.resized(whole, 3)
    # The same kernel (Keys's cubic, a = -0.5), antialiased by both; Pillow rounds to 8 bits between its two passes.
    assert np.abs(here.astype(int) - there).max() <= 2


def test_more_than_fits_in_memory_is_mapped(root, monkeypatch):
    monkeypatch.setattr(arrays, "IN_MEMORY_BYTES", 100)
    assert isinstance(load("tfds:tiny_flags", "validation", data_dir=root).images, np.memmap)


def test_damage_is_said_to_be_damage(root, tmp_path):
    shutil.copytree(root / "tiny_flags", tmp_path / "tiny_flags")
    file = next((tmp_path / "tiny_flags").rglob("*train*record*"))
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(ValueError, match="[Pp]repare the data set again"):
        load("tfds:tiny_flags", "train", data_dir=tmp_path)


def test_a_name_that_no_one_knows_cannot_be_downloaded(root):
    with pytest.raises(ValueError, match="knows no data set 'no_such_flags'"):
        tf_read.prepare("no_such_flags", root)


def test_what_is_prepared_is_not_prepared_again(root):
    assert tf_read.prepare("tiny_flags", root) == root / "tiny_flags" / "1.0.0"


def test_a_split_without_labels_is_learnt_from_alone_or_with_another(root):
    alone = load("tfds:tiny_flags", "unlabelled", data_dir=root)
    assert alone.images.shape == (7, 6, 8, 3)
    assert (alone.labels, alone.classes) == (None, ())
    labelled = load("tfds:tiny_flags", "train", data_dir=root)
    both = load("tfds:tiny_flags", "train+unlabelled", data_dir=root)
    np.testing.assert_array_equal(both.images, np.concatenate([labelled.images, alone.images]))
    assert both.labels is None
    more = load("tfds:tiny_flags", "validation+train", data_dir=root)
    np.testing.assert_array_equal(more.labels[5:], labelled.labels)
    assert more.classes == labelled.classes


def test_encoded_splits_are_learnt_from_together_as_those_in_memory(root):
    for split in ("unlabelled", "train+unlabelled", "validation+train"):
        encoded, there = (
            find_images("tfds:tiny_flags", split, data_dir=root),
            load("tfds:tiny_flags", split, data_dir=root),
        )
        assert len(encoded.paths) == len(encoded.sizes) == len(encoded.plain) == len(there.images)
        np.testing.assert_array_equal(encoded.labels, there.labels)
        last = len(there.images) - 1
        np.testing.assert_array_equal(read_rgb(encoded.content(last)), there.images[last])


def test_evaluations_of_a_run_on_unlabelled_images_have_the_labelled_ones(root):
    opened = open_data("tfds:tiny_flags", data_dir=root, train_on="unlabelled", evaluate_on="validation")
    assert opened.about == About(7, (6, 8, 3), ())
    ((train, test),) = opened.evaluated.values()
    assert (len(train.images), len(test.images)) == (300, 5)
    assert opened.train.labels is None
    assert train.labels is not None


@pytest.mark.parametrize("fraction", [1.0, 7 / 8])
@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("tiny_flags", {"train": 300, "validation": 5, "test": 4, "unlabelled": 7}),
        ("tiny_unlabelled", {"train": 7, "validation": 4}),
        ("tiny_test", {"test": 5}),
    ],
)
def test_everything_is_each_split_once_whatever_labels_it_has(root, name, count, fraction):
    """Of a square as large as the images nothing is resized: its pixels tell which image it is."""
    parts = list(everything(f"tfds:{name}", data_dir=root, size=6, fraction=fraction))
    assert {part.splits[0]: len(part.images.images) for part in parts} == count
    assert next(iter(count)) == parts[0].splits[0]
    if fraction < 1:
        return
    for part in parts:
        squares = {pixels(i, 6, 8)[:, 1:7].tobytes(): i for i in range(len(part.images.images))}
        assert sorted(squares[image.tobytes()] for image in part.images.images) == list(range(len(squares)))


@pytest.mark.parametrize("fraction", [1.0, 7 / 8])
def test_of_a_list_of_classes_everything_is_what_has_labels(root, monkeypatch, fraction):
    monkeypatch.setitem(classes.CLASS_LISTS, "here", ("somewhere",))
    with pytest.warns(UserWarning, match="has no labels, so none of its images is taken"):
        parts = list(everything("tfds:tiny_flags#here", data_dir=root, size=6, fraction=fraction))
    assert {part.splits[0]: len(part.images.images) for part in parts} == {"train": 150, "validation": 2}
    assert {name for part in parts for name in part.classes} == {"somewhere"}
    with pytest.raises(ValueError, match="no split of it has labels"):
        list(everything("tfds:tiny_unlabelled#here", data_dir=root, size=6, fraction=fraction))


CONFIG = """
from dataclasses import dataclass

import optax

from jaxcl import CommonKnobs, Recipe, augment, basics, losses, methods, nets


@dataclass(frozen=True)
class Knobs(CommonKnobs):
    data: str = "tfds:tiny_flags"
    size: int = 6
    batch_size: int = 104
    epochs: float = 1


def recipe(knobs, about):
    size, steps, axis, dtype, lean = basics(knobs, about)
    norm, views = nets.batch_norm(axis_name=axis), augment.two_views(augment.flip())
    method = methods.simclr(
        views=views,
        encoder=nets.conv_n(features=(4,), dense=4, norm=norm),
        head=nets.mlp_head(norm=norm, hidden=(), out=4),
        loss=losses.keyless(losses.nt_xent, temperature=0.5),
        axis_name=axis,
    )
    return Recipe(method, optax.sgd(0.1), optax.constant_schedule(0.1), views, steps, knobs.batch_size)
"""


def test_a_run_goes_on_where_its_data_set_lies_elsewhere(root, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("jaxcl.report.run.DPI", 20)
    monkeypatch.delenv("TFDS_DATA_DIR", raising=False)
    (tmp_path / "tiny.py").write_text(CONFIG)
    shutil.copytree(root / "tiny_flags", tmp_path / "old/tiny_flags")
    with monkeypatch.context() as patch:
        patch.setitem(globals(), "pixels", lambda i, h, w, before=pixels: 255 - before(i, h, w))
        TinyFlags(data_dir=tmp_path / "other").download_and_prepare()
    run = ["--run-dir", str(tmp_path / "run")]
    train = ["train", str(tmp_path / "tiny.py"), *run, "--data-dir"]
    assert main([*train, str(tmp_path / "old")]) == 0
    (tmp_path / "old").rename(tmp_path / "new")
    capsys.readouterr()
    asked = ["evaluate", str(tmp_path / "run"), "--protocol", "knn", "--no-baselines"]
    assert main(asked) == 1
    assert "If it lies elsewhere: --data-dir DIR" in capsys.readouterr().err
    moved = ["--data-dir", str(tmp_path / "new")]
    assert main([*asked, *moved]) == 0
    assert main(["embed", str(tmp_path / "run"), "--out", str(tmp_path / "f.npz"), *moved]) == 0
    assert main(["plot", str(tmp_path / "run"), *moved]) == 0
    assert "cannot be read" not in capsys.readouterr().out
    assert main(["replay", str(tmp_path / "run"), "--step", "2", *moved]) == 0
    assert main([*train, *moved[1:], "--epochs", "2"]) == 0
    assert "goes on to 2, step 4" in capsys.readouterr().out
    # Only where it is the same data.
    assert main([*train, str(tmp_path / "other"), "--epochs", "3"]) == 1
    assert "the training images or their labels are others" in capsys.readouterr().err
