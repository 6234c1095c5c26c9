"""Numpy archives: npz files of images and labels."""

from __future__ import annotations

import math
import zipfile
import zlib
from pathlib import Path

import numpy as np

from jaxcl.data.arrays import HOLD_OUT_EVERY, from_arrays, held_out, numbered, resized
from jaxcl.data.decode import reason
from jaxcl.data.folders import missing
from jaxcl.typing import About, Images


def load_archive(path: Path, split: str, size: int | None) -> Images:
    check_archive(path)
    try:
        with zipfile.ZipFile(path) as archive:
            prefix = prefix_of(archive, split, path)
            images = member(archive, f"{prefix}images", path)
            labels = member(archive, f"{prefix}labels", path) if has(archive, f"{prefix}labels") else None
            classes = member(archive, "classes", path) if has(archive, "classes") else np.array([], str)
    except (zipfile.BadZipFile, EOFError, OSError, NotImplementedError, zlib.error) as error:
        raise ValueError(f"{path} is damaged: {reason(error)}.") from error
    if classes.ndim != 1 or classes.dtype.kind != "U":
        raise ValueError(
            f"{path}: classes must be a list of names; got {classes.dtype} {list(classes.shape)}."
        )
    data = from_arrays(images, labels, classes=classes.tolist(), name=f"npz:{path}/{split}")
    if not prefix:
        chosen = held_out(len(data.images), split)
        if not chosen.any():
            raise ValueError(
                f"{path} has {len(chosen)} images and no test split; every {HOLD_OUT_EVERY}th is held out for testing,"
                f" so at least {HOLD_OUT_EVERY} are needed. Or store train_images and test_images."
            )
        data = data._replace(
            images=data.images[chosen], labels=None if data.labels is None else data.labels[chosen]
        )
    return data if size is None else data._replace(images=resized(data.images, size))


def about_archive(path: Path, size: int | None) -> About | None:
    """What `load_archive` of the training images would find, by headers, labels and names of classes alone; None where
    it would refuse them."""
    check_archive(path)
    try:
        with zipfile.ZipFile(path) as archive:
            prefix = prefix_of(archive, "train", path)
            shape = shape_of(archive, f"{prefix}images", path)
            labels = member(archive, f"{prefix}labels", path) if has(archive, f"{prefix}labels") else None
            classes = member(archive, "classes", path) if has(archive, "classes") else np.array([], str)
    except (zipfile.BadZipFile, EOFError, OSError, NotImplementedError, zlib.error) as error:
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
    """ "train_" or "test_", where the archive has the split, or "" where it has all images together."""
    if has(archive, f"{split}_images"):
        return f"{split}_"
    if not has(archive, "images"):
        keys = [name.removesuffix(".npy") for name in archive.namelist()]
        raise ValueError(
            f"{path} holds {', '.join(keys) or 'nothing'}; expected {split}_images (and"
            f" {split}_labels), or images (and labels)."
        )
    return ""


def has(archive: zipfile.ZipFile, key: str) -> bool:
    return f"{key}.npy" in archive.namelist()


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
