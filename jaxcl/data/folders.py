"""Folders of image files: all images of one size in memory."""

from __future__ import annotations

import contextlib
import difflib
import os
import warnings
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from jaxcl.data.arrays import HOLD_OUT_EVERY, allocate, from_arrays
from jaxcl.data.decode import (
    ToBytes,
    bits_of,
    deep_levels,
    first,
    full_range,
    in_parallel,
    is_deep,
    not_finite,
    open_image,
    read,
    read_size,
    readable_formats,
    reason,
    told_of_not_finite,
    within,
)
from jaxcl.data.layout import Layout, Part, layout_of
from jaxcl.typing import About, Images

# The side that images of many sizes get where none is said: the larger one where most are as large.
DEFAULT_SIZES = (32, 64)
# Files that are looked at for the range of their gray levels.
LOOKED_AT = 10_000


def load_folder(
    path: Path,
    split: str,
    size: int | None,
    *,
    labels: str | None = None,
    layout: str = "auto",
    value_range: tuple[float, float] | None = None,
) -> Images:
    return read_folder(find_folder(path, labels=labels, layout=layout), split, size, value_range=value_range)


def read_folder(
    found: Layout,
    split: str,
    size: int | None,
    *,
    value_range: tuple[float, float] | None = None,
    fraction: float = 1.0,
    border: int = 0,
) -> Images:
    """The images of one split of a folder that was looked at; `fraction` and `border` as for `decode.read`."""
    part, root = checked_part(found, split), found.root
    files = part.files
    shown = [os.path.relpath(file, part.folder) for _, file in files]
    skipped = [f"{os.path.relpath(file, part.folder)}: {why}" for file, why in part.skipped]
    reasons: dict[int, str] = {}
    formats, notes = readable_formats(), found.notes(split)
    with warnings.catch_warnings():
        # Pillow warns about oddities (in EXIF, say) that do not matter; of a decompression bomb it warns, then opens.
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        height, width = (size, size) if size else (0, 0)
        square = size
        if size is None:
            (height, width), square, note = one_size(found, formats)
            notes += [note] if note else []
        images = allocate((len(files), height, width, 3))
        later: list[int] = []
        spoilt: set[int] = set()
        deep: set[int] = set()

        def decode(i: int, to_bytes: ToBytes) -> None:
            def looked_at(values: np.ndarray) -> np.ndarray:
                deep.add(i)
                if not_finite(values):
                    spoilt.add(i)
                return to_bytes(values)

            try:
                images[i] = read(files[i][1], formats, square, fraction, looked_at, border)
            except DeepPixels:
                later.append(i)
            except Exception as error:  # one file, whatever is wrong with it, must not end the others
                reasons[i] = reason(error, files[i][1])

        in_parallel(
            partial(decode, to_bytes=put_off if value_range is None else within(value_range)), len(files)
        )
        if later:  # their range is that of the whole data set
            chosen, note = range_of(found, formats)
            notes.append(note)
            value_range = chosen
            in_parallel(lambda k: decode(later[k], within(chosen)), len(later))

    notes += told_of_not_finite([shown[i] for i in sorted(spoilt)])
    good = [i for i in range(len(files)) if i not in reasons]
    for to, i in enumerate(good):  # in place: there may not be room for a second copy
        if to != i:
            images[to] = images[i]
    skipped = sorted(skipped + [f"{shown[i]}: {reasons[i]}" for i in sorted(reasons)])
    if not good:
        raise ValueError(f"none of the {len(skipped)} files in {part.folder} is an image: {first(skipped)}")
    if skipped:
        warnings.warn(
            f"{len(skipped)} of {len(good) + len(skipped)} files in {part.folder} were left out (all are"
            f" in Images.skipped): {first(skipped)}",
            stacklevel=4,
        )
    numbers = {name: k for k, name in enumerate(found.classes)}
    given = np.array([numbers[str(files[i][0])] for i in good]) if labelled(found, split) else None
    data = from_arrays(images[: len(good)], given, classes=found.classes, name=f"folder:{root}/{split}")
    names = tuple(os.path.relpath(files[i][1], root).replace(os.sep, "/") for i in good)
    notes += data.notes
    return data._replace(
        skipped=tuple(skipped), files=names, notes=tuple(notes), value_range=value_range if deep else None
    )


def labelled(found: Layout, split: str) -> bool:
    return bool(found.classes) and found.part(split).labelled


def about_folder(found: Layout, size: int | None) -> About:
    """What `read_folder` of the training images would find, by the listing, and by headers where no size is given.

    Files that turn out to be no images are counted here, and left out there.
    """
    part = checked_part(found, "train")
    height, width = (size, size) if size else one_size(found, readable_formats())[0]
    return About(len(part.files), (height, width, 3), found.classes)


