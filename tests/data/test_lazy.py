"""A data set of which nothing is read until it is asked for."""

import json

import numpy as np
import pytest
from PIL import Image

from jaxcl import data
from jaxcl.data import lazy
from jaxcl.typing import About, Images


def write_npz(path, kind, n=20, shape=(9, 7, 3)):
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (n, *shape), np.uint8), np.arange(n) % 4
    whole = {"images": images, "labels": labels}
    split = {f"{name}_{key}": value for name in ("train", "test") for key, value in whole.items()}
    arrays = {"whole": whole, "split": split, "unlabelled": {"images": images}}
    arrays["named"] = {**split, "classes": np.array(["a", "b", "c", "d"])}
    np.savez(path, **arrays[kind])


def write_folder(root, split):
    for i in range(20):
        path = root / ("train" if split else "") / "ab"[i % 2] / f"{i:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((6, 8, 3), i, np.uint8)).save(path)
    if split:
        (root / "test" / "a").mkdir(parents=True)
        Image.fromarray(np.zeros((6, 8, 3), np.uint8)).save(root / "test" / "a" / "0.png")


def write_tfds(root, *, names=True, shape=("6", "8", "3")):
    folder = root / "flags" / "1.0.0"
    folder.mkdir(parents=True)
    splits = [{"name": "train", "shardLengths": ["3", "4"]}, {"name": "test", "shardLengths": ["2"]}]
    (folder / "dataset_info.json").write_text(json.dumps({"splits": splits}))
    image = {
        "pythonClassName": "features.image_feature.Image",
        "image": {"shape": {"dimensions": list(shape)}},
    }
    label = {"pythonClassName": "features.class_label_feature.ClassLabel", "classLabel": {"numClasses": "2"}}
    features = {"featuresDict": {"features": {"image": image, "label": label}}}
    (folder / "features.json").write_text(json.dumps(features))
    if names:
        (folder / "label.labels.txt").write_text("no\nyes\n")


SOURCES = {
    "digits": lambda root: "digits",
    "npz, whole": lambda root: write_npz(root / "a.npz", "whole") or f"npz:{root}/a.npz",
    "npz, split": lambda root: write_npz(root / "a.npz", "split") or f"npz:{root}/a.npz",
    "npz, named": lambda root: write_npz(root / "a.npz", "named") or f"npz:{root}/a.npz",
    "npz, gray": lambda root: write_npz(root / "a.npz", "whole", shape=(9, 7)) or f"npz:{root}/a.npz",
    "npz, unlabelled": lambda root: write_npz(root / "a.npz", "unlabelled") or f"npz:{root}/a.npz",
    "folder": lambda root: write_folder(root / "f", False) or f"folder:{root}/f",
    "folder, split": lambda root: write_folder(root / "f", True) or f"folder:{root}/f",
}


@pytest.mark.parametrize("size", [None, 16])
@pytest.mark.parametrize("name", SOURCES)
def test_what_describes_a_data_set_says_what_its_images_are(name, size, tmp_path, monkeypatch):
    spec = SOURCES[name](tmp_path)
    described = data.open(spec, size=size)
    with monkeypatch.context() as patched:
        patched.setattr(lazy, "load", None)  # nothing is loaded for it
        about = described.about
    opened = data.open(spec, size=size)
    opened.train  # noqa: B018 once opened, the images say it themselves
    assert about == opened.about
    assert described.train.images.shape == (about.count, *about.shape)


def test_a_prepared_data_set_is_described_without_tensorflow(tmp_path, monkeypatch):
    monkeypatch.setattr("jaxcl.data.tfds.importlib.util.find_spec", lambda name: True)
    write_tfds(tmp_path)
    assert data.open("tfds:flags", data_dir=tmp_path).about == About(7, (6, 8, 3), ("no", "yes"))
    assert data.open("tfds:flags", data_dir=tmp_path, size=5).about.shape == (5, 5, 3)
    write_tfds(tmp_path / "unnamed", names=False, shape=("", "", "3"))
    about = data.open("tfds:flags", data_dir=tmp_path / "unnamed", size=5).about
    assert about == About(7, (5, 5, 3), ("0", "1"))


def test_images_that_stay_encoded_are_described_by_their_headers(tmp_path):
    write_folder(tmp_path, True)
    opened = data.open(f"folder:{tmp_path}", size=16, encoded=True)
    assert opened.about == About(20, (16, 16, 3), ("a", "b"))
    assert opened.train.images[:2].shape == (2, 16, 16, 3)
    assert opened.test.images.shape == (1, 16, 16, 3)


def test_nothing_is_opened_until_it_is_asked_for_and_then_once(monkeypatch):
    calls = []

    def opener(name):
        def opened():
            calls.append(name)
            return Images(name, np.zeros((3, 4, 4, 1), np.uint8))

        return opened

    lazily = data.Data("mine", train=opener("train"), test=opener("test"))
    assert calls == []
    assert lazily.about == About(3, (4, 4, 1), ())
    assert calls == ["train"]
    assert lazily.train is lazily.train
    assert lazily.test is lazily.test
    assert calls == ["train", "test"]
    assert lazily.evaluated is None
    assert data.Data("mine", train=opener("train")).test is None
    missing = data.open("folder:/not/there")  # no complaint yet
    with pytest.raises(FileNotFoundError, match="/not/there"):
        missing.about  # noqa: B018
    with pytest.raises(FileNotFoundError, match="/not/there"):
        missing.train  # noqa: B018


def test_a_description_that_counts_what_is_no_image_is_said(tmp_path):
    write_folder(tmp_path, True)
    (tmp_path / "train" / "a" / "99.png").write_bytes(b"no image")
    opened = data.open(f"folder:{tmp_path}", size=16)
    assert opened.about.count == 21
    described = "was described as .*count=21.* ask for `train` before"
    with pytest.warns(UserWarning, match=described), pytest.warns(UserWarning, match="1 of 21 files"):
        assert len(opened.train.images) == 20
    assert opened.about.count == 20  # from then on
    again = data.open(f"folder:{tmp_path}", size=16)
    with pytest.warns(UserWarning, match="left out"):
        again.train  # noqa: B018
    assert again.about.count == 20


def test_another_split_may_be_evaluated_on():
    opened = data.open("digits", evaluate_on="train")
    np.testing.assert_array_equal(opened.test.images[:9], opened.train.images[:9])
    with pytest.raises(ValueError, match='"train" or "test" for digits; got \'validation\''):
        data.open("digits", evaluate_on="validation").test  # noqa: B018


@pytest.mark.parametrize(
    ("spec", "how", "says"),
    [
        ("cifar10", {}, "names no data set.*tfrecord:PATTERN.*Did you mean tfds:cifar10"),
        ("digits", {"size": 0}, "positive int"),
        ("digits", {"encoded": True, "size": 32}, "in memory when it is read"),
        ("folder:/x", {"encoded": True}, "say what they are decoded to: size=224"),
        ("tfrecord:/x", {}, "say what they are decoded to: size=224"),
        ("tfrecord:/x", {"encoded": False}, "stays encoded"),
    ],
)
def test_what_cannot_be_opened_is_refused_at_once(spec, how, says):
    with pytest.raises(ValueError, match=says):
        data.open(spec, **how)
