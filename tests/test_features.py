"""`jaxcl embed`: features of any images in a file that other tools open."""

import csv
import sys

import numpy as np
import pytest
from PIL import Image

from jaxcl import keys
from jaxcl.cli import main
from jaxcl.config import load_config
from jaxcl.data import as_images, classes, decode, find_images, load, stream
from jaxcl.encoder import load_encoder
from jaxcl.features import Features, fitting, write
from jaxcl.runs import create_or_resume
from jaxcl.train import checkpoint, init_state
from jaxcl.train.state import blank_batch
from jaxcl.typing import About, Images

CONFIG = """
from dataclasses import dataclass
import optax
from jaxcl import CommonKnobs, Recipe, augment, losses, methods, nets

@dataclass(frozen=True)
class Knobs(CommonKnobs):
    data: str = "npz:gone.npz"

def recipe(knobs, about):
    views = augment.two_views(augment.crop_and_flip(8))
    method = methods.simclr(
        views=views,
        encoder=nets.conv_n(features=(4,), dense=6, norm=nets.batch_norm()),
        head=nets.mlp_head(norm=nets.no_norm(), hidden=(), out=5),
        loss=losses.keyless(losses.nt_xent, temperature=0.5),
    )
    return Recipe(method, optax.sgd(0.1), optax.constant_schedule(0.1), views, 4, 16)
"""
PICTURES = ("train/cat/1.png", "train/cat/2.png", "train/dog/3.png", "test/cat/4.png", "test/dog/5.png")


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A run of a config whose images are gone, and a folder of pictures of several sizes."""
    folder = tmp_path_factory.mktemp("world")
    (folder / "tiny.py").write_text(CONFIG)
    config, about = load_config(folder / "tiny.py"), About(32, (8, 8, 3), ("a", "b"))
    create_or_resume(folder / "run", folder / "tiny.py", config.Knobs(), about)
    recipe = config.recipe(config.Knobs(), about)
    state = init_state(keys.init_key(0), recipe.method, recipe.optimizer, blank_batch(about))
    checkpoint.save(folder / "run/checkpoints", 4, state)
    rng = np.random.default_rng(0)
    for k, name in enumerate(PICTURES):
        (folder / "pictures" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (8, 8 + k, 3), np.uint8)).save(folder / "pictures" / name)
    return folder


def run(world, out, *words):
    return main(["embed", str(world / "run"), "--out", str(out), *words])


def test_a_folder_comes_with_its_files_classes_and_splits_and_without_training_data(world, tmp_path, capsys):
    assert run(world, tmp_path / "f.npz", "--data", f"folder:{world}/pictures") == 0
    said = capsys.readouterr().out
    assert "5 features of 6 numbers" in said
    assert "5 images of 8 x 8 x 3, 2 classes" in said
    with np.load(tmp_path / "f.npz") as found:
        assert found["features"].dtype == np.float32
        assert found["files"].tolist() == sorted(PICTURES)
        assert found["splits"].tolist() == ["test", "test", "train", "train", "train"]
        assert found["classes"].tolist() == ["cat", "dog", "cat", "cat", "dog"]
        assert found["class_names"][found["labels"]].tolist() == found["classes"].tolist()
        # The one that is 8 x 8 is not resized, so its feature is that of its pixels.
        pixels = np.asarray(Image.open(world / "pictures" / PICTURES[0]))
        want = load_encoder(world / "run")(pixels[None])[0]
        np.testing.assert_allclose(
            found["features"][found["files"].tolist().index(PICTURES[0])], want, rtol=1e-5
        )


def test_one_picture_without_a_class_is_a_folder(world, tmp_path):
    (tmp_path / "one").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "one/a.png")
    assert run(world, tmp_path / "f.npz", "--data", f"folder:{tmp_path}/one") == 0
    with np.load(tmp_path / "f.npz") as found:
        assert [found[name].tolist() for name in ("files", "splits", "classes", "labels")] == [
            ["a.png"],
            [""],
            [""],
            [-1],
        ]


def test_nothing_of_a_folder_without_splits_is_held_out(world, tmp_path, capsys):
    for k in range(20):
        Image.new("RGB", (8, 8), (k, 0, 0)).save(tmp_path / f"{k:02}.png")
    assert run(world, tmp_path / "out/f.csv", "--data", f"folder:{tmp_path}") == 0
    with (tmp_path / "out/f.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["file", "split", "class", *(f"f{k}" for k in range(6))]
    assert [row[0] for row in rows[1:]] == [f"{k:02}.png" for k in range(20)]
    assert {row[1] for row in rows[1:]} == {""}
    assert "held out" not in capsys.readouterr().out


def test_an_archive_comes_by_its_splits_and_gray_images_become_rgb(world, tmp_path):
    arrays = {"train_images": np.zeros((3, 8, 8), np.uint8), "train_labels": [1, 0, 1]}
    np.savez(tmp_path / "a.npz", **arrays, test_images=np.ones((2, 8, 8), np.uint8), test_labels=[0, 1])
    assert run(world, tmp_path / "f.npz", "--data", f"npz:{tmp_path}/a.npz", "--layer", "-1") == 0
    with np.load(tmp_path / "f.npz") as found:
        assert found["features"].shape == (5, 5)
        assert found["splits"].tolist() == ["train"] * 3 + ["test"] * 2
        assert found["classes"].tolist() == ["1", "0", "1", "0", "1"]


FOUND = Features(
    np.float32([[0.1, 1 / 3], [1e-30, -2]]), ("a, b.png", "c.png"), ("train", "test"), ("cat", "")
)


def test_a_table_of_text_keeps_every_bit_and_every_name(tmp_path):
    with write(tmp_path / "f.csv", FOUND).open(newline="") as file:
        rows = list(csv.reader(file))[1:]
    np.testing.assert_array_equal(np.float32([[float(x) for x in row[3:]] for row in rows]), FOUND.features)
    assert [row[:3] for row in rows] == [["a, b.png", "train", "cat"], ["c.png", "test", ""]]


def test_parquet_holds_the_same_columns(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    table = parquet.read_table(write(tmp_path / "f.parquet", FOUND)).to_pydict()
    assert list(table) == ["file", "split", "class", "f0", "f1"]
    np.testing.assert_array_equal(np.float32([table["f0"], table["f1"]]).T, FOUND.features)
    assert table["file"] == list(FOUND.files)


def test_what_cannot_be_written_is_said_before_anything_is_computed(world, tmp_path, capsys, monkeypatch):
    assert run(world, tmp_path / "f.xls") == 1
    assert "written as .npz, .csv, .parquet; got" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert run(world, tmp_path / "f.parquet") == 1
    assert "pip install pyarrow" in capsys.readouterr().err


def test_other_channels_and_sizes_are_refused_and_equal_ones_are_one():
    gray = np.repeat(np.arange(4, dtype=np.uint8).reshape(1, 2, 2, 1), 3, axis=3)
    assert fitting(Images("gray", gray), (2, 2, 1)).images.shape == (1, 2, 2, 1)
    with pytest.raises(ValueError, match="takes images with 1 channels; those of color have 3"):
        fitting(Images("color", gray * np.uint8([1, 2, 3])), (2, 2, 1))
    with pytest.raises(ValueError, match=r"takes images of \(4, 4\) pixels"):
        fitting(Images("small", gray), (4, 4, 3))


def test_gray_images_that_stay_encoded_fit_as_those_in_memory_do(tmp_path, monkeypatch):
    """And each is decoded once."""
    for k in range(10):
        name = tmp_path / "test" / "ab"[k % 2] / f"{k}.png"
        name.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.random.default_rng(k).integers(0, 256, (8, 8), np.uint8)).save(name)
    there = load(f"folder:{tmp_path}", "test", size=8)
    encoded = as_images(find_images(f"folder:{tmp_path}", "test"), 8)
    decoded = []
    monkeypatch.setattr(stream, "read", lambda *given: decoded.append(0) or decode.read(*given))
    found = fitting(encoded, (8, 8, 1))
    assert len(decoded) == 10
    assert found.images.shape == (10, 8, 8, 1)
    assert np.array_equal(found.images, fitting(there, (8, 8, 1)).images)
    assert np.array_equal(found.images, there.images[..., :1])


def test_of_a_list_of_classes_no_split_of_a_folder_comes_twice(world, tmp_path, monkeypatch):
    """Its test images are in no class, so validation stands in for them elsewhere."""
    monkeypatch.setitem(classes.CLASS_LISTS, "cat", ("cat",))
    for k, name in enumerate(("train/cat/1", "train/dog/2", "val/cat/3", "val/dog/4", "test/5", "test/6")):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((8, 8, 3), k, np.uint8)).save(tmp_path / "in" / f"{name}.png")
    assert load(f"folder:{tmp_path}/in", "test", size=8).images[:, 0, 0, 0].tolist() == [2, 3]
    with pytest.warns(UserWarning, match="test has no labels"):
        assert run(world, tmp_path / "f.npz", "--data", f"folder:{tmp_path}/in#cat") == 0
    with np.load(tmp_path / "f.npz") as found:
        assert found["files"].tolist() == ["train/cat/1.png", "val/cat/3.png"]
        assert found["splits"].tolist() == ["train", "val"]


def test_all_three_splits_of_an_archive_come(world, tmp_path):
    three = {
        f"{name}_images": np.zeros((n, 8, 8, 3), np.uint8)
        for n, name in enumerate(("test", "train", "val"), 1)
    }
    np.savez(tmp_path / "a.npz", **three)
    assert run(world, tmp_path / "f.npz", "--data", f"npz:{tmp_path}/a.npz") == 0
    with np.load(tmp_path / "f.npz") as found:
        assert found["splits"].tolist() == ["train"] * 2 + ["test"] + ["val"] * 3
