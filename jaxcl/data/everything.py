"""All images of a data set, whatever its splits: for features of them, which need neither labels nor training data."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jaxcl.data.classes import without_list
from jaxcl.data.folders import find_folder, read_folder
from jaxcl.data.layout import Layout, Part
from jaxcl.data.load import load, parsed
from jaxcl.data.tfds import tfds_splits
from jaxcl.typing import Images


class Some(NamedTuple):
    """Images with the split ("" where the source has none) and the class of each, in words ("" where it has none)."""

    images: Images
    splits: Sequence[str]
    classes: Sequence[str]


def everything(
    spec: str,
    *,
    data_dir: str | os.PathLike | None = None,
    size: int | None = None,
    labels: str | None = None,
    layout: str = "auto",
    value_range: tuple[float, float] | None = None,
) -> Iterator[Some]:
    """All images of a data set, one part after the other; arguments and errors as of `load`.

    A folder is one part, in the order of its paths, and may hold a single image. Every other source comes by splits:
    those of a TensorFlow data set, or "train" and then "test".
    """
    how: dict[str, Any] = {"labels": labels, "layout": layout, "value_range": value_range}
    plain, chosen = without_list(spec)
    kind, where = parsed(plain)
    if kind == "folder":
        found = find_folder(Path(where).expanduser(), labels=labels, layout=layout)
        if chosen is None:
            yield _folder(found, size, value_range)
            return
        splits = list(found.splits)
    elif kind == "tfds":
        _, first, others = tfds_splits(where, "train", data_dir)
        splits = [*first, *others]
    else:
        splits = ["train", "test"]
    for split in splits:
        yield with_words(load(spec, split, data_dir=data_dir, size=size, **how), split)


def with_words(images: Images, split: str) -> Some:
    """Images of one split, with their classes in words.

    >>> import numpy as np
    >>> with_words(Images("two", np.zeros((2, 1, 1, 1), np.uint8), np.array([1, 0]), ("cat", "dog")), "test").classes
    ['dog', 'cat']
    """
    n, numbers = len(images.images), images.labels
    words = [""] * n
    if numbers is not None:
        words = [images.classes[k] if images.classes else str(k) for k in numbers.tolist()]
    return Some(images, [split] * n, words)


def _folder(found: Layout, size: int | None, value_range: tuple[float, float] | None) -> Some:
    """A folder as a whole: what is held out of one without splits is no split of it."""
    root = found.root
    of = {
        os.path.relpath(file, root).replace(os.sep, "/"): (name if found.own_splits else "", label or "")
        for name, part in found.splits.items()
        for label, file in part.files
    }
    files = sorted((file for part in found.splits.values() for _, file in part.files), key=os.fspath)
    skipped = [one for part in found.splits.values() for one in part.skipped]
    whole = Part(root, [(None, file) for file in files], skipped)
    images = read_folder(found._replace(splits={"": whole}, classes=()), "", size, value_range=value_range)
    # Their words are all that is asked for; the numbers of images without a class would be none.
    images = images._replace(name=f"folder:{root}", classes=found.classes)
    if not found.own_splits:  # what would be held out of it for a test is not said
        images = images._replace(notes=(*found.labels_by, *images.notes[1:]))
    return Some(images, [of[file][0] for file in images.files], [of[file][1] for file in images.files])
