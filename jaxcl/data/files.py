"""Images that stay in their files: found, looked at from outside, and decoded when their turn comes."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from jaxcl.data import sources


class Encoded(NamedTuple):
    """A data set in image files of any sizes, too large to be decoded ahead.

    `paths` [n]; `sizes` int32 [n, 2], height and width as they will be seen; `plain` bool [n], a JPEG that every
    decoder reads alike (RGB or gray, not turned); `labels` int32 [n] or None; `classes` their names; `skipped` the
    files that are no images, each with the reason; `damaged` those of the n that turned out damaged when they were
    decoded (number -> reason; it grows).
    """

    name: str
    paths: tuple[str, ...]
    sizes: np.ndarray
    plain: np.ndarray
    labels: np.ndarray | None
    classes: tuple[str, ...]
    skipped: tuple[str, ...]
    damaged: dict[int, str]


def find_files(spec: str, split: str) -> Encoded:
    """The images of "folder:PATH", undecoded; layouts, splits and what is left out are those of `data.load`.

    Only headers are read (but PNGs whole, as Pillow looks for EXIF at their end). A file whose header cannot be read is
    left out, named in `skipped` and counted in a warning; one that is damaged further in is found when it is decoded.

    Raises ValueError for what is misspelt, empty or not as described, FileNotFoundError for what is not there.
    """
    kind, _, where = spec.partition(":")
    if kind != "folder" or not where:
        raise ValueError(f"expected folder:PATH, as only folders are read file by file; got {spec!r}.")
    if split not in ("train", "test"):
        raise ValueError(f'split must be "train" or "test" for {spec}; got {split!r}.')
    root, classes, files, skipped = sources.folder_files(Path(where).expanduser(), split)
    formats = sources.readable_formats()
    found: dict[int, tuple[tuple[int, int], bool]] = {}
    reasons: dict[int, str] = {}

    def look(i):
        try:
            found[i] = header(files[i][1], formats)
        except Exception as error:  # one file, whatever is wrong with it, must not end the others
            reasons[i] = sources._reason(error)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        sources._in_parallel(look, len(files))
    skipped = skipped + [f"{files[i][1].relative_to(root)}: {reasons[i]}" for i in sorted(reasons)]
    good = sorted(found)
    if not good:
        raise ValueError(f"none of the {len(skipped)} files in {root} is an image: {sources._first(skipped)}")
    if skipped:
        warnings.warn(
            f"{len(skipped)} of {len(good) + len(skipped)} files in {root} were left out (all are in"
            f" Encoded.skipped): {sources._first(skipped)}",
            stacklevel=2,
        )
    numbers: dict[str | None, int] = {name: k for k, name in enumerate(classes)}
    return Encoded(
        f"folder:{where}/{split}",
        tuple(os.fspath(files[i][1]) for i in good),
        np.array([found[i][0] for i in good], np.int32),
        np.array([found[i][1] for i in good]),
        np.array([numbers[files[i][0]] for i in good], np.int32) if classes else None,
        tuple(classes),
        tuple(skipped),
        {},
    )


def header(path: Path, formats: list[str]) -> tuple[tuple[int, int], bool]:
    """Height and width as they will be seen, and whether it is a plain JPEG."""
    with sources._open(path, formats) as image:
        orientation = image.getexif().get(0x0112, 1)
        height_width = image.size if orientation in (5, 6, 7, 8) else image.size[::-1]
        known = orientation not in range(2, 9)
        plain = known and image.format == "JPEG" and image.mode in ("RGB", "L")
    return height_width, plain and ends(path)


def ends(path: Path) -> bool:
    """Whether a JPEG has its end marker. A decoder that is asked for a part only may never miss it."""
    with open(path, "rb") as file:
        file.seek(max(0, os.path.getsize(path) - 64))
        return b"\xff\xd9" in file.read()


def read_rgb(path: str) -> np.ndarray:
    """One file as uint8 [h, w, 3], whatever its format."""
    return sources._read(Path(path), sources.readable_formats(), None)
