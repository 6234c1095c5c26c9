"""Numpy archives, sound and damaged."""

import io
import zipfile

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from jaxcl.data import load
from jaxcl.data import open as lazy_open
from jaxcl.data.arrays import held_out
from jaxcl.typing import About


def picture(seed=0, height=20, width=20):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def save(path, pixels, mode=None, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(pixels)
    (image.convert(mode) if mode else image).save(path, **options)


def class_folder(root, classes=("cat", "dog"), each=10):
    for k, name in enumerate(classes):
        for i in range(each):
            save(root / name / f"{i:02}.png", np.full((8, 8, 3), 100 * k + i, np.uint8))
    return root


def arrays(n=20):
    images = np.zeros((n, 6, 6, 3), np.uint8) + np.arange(n, dtype=np.uint8)[:, None, None, None]
    return images, np.arange(n) % 3


def test_archives_with_and_without_splits(tmp_path):
    images, labels = arrays()
    np.savez_compressed(
        tmp_path / "split.npz",
        train_images=images,
        train_labels=labels,
        test_images=images[:5],
        classes=["a", "b", "c"],
    )
    train, test = load(f"npz:{tmp_path}/split.npz", "train"), load(f"npz:{tmp_path}/split.npz", "test")
    assert np.array_equal(train.images, images)
    assert np.array_equal(train.labels, labels)
    assert train.classes == ("a", "b", "c")
    assert len(test.images) == 5
    assert test.labels is None

    np.savez(tmp_path / "whole.npz", images=images[..., 0], labels=labels)
    train, test = load(f"npz:{tmp_path}/whole.npz", "train"), load(f"npz:{tmp_path}/whole.npz", "test")
    assert train.images.shape == (18, 6, 6, 1)
    assert test.images[:, 0, 0, 0].tolist() == [9, 19]
    assert test.labels.tolist() == [0, 1]


@pytest.mark.parametrize("channels", [1, 3])
def test_archives_are_resized_as_folders_are(tmp_path, channels):
    pixels = picture(1, 10, 16)
    save(tmp_path / "folder" / "0.png", pixels if channels == 3 else pixels[..., 0])
    np.savez(tmp_path / "0.npz", train_images=pixels[None, ..., :channels])
    from_folder = load(f"folder:{tmp_path}/folder", "train", size=5).images
    assert np.array_equal(load(f"npz:{tmp_path}/0.npz", "train", size=5).images, from_folder[..., :channels])


@pytest.mark.parametrize("kind", ["npz", "npy"])
@pytest.mark.parametrize("channels", [2, 4, 13])
def test_images_may_have_any_number_of_channels(tmp_path, kind, channels):
    images = np.random.default_rng(0).integers(0, 256, (20, 8, 8, channels), np.uint8)
    labels, more = np.arange(20) % 3, {}
    if kind == "npz":
        np.savez(tmp_path / "a.npz", images=images, labels=labels)
    else:
        np.save(tmp_path / "a.npy", images)
        np.save(tmp_path / "labels.npy", labels)
        more = {"labels": str(tmp_path / "labels.npy")}
    spec, kept = f"{kind}:{tmp_path}/a.{kind}", held_out(20, "train")
    train = load(spec, "train", **more)
    np.testing.assert_array_equal(train.images, images[kept])
    assert train.labels.tolist() == labels[kept].tolist()
    assert lazy_open(spec, **more).about == About(18, (8, 8, channels), ("0", "1", "2"))
    small = load(spec, "train", size=4, **more).images
    # A channel is resized as an image of its own.
    np.savez(tmp_path / "one.npz", images=images[..., -1])
    np.testing.assert_array_equal(small[..., -1:], load(f"npz:{tmp_path}/one.npz", "train", size=4).images)


def test_archives_of_other_than_bytes_are_scaled_by_the_range_of_both_splits_or_as_told(tmp_path):
    def levels(*values):
        return np.asarray(values, np.uint16)[:, None, None, None] * np.ones((1, 4, 4, 1), np.uint16)

    np.savez(tmp_path / "a.npz", train_images=levels(0, 500), test_images=levels(4000))
    spec = f"npz:{tmp_path}/a.npz"
    train = load(spec, "train")
    assert train.images[:, 0, 0, 0].tolist() == [0, round(500 / 4095 * 255)]
    assert "from 0 to 4000: 0 becomes black and 4095 white" in train.notes[0]
    assert load(spec, "train", value_range=(0, 1000)).images[1, 0, 0, 0] == 128
    np.savez(tmp_path / "b.npz", train_images=np.full((2, 4, 4, 3), 0.2, np.float32))
    whole = load(f"npz:{tmp_path}/b.npz", "train", value_range=(0, 1))
    assert whole.images[0, 0, 0, 0] == 51
    assert whole.notes == ()


def test_pixels_that_are_no_numbers_are_told_with_their_images(tmp_path):
    pixels = np.full((20, 4, 4, 3), 0.2, np.float32)
    pixels[7, 1, 2, 0], pixels[9, 0, 0, 0] = np.nan, np.inf
    np.savez(tmp_path / "a.npz", train_images=pixels)
    np.save(tmp_path / "a.npy", pixels)
    for spec in (f"npz:{tmp_path}/a.npz", f"npy:{tmp_path}/a.npy"):
        found = load(spec, "train", value_range=(0, 1))
        assert found.notes[-1].startswith("2 images have pixels that are not finite"), spec
        assert found.notes[-1].endswith(": 7, 9."), spec


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (
            {"images": np.zeros((20, 6, 6, 3), np.float32)},
            r"must be uint8 in 0..255; got float32.*--value-range 0 1.*255 \* images",
        ),
        ({"images": np.zeros((20, 3, 6, 6), np.uint8)}, r"got \[20, 3, 6, 6\].*transpose\(0, 2, 3, 1\)"),
        ({"images": np.zeros((20, 13, 64, 64), np.uint8)}, r"channels\].*transpose\(0, 2, 3, 1\)"),
        ({"images": np.zeros((20, 6), np.uint8)}, r"got \[20, 6\]"),
        ({"images": np.zeros((0, 6, 6, 3), np.uint8)}, "there are no images"),
        ({"labels": np.zeros(19, int)}, r"shape \[20\]; got labels of the shape \[19\]"),
        ({"labels": np.zeros((20, 2), int)}, r"expected one label for each.*\[20, 2\]"),
        ({"labels": np.zeros(20, np.float32)}, "must be integers.*float32"),
        ({"labels": np.arange(20) - 1}, "got -1 at index 0"),
        ({"labels": np.full(20, 3), "classes": np.array(["a", "b"])}, "label 3 at index 0 has no class"),
        ({"labels": np.full(20, 2**40)}, "int32"),
        ({"labels": np.array([None] * 20)}, "pickle can run any code"),
        (
            {"images": np.array([np.zeros((2, 2)), np.zeros((3, 2))], object)},
            "lists? of images of different sizes",
        ),
        ({"classes": np.zeros(3)}, "classes must be a list of names"),
    ],
)
def test_what_is_wrong_with_an_archive_is_said(tmp_path, change, says):
    images, labels = arrays()
    np.savez(tmp_path / "a.npz", **({"images": images, "labels": labels} | change))
    with pytest.raises(ValueError, match=says):
        load(f"npz:{tmp_path}/a.npz", "train")


