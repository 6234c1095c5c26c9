"""Numpy files: npz archives of images and labels, npy files of either."""

from __future__ import annotations

import math
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from jaxcl.data.arrays import HOLD_OUT_EVERY, allocate, from_arrays, held_out, numbered, resized
from jaxcl.data.decode import not_finite, reason, told_of_not_finite, within
from jaxcl.data.folders import by_extremes, missing
from jaxcl.typing import About, Images

SPLITS = ("train", "test", "val")


def load_archive(
    path: Path, split: str, size: int | None, *, value_range: tuple[float, float] | None = None
) -> Images:
    check_archive(path)
    notes: tuple[str, ...] = ()
    chosen = None
    try:
        with zipfile.ZipFile(path) as archive:
            prefix = prefix_of(archive, split, path)
            images = member(archive, f"{prefix}images", path)
            if images.dtype != np.uint8:
                names = (f"{name}_images" for name in SPLITS)
                others = (n for n in names if has(archive, n) and n != f"{prefix}images")
                every = (member(archive, n, path) for n in others)
                images, notes, chosen = as_bytes(images, every, value_range)
            labels = labels_of(archive, prefix, path)
            classes = member(archive, "classes", path) if has(archive, "classes") else np.array([], str)
    except (zipfile.BadZipFile, EOFError, OSError, RuntimeError, zlib.error) as error:
        raise ValueError(f"{path} is damaged: {reason(error).rstrip('.')}.") from error
    if classes.ndim != 1 or classes.dtype.kind != "U":
        raise ValueError(
            f"{path}: classes must be a list of names; got {classes.dtype} {list(classes.shape)}."
        )
    data = from_arrays(images, labels, classes=classes.tolist(), name=f"npz:{path}/{split}")
    if not prefix:
        instead = " Or store train_images and test_images."
        data = part_of(data, split, f"{path} has {len(data.images)} images and no test split", instead)
    data = data._replace(notes=(*notes, *data.notes), value_range=chosen)
    return data if size is None else data._replace(images=resized(data.images, size))


def splits_of(path: Path) -> list[str]:
    """The splits of an archive by their names; of one without, those that it is split into."""
    check_archive(path)
    with zipfile.ZipFile(path) as archive:
        return [name for name in SPLITS if has(archive, f"{name}_images")] or ["train", "test"]


def part_of(data: Images, split: str, has: str, instead: str = "") -> Images:
    """The images of a split of data that has none: every tenth is for testing. Raises ValueError where there are too
    few, with what the data `has` and what to do `instead`."""
    chosen = held_out(len(data.images), split)
    if not chosen.any():
        raise ValueError(
            f"{has}; every {HOLD_OUT_EVERY}th is held out for testing, so at least {HOLD_OUT_EVERY} are"
            f" needed.{instead}"
        )
    labels = None if data.labels is None else data.labels[chosen]
    return data._replace(images=data.images[chosen], labels=labels)


def as_bytes(
    images: np.ndarray, others: Iterable[np.ndarray], value_range: tuple[float, float] | None
) -> tuple[np.ndarray, tuple[str, ...], tuple[float, float] | None]:
    """Images of other than 8 bits as uint8: within `value_range`, or whole numbers by the largest of these and of the
    `others` of the data set; what is said of it; and the range. Floats without one are left, for the error that they
    are."""
    if value_range is not None and images.dtype.kind in "uif":
        spoilt = [str(i) for i, image in enumerate(images) if not_finite(image)]
        return scaled(images, value_range), told_of_not_finite(spoilt), value_range
    if images.dtype.kind not in "ui" or not images.size:
        return images, (), None
    every = [images, *(one for one in others if one.size)]
    chosen, note = by_extremes(float(min(map(np.min, every))), float(max(map(np.max, every))))
    return scaled(images, chosen), (note,), chosen


def scaled(images: np.ndarray, value_range: tuple[float, float]) -> np.ndarray:
    to_bytes, out = within(value_range), allocate(images.shape)
    for i in range(0, len(images), 256):  # in parts: the sums are made in float64
        out[i : i + 256] = to_bytes(images[i : i + 256])
    return out


def load_array(
    path: Path,
    split: str,
    size: int | None,
    *,
    labels: str | None = None,
    value_range: tuple[float, float] | None = None,
) -> Images:
    """Images [n, h, w, c] or [n, h, w] in a npy file, with labels [n] in another; every tenth is held out."""
    images = array(path)
    notes: tuple[str, ...] = ()
    chosen = None
    if images.dtype != np.uint8:
        images, notes, chosen = as_bytes(images, (), value_range)
    numbers = None if labels is None else in_a_row(array(Path(labels).expanduser()))
    data = from_arrays(images, numbers, name=f"npy:{path}/{split}")
    data = part_of(data, split, f"{path} has {len(data.images)} images")
    data = data._replace(notes=(*notes, *data.notes), value_range=chosen)
    return data if size is None else data._replace(images=resized(data.images, size))


def about_array(path: Path, size: int | None, labels: str | None) -> About | None:
    """What `load_array` of the training images would find, by the header and the labels."""
    shape = array(path).shape
    if len(shape) not in (3, 4) or 0 in shape:
        return None
    n, h, w, c = (*shape, 1)[:4]
    chosen = held_out(n, "train")
    numbers = None if labels is None else in_a_row(array(Path(labels).expanduser()))
    if numbers is not None and (numbers.shape != (n,) or not np.issubdtype(numbers.dtype, np.integer)):
        return None
    return About(
        int(chosen.sum()), (size or h, size or w, c), numbered(None if numbers is None else numbers[chosen])
    )


