"""One encoded image: its header, its pixels, and what is wrong with it. Pillow decodes, in threads."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import Image, ImageOps

from jaxcl.data.deep import is_deep_color, levels_of
from jaxcl.data.records import Window

# Only formats that Pillow decodes itself: EPS, say, would start another program.
FORMATS = ("PNG", "JPEG", "MPO", "WEBP", "BMP", "GIF", "TIFF", "PPM", "JPEG2000", "AVIF", "TGA")


def readable_formats() -> list[str]:
    Image.init()
    return [name for name in FORMATS if name in Image.OPEN]


def open_image(file: Path | Any, formats: list[str]) -> Image.Image:
    image = Image.open(file, formats=formats)
    cap = Image.MAX_IMAGE_PIXELS
    if cap is not None and image.width * image.height > cap:
        raise ValueError(f"{image.width} x {image.height} pixels are more than the {cap} allowed")
    return image


def read_size(path: Path, formats: list[str]) -> tuple[int, int]:
    """Height and width as they will be seen, from the file's header."""
    with open_image(path, formats) as image:
        turned = image.getexif().get(0x0112, 1) in (5, 6, 7, 8)
        return image.size if turned else image.size[::-1]


def header(file: BinaryIO | Window, formats: list[str]) -> tuple[tuple[int, int], bool]:
    """Height and width as they will be seen, and whether it is a plain JPEG."""
    with open_image(file, formats) as image:
        orientation = image.getexif().get(0x0112, 1)
        height_width = image.size if orientation in (5, 6, 7, 8) else image.size[::-1]
        known = orientation not in range(2, 9)
        plain = known and image.format == "JPEG" and image.mode in ("RGB", "L")
    return height_width, plain and ends(file)


def ends(file: BinaryIO | Window) -> bool:
    """Whether a JPEG has its end marker. A decoder that is asked for a part only may never miss it."""
    file.seek(max(0, file.seek(0, os.SEEK_END) - 64))
    return b"\xff\xd9" in file.read()


# Pillow's modes of more than 8 bits a pixel: whole numbers and floats, all of one channel.
DEEP = ("I", "F", "I;16", "I;16L", "I;16B", "I;16N")
# Levels of more than 8 bits -> uint8.
ToBytes = Callable[[np.ndarray], np.ndarray]


def is_deep(image: Image.Image) -> bool:
    """Whether an image that was opened has whole numbers of more than 8 bits, gray or in color."""
    return (image.mode in DEEP and image.mode != "F") or is_deep_color(image)


def deep_levels(image: Image.Image) -> np.ndarray:
    """Those numbers [h, w] or [h, w, c]."""
    return levels_of(image)[0] if is_deep_color(image) else np.asarray(image)


def full_range(values: np.ndarray) -> np.ndarray:
    """Levels of a single file, of which nothing else is known, as if of 16 bits."""
    if values.dtype.kind == "f":
        raise ValueError("its pixels are floats, whose range must be said: --value-range LOW HIGH")
    values = values.astype(np.int64)
    low, high = int(values.min()), int(values.max())
    if low < 0 or high > 65535:
        raise ValueError(
            f"its gray levels are in {low}..{high}, not in 0..65535; say their range: --value-range LOW HIGH"
        )
    return np.round(values / 257).astype(np.uint8)


def within(value_range: tuple[float, float]) -> ToBytes:
    """Values from low to high become 0 to 255; what lies outside is clipped, and what is no number becomes 0.

    >>> within((0, 4095))(np.array([0, 4095, 9000])).tolist()
    [0, 255, 255]
    """
    low, high = map(float, value_range)
    if not (np.isfinite(low) and np.isfinite(high) and low < high):
        raise ValueError(f"--value-range takes LOW HIGH with LOW below HIGH; got {low:g} {high:g}.")

    def to_bytes(values):
        scaled = (np.asarray(values, np.float64) - low) * (255 / (high - low))
        return np.round(np.clip(np.nan_to_num(scaled), 0, 255)).astype(np.uint8)

    return to_bytes


def not_finite(values: np.ndarray) -> bool:
    """Whether any of the pixels is infinite or no number."""
    return values.dtype.kind == "f" and not np.isfinite(values).all()


def told_of_not_finite(names: Sequence[str]) -> tuple[str, ...]:
    """What is said of images with such pixels, by their names; nothing of none.

    >>> told_of_not_finite(["7", "9"])
    ('2 images have pixels that are not finite, which become black or white: 7, 9.',)
    """
    if not names:
        return ()
    some = f"{len(names)} images have" if len(names) > 1 else "1 image has"
    shown = ", ".join(names[:10]) + (", ..." if len(names) > 10 else "")
    return (f"{some} pixels that are not finite, which become black or white: {shown}.",)


def bits_of(highest: float) -> tuple[int, int]:
    """The range of whole numbers from 0 that a camera with so many bits uses: 8, 10, 12, 14 or 16.

    >>> bits_of(200), bits_of(4080), bits_of(70000)
    ((0, 255), (0, 4095), (0, 70000))
    """
    return 0, next((2**bits - 1 for bits in (8, 10, 12, 14, 16) if highest < 2**bits), int(highest))


