"""`load`: a data set by its name, wholly in memory or memory-mapped, whatever it was stored as.

spec          what it is
digits        the embedded data set: nothing to download (see `digits.py`)
tfds:NAME     a TensorFlow data set that was prepared before; NAME, NAME/CONFIG, NAME:VERSION
folder:PATH   a folder of image files; see `load` for the layouts
npz:PATH      a numpy archive of train_images, train_labels, test_images, test_labels; or images, labels
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from jaxcl.data.archives import load_archive
from jaxcl.data.digits import scattered_digits
from jaxcl.data.folders import load_folder
from jaxcl.data.tfds import KNOWN_TFDS, load_tfds
from jaxcl.typing import Images

KINDS = {
    "digits": "the embedded digits",
    "tfds:NAME": "a prepared TensorFlow data set, as tfds:cifar10",
    "folder:PATH": "a folder of images",
    "npz:PATH": "a numpy archive",
}


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
        "train" or "test"; of a TensorFlow data set any of its splits, or several, as "train+unlabelled" of STL-10,
        where "test" is "validation" if there is no test split or its labels are secret. A split whose labels are all
        -1, as STL-10's "unlabelled", has none.
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
    kind, where = parsed(spec)
    check_size(size)
    if kind == "tfds":
        return load_tfds(where, split, data_dir, size, download)
    if split not in ("train", "test"):
        raise ValueError(f'split must be "train" or "test" for {spec}; got {split!r}.')
    if kind == "digits":
        return scattered_digits(split) if size is None else scattered_digits(split, size=size)
    return (load_folder if kind == "folder" else load_archive)(Path(where).expanduser(), split, size)


def parsed(spec: str, kinds: Mapping[str, str] = KINDS) -> tuple[str, str]:
    """ "tfds:cifar10" -> ("tfds", "cifar10"). Raises ValueError for what is none of the kinds."""
    kind, colon, where = spec.partition(":")
    known = {name.partition(":")[0] for name in kinds}
    if kind not in known or bool(colon) != (kind != "digits") or (colon and not where):
        raise ValueError(unknown(spec, kinds))
    return kind, where


def check_size(size: int | None) -> None:
    if size is not None and (isinstance(size, bool) or not isinstance(size, (int, np.integer)) or size < 1):
        raise ValueError(f"size is the side of the images in pixels, a positive int; got {size!r}.")


def unknown(spec: str, kinds: Mapping[str, str]) -> str:
    listed = "; ".join(f"{kind} ({what})" for kind, what in kinds.items())
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
