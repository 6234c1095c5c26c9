"""Files in all states: what is found, what is left out, and that nothing ends in a hang or under a wrong label."""

import io
import os
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import jaxcl
from jaxcl.data import as_images, find_images, load
from jaxcl.data.decode import header, read_rgb, readable_formats


def picture(i, size=(40, 30)):
    coarse = np.random.default_rng(i).integers(0, 256, (6, 5, 3), np.uint8)
    return Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)


def encode(image, kind, **how):
    file = io.BytesIO()
    image.save(file, kind, **how)
    return file.getvalue()


@pytest.fixture
def folder(tmp_path):
    """Twelve good pictures of two classes."""
    for i in range(12):
        path = tmp_path / "train" / "ab"[i % 2] / f"{i:02d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        picture(i, (40 + i, 30)).save(path)
    return tmp_path


def test_it_finds_what_load_loads(folder):
    found, loaded = find_images(f"folder:{folder}", "train"), load(f"folder:{folder}", "train", size=16)
    assert len(found.paths) == len(loaded.images) == 12
    assert found.labels.tolist() == loaded.labels.tolist()
    assert found.classes == loaded.classes == ("a", "b")
    assert found.sizes.tolist() == [[30, 40 + int(os.path.basename(path)[:2])] for path in found.paths]
    assert found.plain.all()
    assert found.skipped == ()


ODD = {
    "text named jpg": (b"this is no picture", "no image in a known format"),
    "empty": (b"", "no image in a known format"),
    "a bomb": (encode(Image.new("L", (20000, 30000)), "PNG"), "pixels"),
    "half a header": (encode(picture(0), "JPEG")[:40], ""),
}


@pytest.mark.parametrize("name", ODD)
def test_what_is_no_image_is_named_counted_and_left_out(folder, name):
    (folder / "train" / "a" / "odd.jpg").write_bytes(ODD[name][0])
    with pytest.warns(UserWarning, match="1 of 13 files or records of folder:.* were left out"):
        found = find_images(f"folder:{folder}", "train")
    assert len(found.paths) == 12
    (reason,) = found.skipped
    assert reason.startswith(os.path.join("a", "odd.jpg"))
    assert ODD[name][1] in reason
    # Labels still go by the folder, wherever the odd file stood.
    assert [os.path.basename(os.path.dirname(path)) for path in found.paths] == [
        "ab"[k] for k in found.labels
    ]