def array(path: Path) -> np.ndarray:
    """A npy file, memory-mapped."""
    if not path.exists():
        raise missing(path, "file")
    if path.is_dir():
        raise ValueError(
            f"npy:{path} is a folder; expected a file made by np.save. Did you mean folder:{path}?"
        )
    try:
        found = np.load(path, mmap_mode="r", allow_pickle=False)
        if isinstance(found, np.ndarray):
            return found
        found.close()
        raise ValueError(f"it is an archive made by np.savez. Did you mean npz:{path}?")
    except (ValueError, EOFError, OSError) as error:
        raise ValueError(
            f"{path} is no numpy file (made by np.save) that can be read: {reason(error).rstrip('.')}."
        ) from error


def about_archive(path: Path, size: int | None) -> About | None:
    """What `load_archive` of the training images would find, by headers, labels and names of classes alone; None where
    it would refuse them."""
    check_archive(path)
    try:
        with zipfile.ZipFile(path) as archive:
            prefix = prefix_of(archive, "train", path)
            shape = shape_of(archive, f"{prefix}images", path)
            labels = labels_of(archive, prefix, path)
            classes = member(archive, "classes", path) if has(archive, "classes") else np.array([], str)
    except (zipfile.BadZipFile, EOFError, OSError, RuntimeError, zlib.error) as error:
        raise ValueError(f"{path} is damaged: {reason(error)}.") from error
    if len(shape) not in (3, 4) or 0 in shape:
        return None
    n, h, w, c = (*shape, 1)[:4]
    chosen = np.ones(n, bool) if prefix else held_out(n, "train")
    if labels is not None:
        if labels.shape != (n,) or not np.issubdtype(labels.dtype, np.integer):
            return None
        labels = labels[chosen]
    return About(int(chosen.sum()), (size or h, size or w, c), tuple(map(str, classes)) or numbered(labels))


def check_archive(path: Path) -> None:
    if not path.exists():
        raise missing(path, "file")
    if path.is_dir():
        raise ValueError(
            f"npz:{path} is a folder; expected a file made by np.savez. Did you mean folder:{path}?"
        )
    if not zipfile.is_zipfile(path):
        raise ValueError(
            f"{path} is no .npz archive (made by np.savez or np.savez_compressed), or it is damaged."
        )


def prefix_of(archive: zipfile.ZipFile, split: str, path: Path) -> str:
    """ "train_", "test_" or "val_", where the archive has the split ("test" may be "val_"), or "" where it has all
    images together."""
    # An archive says a name twice. Where they differ labels, say, would seem not to be there: opening compares them.
    for entry in archive.infolist():
        archive.open(entry).close()
    for name in ("test", "val") if split == "test" else (split,):
        if has(archive, f"{name}_images"):
            return f"{name}_"
    if split == "val" or not has(archive, "images"):
        keys = [name.removesuffix(".npy") for name in archive.namelist()]
        raise ValueError(
            f"{path} holds {', '.join(keys) or 'nothing'}; expected {split}_images (and"
            f" {split}_labels), or images (and labels)."
        )
    return ""


def has(archive: zipfile.ZipFile, key: str) -> bool:
    return f"{key}.npy" in archive.namelist()


def labels_of(archive: zipfile.ZipFile, prefix: str, path: Path) -> np.ndarray | None:
    return in_a_row(member(archive, f"{prefix}labels", path)) if has(archive, f"{prefix}labels") else None


def in_a_row(labels: np.ndarray) -> np.ndarray:
    """Labels [n]; of [n, 1] as well, as CIFAR-10's and MedMNIST's are given."""
    return labels[:, 0] if labels.ndim == 2 and labels.shape[1] == 1 else labels


def member(archive: zipfile.ZipFile, key: str, path: Path) -> np.ndarray:
    """One array; its header is checked against what is there before any memory is asked for."""
    shape_of(archive, key, path)
    with archive.open(f"{key}.npy") as file:
        return np.lib.format.read_array(file, allow_pickle=False)


def shape_of(archive: zipfile.ZipFile, key: str, path: Path) -> tuple[int, ...]:
    """The shape of one array, by its header, which is checked against what is there."""
    with archive.open(f"{key}.npy") as file:
        try:
            version = np.lib.format.read_magic(file)
            read_header = {
                (1, 0): np.lib.format.read_array_header_1_0,
                (2, 0): np.lib.format.read_array_header_2_0,
            }[version]
            shape, _, dtype = read_header(file)
        except (ValueError, KeyError) as error:
            raise ValueError(f"{path}: {key} is no numpy array: {reason(error)}.") from error
        if dtype.hasobject:
            raise ValueError(
                f"{path}: {key} holds Python objects, which only pickle could read, and a pickle can run any code."
                " Store plain arrays: images uint8 [n, h, w, 3], labels int [n]. Objects come from a list of images"
                " of different sizes."
            )
        wanted, there = (
            math.prod(shape) * dtype.itemsize,
            archive.getinfo(f"{key}.npy").file_size - file.tell(),
        )
        if wanted != there:
            raise ValueError(
                f"{path} is damaged: {key} of the shape {list(shape)} needs {wanted} bytes, and {there} are there."
            )
    return shape
