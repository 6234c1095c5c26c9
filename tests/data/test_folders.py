"""Every way of storing images gives the same thing, and every way of being wrong its own message."""

import io
import os
import time
import warnings
import zipfile
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from jaxcl.data import from_arrays, load, sources


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


# Specs


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


@pytest.mark.parametrize("spec", ["digits", "folder:/", "npz:/x.npz"])
def test_splits_are_train_and_test(spec):
    with pytest.raises(ValueError, match='"train" or "test"'):
        load(spec, "validation")


# Folders


def test_sub_folders_are_classes_and_every_tenth_file_is_held_out(tmp_path):
    class_folder(tmp_path)
    train, test = load(f"folder:{tmp_path}", "train"), load(f"folder:{tmp_path}", "test")
    assert train.classes == test.classes == ("cat", "dog")
    assert train.images[:, 0, 0, 0].tolist() == [*range(9), *range(100, 109)]
    assert train.labels.tolist() == [0] * 9 + [1] * 9
    assert test.images[:, 0, 0, 0].tolist() == [9, 109]
    assert test.labels.tolist() == [0, 1]
    assert train.skipped == ()


@pytest.mark.parametrize("held_out", ["test", "val"])
def test_train_and_test_folders_are_the_splits(tmp_path, held_out):
    class_folder(tmp_path / "train", ("cat", "dog", "elk"), each=3)
    class_folder(tmp_path / held_out, ("dog", "elk"), each=2)
    train, test = load(f"folder:{tmp_path}", "train"), load(f"folder:{tmp_path}", "test")
    assert len(train.images) == 9
    assert len(test.images) == 4
    # A class has one number, whichever split lacks it.
    assert train.classes == test.classes == ("cat", "dog", "elk")
    assert test.labels.tolist() == [1, 1, 2, 2]


def test_a_class_of_trains_is_no_split(tmp_path):
    class_folder(tmp_path, ("car", "train"))
    assert load(f"folder:{tmp_path}", "train").classes == ("car", "train")


def test_a_flat_folder_has_no_labels(tmp_path):
    for i in range(10):
        save(tmp_path / f"{i}.png", picture(i))
    data = load(f"folder:{tmp_path}", "train")
    assert data.labels is None
    assert data.classes == ()
    assert all(np.array_equal(data.images[i], picture(i)) for i in range(9))


def test_files_deep_below_a_class_belong_to_it_and_links_lead_in_no_circle(tmp_path):
    save(tmp_path / "train" / "cat" / "2024" / "may" / "0.png", picture(0))
    save(tmp_path / "elsewhere" / "0.png", picture(1))
    (tmp_path / "train" / "dog").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "train" / "cat" / "self").symlink_to(tmp_path / "train" / "cat")
    (tmp_path / "train" / "cat" / "gone.png").symlink_to(tmp_path / "nowhere.png")
    with pytest.warns(UserWarning, match="2 of 4 files"):
        data = load(f"folder:{tmp_path / 'train'}", "train")
    assert data.classes == ("cat", "dog")
    assert data.labels.tolist() == [0, 1]
    assert [line.partition(":")[0] for line in data.skipped] == ["cat/gone.png", "cat/self"]


def test_size_takes_the_centre_square(tmp_path):
    # Left to right: 20 columns of red, 20 of green, 20 of blue; the centre square is green.
    bands = np.repeat(np.eye(3, dtype=np.uint8) * 255, 20, axis=0)[None].repeat(20, axis=0)
    save(tmp_path / "wide.png", bands)
    save(tmp_path / "tall.png", bands.transpose(1, 0, 2))
    data = load(f"folder:{tmp_path}", "train", size=10)
    assert data.images.shape == (2, 10, 10, 3)
    # But for its edge, where the cubic kernel sees a little of what was cut off.
    assert np.all(data.images[1, :, 1:-1] == [0, 255, 0])
    assert np.all(data.images[0, 1:-1] == [0, 255, 0])
    assert np.all(data.images[..., 1] > 220)


def test_size_is_the_usual_resize_and_centre_crop(tmp_path):
    smooth = np.asarray(Image.fromarray(picture(1, 6, 9)).resize((90, 60), Image.Resampling.BICUBIC))
    save(tmp_path / "0.png", smooth)
    got = load(f"folder:{tmp_path}", "train", size=20).images[0]
    usual = Image.fromarray(smooth).resize((30, 20), Image.Resampling.BICUBIC).crop((5, 0, 25, 20))
    # Only the outermost columns see another border.
    assert np.abs(got.astype(int) - np.asarray(usual)).max(axis=(0, 2))[2:-2].max() <= 1


