"""`load`: a data set by its name, wholly in memory or memory-mapped, whatever it was stored as.

spec          what it is
digits        the embedded data set: nothing to download (see `digits.py`)
tfds:NAME     a TensorFlow data set that was prepared before; NAME, NAME/CONFIG, NAME:VERSION
folder:PATH   a folder of image files; see `load` for the layouts
npz:PATH      a numpy archive of train_images, train_labels, test_images, test_labels; or images, labels
"""

from __future__ import annotations

import atexit
import difflib
import importlib.util
import json
import math
import os
import re
import shutil
import tempfile
import warnings
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from jaxcl.data.digits import scattered_digits
from jaxcl.typing import Images

KINDS = {
    "digits": "the embedded digits",
    "tfds:NAME": "a prepared TensorFlow data set, as tfds:cifar10",
    "folder:PATH": "a folder of images",
    "npz:PATH": "a numpy archive",
}
# Names of held-out folders and splits, in order of preference.
HELD_OUT = ("test", "val", "valid", "validation")
# One image of so many is held out where a source has no split of its own.
HOLD_OUT_EVERY = 10
# Decoded pixels beyond this are kept in a temporary file instead of memory.
IN_MEMORY_BYTES = 2 * 2**30
# Only formats that Pillow decodes itself: EPS, say, would start another program.
FORMATS = ("PNG", "JPEG", "MPO", "WEBP", "BMP", "GIF", "TIFF", "PPM", "JPEG2000", "AVIF", "TGA")
# Data sets of images that are asked for most, to tell a misspelt name from one that is not prepared.
KNOWN_TFDS = tuple(
    "beans caltech101 caltech_birds2011 cars196 cifar10 cifar100 cifar10_corrupted cmaterdb colorectal_histology"
    " deep_weeds dtd emnist eurosat fashion_mnist food101 horses_or_humans imagenet2012 imagenet2012_subset imagenet_a"
    " imagenet_r imagenet_resized imagenet_v2 imagenette imagewang kmnist malaria mnist mnist_corrupted omniglot"
    " oxford_flowers102 oxford_iiit_pet patch_camelyon places365_small resisc45 rock_paper_scissors stanford_dogs stl10"
    " sun397 svhn_cropped tf_flowers uc_merced".split()
)


