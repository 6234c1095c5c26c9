"""Colors of 16 bits a channel: read whole from PNG, refused by name elsewhere."""

import io
import struct
import tracemalloc
import zlib

import numpy as np
import pytest
from PIL import Image

from jaxcl.data import as_images, deep, find_images, load
from jaxcl.data.decode import read_rgb
from jaxcl.data.deep import PASSES, read_png

COLOR_TYPES = {2: 4, 3: 2, 4: 6}


def filtered(line, above, kind, b):
    """A line of bytes as the PNG specification, section 9.2, filters it: with one loop, byte for byte."""
    out = []
    for i, x in enumerate(line):
        left, up, corner = (
            (int(line[i - b]) if i >= b else 0),
            int(above[i]),
            int(above[i - b]) if i >= b else 0,
        )
        near = min((abs(left + up - corner - one), k) for k, one in enumerate((left, up, corner)))[1]
        guess = (0, left, up, (left + up) // 2, (left, up, corner)[near])[kind]
        out.append((int(x) - guess) % 256)
    return bytes([kind, *out])


def png(levels, *, interlaced=False, kinds=(0, 1, 2, 3, 4), more=()):
    """uint16 [h, w, c] as a PNG of 16 bits whose lines are filtered in turn by these kinds."""
    h, w, c = levels.shape
    lines = b""
    for top, left, down, right in PASSES if interlaced else ((0, 0, 1, 1),):
        part = levels[top::down, left::right]
        above = np.zeros(2 * c * part.shape[1], np.uint8)
        for r, row in enumerate(part if part.size else ()):
            line = np.frombuffer(row.astype(">u2").tobytes(), np.uint8)
            lines += filtered(line, above, kinds[r % len(kinds)], 2 * c)
            above = line
    head = struct.pack(">IIBBBBB", w, h, 16, COLOR_TYPES[c], 0, 0, int(interlaced))
    packed = zlib.compress(lines)
    parts = [(b"IHDR", head), *more, (b"IDAT", packed[:50]), (b"IDAT", packed[50:]), (b"IEND", b"")]
    whole = b"".join(
        struct.pack(">I", len(x)) + n + x + struct.pack(">I", zlib.crc32(n + x)) for n, x in parts
    )
    return b"\x89PNG\r\n\x1a\n" + whole


@pytest.mark.parametrize("band", [3, 512])
@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize("shape", [(11, 13, 3), (5, 2, 4), (1, 9, 2), (9, 1, 3)])
def test_a_png_of_16_bits_comes_back_whole_whatever_its_filters(shape, interlaced, band, monkeypatch):
    monkeypatch.setattr(deep, "BAND", band)
    levels = np.random.default_rng(0).integers(0, 65536, shape, np.uint16)
    file = png(levels, interlaced=interlaced)
    np.testing.assert_array_equal(read_png(io.BytesIO(file))[0], levels)
    # Another library sees the upper eight bits of the same numbers.
    with Image.open(io.BytesIO(file)) as theirs:
        pixels = np.asarray(theirs)
    pixels = pixels[..., [0, 3]] if shape[2] == 2 else pixels  # gray with alpha it makes RGBA
    np.testing.assert_array_equal(pixels, levels >> 8)


def test_a_high_image_takes_memory_by_its_pixels_and_not_by_the_square_of_its_height():
    lines = np.full((4000, 2, 6), 1, np.uint8)
    tracemalloc.start()
    made = deep.unfiltered(np.full(4000, 2, np.uint8), lines)  # each byte is one more than that above
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    np.testing.assert_array_equal(made[:, 1, 5], np.arange(1, 4001) % 256)
    assert peak < 10e6


def write(folder, files):
    folder.mkdir(parents=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)


def test_colors_of_12_bits_in_files_of_16_are_not_black(tmp_path):
    rng = np.random.default_rng(0)
    pictures = {f"{i}.png": rng.integers(0, 4081, (8, 8, 3), np.uint16) for i in range(3)}
    write(tmp_path / "train", {name: png(levels) for name, levels in pictures.items()})
    train = load(f"folder:{tmp_path}", "train")
    expected = np.round(np.stack(list(pictures.values())) / 4095 * 255)
    np.testing.assert_array_equal(train.images, expected)
    assert ": 0 becomes black and 4095 white; --value-range" in train.notes[-1]
    told = load(f"folder:{tmp_path}", "train", value_range=(0, 65535))
    assert told.images.max() == 16
    # So do those that stay encoded.
    encoded = find_images(f"folder:{tmp_path}", "train")
    np.testing.assert_array_equal(as_images(encoded, 8).images[:], train.images)
    # Of a single file nothing is known but that its numbers go up to 65,535.
    alone = np.arange(12).reshape(2, 2, 3)
    np.testing.assert_array_equal(read_rgb(png((257 * alone).astype(np.uint16))), alone)


def test_what_is_transparent_is_white_and_what_was_turned_is_upright():
    clear = np.full((2, 2, 4), 257 * 60, np.uint16)
    clear[0, 0, 3], clear[1, 1, 3] = 0, 65535
    rgb = read_rgb(png(clear))
    assert rgb[0, 0].tolist() == [255, 255, 255]
    assert rgb[1, 1].tolist() == [60, 60, 60]
    assert rgb[0, 1].tolist() == [209, 209, 209]  # 60 in 255 parts of it, white in the others
    keyed = np.arange(12, dtype=np.uint16).reshape(2, 2, 3) * 257
    named = struct.pack(">3H", *keyed[1, 0])
    assert read_rgb(png(keyed, more=[(b"tRNS", named)]))[1].tolist() == [[255] * 3, [9, 10, 11]]
    sideways = Image.Exif()
    sideways[0x0112] = 6  # the camera lay on its side: what is stored below is to be seen left
    turned = read_rgb(png(keyed, more=[(b"eXIf", sideways.tobytes()[6:])]))
    np.testing.assert_array_equal(turned, np.rot90(read_rgb(png(keyed)), -1))


def tiff(levels):
    """uint16 [h, w, 3] as the plainest TIFF: one strip, not compressed."""
    h, w, _ = levels.shape
    data = levels.astype("<u2").tobytes()
    bits = 8 + len(data)
    short = [(256, w), (257, h), (259, 1), (262, 2), (277, 3), (278, h), (284, 1)]
    tags = [(n, 3, 1, x) for n, x in short] + [(258, 3, 3, bits), (273, 4, 1, 8), (279, 4, 1, len(data))]
    entries = b"".join(struct.pack("<HHII", *tag) for tag in sorted(tags))
    ifd = struct.pack("<H", len(tags)) + entries + struct.pack("<I", 0)
    return b"II*\0" + struct.pack("<I", bits + 6) + data + struct.pack("<3H", 16, 16, 16) + ifd


def test_a_tiff_of_16_bits_in_color_is_refused_by_name_with_a_way_out(tmp_path):
    file = tiff(np.full((8, 8, 3), 4000, np.uint16))
    with Image.open(io.BytesIO(file)) as theirs:
        assert np.asarray(theirs).tolist() == np.full((8, 8, 3), 4000 >> 8).tolist()  # what would have come
    good = png(np.full((8, 8, 3), 4000, np.uint16))
    write(tmp_path / "train", {"a.png": good, "b.tiff": file})
    with pytest.warns(UserWarning, match="b.tiff: it is a TIFF with colors of 16 bits.*--data npy:FILE"):
        train = load(f"folder:{tmp_path}", "train")
    assert train.files == ("train/a.png",)
    assert train.images[0, 0, 0].tolist() == [round(4000 / 4095 * 255)] * 3
    # The way out.
    np.save(tmp_path / "all.npy", np.full((20, 8, 8, 3), 4000, np.uint16))
    as_array = load(f"npy:{tmp_path}/all.npy", "train")
    np.testing.assert_array_equal(as_array.images[0], train.images[0])


@pytest.mark.parametrize("maximum", [4095, 65535])
def test_a_ppm_of_16_bits_in_color_is_refused_where_it_does_not_say_its_range(maximum):
    file = f"P6 1 1 {maximum}\n".encode() + np.full(3, 2048, ">u2").tobytes()
    if maximum == 4095:
        assert read_rgb(file).tolist() == [[[128] * 3]]
    else:
        with pytest.raises(ValueError, match="it is a PPM with colors of 16 bits"):
            read_rgb(file)


def test_a_transparent_color_of_too_many_levels_is_told():
    file = png(np.zeros((2, 2, 3), np.uint16), more=[(b"tRNS", bytes(8))])
    with pytest.raises(ValueError, match="tRNS, a color of 3 levels, has 8 bytes and not 6"):
        read_rgb(file)


@pytest.mark.parametrize("where", range(0, 500, 7))
def test_a_damaged_png_of_16_bits_is_an_error_and_never_a_crash(where):
    levels = np.random.default_rng(0).integers(0, 65536, (8, 9, 3), np.uint16)
    file = bytearray(png(levels))
    file[where % len(file)] ^= 0x40
    with pytest.raises((ValueError, OSError, SyntaxError)):
        read_rgb(bytes(file))
    with pytest.raises((ValueError, OSError, SyntaxError)):
        read_rgb(bytes(png(levels))[: -where or -1])