def test_images_of_different_sizes_want_a_size(tmp_path):
    for i in range(3):
        save(tmp_path / f"{i}.png", picture(i))
    save(tmp_path / "odd.png", picture(3, 20, 24))
    with pytest.raises(ValueError, match=r"3 are 20 x 20 pixels .* odd.png is 20 x 24. Pass size=N"):
        load(f"folder:{tmp_path}", "train")
    assert load(f"folder:{tmp_path}", "train", size=8).images.shape == (4, 8, 8, 3)


def color_of(tmp_path, **options):
    return load(f"folder:{tmp_path}", "train", **options).images[0, 4, 4].tolist()


@pytest.mark.parametrize(
    ("name", "pixels", "mode", "expected", "off"),
    [
        ("gray.png", np.full((8, 8), 100, np.uint8), None, [100, 100, 100], 0),
        ("bits.png", np.full((8, 8), 255, np.uint8), "1", [255, 255, 255], 0),
        ("deep.png", np.full((8, 8), 257 * 100, np.uint16), None, [100, 100, 100], 0),
        ("deep.tiff", np.full((8, 8), 257 * 100, np.uint16), None, [100, 100, 100], 0),
        ("int32.tiff", np.full((8, 8), 257 * 100, np.int32), None, [100, 100, 100], 0),
        ("palette.png", np.full((8, 8, 3), [200, 10, 30], np.uint8), "P", [200, 10, 30], 30),
        ("clear.png", np.full((8, 8, 4), [200, 10, 30, 0], np.uint8), None, [255, 255, 255], 0),
        ("solid.png", np.full((8, 8, 4), [200, 10, 30, 255], np.uint8), None, [200, 10, 30], 0),
        ("half.png", np.full((8, 8, 2), [100, 128], np.uint8), None, [177, 177, 177], 1),
        ("photo.jpg", np.full((8, 8, 3), [200, 10, 30], np.uint8), None, [200, 10, 30], 3),
        ("print.jpg", np.full((8, 8, 3), [200, 10, 30], np.uint8), "CMYK", [200, 10, 30], 3),
        ("photo.webp", np.full((8, 8, 3), [200, 10, 30], np.uint8), None, [200, 10, 30], 6),
        ("photo.bmp", np.full((8, 8, 3), [200, 10, 30], np.uint8), None, [200, 10, 30], 0),
        ("film.gif", np.full((8, 8, 3), [200, 10, 30], np.uint8), None, [200, 10, 30], 0),
    ],
)
@pytest.mark.parametrize("options", [{}, {"size": 8}])
def test_every_kind_of_pixel_becomes_rgb(tmp_path, name, pixels, mode, expected, off, options):
    save(tmp_path / name, pixels, mode)
    assert np.abs(np.subtract(color_of(tmp_path, **options), expected)).max() <= off


def test_a_photograph_taken_sideways_stands_upright(tmp_path):
    # Orientation 6: the camera lay on its side, show it turned clockwise; what is stored below is then left.
    pixels = np.zeros((8, 16, 3), np.uint8)
    pixels[4:] = 255
    exif = Image.Exif()
    exif[0x0112] = 6
    save(tmp_path / "0.png", pixels, exif=exif)
    data = load(f"folder:{tmp_path}", "train")
    assert data.images.shape == (1, 16, 8, 3)
    assert np.all(data.images[0, :, :4] == 255)
    assert np.all(data.images[0, :, 4:] == 0)


def test_large_photographs_are_decoded_small_and_look_the_same(tmp_path):
    smooth = np.asarray(Image.fromarray(picture(1, 4, 4)).resize((512, 512), Image.Resampling.BICUBIC))
    save(tmp_path / "a.png", smooth)
    save(tmp_path / "b.jpg", smooth, quality=95)
    a, b = load(f"folder:{tmp_path}", "train", size=32).images.astype(int)
    assert np.abs(a - b).mean() < 2


# What is wrong with folders