def find_folder(path: Path, *, labels: str | None = None, layout: str = "auto") -> Layout:
    """The layout of a folder that is one."""
    if not path.exists():
        raise missing(path, "folder")
    if not path.is_dir():
        hint = f" Did you mean {path.suffix[1:]}:{path}?" if path.suffix in (".npz", ".npy") else ""
        raise ValueError(f"folder:{path} is a file; expected a folder of images.{hint}")
    return layout_of(path, labels=labels, layout=layout)


def checked_part(found: Layout, split: str) -> Part:
    """A split of a folder, where it has any image in it."""
    part = found.part(split)
    if not part.files and not part.skipped:
        if found.own_splits:
            raise ValueError(f"there are no files in {part.folder}.")
        n = sum(len(one.files) for one in found.splits.values())
        raise ValueError(
            f"{found.root} has {n} files and no test folder; one file in {HOLD_OUT_EVERY} is held out for testing, by"
            f" its name, and at least {HOLD_OUT_EVERY} are needed to be sure of one. Or make {found.root}/train and"
            f" {found.root}/test."
        )
    return part


# --- sizes and ranges --------------------------------------------------------------------------------------------


def one_size(found: Layout, formats: list[str]) -> tuple[tuple[int, int], int | None, str]:
    """Height and width that the images of a data set get where none are said: their own, if all have the same; else a
    default, which is also the side of the square that they are resized to; and a sentence that says so."""
    files = [file for part in found.splits.values() for _, file in part.files]
    sizes: list[tuple[int, int] | None] = [None] * len(files)

    def look(i):
        with contextlib.suppress(Exception):  # whatever is wrong with it is found when it is decoded
            sizes[i] = read_size(files[i], formats)

    in_parallel(look, len(files))
    counts = Counter(size for size in sizes if size is not None)
    if len(counts) < 2:
        return next(iter(counts), (1, 1)), None, ""
    sides = sorted(min(size) for size in counts.elements())
    side = DEFAULT_SIZES[sides[len(sides) // 2] >= DEFAULT_SIZES[1]]
    (small, large) = min(counts, key=lambda s: s[0] * s[1]), max(counts, key=lambda s: s[0] * s[1])
    return (
        (side, side),
        side,
        f"The images have {len(counts)} sizes, from {small[0]} x {small[1]} to {large[0]} x {large[1]} pixels (height x"
        f" width): each is resized to {side} x {side}; --size N says otherwise.",
    )


class DeepPixels(Exception):
    """An image of more than 8 bits, which waits until the range of all is known."""


def any_deep(files: Sequence[Path], formats: list[str], *, most: int = 200) -> bool:
    """Whether some of these files, evenly chosen, have more than 8 bits."""
    some = [file for file in files if file.suffix.lower() not in (".jpg", ".jpeg", ".webp", ".gif", ".bmp")]
    found = []

    def look(i):
        with contextlib.suppress(Exception), open_image(some[i], formats) as image:
            found.append(is_deep(image))

    some = some[:: -(-len(some) // most) or 1]
    in_parallel(look, len(some))
    return any(found)


def put_off(values: np.ndarray) -> np.ndarray:
    if values.dtype.kind == "f":
        return full_range(values)
    raise DeepPixels


def range_of(found: Layout, formats: list[str]) -> tuple[tuple[float, float], str]:
    """The levels that become black and white where they have more than 8 bits, by the largest in the data set; and
    a sentence that says so."""
    every = [file for part in found.splits.values() for _, file in part.files]
    files = every[:: -(-len(every) // LOOKED_AT)]
    low_high: np.ndarray = np.zeros((len(files), 2))

    def look(i):
        with contextlib.suppress(Exception), open_image(files[i], formats) as image:
            if is_deep(image):
                values = deep_levels(image)
                low_high[i] = values.min(), values.max()

    in_parallel(look, len(files))
    return by_extremes(float(np.min(low_high[:, 0])), float(np.max(low_high[:, 1])))


def by_extremes(low: float, high: float) -> tuple[tuple[float, float], str]:
    """Which of whole numbers between two extremes become black and white, and a sentence that says so.

    >>> by_extremes(0, 4080)[0]
    (0, 4095)
    """
    chosen = bits_of(high) if low >= 0 else (int(low), int(high))
    return chosen, (
        f"Pixels of more than 8 bits reach from {low:.0f} to {high:.0f}: {chosen[0]} becomes black and {chosen[1]}"
        " white; --value-range LOW HIGH says otherwise."
    )


def missing(path: Path, what: str) -> FileNotFoundError:
    if path.is_symlink():
        return FileNotFoundError(f"{path} is a link to {os.readlink(path)}, where there is no {what}.")
    parent = next((p for p in path.absolute().parents if p.is_dir()), Path("/"))
    try:
        near = (
            difflib.get_close_matches(path.name, os.listdir(parent), 1)
            if parent == path.absolute().parent
            else []
        )
    except OSError:
        near = []
    hint = f" Did you mean {parent / near[0]}?" if near else f" The last part of it that exists is {parent}."
    return FileNotFoundError(f"there is no {what} {path}.{hint}")