def test_only_whole_jpegs_that_are_not_turned_are_plain(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    files = {
        "0 plain.jpg": (encode(picture(0), "JPEG"), True, (30, 40)),
        "1 gray.jpg": (encode(picture(1).convert("L"), "JPEG"), True, (30, 40)),
        "2 cmyk.jpg": (encode(picture(2).convert("CMYK"), "JPEG"), False, (30, 40)),
        "3 turned.jpg": (encode(picture(3), "JPEG", exif=exif), False, (40, 30)),
        "4 cut.jpg": (encode(picture(4), "JPEG")[:-200], False, (30, 40)),
        "5 png.png": (encode(picture(5), "PNG"), False, (30, 40)),
        "6 one.jpg": (encode(picture(6, (1, 1)), "JPEG"), True, (1, 1)),
        "7 thin.jpg": (encode(picture(7, (20000, 30)), "JPEG"), True, (30, 20000)),
        "8 progressive.jpg": (encode(picture(8), "JPEG", progressive=True), True, (30, 40)),
    }
    (tmp_path / "train").mkdir()
    for name, (content, *_) in files.items():
        (tmp_path / "train" / name).write_bytes(content)
    found = find_images(f"folder:{tmp_path}", "train")
    assert [os.path.basename(path) for path in found.paths] == list(files)
    assert found.plain.tolist() == [plain for _, plain, _ in files.values()]
    assert [tuple(size) for size in found.sizes.tolist()] == [size for *_, size in files.values()]


@pytest.mark.parametrize(
    ("spec", "error", "says"),
    [
        ("digits", ValueError, "expected folder:PATH"),
        ("folder:{}/nowhere", FileNotFoundError, "no folder"),
        ("folder:{}/empty", ValueError, "no files in"),
        ("folder:{}/text", ValueError, "none of the 9 files or records"),
    ],
)
def test_what_cannot_be_found_is_said(tmp_path, spec, error, says):
    (tmp_path / "empty").mkdir()
    (tmp_path / "text").mkdir()
    for i in range(10):
        (tmp_path / "text" / f"{i}.jpg").write_text("text")
    with pytest.raises(error, match=says):
        find_images(spec.format(tmp_path), "train")


GOOD = [encode(picture(0), kind) for kind in ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF")]
GOOD.append(encode(picture(1).convert("CMYK"), "JPEG"))


@st.composite
def damaged(draw):
    content = bytearray(draw(st.sampled_from(GOOD)))
    for place, value in draw(st.lists(st.tuples(st.integers(0, 2**16), st.integers(0, 255)), max_size=8)):
        content[place % len(content)] = value
    return bytes(content[: draw(st.integers(0, len(content)))])


@settings(max_examples=150, deadline=5000)
@given(damaged())
def test_a_damaged_file_is_read_or_refused_and_never_anything_else(content):
    with np.errstate(all="ignore"):
        try:
            (h, w), plain = header(io.BytesIO(content), readable_formats())
        except Exception:  # all that find_images and the pipeline expect of a damaged file
            return
        assert h > 0
        assert w > 0
        assert plain in (True, False)
        if h * w > 10**6:
            return
        try:
            image = read_rgb(content)
        except Exception:
            return
    assert image.dtype == np.uint8
    assert image.ndim == 3
    assert image.shape[2] == 3


# ---------------------------------------------------------------------------------------------- decoded when asked for


@pytest.fixture(scope="module")
def spec(tmp_path_factory):
    """48 training and 16 test images of two classes, the one dark and the other bright."""
    root = tmp_path_factory.mktemp("streamed")
    for i in range(64):
        path = root / ("test" if i % 4 == 0 else "train") / "ab"[i // 4 % 2] / f"{i:02d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        coarse = np.random.default_rng(i).integers(0, 100, (5, 6, 3)) + 150 * (i // 4 % 2)
        size = [(40, 30), (26, 50)][i % 2]
        Image.fromarray(coarse.astype(np.uint8)).resize(size, Image.Resampling.BICUBIC).save(path)
    return f"folder:{root}"


def test_what_is_decoded_when_asked_for_is_what_load_decodes_ahead(spec):
    loaded = load(spec, "train", size=16)
    images = as_images(find_images(spec, "train"), 16)
    assert images.images.shape == loaded.images.shape == (48, 16, 16, 3)
    assert images.images.dtype == np.uint8
    assert len(images.images) == 48
    assert images.labels.tolist() == loaded.labels.tolist()
    assert images.classes == loaded.classes
    for part in (slice(5, 9), slice(None, None, -7), np.array([3, 40, 3]), loaded.labels == 1, 7, -1):
        assert np.array_equal(images.images[part], loaded.images[part])
    assert np.array_equal(images.images[[2, 4], 1:3, ..., 0], loaded.images[[2, 4], 1:3, ..., 0])
    assert np.array_equal(np.asarray(images.images), loaded.images)
    with pytest.raises(IndexError):
        images.images[48]


def test_a_fraction_is_the_middle_of_the_centre_square(tmp_path):
    pixels = np.zeros((32, 48, 3), np.uint8)
    pixels[2:-2, 10:-10] = 255  # 28 x 28 in the middle
    for i in range(10):
        Image.fromarray(pixels).save(tmp_path / f"{i}.png")
    found = find_images(f"folder:{tmp_path}", "train")
    assert as_images(found, 28, fraction=7 / 8).images[0].min() == 255
    assert as_images(found, 28).images[0].min() == 0


def test_a_damaged_image_is_named_when_it_is_asked_for(tmp_path):
    for i in range(10):
        Image.fromarray(np.full((30, 30, 3), i, np.uint8)).save(tmp_path / f"{i}.jpg")
    content = (tmp_path / "3.jpg").read_bytes()
    (tmp_path / "3.jpg").write_bytes(content[:-20])
    images = as_images(find_images(f"folder:{tmp_path}", "train"), 8).images
    assert images[4:].shape == (5, 8, 8, 3)
    with pytest.raises(ValueError, match=r"3\.jpg is damaged: .*truncated.*Mend or remove it"):
        images[:4]


MASK = np.arange(9) % 4 == 1
WHOLE_MASK = np.random.default_rng(0).random((9, 4, 4, 3)) < 0.2
INDICES = (
    ...,
    (...,),
    (),
    (..., slice(None, 1)),
    (..., 0),
    (slice(2, 5), ..., 1),
    (3, ...),
    (-1, ..., slice(1, 3), 2),
    ([4, 2, 4], ..., 0),
    (..., [0, 2, 1]),
    (MASK, ..., 0),
    (..., WHOLE_MASK),
    ([1, 2], [3, 0]),
    ([[1, 2], [2, 0]], slice(1, 3)),
    (slice(None, None, -2), 1, ..., slice(None, 1)),
    (None, 2),
    (..., None),
    (2, 1, 3, 0),
    (slice(0, 0), ...),
    WHOLE_MASK,
    MASK.tolist(),
    np.int64(5),
)


@pytest.mark.parametrize("index", INDICES, ids=lambda index: str(index)[:30])
def test_encoded_pixels_are_indexed_as_an_array_is(tmp_path, index):
    (tmp_path / "train").mkdir()
    for i in range(9):
        noise = np.random.default_rng(i).integers(0, 256, (4, 4, 3), np.uint8)
        Image.fromarray(noise).save(tmp_path / f"train/{i}.png")
    pixels = as_images(find_images(f"folder:{tmp_path}", "train"), 4).images
    assert np.array_equal(pixels[index], np.asarray(pixels)[index])


def test_encoded_pixels_have_all_that_others_ask_of_images(spec):
    """What is written after `.images.images` in the rooms that are given images, whatever keeps them."""
    root = Path(jaxcl.__file__).parent
    rooms = [
        *root.glob("evaluate/**/*.py"),
        *root.glob("runs/*.py"),
        *root.glob("report/*.py"),
        *root.glob("*.py"),
    ]
    asked = {
        name
        for file in rooms
        for name in re.findall(r"\b\w+\.images\.(\w+)", file.read_text())
        if name not in ("images", "labels")
    }
    assert {"shape", "nbytes"} <= asked
    pixels = as_images(find_images(spec, "train"), 16).images
    assert [name for name in sorted(asked) if not hasattr(pixels, name)] == []
    assert pixels.nbytes == 0
