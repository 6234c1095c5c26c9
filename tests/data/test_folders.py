"""Folders: every layout and kind of pixel gives the same thing, and every way of being wrong its own message."""

import hashlib
import io
import os
import warnings
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from jaxcl.data import arrays, as_images, find_images, load
from jaxcl.data import open as lazy_open


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


def test_sub_folders_are_classes_and_one_file_in_ten_is_held_out_by_its_name(tmp_path):
    class_folder(tmp_path, each=30)
    train, test = load(f"folder:{tmp_path}", "train"), load(f"folder:{tmp_path}", "test")
    assert train.classes == test.classes == ("cat", "dog")
    kept = {name: train.images[train.labels == k, 0, 0, 0].tolist() for k, name in enumerate(train.classes)}
    held = {name: test.images[test.labels == k, 0, 0, 0].tolist() for k, name in enumerate(test.classes)}
    for start, name in ((0, "cat"), (100, "dog")):
        assert sorted(kept[name] + held[name]) == list(range(start, start + 30))
        assert kept[name] == sorted(kept[name])
        # The first 64 bits of a file's BLAKE2b, as a number in [0, 1), are below a tenth.
        hashed = {
            i: hashlib.blake2b(f"{name}/{i:02}.png".encode(), digest_size=8).digest() for i in range(30)
        }
        low = [i for i in hashed if int.from_bytes(hashed[i], "big") < 2**64 / 10]
        assert [i - start for i in held[name]] == (low or [min(hashed, key=hashed.get)])
    assert train.skipped == ()
    assert train.files[0] == "cat/00.png"
    assert len(train.files) == len(train.images)


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
        save(tmp_path / "train" / f"{i}.png", picture(i))
    data = load(f"folder:{tmp_path}", "train")
    assert data.labels is None
    assert data.classes == ()
    assert all(np.array_equal(data.images[i], picture(i)) for i in range(10))


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


@pytest.mark.parametrize(("sides", "default"), [((20, 24), 32), ((70, 90), 64)])
def test_images_of_different_sizes_get_a_default_that_is_said(tmp_path, sides, default):
    for i, side in enumerate((sides[0], *3 * [sides[1]])):
        save(tmp_path / "train" / f"{i}.png", picture(i, side, side))
    save(
        tmp_path / "test" / "0.png", picture(9, sides[1], sides[1])
    )  # all of one size, but not those of train/
    data, about = load(f"folder:{tmp_path}", "train"), lazy_open(f"folder:{tmp_path}").about
    assert data.images.shape == (4, default, default, 3) == (about.count, *about.shape)
    small, large = (f"{side} x {side}" for side in sides)
    assert f"2 sizes, from {small} to {large} pixels" in data.notes[1]
    assert f"resized to {default} x {default}; --size N says otherwise" in data.notes[1]
    assert load(f"folder:{tmp_path}", "test").images.shape == (1, default, default, 3)
    given = load(f"folder:{tmp_path}", "train", size=8)
    assert given.images.shape == (4, 8, 8, 3)
    assert len(given.notes) == 1


def test_the_range_of_deep_images_is_that_of_the_data_set(tmp_path):
    # 12 bits in files of 16: divided by 257, the whitest would be 15 of 255.
    for i, level in enumerate((0, 2047, 4080)):
        save(tmp_path / "train" / f"{i}.png", np.full((8, 8), level, np.uint16))
    save(tmp_path / "test" / "0.png", np.full((8, 8), 1000, np.uint16))
    train, test = load(f"folder:{tmp_path}", "train"), load(f"folder:{tmp_path}", "test")
    assert train.images[:, 0, 0, 0].tolist() == [0, round(2047 / 4095 * 255), round(4080 / 4095 * 255)]
    assert test.images[0, 0, 0, 0] == round(1000 / 4095 * 255)  # not by its own largest
    assert "reach from 0 to 4080: 0 becomes black and 4095 white; --value-range" in train.notes[-1]
    told = load(f"folder:{tmp_path}", "train", value_range=(1000, 3000))
    assert told.images[:, 0, 0, 0].tolist() == [0, round(1047 / 2000 * 255), 255]
    encoded = find_images(f"folder:{tmp_path}", "train")
    assert encoded.value_range == (0, 4095)
    np.testing.assert_array_equal(as_images(encoded, 8).images[:], train.images)
    with pytest.raises(ValueError, match="takes LOW HIGH with LOW below HIGH"):
        load(f"folder:{tmp_path}", "train", value_range=(2, 2))


