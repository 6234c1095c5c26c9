"""Prepared TensorFlow data sets, as far as they are found without TensorFlow; the rest is in test_tf_read.py."""

import json
import time

import pytest

from jaxcl.data import load, tfds


def fake_tfds(root, where="flags/1.0.0", splits=("train", "test")):
    (root / where).mkdir(parents=True)
    listed = ", ".join(f'{{"name": "{name}", "shardLengths": ["3"]}}' for name in splits)
    (root / where / "dataset_info.json").write_text(f'{{"splits": [{listed}]}}')


@pytest.fixture
def installed(monkeypatch):
    monkeypatch.setattr(tfds.importlib.util, "find_spec", lambda name: True)


def test_without_tensorflow_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(tfds.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"pip install 'jaxcl\[tfds\]'"):
        load("tfds:mnist", "train", data_dir=tmp_path)


def test_what_is_not_prepared_is_said_within_a_second(tmp_path, installed, monkeypatch):
    fake_tfds(tmp_path)
    start = time.monotonic()
    with pytest.raises(
        FileNotFoundError, match=r"not prepared under .*prepared there: flags.*tfds.load\('mnist'"
    ):
        load("tfds:mnist", "train", data_dir=tmp_path)
    with pytest.raises(FileNotFoundError, match="Did you mean tfds:cifar10"):
        load("tfds:ciffar10", "train", data_dir=tmp_path)
    with pytest.raises(FileNotFoundError, match="Did you mean tfds:flags"):
        load("tfds:flag", "train", data_dir=tmp_path)
    with pytest.raises(FileNotFoundError, match="nothing is prepared there"):
        load("tfds:mnist", "train", data_dir=tmp_path / "nowhere")
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "from environment"))
    with pytest.raises(FileNotFoundError, match="from environment"):
        load("tfds:mnist", "train")
    assert time.monotonic() - start < 1


def test_a_preparation_that_was_broken_off_is_no_data_set(tmp_path, installed):
    (tmp_path / "flags" / "incomplete.ABC_1.0.0").mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match="begun and not finished"):
        load("tfds:flags", "train", data_dir=tmp_path)


def test_an_unknown_split_names_those_there_are(tmp_path, installed):
    fake_tfds(tmp_path)
    with pytest.raises(ValueError, match="splits train, test; got 'tain'. Did you mean 'train'?"):
        load("tfds:flags", "tain", data_dir=tmp_path)


def test_configs_and_versions_are_found(tmp_path):
    for where in ("flags/1.9.0", "flags/1.10.0", "shapes/big/1.0.0", "shapes/small/1.0.0", "only/one/2.0.0"):
        fake_tfds(tmp_path, where)
    found = {
        "flags": "flags/1.10.0",
        "flags:1.9.0": "flags/1.9.0",
        "shapes/small": "shapes/small/1.0.0",
        "only": "only/one/2.0.0",
    }
    for where, folder in found.items():
        assert tfds.prepared(where, tmp_path) == tmp_path / folder
    with pytest.raises(ValueError, match="prepared as big, small; say which"):
        tfds.prepared("shapes", tmp_path)
    with pytest.raises(FileNotFoundError, match="not prepared"):
        tfds.prepared("flags:3.0.0", tmp_path)
    for where in ("a b", "../x", "x/../y", "x:latest"):
        with pytest.raises(ValueError, match="expected tfds:NAME"):
            tfds.prepared(where, tmp_path)


def test_secret_labels_are_refused_with_the_splits_that_have_some(monkeypatch, tmp_path):
    from jaxcl.data import tf_read

    monkeypatch.setattr(tfds, "tfds_splits", lambda *_, **__: (tmp_path, ["test"], ["train", "validation"]))
    monkeypatch.setattr(tf_read, "read", lambda *_, **__: None)
    with pytest.raises(ValueError, match="not public .* Load another split: train, validation"):
        load("tfds:photos", "test")


@pytest.mark.parametrize("part", ["1pct", "10pct"])
def test_simclr_s_fixed_lists_of_labelled_images_are_configs_of_a_data_set(tmp_path, installed, part):
    """`tfds:imagenet2012_subset/1pct`: 12,811 training images, and ImageNet's 50,000 of validation to test on."""
    count = {"1pct": 12811, "10pct": 128116}[part]
    for config, n in {"1pct": 12811, "10pct": 128116}.items():
        folder = tmp_path / "imagenet2012_subset" / config / "5.0.0"
        folder.mkdir(parents=True)
        splits = [
            {"name": "train", "shardLengths": [str(n)]},
            {"name": "validation", "shardLengths": ["50000"]},
        ]
        (folder / "dataset_info.json").write_text(json.dumps({"splits": splits}))
        image = {"shape": {"dimensions": ["0", "0", "3"]}}
        features = {
            "image": {
                "pythonClassName": "tensorflow_datasets.core.features.image_feature.Image",
                "image": image,
            },
            "label": {"pythonClassName": "a.ClassLabel", "classLabel": {"numClasses": "1000"}},
        }
        (folder / "features.json").write_text(json.dumps({"featuresDict": {"features": features}}))
    about = tfds.about_tfds(f"imagenet2012_subset/{part}", tmp_path, 224)
    assert about is not None
    assert (about.count, about.shape, len(about.classes)) == (count, (224, 224, 3), 1000)
    assert tfds.tfds_splits(f"imagenet2012_subset/{part}", "test", tmp_path)[1] == ["validation"]
    with pytest.raises(ValueError, match="is prepared as 10pct, 1pct; say which"):
        tfds.tfds_splits("imagenet2012_subset", "train", tmp_path)