def test_what_is_no_image_is_named_counted_and_left_out(tmp_path):
    class_folder(tmp_path / "train")
    whole = (tmp_path / "train" / "cat" / "03.png").read_bytes()
    (tmp_path / "train" / "cat" / "03.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "train" / "cat" / "notes.txt").write_text("not an image")
    (tmp_path / "train" / "dog" / "empty.png").write_bytes(b"")
    (tmp_path / "train" / "dog" / ".DS_Store").write_bytes(b"hidden")
    (tmp_path / "train" / "readme.md").write_text("has no label")
    with pytest.warns(UserWarning, match=r"4 of 23 files .*Images.skipped.*readme.md.*and 1 more") as caught:
        data = load(f"folder:{tmp_path}", "train", size=8)
    assert len(caught) == 1
    assert len(data.images) == 19
    assert data.images[:, 0, 0, 0].tolist() == [0, 1, 2, 4, 5, 6, 7, 8, 9, *range(100, 110)]
    assert data.labels.tolist() == [0] * 9 + [1] * 10
    assert [line.partition(":")[0] for line in data.skipped] == [
        "readme.md",
        "cat/03.png",
        "cat/notes.txt",
        "dog/empty.png",
    ]
    assert "no image in a known format" in data.skipped[2]


def test_a_broken_file_moves_no_other_into_another_split(tmp_path):
    class_folder(tmp_path)
    (tmp_path / "cat" / "00.png").write_bytes(b"broken")
    assert load(f"folder:{tmp_path}", "test").images[:, 0, 0, 0].tolist() == [9, 109]


def test_a_decompression_bomb_is_left_out(tmp_path, monkeypatch):
    for i in range(3):
        save(tmp_path / f"{i}.png", picture(i))
    save(tmp_path / "bomb.png", np.zeros((70, 70), np.uint8))
    save(tmp_path / "larger bomb.png", np.zeros((200, 200), np.uint8))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 4000)
    with pytest.warns(UserWarning, match="2 of 5 files"):
        data = load(f"folder:{tmp_path}", "train")
    assert len(data.images) == 3
    assert "bomb" in data.skipped[0]


def test_a_folder_where_nothing_is_an_image_is_an_error(tmp_path):
    (tmp_path / "a.png").write_bytes(b"broken")
    (tmp_path / "b.png").write_bytes(b"broken")
    for size in (None, 8):
        with pytest.raises(ValueError, match="none of the 2 files .* is an image: a.png: "):
            load(f"folder:{tmp_path}", "train", size=size)


def test_folders_that_are_not_there_or_empty_or_files(tmp_path):
    (tmp_path / "pictures").mkdir()
    (tmp_path / "a.npz").write_bytes(b"")
    with pytest.raises(FileNotFoundError, match="Did you mean .*pictures"):
        load(f"folder:{tmp_path}/picture", "train")
    with pytest.raises(FileNotFoundError, match=f"on the way is {tmp_path}"):
        load(f"folder:{tmp_path}/x/y/z", "train")
    with pytest.raises(ValueError, match="there are no files in .*PATH/CLASS"):
        load(f"folder:{tmp_path}/pictures", "train")
    with pytest.raises(ValueError, match="is a file.*Did you mean npz:"):
        load(f"folder:{tmp_path}/a.npz", "train")


def test_a_missing_test_split_says_what_to_do(tmp_path):
    class_folder(tmp_path / "train", each=2)
    with pytest.raises(ValueError, match="has a folder train and none for testing"):
        load(f"folder:{tmp_path}", "test")
    with pytest.raises(ValueError, match="at least 10 are needed"):
        load(f"folder:{tmp_path / 'train'}", "test")


def test_more_pixels_than_fit_in_memory_are_mapped_from_a_file(tmp_path, monkeypatch):
    class_folder(tmp_path)
    (tmp_path / "cat" / "03.png").write_bytes(b"broken")
    with pytest.warns(UserWarning, match="1 of 18"):
        in_memory = load(f"folder:{tmp_path}", "train")
    monkeypatch.setattr(sources, "IN_MEMORY_BYTES", 100)
    with pytest.warns(UserWarning, match="1 of 18"):
        mapped = load(f"folder:{tmp_path}", "train")
    assert isinstance(mapped.images, np.memmap)
    assert os.path.exists(mapped.images.filename)
    assert np.array_equal(mapped.images, in_memory.images)
    assert np.array_equal(mapped.labels, in_memory.labels)


def test_a_disk_that_is_too_small_is_an_error_before_it_is_full(tmp_path, monkeypatch):
    class_folder(tmp_path)
    monkeypatch.setattr(sources, "IN_MEMORY_BYTES", 100)
    monkeypatch.setattr(sources.shutil, "disk_usage", lambda path: SimpleNamespace(free=10))
    with pytest.raises(OSError, match="TMPDIR"):
        load(f"folder:{tmp_path}", "train")


