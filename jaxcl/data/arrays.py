"""Arrays as a data set: what is checked, which images are held out, and where large arrays lie."""

from __future__ import annotations

import atexit
import math
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from jaxcl.data.decode import in_parallel, square
from jaxcl.typing import About, Images

# Names of held-out folders and splits, in order of preference.
HELD_OUT = ("test", "val", "valid", "validation")
# One image of so many is held out where a source has no split of its own.
HOLD_OUT_EVERY = 10
# Decoded pixels beyond this are kept in a temporary file instead of memory.
IN_MEMORY_BYTES = 2 * 2**30


def from_arrays(
    images: Any, labels: Any = None, *, classes: Sequence[str] = (), name: str = "arrays"
) -> Images:
    """Arrays as a data set, once they were looked at: images uint8 [n, h, w, c] or [n, h, w], labels int [n].

    Raises ValueError for another dtype or shape, no images at all, negative labels, labels of another number than
    the images, and labels without a class where classes are named.

    >>> from_arrays(np.zeros((3, 8, 8), np.uint8), [0, 1, 0]).images.shape
    (3, 8, 8, 1)
    """
    images = images if isinstance(images, np.memmap) else np.asarray(images)
    if images.ndim == 3:
        images = images[..., None]
    if images.dtype != np.uint8:
        raise ValueError(
            f"{name}: images must be uint8 in 0..255; got {images.dtype}. Say what becomes of them: --value-range 0 1"
            " where they are floats in [0, 1]; or np.round(255 * images).astype(np.uint8)."
        )
    if images.ndim != 4 or channels_first(images.shape):
        hint = (
            " Move the channels last: images.transpose(0, 2, 3, 1)." if channels_first(images.shape) else ""
        )
        raise ValueError(
            f"{name}: images must have the shape [n, height, width, channels] (or [n, height, width]);"
            f" got {list(images.shape)}.{hint}"
        )
    if 0 in images.shape:
        raise ValueError(
            f"{name}: there are no images, or no pixels in them; got the shape {list(images.shape)}."
        )
    if labels is not None:
        labels = np.asarray(labels)
        if labels.shape != (len(images),):
            hint = " Take labels[:, 0]." if labels.shape == (len(images), 1) else ""
            raise ValueError(
                f"{name}: expected one label for each of the {len(images)} images, shape [{len(images)}];"
                f" got labels of the shape {list(labels.shape)}.{hint}"
            )
        if not np.issubdtype(labels.dtype, np.integer):
            raise ValueError(
                f"{name}: labels must be integers, the classes counted from 0; got {labels.dtype}."
            )
        if labels.min() < 0:
            raise ValueError(
                f"{name}: labels count the classes from 0; got {labels.min()} at index {labels.argmin()}."
                " Drop images without a label, or load them without labels."
            )
        if labels.max() >= min(len(classes) or 2**31, 2**31):
            raise ValueError(
                f"{name}: label {labels.max()} at index {labels.argmax()} has no class; {len(classes)} are named."
                if len(classes)
                else f"{name}: label {labels.max()} does not fit in an int32."
            )
        labels = labels.astype(np.int32)
    return Images(name, images, labels, tuple(map(str, classes)), notes=faint(images))


def faint(images: np.ndarray) -> tuple[str, ...]:
    """What is said of images whose pixels are 0 and 1 of 255, as masks are; nothing of others.

    >>> faint(np.ones((2, 1, 1, 1), np.uint8))
    ('No pixel is above 1, of 255: all images are black. Where 1 means white, store 255 * images.',)
    """
    if any(images[start : start + 256].max() > 1 for start in range(0, len(images), 256)):
        return ()
    return ("No pixel is above 1, of 255: all images are black. Where 1 means white, store 255 * images.",)


def about_images(images: Images) -> About:
    """What a recipe may know of training images. Nothing is read but their labels."""
    n, h, w, c = images.images.shape
    return About(n, (h, w, c), images.classes or numbered(images.labels))


def numbered(labels: np.ndarray | None) -> tuple[str, ...]:
    """Classes without names: their numbers as words, as many as the labels need.

    >>> numbered(np.array([0, 2]))
    ('0', '1', '2')
    """
    return () if labels is None else tuple(map(str, range(int(np.max(labels)) + 1)))


def channels_first(shape: tuple[int, ...]) -> bool:
    """Whether [n, a, b, c] looks like [n, channels, height, width]: fewer rows than columns and channels, which are
    equal, as those of a square image; or one or three rows.

    >>> channels_first((9, 13, 64, 64)), channels_first((9, 64, 64, 13)), channels_first((9, 3, 6, 8))
    (True, False, True)
    """
    if len(shape) != 4:
        return False
    _, a, b, c = shape
    return a < b == c or (a in (1, 3) and c not in (1, 3) and b > a)


def held_out(n: int, split: str) -> np.ndarray:
    """Which of n images in their order belong to the split, where the source has none and they have no names: bool
    [n]."""
    last = np.arange(n) % HOLD_OUT_EVERY == HOLD_OUT_EVERY - 1
    return last if split == "test" else ~last


def allocate(shape: tuple[int, ...]) -> np.ndarray:
    """A uint8 array, in a temporary file if it is large."""
    n_bytes = math.prod(shape)
    if n_bytes <= IN_MEMORY_BYTES:
        return np.empty(shape, np.uint8)
    folder = Path(tempfile.mkdtemp(prefix="jaxcl-images-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    # A full disk under a memory map ends the process with SIGBUS, without a word.
    free = shutil.disk_usage(folder).free
    if free < n_bytes + 2**26:
        raise OSError(
            f"the decoded images {list(shape)} take {n_bytes / 2**30:.1f} GiB and {folder.parent} has"
            f" {free / 2**30:.1f} GiB left. Point the environment variable TMPDIR to a larger disk, or take a smaller"
            " size."
        )
    return np.lib.format.open_memmap(folder / "images.npy", mode="w+", dtype=np.uint8, shape=shape)


def resized(images: np.ndarray, size: int) -> np.ndarray:
    """uint8 [n, h, w, c] -> [n, size, size, c], as `square` does it."""
    if images.shape[1:3] == (size, size):
        return images
    out = allocate((len(images), size, size, images.shape[3]))

    def one(i):
        image, c = images[i], images.shape[3]
        if c == 3:
            out[i] = np.asarray(square(Image.fromarray(image), size))
            return
        for k in range(c):  # Pillow knows no images of other numbers of channels
            out[i, ..., k] = np.asarray(square(Image.fromarray(np.ascontiguousarray(image[..., k])), size))

    in_parallel(one, len(images))
    return out