def test_archives_that_are_none(tmp_path):
    np.save(tmp_path / "single.npy", arrays()[0])
    np.savez(tmp_path / "other.npz", x_train=arrays()[0])
    (tmp_path / "a.npz").write_bytes(b"not a zip")
    with pytest.raises(ValueError, match="no .npz archive"):
        load(f"npz:{tmp_path}/single.npy", "train")
    with pytest.raises(ValueError, match="no .npz archive"):
        load(f"npz:{tmp_path}/a.npz", "train")
    with pytest.raises(ValueError, match="holds x_train; expected train_images"):
        load(f"npz:{tmp_path}/other.npz", "train")
    with pytest.raises(ValueError, match=f"Did you mean folder:{tmp_path}"):
        load(f"npz:{tmp_path}", "train")
    with pytest.raises(ValueError, match="other.npz is no numpy file .* Did you mean npz:.*/other.npz"):
        load(f"npy:{tmp_path}/other.npz", "train")
    with pytest.raises(FileNotFoundError, match="Did you mean .*a.npz"):
        load(f"npz:{tmp_path}/aa.npz", "train")


def test_a_small_archive_that_asks_for_much_memory_is_refused(tmp_path):
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "|u1", "fortran_order": False, "shape": (10**6, 200, 200, 3)}
    )
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("images.npy", header.getvalue())
    with pytest.raises(ValueError, match="is damaged: .* needs 120000000000 bytes, and 0 are there"):
        load(f"npz:{tmp_path}/a.npz", "train")


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), compressed=st.booleans())
def test_a_damaged_archive_is_read_right_or_is_a_value_error(data, compressed, tmp_path):
    images, labels = arrays()
    (np.savez_compressed if compressed else np.savez)(tmp_path / "a.npz", images=images, labels=labels)
    bytes_ = bytearray((tmp_path / "a.npz").read_bytes())
    bytes_[data.draw(st.integers(0, len(bytes_) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    (tmp_path / "a.npz").write_bytes(bytes_[: data.draw(st.sampled_from([len(bytes_), len(bytes_) // 2]))])
    try:
        got = load(f"npz:{tmp_path}/a.npz", "train")
    except ValueError:
        return
    # Zip's checksum guards the pixels.
    assert np.array_equal(got.images, images[held_out(20, "train")])


def test_labels_whose_name_is_damaged_are_not_taken_for_labels_that_are_not_there(tmp_path):
    file = tmp_path / "a.npz"
    np.savez(file, train_images=np.zeros((20, 2, 2, 1), np.uint8), train_labels=np.arange(20) % 2)
    content = file.read_bytes()
    name = content.rindex(b"train_labels")  # in the list at the end, which is what a reader looks at
    file.write_bytes(content[:name] + b"T" + content[name + 1 :])
    with pytest.raises(ValueError, match="a.npz is damaged: File name in directory .* differ"):
        load(f"npz:{file}", "train")


def test_an_archive_as_medmnist_gives_it(tmp_path):
    arrays = {}
    for name, n in (("train", 6), ("val", 4), ("test", 2)):
        arrays |= {
            f"{name}_images": np.full((n, 3, 3), n, np.uint8),
            f"{name}_labels": np.arange(n)[:, None] % 2,
        }
    np.savez(tmp_path / "a.npz", **arrays)
    spec = f"npz:{tmp_path}/a.npz"
    assert [len(load(spec, name).images) for name in ("train", "val", "test")] == [6, 4, 2]
    assert load(spec, "val").labels.tolist() == [0, 1, 0, 1]
    assert lazy_open(spec).about.classes == ("0", "1")
    np.savez(tmp_path / "b.npz", **{key: value for key, value in arrays.items() if "test" not in key})
    assert len(load(f"npz:{tmp_path}/b.npz", "test").images) == 4
    np.savez(tmp_path / "c.npz", images=arrays["train_images"])
    with pytest.raises(ValueError, match="holds images; expected val_images"):
        load(f"npz:{tmp_path}/c.npz", "val")