@pytest.fixture(scope="module")
def sound_files():
    exif = Image.Exif()
    exif[0x0112] = 6
    files = {}
    for name, options in {
        "a.png": {},
        "a.jpg": {"exif": exif},
        "a.webp": {},
        "a.gif": {},
        "a.tiff": {"compression": "tiff_lzw"},
    }.items():
        buffer = io.BytesIO()
        Image.fromarray(picture(7)).save(buffer, name[2:].replace("jpg", "jpeg"), **options)
        files[name] = buffer.getvalue()
    return files


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_damaged_file_is_an_image_or_is_skipped(data, sound_files, tmp_path):
    name = data.draw(st.sampled_from(sorted(sound_files)))
    bytes_ = bytearray(sound_files[name])
    for _ in range(data.draw(st.integers(0, 4))):
        # Half of the flips hit the headers, where they hurt most.
        end = data.draw(st.sampled_from([min(60, len(bytes_)), len(bytes_)]))
        bytes_[data.draw(st.integers(0, end - 1))] ^= data.draw(st.integers(1, 255))
    bytes_ = bytes_[: data.draw(st.one_of(st.just(len(bytes_)), st.integers(0, len(bytes_))))]
    (tmp_path / "sound").mkdir(exist_ok=True)
    save(tmp_path / "sound" / "b.png", picture(1))
    for other in sound_files:
        (tmp_path / "sound" / other).unlink(missing_ok=True)
    (tmp_path / "sound" / name).write_bytes(bytes_)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        got = load(f"folder:{tmp_path / 'sound'}", "train", size=20)
    assert len(got.images) + len(got.skipped) == 2
    assert got.images.dtype == np.uint8
    assert np.array_equal(got.images[-1], picture(1))


# Archives


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


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (
            {"images": np.zeros((20, 6, 6, 3), np.float32)},
            r"must be uint8 in 0..255; got float32.*255 \* images",
        ),
        ({"images": np.zeros((20, 3, 6, 6), np.uint8)}, r"got \[20, 3, 6, 6\].*transpose\(0, 2, 3, 1\)"),
        ({"images": np.zeros((20, 6, 6, 4), np.uint8)}, r"1 or 3\]"),
        ({"images": np.zeros((20, 6), np.uint8)}, r"got \[20, 6\]"),
        ({"images": np.zeros((0, 6, 6, 3), np.uint8)}, "there are no images"),
        ({"labels": np.zeros(19, int)}, r"shape \[20\]; got labels of the shape \[19\]"),
        ({"labels": np.zeros((20, 1), int)}, r"Take labels\[:, 0\]"),
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
    assert np.array_equal(got.images, images[sources._held_out(20, "train")])


def test_arrays_are_looked_at_and_kept_as_they_are():
    images, labels = arrays()
    data = from_arrays(images, labels.astype(np.uint8), name="mine")
    assert data.images is images
    assert data.labels.dtype == np.int32
    assert data.name == "mine"


# TensorFlow data sets: only what needs no TensorFlow; the rest is in test_tf_pipeline.py


def fake_tfds(root, where="flags/1.0.0", splits=("train", "test")):
    (root / where).mkdir(parents=True)
    listed = ", ".join(f'{{"name": "{name}", "shardLengths": ["3"]}}' for name in splits)
    (root / where / "dataset_info.json").write_text(f'{{"splits": [{listed}]}}')


@pytest.fixture
def installed(monkeypatch):
    monkeypatch.setattr(sources.importlib.util, "find_spec", lambda name: True)


def test_without_tensorflow_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(sources.importlib.util, "find_spec", lambda name: None)
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
        assert sources._prepared(where, tmp_path) == tmp_path / folder
    with pytest.raises(ValueError, match="prepared as big, small; say which"):
        sources._prepared("shapes", tmp_path)
    with pytest.raises(FileNotFoundError, match="not prepared"):
        sources._prepared("flags:3.0.0", tmp_path)
    for where in ("a b", "../x", "x/../y", "x:latest"):
        with pytest.raises(ValueError, match="expected tfds:NAME"):
            sources._prepared(where, tmp_path)


def test_secret_labels_are_refused_with_the_splits_that_have_some(monkeypatch, tmp_path):
    from jaxcl.data import tf_pipeline

    monkeypatch.setattr(
        sources, "tfds_splits", lambda *_, **__: (tmp_path, ["test"], ["train", "validation"])
    )
    monkeypatch.setattr(tf_pipeline, "read", lambda *_, **__: None)
    with pytest.raises(ValueError, match="not public .* Load another split: train, validation"):
        load("tfds:photos", "test")