def test_floats_need_a_range(tmp_path):
    save(tmp_path / "train" / "0.tiff", np.full((8, 8), 0.5, np.float32))
    with pytest.raises(ValueError, match="--value-range LOW HIGH"):
        load(f"folder:{tmp_path}", "train")
    found = load(f"folder:{tmp_path}", "train", value_range=(0, 1))
    assert found.images[0, 0, 0, 0] == 128
    assert not any("not finite" in note for note in found.notes)
    save(tmp_path / "train" / "1.tiff", np.full((8, 8), np.nan, np.float32))
    found = load(f"folder:{tmp_path}", "train", value_range=(0, 1))
    assert found.notes[-1] == "1 image has pixels that are not finite, which become black or white: 1.tiff."


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
    with pytest.warns(UserWarning, match=r"4 of 23 files .*Images.skipped.*cat/03.*and 1 more") as caught:
        data = load(f"folder:{tmp_path}", "train", size=8)
    assert len(caught) == 1
    assert len(data.images) == 19
    assert data.images[:, 0, 0, 0].tolist() == [0, 1, 2, 4, 5, 6, 7, 8, 9, *range(100, 110)]
    assert data.labels.tolist() == [0] * 9 + [1] * 10
    assert [line.partition(":")[0] for line in data.skipped] == [
        "cat/03.png",
        "cat/notes.txt",
        "dog/empty.png",
        "readme.md",
    ]
    assert "no image in a known format" in data.skipped[1]


def test_a_broken_file_moves_no_other_into_another_split(tmp_path):
    class_folder(tmp_path)
    before = load(f"folder:{tmp_path}", "test").files
    (tmp_path / "cat" / "00.png").write_bytes(b"broken")
    assert load(f"folder:{tmp_path}", "test").files == before


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
    with pytest.raises(FileNotFoundError, match=f"part of it that exists is {tmp_path}"):
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
    class_folder(tmp_path / "train")
    (tmp_path / "train" / "cat" / "03.png").write_bytes(b"broken")
    with pytest.warns(UserWarning, match="1 of 20"):
        in_memory = load(f"folder:{tmp_path}", "train")
    monkeypatch.setattr(arrays, "IN_MEMORY_BYTES", 100)
    with pytest.warns(UserWarning, match="1 of 20"):
        mapped = load(f"folder:{tmp_path}", "train")
    assert isinstance(mapped.images, np.memmap)
    assert os.path.exists(mapped.images.filename)
    assert np.array_equal(mapped.images, in_memory.images)
    assert np.array_equal(mapped.labels, in_memory.labels)


def test_a_disk_that_is_too_small_is_an_error_before_it_is_full(tmp_path, monkeypatch):
    class_folder(tmp_path)
    monkeypatch.setattr(arrays, "IN_MEMORY_BYTES", 100)
    monkeypatch.setattr(arrays.shutil, "disk_usage", lambda path: SimpleNamespace(free=10))
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


@pytest.mark.parametrize("spec", ["folder:{}", "npz:{}.npz"])
def test_a_link_to_nothing_is_said_to_be_one(spec, tmp_path):
    where = tmp_path / "link"
    for path in (where, where.with_suffix(".npz")):
        path.symlink_to(tmp_path / "moved away")
    with pytest.raises(FileNotFoundError, match=r"link.* is a link to .*moved away, where there is no"):
        load(spec.format(where), "train")