def load(
    spec: str,
    split: str,
    *,
    data_dir: str | os.PathLike | None = None,
    size: int | None = None,
    download: bool = False,
) -> Images:
    """The images [n, h, w, c] (uint8, c = 1 or 3) and labels [n] (int32, from 0; or None) of one split.

    spec
        "digits", "tfds:NAME", "folder:PATH" or "npz:PATH".
    split
        "train" or "test"; of a TensorFlow data set any of its splits, where "test" is "validation" if there is no
        test split or its labels are secret.
    data_dir
        where TensorFlow data sets lie; None: the environment's TFDS_DATA_DIR, or ~/tensorflow_datasets.
    size
        side of the images in pixels: the shorter side is resized to it (bicubic, antialiased), and the centre square
        kept. None leaves the images as they are, if they are all of one size. The digits are drawn on a canvas
        of this size.
    download
        let TensorFlow Datasets download and prepare what is not there. Without it nothing uses the network.

    Folders. Sub-folders of the images' folder are the classes, in alphabetical order; without any there are no
    labels. `PATH/train` and `PATH/test` (or val, valid, validation) are the two splits. A folder without them is
    split here: every tenth file, in the order of the paths, is "test" and the others are "train". PNG, JPEG, WebP,
    BMP, GIF (its first frame), TIFF, PPM, JPEG 2000, AVIF and TGA become RGB: gray is repeated, 16-bit gray scaled
    to 8, CMYK and palettes converted, transparency laid over white; EXIF orientation is applied. Hidden files are
    ignored. A file that is no image, is damaged, or holds more pixels than Pillow's `Image.MAX_IMAGE_PIXELS` is left
    out, named in `Images.skipped` with the reason, and counted in one warning. The order of the images is that of
    their paths, and leaving one out moves the later ones up.

    Archives without a split of their own ("images", "labels") are split as folders are. Names of the classes may
    lie beside, as "classes". Pickled objects are refused.

    Pixels of folders and TensorFlow data sets beyond 2 GiB are kept in a temporary file that is removed at exit.

    Raises ValueError for what is misspelt, empty or not as described here, FileNotFoundError for what is not there,
    and ImportError where TensorFlow Datasets is needed and not installed.
    """
    kind, colon, where = spec.partition(":")
    if (
        kind not in ("digits", "tfds", "folder", "npz")
        or bool(colon) != (kind != "digits")
        or (colon and not where)
    ):
        raise ValueError(_unknown(spec))
    if size is not None and (isinstance(size, bool) or not isinstance(size, (int, np.integer)) or size < 1):
        raise ValueError(f"size is the side of the images in pixels, a positive int; got {size!r}.")
    if kind == "tfds":
        return _tfds(where, split, data_dir, size, download)
    if split not in ("train", "test"):
        raise ValueError(f'split must be "train" or "test" for {spec}; got {split!r}.')
    if kind == "digits":
        return scattered_digits(split) if size is None else scattered_digits(split, size=size)
    return (_folder if kind == "folder" else _npz)(Path(where).expanduser(), split, size)


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
            f"{name}: images must be uint8 in 0..255; got {images.dtype}. If they are floats in [0, 1]:"
            " np.round(255 * images).astype(np.uint8)."
        )
    if images.ndim != 4 or images.shape[3] not in (1, 3):
        hint = (
            " Move the channels last: images.transpose(0, 2, 3, 1)." if _channels_first(images.shape) else ""
        )
        raise ValueError(
            f"{name}: images must have the shape [n, height, width, 1 or 3] (or [n, height, width]);"
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
    return Images(name, images, labels, tuple(map(str, classes)))


def _channels_first(shape: tuple[int, ...]) -> bool:
    return len(shape) == 4 and shape[1] in (1, 3)


def _unknown(spec: str) -> str:
    listed = "; ".join(f"{kind} ({what})" for kind, what in KINDS.items())
    message = f"{spec!r} names no data set. Understood are: {listed}."
    path = Path(spec).expanduser()
    close = difflib.get_close_matches(spec.partition(":")[0].lower(), ("digits", "tfds", "folder", "npz"), 1)
    if spec and path.is_dir():
        guess = f"folder:{spec}"
    elif spec.endswith(".npz"):
        guess = f"npz:{spec}"
    elif spec.lower() in KNOWN_TFDS:
        guess = f"tfds:{spec.lower()}"
    elif close and (close[0] == "digits" or ":" in spec):
        guess = close[0] + (":" + spec.partition(":")[2] if close[0] != "digits" else "")
    else:
        near = difflib.get_close_matches(spec.lower(), KNOWN_TFDS, 1)
        guess = f"tfds:{near[0]}" if near else ""
    return message + (f" Did you mean {guess}?" if guess and not guess.endswith(":") else "")


def _missing(path: Path, what: str) -> FileNotFoundError:
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


def _held_out(n: int, split: str) -> np.ndarray:
    """Which of n images in their order belong to the split, where the source has none: bool [n]."""
    last = np.arange(n) % HOLD_OUT_EVERY == HOLD_OUT_EVERY - 1
    return last if split == "test" else ~last


def _allocate(shape: tuple[int, ...]) -> np.ndarray:
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


# ---------------------------------------------------------------------------------------------------------------
# One image


def _square(image: Image.Image, size: int, share: float = 1.0) -> Image.Image:
    """The shorter side to `size`, the centre square of the other: in one step, so that no image, however long and
    thin, is ever enlarged as a whole. Of the square, only `share` in its middle."""
    w, h = image.size
    side = min(w, h) * share
    left, top = (w - side) / 2, (h - side) / 2
    return image.resize((size, size), Image.Resampling.BICUBIC, box=(left, top, left + side, top + side))


def _rgb(image: Image.Image) -> Image.Image:
    """Whatever Pillow made of a file, as RGB of 8 bits."""
    if image.mode == "F":
        raise ValueError("its pixels are floats, which have no known range")
    if image.mode == "I" or image.mode.startswith("I;16"):
        values: np.ndarray = np.asarray(image).astype(np.int64)
        low, high = int(values.min()), int(values.max())
        if low < 0 or high > 65535:
            raise ValueError(f"its gray levels are in {low}..{high}, not in 0..65535")
        # "I" may hold 8 bits in 32; "I;16" is 16 bits whatever is in them.
        wide = image.mode != "I" or high > 255
        return Image.fromarray((np.round(values / 257) if wide else values).astype(np.uint8)).convert("RGB")
    if "A" in image.getbands() or "a" in image.getbands() or "transparency" in image.info:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")


def readable_formats() -> list[str]:
    Image.init()
    return [name for name in FORMATS if name in Image.OPEN]


def _open(file: Path | Any, formats: list[str]) -> Image.Image:
    image = Image.open(file, formats=formats)
    cap = Image.MAX_IMAGE_PIXELS
    if cap is not None and image.width * image.height > cap:
        raise ValueError(f"{image.width} x {image.height} pixels are more than the {cap} allowed")
    return image


def _read_size(path: Path, formats: list[str]) -> tuple[int, int]:
    """Height and width as they will be seen, from the file's header."""
    with _open(path, formats) as image:
        turned = image.getexif().get(0x0112, 1) in (5, 6, 7, 8)
        return image.size if turned else image.size[::-1]


def _read(file: Path | Any, formats: list[str], size: int | None, share: float = 1.0) -> np.ndarray:
    """A file, or one that is open, as uint8 [h, w, 3]; [size, size, 3] where a size is given, see `_square`."""
    with _open(file, formats) as image:
        if size is not None and image.format == "JPEG":
            # Decode at 1/2, 1/4 or 1/8 where twice the size is left: several times faster for photographs.
            image.draft(None, (round(2 * size / share),) * 2)
        rgb = _rgb(ImageOps.exif_transpose(image))
        return np.asarray(rgb if size is None else _square(rgb, size, share))


def _reason(error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return "no image in a known format" if text.startswith("cannot identify image file") else text


def _in_parallel(work: Callable[[int], None], n: int, *, chunk: int = 64) -> None:
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


# ---------------------------------------------------------------------------------------------------------------
# Folders


def folder_files(path: Path, split: str) -> tuple[Path, list[str], list[tuple[str | None, Path]], list[str]]:
    """Of a split: the folder its paths are shown from, the classes, (class or None, file) in order, what is no file."""
    if not path.exists():
        raise _missing(path, "folder")
    if not path.is_dir():
        hint = f" Did you mean npz:{path}?" if path.suffix == ".npz" else ""
        raise ValueError(f"folder:{path} is a file; expected a folder of images.{hint}")
    root, other = _roots(path, split)
    skipped: list[str] = []
    classes, files = _list(root, skipped)
    if not files and not skipped:
        layouts = "PATH/*.png, PATH/CLASS/*.png, or PATH/train/CLASS/*.png and PATH/test/CLASS/*.png"
        raise ValueError(f"there are no files in {root}. Expected images as {layouts}.")
    if other is not None and classes:
        # A class keeps its number if one of the splits lacks it.
        classes = sorted({*classes, *_list(other, [])[0]})
    if root == path:
        chosen = np.flatnonzero(_held_out(len(files), split))
        if files and not len(chosen):
            raise ValueError(
                f"{path} has {len(files)} files and no test folder; every {HOLD_OUT_EVERY}th file is held out for"
                f" testing, so at least {HOLD_OUT_EVERY} are needed. Or make {path}/train and {path}/test."
            )
        files = [files[i] for i in chosen]
    return root, classes, files, skipped


def _folder(path: Path, split: str, size: int | None) -> Images:
    root, classes, files, skipped = folder_files(path, split)
    shown = [str(file.relative_to(root)) for _, file in files]
    reasons: dict[int, str] = {}
    formats = readable_formats()
    with warnings.catch_warnings():
        # Pillow warns about oddities (in EXIF, say) that do not matter; of a decompression bomb it warns, then opens.
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        height, width = (size, size) if size else _common_size(files, shown, reasons, formats)
        images = _allocate((len(files), height, width, 3))

        def decode(i):
            if i in reasons:
                return
            try:
                images[i] = _read(files[i][1], formats, size)
            except Exception as error:  # one file, whatever is wrong with it, must not end the others
                reasons[i] = _reason(error)

        _in_parallel(decode, len(files))

    good = [i for i in range(len(files)) if i not in reasons]
    for to, i in enumerate(good):  # in place: there may not be room for a second copy
        if to != i:
            images[to] = images[i]
    skipped += [f"{shown[i]}: {reasons[i]}" for i in sorted(reasons)]
    if not good:
        raise ValueError(f"none of the {len(skipped)} files in {root} is an image: {_first(skipped)}")
    if skipped:
        warnings.warn(
            f"{len(skipped)} of {len(files) + len(skipped) - len(reasons)} files in {root} were left out (all are in"
            f" Images.skipped): {_first(skipped)}",
            stacklevel=3,
        )
    numbers: dict[str | None, int] = {name: k for k, name in enumerate(classes)}
    labels = np.array([numbers[files[i][0]] for i in good]) if classes else None
    data = from_arrays(images[: len(good)], labels, classes=classes, name=f"folder:{path}/{split}")
    return data._replace(skipped=tuple(skipped))


def _first(names: list[str], shown: int = 3) -> str:
    return "; ".join(names[:shown]) + (f"; and {len(names) - shown} more." if len(names) > shown else ".")


def _entries(folder: Path) -> list[os.DirEntry]:
    with os.scandir(folder) as entries:
        return sorted((e for e in entries if not e.name.startswith(".")), key=lambda e: e.name)


def _roots(path: Path, split: str) -> tuple[Path, Path | None]:
    """The folder of this split and that of the other; (path, None) where the folder is not split."""
    folders = {e.name for e in _entries(path) if e.is_dir()}
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


def _list(root: Path, skipped: list[str]) -> tuple[list[str], list[tuple[str | None, Path]]]:
    """The classes, and (class or None, file) in the order of the paths."""
    top = _entries(root)
    found: list[tuple[str | None, Path]] = []
    for entry in top:
        if entry.is_dir():
            found += [(entry.name, file) for file in _files(Path(entry.path), root, skipped, ())]
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


def _files(folder: Path, root: Path, skipped: list[str], above: tuple[str, ...]) -> list[Path]:
    """All regular files below a folder; links are followed, but not in a circle."""
    shown, real = str(folder.relative_to(root)), os.path.realpath(folder)
    try:
        if real in above:
            raise OSError("a link to a folder above it")
        entries = _entries(folder)
    except OSError as error:
        skipped.append(f"{shown}: {_reason(error)}")
        return []
    found = []
    for entry in entries:
        if entry.is_dir():
            found += _files(Path(entry.path), root, skipped, (*above, real))
        elif entry.is_file():
            found.append(Path(entry.path))
        else:
            skipped.append(f"{shown}/{entry.name}: a broken link, or no regular file")
    return found


def _common_size(files, shown, reasons, formats) -> tuple[int, int]:
    """Height and width that all readable files share; the unreadable are noted in `reasons`."""
    sizes: dict[int, tuple[int, int]] = {}

    def look(i):
        try:
            sizes[i] = _read_size(files[i][1], formats)
        except Exception as error:
            reasons[i] = _reason(error)

    _in_parallel(look, len(files))
    counts = Counter(sizes[i] for i in sorted(sizes))
    if len(counts) > 1:
        (common, n), (rarer, _) = counts.most_common()[0], counts.most_common()[-1]
        odd = next(i for i in sorted(sizes) if sizes[i] == rarer)
        raise ValueError(
            f"the images are not all of one size: {n} are {common[0]} x {common[1]} pixels (height x width), and"
            f" {shown[odd]} is {rarer[0]} x {rarer[1]}. Pass size=N to make them all N x N."
        )
    return next(iter(counts), (1, 1))


# ---------------------------------------------------------------------------------------------------------------
# Archives


def _npz(path: Path, split: str, size: int | None) -> Images:
    if not path.exists():
        raise _missing(path, "file")
    if path.is_dir():
        raise ValueError(
            f"npz:{path} is a folder; expected a file made by np.savez. Did you mean folder:{path}?"
        )
    if not zipfile.is_zipfile(path):
        raise ValueError(
            f"{path} is no .npz archive (made by np.savez or np.savez_compressed), or it is damaged."
        )
    try:
        with zipfile.ZipFile(path) as archive:
            keys = [name.removesuffix(".npy") for name in archive.namelist()]
            own = f"{split}_images" in keys
            if not own and "images" not in keys:
                raise ValueError(
                    f"{path} holds {', '.join(keys) or 'nothing'}; expected {split}_images (and"
                    f" {split}_labels), or images (and labels)."
                )
            prefix = f"{split}_" if own else ""
            images = _member(archive, f"{prefix}images", path)
            labels = _member(archive, f"{prefix}labels", path) if f"{prefix}labels" in keys else None
            classes = _member(archive, "classes", path) if "classes" in keys else np.array([], str)
    except (zipfile.BadZipFile, EOFError, OSError, NotImplementedError, zlib.error) as error:
        raise ValueError(f"{path} is damaged: {_reason(error)}.") from error
    if classes.ndim != 1 or classes.dtype.kind != "U":
        raise ValueError(
            f"{path}: classes must be a list of names; got {classes.dtype} {list(classes.shape)}."
        )
    data = from_arrays(images, labels, classes=classes.tolist(), name=f"npz:{path}/{split}")
    if not own:
        chosen = _held_out(len(data.images), split)
        if not chosen.any():
            raise ValueError(
                f"{path} has {len(chosen)} images and no test split; every {HOLD_OUT_EVERY}th is held out for testing,"
                f" so at least {HOLD_OUT_EVERY} are needed. Or store train_images and test_images."
            )
        data = data._replace(
            images=data.images[chosen], labels=None if data.labels is None else data.labels[chosen]
        )
    return data if size is None else data._replace(images=_resized(data.images, size))


def _member(archive: zipfile.ZipFile, key: str, path: Path) -> np.ndarray:
    """One array; its header is checked against what is there before any memory is asked for."""
    with archive.open(f"{key}.npy") as file:
        try:
            version = np.lib.format.read_magic(file)
            read_header = {
                (1, 0): np.lib.format.read_array_header_1_0,
                (2, 0): np.lib.format.read_array_header_2_0,
            }[version]
            shape, _, dtype = read_header(file)
        except (ValueError, KeyError) as error:
            raise ValueError(f"{path}: {key} is no numpy array: {_reason(error)}.") from error
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
    with archive.open(f"{key}.npy") as file:
        return np.lib.format.read_array(file, allow_pickle=False)


def _resized(images: np.ndarray, size: int) -> np.ndarray:
    """uint8 [n, h, w, c] -> [n, size, size, c], as `_square` does it."""
    if images.shape[1:3] == (size, size):
        return images
    out = _allocate((len(images), size, size, images.shape[3]))

    def one(i):
        image = images[i] if images.shape[3] == 3 else images[i, ..., 0]
        out[i] = np.asarray(_square(Image.fromarray(image), size)).reshape(out.shape[1:])

    _in_parallel(one, len(images))
    return out


# ---------------------------------------------------------------------------------------------------------------
# TensorFlow data sets. `tfds.load` without a network hangs for minutes, and importing TensorFlow takes seconds: so
# look first, with the file system alone.


def tfds_splits(
    where: str, split: str, data_dir: Any, *, download: bool = False
) -> tuple[Path, list[str], list[str]]:
    """The folder of a prepared data set; the names under which it may have the split, the first choice first; and its
    other splits."""
    for module in ("tensorflow_datasets", "tensorflow"):
        if importlib.util.find_spec(module) is None:
            raise ImportError(
                f"tfds:{where} is read by TensorFlow Datasets, and {module} is not installed."
                " Install it: pip install 'jaxcl[tfds]'. Without it there are digits, folder:PATH and npz:PATH."
            )
    root = Path(data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets").expanduser()
    try:
        folder = _prepared(where, root)
    except FileNotFoundError:
        if not download:
            raise
        from jaxcl.data import tf_pipeline

        folder = tf_pipeline.prepare(where, root)
    splits = [s["name"] for s in json.loads((folder / "dataset_info.json").read_text()).get("splits", ())]
    candidates = [split] if split in splits else []
    if split == "test":
        candidates += [name for name in HELD_OUT if name in splits and name != "test"]
    if not candidates:
        near = difflib.get_close_matches(split, splits, 1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"tfds:{where} has the splits {', '.join(splits) or '(none)'}; got {split!r}.{hint}")
    return folder, candidates, [name for name in splits if name not in candidates]


def _tfds(where: str, split: str, data_dir, size: int | None, download: bool) -> Images:
    folder, candidates, others = tfds_splits(where, split, data_dir, download=download)
    from jaxcl.data import tf_pipeline

    for name in candidates:
        got = tf_pipeline.read(folder, name, size=size, allocate=_allocate)
        if got is not None:
            images, labels, classes = got
            return from_arrays(images, labels, classes=classes, name=f"tfds:{where}/{name}")
    raise ValueError(
        f"the labels of tfds:{where}, split {split}, are not public (they are -1). Load another split:"
        f" {', '.join(others) or 'there is none'}."
    )


def _prepared(where: str, root: Path) -> Path:
    """The folder NAME[/CONFIG]/VERSION of a prepared data set."""
    matched = re.fullmatch(r"(?P<name>\w+)(/(?P<config>[^:]+))?(:(?P<version>\d+\.\d+\.\d+))?", where)
    if matched is None or ".." in where:
        raise ValueError(f"expected tfds:NAME, tfds:NAME/CONFIG or tfds:NAME:1.2.3; got tfds:{where}.")
    name, config, version = matched["name"], matched["config"], matched["version"]
    base = root / name / config if config else root / name
    folder = _version(base, version)
    if folder is not None:
        return folder
    configs = (
        sorted(p.name for p in base.iterdir() if _version(p, version)) if base.is_dir() and not config else []
    )
    if len(configs) == 1:
        return _version(base / configs[0], version)  # type: ignore[return-value]
    if configs:
        raise ValueError(
            f"tfds:{name} is prepared as {', '.join(configs)}; say which: tfds:{name}/{configs[0]}."
        )
    there = sorted(p.name for p in root.iterdir() if _any_version(p)) if root.is_dir() else []
    near = (
        difflib.get_close_matches(name, {*there, *KNOWN_TFDS}, 1) if name not in {*there, *KNOWN_TFDS} else []
    )
    broken_off = base.is_dir() and any(p.name.startswith("incomplete.") for p in base.iterdir())
    found = f"prepared there: {', '.join(there)}" if there else "nothing is prepared there"
    raise FileNotFoundError(
        f"tfds:{where} is not prepared under {root} ({found})."
        + (f" Did you mean tfds:{near[0]}?" if near else "")
        + (" A preparation was begun and not finished." if broken_off else "")
        + " To download and prepare it:"
        f" python -c \"import tensorflow_datasets as tfds; tfds.load('{where}', data_dir='{root}')\""
        " (or load(..., download=True)). If it lies elsewhere, pass data_dir or set TFDS_DATA_DIR."
    )


def _version(base: Path, version: str | None) -> Path | None:
    """The given version below `base`, or the highest."""
    if not base.is_dir():
        return None
    ready = [
        p
        for p in base.iterdir()
        if re.fullmatch(r"\d+\.\d+\.\d+", p.name)
        and (p / "dataset_info.json").is_file()
        and version in (None, p.name)
    ]
    return max(ready, key=lambda p: tuple(map(int, p.name.split("."))), default=None)


def _any_version(base: Path) -> bool:
    """Is anything prepared under this name, in whatever config?"""
    return base.is_dir() and (
        _version(base, None) is not None or any(_version(p, None) for p in base.iterdir())
    )
