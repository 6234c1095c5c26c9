"""Folders of image files: layouts, classes and splits, and all images of one size in memory."""

from __future__ import annotations

import contextlib
import difflib
import os
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from jaxcl.data.arrays import HELD_OUT, HOLD_OUT_EVERY, allocate, from_arrays, held_out
from jaxcl.data.decode import first, in_parallel, read, read_size, readable_formats, reason
from jaxcl.typing import About, Images


def load_folder(path: Path, split: str, size: int | None) -> Images:
    root, classes, files, skipped = folder_files(path, split)
    shown = [str(file.relative_to(root)) for _, file in files]
    reasons: dict[int, str] = {}
    formats = readable_formats()
    with warnings.catch_warnings():
        # Pillow warns about oddities (in EXIF, say) that do not matter; of a decompression bomb it warns, then opens.
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        height, width = (size, size) if size else common_size(files, shown, reasons, formats)
        images = allocate((len(files), height, width, 3))

        def decode(i):
            if i in reasons:
                return
            try:
                images[i] = read(files[i][1], formats, size)
            except Exception as error:  # one file, whatever is wrong with it, must not end the others
                reasons[i] = reason(error)

        in_parallel(decode, len(files))

    good = [i for i in range(len(files)) if i not in reasons]
    for to, i in enumerate(good):  # in place: there may not be room for a second copy
        if to != i:
            images[to] = images[i]
    skipped += [f"{shown[i]}: {reasons[i]}" for i in sorted(reasons)]
    if not good:
        raise ValueError(f"none of the {len(skipped)} files in {root} is an image: {first(skipped)}")
    if skipped:
        warnings.warn(
            f"{len(skipped)} of {len(files) + len(skipped) - len(reasons)} files in {root} were left out (all are in"
            f" Images.skipped): {first(skipped)}",
            stacklevel=3,
        )
    numbers: dict[str | None, int] = {name: k for k, name in enumerate(classes)}
    labels = np.array([numbers[files[i][0]] for i in good]) if classes else None
    data = from_arrays(images[: len(good)], labels, classes=classes, name=f"folder:{path}/{split}")
    return data._replace(skipped=tuple(skipped))


def about_folder(path: Path, size: int | None) -> About:
    """What `load_folder` of the training images would find, by the listing, and one header where no size is given.

    Files that turn out to be no images are counted here, and left out there.
    """
    _, classes, files, _ = folder_files(path, "train")
    formats = readable_formats()
    height, width = (size, size) if size else next(sizes_of(files, formats), (1, 1))
    return About(len(files), (height, width, 3), tuple(classes))


def sizes_of(files: list[tuple[str | None, Path]], formats: list[str]) -> Iterator[tuple[int, int]]:
    """Height and width of those files that are images, one after the other."""
    for _, file in files:
        with contextlib.suppress(Exception):  # whatever is wrong with it
            yield read_size(file, formats)


def folder_files(path: Path, split: str) -> tuple[Path, list[str], list[tuple[str | None, Path]], list[str]]:
    """Of a split: the folder its paths are shown from, the classes, (class or None, file) in order, what is no file."""
    if not path.exists():
        raise missing(path, "folder")
    if not path.is_dir():
        hint = f" Did you mean npz:{path}?" if path.suffix == ".npz" else ""
        raise ValueError(f"folder:{path} is a file; expected a folder of images.{hint}")
    root, other = roots(path, split)
    skipped: list[str] = []
    classes, files = listed(root, skipped)
    if not files and not skipped:
        layouts = "PATH/*.png, PATH/CLASS/*.png, or PATH/train/CLASS/*.png and PATH/test/CLASS/*.png"
        raise ValueError(f"there are no files in {root}. Expected images as {layouts}.")
    if other is not None and classes:
        # A class keeps its number if one of the splits lacks it.
        classes = sorted({*classes, *listed(other, [])[0]})
    if root == path:
        chosen = np.flatnonzero(held_out(len(files), split))
        if files and not len(chosen):
            raise ValueError(
                f"{path} has {len(files)} files and no test folder; every {HOLD_OUT_EVERY}th file is held out for"
                f" testing, so at least {HOLD_OUT_EVERY} are needed. Or make {path}/train and {path}/test."
            )
        files = [files[i] for i in chosen]
    return root, classes, files, skipped