def read(
    file: Path | Any,
    formats: list[str],
    size: int | None,
    fraction: float = 1.0,
    to_bytes: ToBytes = full_range,
    border: int = 0,
) -> np.ndarray:
    """A file, or one that is open, as uint8 [h, w, 3]; [size, size, 3] where a size is given, see `square`.

    to_bytes
        what becomes of levels of more than 8 bits.
    border
        pixels at every edge that are cut off first.
    """
    with open_image(file, formats) as image:
        if size is not None and image.format == "JPEG" and not border:
            # Decode at 1/2, 1/4 or 1/8 where twice the size is left: several times faster for photographs.
            image.draft(None, (round(2 * size / fraction),) * 2)
        if is_deep_color(image):
            image = in_8_bits(image, to_bytes)
        rgb = as_rgb(ImageOps.exif_transpose(image), to_bytes)
        rgb = ImageOps.crop(rgb, border) if border else rgb
        return np.asarray(rgb if size is None else square(rgb, size, fraction))


def read_rgb(content: bytes, to_bytes: ToBytes = full_range) -> np.ndarray:
    """An encoded image as uint8 [h, w, 3], whatever its format."""
    return read(io.BytesIO(content), readable_formats(), None, to_bytes=to_bytes)


def square(image: Image.Image, size: int, fraction: float = 1.0) -> Image.Image:
    """The shorter side to `size`, the centre square of the other: in one step, so that no image, however long and
    thin, is ever enlarged as a whole. Of the square's side, only the `fraction` in its middle."""
    w, h = image.size
    side = min(w, h) * fraction
    left, top = (w - side) / 2, (h - side) / 2
    return image.resize((size, size), Image.Resampling.BICUBIC, box=(left, top, left + side, top + side))


def in_8_bits(image: Image.Image, to_bytes: ToBytes) -> Image.Image:
    """An image that `is_deep_color`, with 8 bits a channel and the orientation of its file."""
    levels, covers = levels_of(image)
    colors = np.broadcast_to(to_bytes(levels), (*levels.shape[:2], 3))
    # How much a pixel covers is always of 16 bits, whatever range the levels use.
    alpha = [] if covers is None else [full_range(covers)[..., None]]
    made = Image.fromarray(np.concatenate([colors, *alpha], axis=2))
    made.info["exif"] = image.getexif().tobytes()
    return made


def as_rgb(image: Image.Image, to_bytes: ToBytes = full_range) -> Image.Image:
    """Whatever Pillow made of a file, as RGB of 8 bits."""
    if image.mode in DEEP:
        values = np.asarray(image)
        # "I" may hold 8 bits in 32; "I;16" is 16 bits whatever is in them.
        if to_bytes is full_range and image.mode == "I" and 0 <= values.min() <= values.max() <= 255:
            return Image.fromarray(values.astype(np.uint8)).convert("RGB")
        return Image.fromarray(to_bytes(values)).convert("RGB")
    if "A" in image.getbands() or "a" in image.getbands() or "transparency" in image.info:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")


# What people have that Pillow does not read, by the ending of the name, and what becomes of it.
ELSEWHERE = {
    **dict.fromkeys((".heic", ".heif"), "HEIC; save it as JPEG"),
    **dict.fromkeys((".dcm", ".nii", ".nrrd"), "a medical format; save its pixels by numpy: --data npy:FILE"),
    **dict.fromkeys((".cr2", ".cr3", ".nef", ".arw", ".dng"), "raw; develop it to JPEG or PNG"),
    **dict.fromkeys((".tif", ".tiff"), "a TIFF of several bands? save them all by numpy: --data npy:FILE"),
    **dict.fromkeys((".svg", ".ai", ".eps", ".psd"), "a drawing; save it as PNG"),
}


def reason(error: BaseException, file: str | os.PathLike = "") -> str:
    """What is wrong with a file, in some words."""
    text = " ".join(str(error).split()) or type(error).__name__
    if not text.startswith("cannot identify image file"):
        return text
    known = ELSEWHERE.get(os.path.splitext(file)[1].lower())
    return "no image in a known format" + (f" ({known})" if known else "")


def first(names: list[str], shown: int = 3) -> str:
    return "; ".join(names[:shown]) + (f"; and {len(names) - shown} more." if len(names) > shown else ".")


def in_parallel(work: Callable[[int], None], n: int, *, chunk: int = 64) -> None:
    """work(0) ... work(n - 1) in threads; Pillow and zlib let go of the interpreter while they decode."""

    def some(start):
        for i in range(start, min(start + chunk, n)):
            work(i)

    pool = ThreadPoolExecutor(min(32, os.cpu_count() or 1))
    try:
        for done in [pool.submit(some, start) for start in range(0, n, chunk)]:
            done.result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
