"""Color images with 16 bits a channel, of which Pillow reads only 8: PNGs are read in full, TIFF and PPM are refused.

Pillow does not say how many bits a JPEG 2000 or AVIF had; those are read with 8.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from typing import Any, BinaryIO

import numpy as np
from PIL import Image

SIGNATURE = b"\x89PNG\r\n\x1a\n"
# Channels of a PNG's color types: RGB, gray and alpha, RGB and alpha.
CHANNELS = {2: 3, 4: 2, 6: 4}
# Adam7: first row and column of each pass, and the distance to the next.
PASSES = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))


def is_deep_color(image: Image.Image) -> bool:
    """Whether an image that was opened, and not yet loaded, has 16 bits in each of several channels."""
    if len(image.getbands()) == 1:
        return False
    told = [tile[3] for tile in getattr(image, "tile", ())]
    # ("RGB", the highest level): a lower one than that of 16 bits is the range, which Pillow makes 0 to 255.
    if image.format == "PPM":
        return any(isinstance(one, tuple) and one[-1] == 65535 for one in told)
    # Pillow's word for how pixels lie in the file ends in the bits of a channel: RGB;16B.
    return any(";16" in str(one) for one in told)


def levels_of(image: Image.Image) -> tuple[np.ndarray, np.ndarray | None]:
    """Levels uint16 [h, w, c] of an image that `is_deep_color`, with c = 3, or 1 where it is gray; and how much of
    each pixel covers what is below, uint16 [h, w], where the file says so.

    Raises ValueError for what is no PNG, and for a damaged one.
    """
    if image.format != "PNG":
        raise ValueError(
            f"it is a {image.format} with colors of 16 bits a channel, of which only 8 can be read. Save such images as"
            " PNG with 16 bits, or all of them as one array uint16 [n, h, w, 3] and give --data npy:FILE"
        )
    opened: Any = image  # a PngImageFile: its file is still open, as nothing was loaded
    opened.fp.seek(0)
    levels, opaque = read_png(opened.fp)
    covers = levels[..., -1] if levels.shape[2] % 2 == 0 else None
    levels = levels[..., : levels.shape[2] - (covers is not None)]
    if opaque is not None:  # one color that means "nothing here"
        covers = np.where((levels == opaque).all(axis=2), 0, 65535).astype(np.uint16)
    return levels, covers


def read_png(file: BinaryIO) -> tuple[np.ndarray, np.ndarray | None]:
    """A PNG of 16 bits and several channels: levels uint16 [h, w, c], and the color that is transparent [c], if any.

    PNG specification (W3C, third edition): chunks in section 5, interlacing in 8, filters in 9. Raises ValueError where
    it is damaged.
    """
    header, data, transparent = b"", [], b""
    for name, content in chunks(file):
        if name == b"IHDR":
            header = content
        elif name == b"IDAT":
            data.append(content)
        elif name == b"tRNS":
            transparent = content
    w, h, depth, color, _, _, interlaced = struct.unpack(">IIBBBBB", header)
    if depth != 16 or color not in CHANNELS:
        raise ValueError(
            f"expected a PNG of 16 bits and several channels; got {depth} bits, color type {color}"
        )
    c = CHANNELS[color]
    if color == 2 and len(transparent) not in (0, 2 * c):
        raise ValueError(f"its tRNS, a color of {c} levels, has {len(transparent)} bytes and not {2 * c}")
    passes = [one for one in PASSES if one[0] < h and one[1] < w] if interlaced else [(0, 0, 1, 1)]
    shapes = [(-(-(h - top) // down), -(-(w - left) // right)) for top, left, down, right in passes]
    wanted = sum(rows * (1 + 2 * c * columns) for rows, columns in shapes)
    try:
        # No more than what the header promises: a few bytes may unpack to gigabytes.
        lines = zlib.decompressobj().decompress(b"".join(data), wanted)
    except zlib.error as error:
        raise ValueError(f"its pixels are damaged: {error}") from None
    if len(lines) < wanted:
        raise ValueError(f"its pixels are truncated: {len(lines)} of {wanted} bytes")
    levels, start = np.empty((h, w, c), np.uint16), 0
    for (top, left, down, right), (rows, columns) in zip(passes, shapes, strict=True):
        n = rows * (1 + 2 * c * columns)
        part = np.frombuffer(lines, np.uint8, n, start).reshape(rows, -1)
        start += n
        samples = unfiltered(part[:, 0], part[:, 1:].reshape(rows, columns, 2 * c))
        levels[top::down, left::right] = samples.view(">u2")
    return levels, np.frombuffer(transparent, ">u2") if color == 2 and transparent else None


def chunks(file: BinaryIO) -> Iterator[tuple[bytes, bytes]]:
    """The chunks of a PNG up to its end, (name, content); their checksums are compared."""
    if file.read(8) != SIGNATURE:
        raise ValueError("it has no PNG signature")
    while True:
        head = file.read(8)
        if len(head) < 8:
            raise ValueError("it is truncated")
        length, name = struct.unpack(">I4s", head)
        content, check = file.read(length), file.read(4)
        if len(content) < length or len(check) < 4:
            raise ValueError("it is truncated")
        if zlib.crc32(name + content) != int.from_bytes(check, "big"):
            raise ValueError(f"its {name.decode('latin-1')} is damaged: wrong checksum")
        if name == b"IEND":
            return
        yield name, content


# Lines that are made together: what they take beside the image is a few times these lines, however high it is.
BAND = 512


def unfiltered(filters: np.ndarray, lines: np.ndarray) -> np.ndarray:
    """Bytes [h, w, b] as they were before each line was filtered in its way [h] (0 to 4: none, left, up, mean, Paeth).

    Raises ValueError where a filter is none of these.
    """
    if filters.max() > 4:
        raise ValueError(f"its filter type is {filters.max()}; PNG has 0 to 4")
    made, above = np.empty_like(lines), np.zeros_like(lines[0])
    for top in range(0, len(lines), BAND):
        band = slice(top, top + BAND)
        made[band] = _unfiltered_below(above, filters[band], lines[band])
        above = made[band][-1]
    return made


def _unfiltered_below(above: np.ndarray, filters: np.ndarray, lines: np.ndarray) -> np.ndarray:
    """The same of some lines [h, w, b] below one that is made already [w, b].

    A byte needs those to the left, above, and above to the left. So all pixels of one diagonal are made at once, and
    the work of Python is h + w steps.
    """
    h, w, b = lines.shape
    # Entry [d + 2, r + 1] is pixel (r, d - r), row -1 is the line above; what lies outside the image is 0.
    slanted = np.zeros((h + w + 1, h + 1, b), np.int16)
    slanted[1 : w + 1, 0] = above
    down, across, byte = slanted.strides
    upright = np.lib.stride_tricks.as_strided(slanted[2:, 1:], lines.shape, (down + across, down, byte))
    upright[:] = lines
    kind = filters[:, None]
    for d in range(h + w - 1):
        r = slice(max(0, d - w + 1), min(h, d + 1))
        here, one_up = slice(r.start + 1, r.stop + 1), r
        left, up, corner = slanted[d + 1, here], slanted[d + 1, one_up], slanted[d, one_up]
        to_left, to_up, to_corner = abs(up - corner), abs(left - corner), abs(left + up - 2 * corner)
        paeth = np.where(
            (to_left <= to_up) & (to_left <= to_corner), left, np.where(to_up <= to_corner, up, corner)
        )
        guess = np.select([kind[r] == k for k in (1, 2, 3, 4)], [left, up, (left + up) // 2, paeth], 0)
        slanted[d + 2, here] = (slanted[d + 2, here] + guess) & 255
    return upright.astype(np.uint8)
