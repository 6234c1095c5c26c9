"""All images of a data set, whatever its splits: for features of them, which need neither labels nor training data."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jaxcl.data.archives import splits_of
from jaxcl.data.classes import chosen_rows, without_list
from jaxcl.data.folders import find_folder, read_folder
from jaxcl.data.layout import Layout, Part
from jaxcl.data.load import check_options, load, parsed
from jaxcl.data.stream import as_images, find_images, take
from jaxcl.data.tfds import load_tfds, tfds_folder
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
    fraction: float = 1.0,
) -> Iterator[Some]:
    """All images of a data set, each once, one part after the other; arguments and errors as of `load`.

    A folder is one part, in the order of its paths, and may hold a single image. Every other source comes by splits:
    those of a TensorFlow data set or an archive, with labels or without, or "train" and then "test". Of a list of
    classes, a split without labels is left out with a warning, as nothing tells what is of these classes.

    fraction
        of the centre square's side that is kept, of the files of a folder or TensorFlow data set; below 1 the latter
        are decoded when they are asked for (`as_images`), which needs a size.
    """
    how: dict[str, Any] = {"labels": labels, "layout": layout, "value_range": value_range}
    plain, chosen = without_list(spec)
    kind, where = parsed(plain)
    check_options(spec, labels=labels, value_range=value_range)
    found = None
    splits = ["train", "test"]
    if kind == "folder":
        found = find_folder(Path(where).expanduser(), labels=labels, layout=layout)._replace(exact=True)
        if chosen is None:
            yield _folder(found, size, value_range, fraction)
            return
        splits = list(found.splits)
    elif kind == "tfds":
        _, there = tfds_folder(where, data_dir)
        splits = sorted(there, key=lambda name: name != "train")
    elif kind == "npz":
        splits = splits_of(Path(where).expanduser())
    came = False
    for split in splits:
        if found is not None:
            images = read_folder(found, split, size, value_range=value_range, fraction=fraction)
        elif kind == "tfds" and fraction < 1 and size is not None:
            encoded = find_images(plain, split, data_dir=data_dir, exact=True)
            images = as_images(encoded, size, fraction=fraction)
        elif kind == "tfds":
            images = load_tfds(where, split, data_dir, size, exact=True)
        else:
            images = load(plain, split, data_dir=data_dir, size=size, **how)
        if chosen is not None:
            if images.labels is None:
                warnings.warn(f"{images.name} has no labels, so none of its images is taken.", stacklevel=2)
                continue
            rows, numbers, classes = chosen_rows(images.name, images.labels, images.classes, chosen)
            images = take(images, rows)._replace(labels=numbers, classes=classes)
        came = True
        yield with_words(images, split)
    if not came:
        raise ValueError(f"{spec}: no split of it has labels, by which classes could be chosen.")


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


def _folder(
    found: Layout, size: int | None, value_range: tuple[float, float] | None, fraction: float
) -> Some:
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
    one = found._replace(splits={"": whole}, classes=())
    images = read_folder(one, "", size, value_range=value_range, fraction=fraction)
    # Their words are all that is asked for; the numbers of images without a class would be none.
    images = images._replace(name=f"folder:{root}", classes=found.classes)
    if not found.own_splits:  # what would be held out of it for a test is not said
        images = images._replace(notes=(*found.labels_by, *images.notes[1:]))
    return Some(images, [of[file][0] for file in images.files], [of[file][1] for file in images.files])