def roots(path: Path, split: str) -> tuple[Path, Path | None]:
    """The folder of this split and that of the other; (path, None) where the folder is not split."""
    folders = {e.name for e in entries_of(path) if e.is_dir()}
    held_out = next((name for name in HELD_OUT if name in folders), None)
    # "train" beside other folders only may be a class, with pictures of trains.
    if "train" not in folders or (held_out is None and len(folders) > 1):
        return path, None
    if split == "train":
        return path / "train", path / held_out if held_out else None
    if held_out is None:
        raise ValueError(
            f"{path} has a folder train and none for testing; expected {', '.join(HELD_OUT)} beside it. To hold out"
            f" every {HOLD_OUT_EVERY}th image instead, load folder:{path / 'train'}."
        )
    return path / held_out, path / "train"


def listed(root: Path, skipped: list[str]) -> tuple[list[str], list[tuple[str | None, Path]]]:
    """The classes, and (class or None, file) in the order of the paths."""
    top = entries_of(root)
    found: list[tuple[str | None, Path]] = []
    for entry in top:
        if entry.is_dir():
            found += [(entry.name, file) for file in files_below(Path(entry.path), root, skipped, ())]
    classes = sorted({name for name, _ in found if name is not None})
    for entry in top:
        if entry.is_dir():
            continue
        if classes:
            skipped.append(f"{entry.name}: lies beside the folders of the classes, so it has no label")
        elif entry.is_file():
            found.append((None, Path(entry.path)))
        else:
            skipped.append(f"{entry.name}: a broken link, or no regular file")
    return classes, found


def files_below(folder: Path, root: Path, skipped: list[str], above: tuple[str, ...]) -> list[Path]:
    """All regular files below a folder; links are followed, but not in a circle."""
    shown, real = str(folder.relative_to(root)), os.path.realpath(folder)
    try:
        if real in above:
            raise OSError("a link to a folder above it")
        entries = entries_of(folder)
    except OSError as error:
        skipped.append(f"{shown}: {reason(error)}")
        return []
    found = []
    for entry in entries:
        if entry.is_dir():
            found += files_below(Path(entry.path), root, skipped, (*above, real))
        elif entry.is_file():
            found.append(Path(entry.path))
        else:
            skipped.append(f"{shown}/{entry.name}: a broken link, or no regular file")
    return found


def entries_of(folder: Path) -> list[os.DirEntry]:
    with os.scandir(folder) as entries:
        return sorted((e for e in entries if not e.name.startswith(".")), key=lambda e: e.name)


def common_size(files, shown, reasons, formats) -> tuple[int, int]:
    """Height and width that all readable files share; the unreadable are noted in `reasons`."""
    sizes: dict[int, tuple[int, int]] = {}

    def look(i):
        try:
            sizes[i] = read_size(files[i][1], formats)
        except Exception as error:
            reasons[i] = reason(error)

    in_parallel(look, len(files))
    counts = Counter(sizes[i] for i in sorted(sizes))
    if len(counts) > 1:
        (common, n), (rarer, _) = counts.most_common()[0], counts.most_common()[-1]
        odd = next(i for i in sorted(sizes) if sizes[i] == rarer)
        raise ValueError(
            f"the images are not all of one size: {n} are {common[0]} x {common[1]} pixels (height x width), and"
            f" {shown[odd]} is {rarer[0]} x {rarer[1]}. Pass size=N to make them all N x N."
        )
    return next(iter(counts), (1, 1))


def missing(path: Path, what: str) -> FileNotFoundError:
    parent = next((p for p in path.absolute().parents if p.is_dir()), Path("/"))
    try:
        near = (
            difflib.get_close_matches(path.name, os.listdir(parent), 1)
            if parent == path.absolute().parent
            else []
        )
    except OSError:
        near = []
    hint = f" Did you mean {parent / near[0]}?" if near else f" The last folder there on the way is {parent}."
    return FileNotFoundError(f"there is no {what} {path}.{hint}")
