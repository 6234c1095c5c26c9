"""`load`: a data set by its name, wholly in memory or memory-mapped, whatever it was stored as.

spec          what it is
digits        the embedded data set: nothing to download (see `digits.py`)
tfds:NAME     a TensorFlow data set that was prepared before; NAME, NAME/CONFIG, NAME:VERSION
              (imagenet2012_subset/1pct and /10pct are SimCLR's fixed lists of ImageNet's labelled images)
folder:PATH   a folder of image files; see `load` for the layouts
npz:PATH      a numpy archive of train_images, train_labels, test_images, test_labels (or val_); or images, labels
npy:PATH      a numpy file of images, their labels in another

SPEC#imagenet100 is one of these restricted to a list of classes (see `classes.py`).
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jaxcl.data.archives import load_archive, load_array
from jaxcl.data.classes import chosen_rows, without_list
from jaxcl.data.decode import within
from jaxcl.data.digits import scattered_digits
from jaxcl.data.folders import load_folder
from jaxcl.data.splits import check_split
from jaxcl.data.stream import take
from jaxcl.data.tfds import KNOWN_TFDS, load_tfds
from jaxcl.typing import Images

KINDS = {
    "digits": "the embedded digits",
    "tfds:NAME": "a prepared TensorFlow data set, as tfds:cifar10",
    "folder:PATH": "a folder of images",
    "npz:PATH": "a numpy archive",
    "npy:PATH": "a numpy file",
}


def load(
    spec: str,
    split: str,
    *,
    data_dir: str | os.PathLike | None = None,
    size: int | None = None,
    download: bool = False,
    labels: str | None = None,
    layout: str = "auto",
    value_range: tuple[float, float] | None = None,
) -> Images:
    """The images [n, h, w, c] (uint8; of folders c = 3) and labels [n] (int32, from 0; or None) of one split.

    spec
        "digits", "tfds:NAME", "folder:PATH", "npz:PATH" or "npy:PATH"; with "#imagenet100" after it only images of
        these classes, labelled from 0 to 99 (all of the data set is read first).
    split
        "train" or "test"; of a TensorFlow data set or a folder any of its splits, or of the former several, as
        "train+unlabelled" of STL-10, where "test" is "validation" if there is no test split or its labels are secret. A
        split whose labels are all -1, as STL-10's "unlabelled", has none.
    data_dir
        where TensorFlow data sets lie; None: the environment's TFDS_DATA_DIR, or ~/tensorflow_datasets.
    size
        side of the images in pixels: the shorter side is resized to it (bicubic, antialiased), and the centre square
        kept. None leaves the images as they are, if they are all of one size; images of a folder with several sizes
        get 64 pixels a side, or 32 where most are smaller, and `Images.notes` says so. The digits are drawn on a canvas
        of this size.
    download
        let TensorFlow Datasets download and prepare what is not there. Without it nothing uses the network.

    labels
        a text file that says the classes of the images in a folder, FILE or FILE:COLUMN (a name, or a number counted
        from 1), relative to the folder or to the working directory; of "npy:PATH", a numpy file of them.
    layout
        of a folder: "splits" or "classes" decides what its folders called train and test are; "auto" looks. "deepest":
        all folders that images lie in are classes, however deep (iNaturalist's Birds/202), and none is a split; "flat":
        no folder is a class.
    value_range
        (low, high): the values that become 0 and 255, of images of other than 8 bits. None: from 0 to what their
        largest value needs of 8, 10, 12, 14 or 16 bits, over the whole data set; `Images.notes` says which.

    Folders. Sub-folders of the images' folder are the classes, in alphabetical order; without any, or with a single
    one, there are no labels. Folders called train, test and val are the splits, or training, testing, valid,
    validation, dev, eval, in any case, and as train_images, test-set, or seg_train beside seg_test and train2017 beside
    val2017. A folder that holds nothing but another one is looked through (data/images/train/...), within a split as
    well (train/images/*.png). Splits inside all of the classes (cat/train/*.png, cat/test/*.png) are splits too.
    Classes may stand in a text file beside the images instead: a table whose rows name the files. It is found where it
    lies at the top, in the folder of a split, or is named by `labels`; columns called split, is_train or is_valid say
    the split. What was understood is the first of `Images.notes`. What can be read in two ways, as images_1 and
    images_2 or a table with other classes than the folders', and a test class without training images, are errors that
    say what to do.

    A folder without splits is split here: a file's own name (below the folder, with its class) decides whether it is
    among the tenth that is "test" or among the others, so files that are added later move none; of a class of ten or
    more one at least is held out. PNG, JPEG, WebP, BMP, GIF (its first frame), TIFF, PPM, JPEG 2000, AVIF and TGA
    become RGB: gray is repeated, CMYK and palettes converted, transparency laid over white; EXIF orientation is
    applied. Colors of 16 bits a channel are read from PNG; a TIFF or PPM of them is left out, with a way to convert
    it. Hidden files are ignored. A file that is no image, is damaged, or holds more pixels than Pillow's
    `Image.MAX_IMAGE_PIXELS` is left out, named in `Images.skipped` with the reason, and counted in one warning. The
    order of the images is that of their paths, and leaving one out moves the later ones up.

    Archives without a split of their own ("images", "labels") hold every tenth image out, in their order. Names of the
    classes may lie beside, as "classes". Pickled objects are refused. Images may have any number of channels.

    Pixels of folders and TensorFlow data sets beyond 2 GiB are kept in a temporary file that is removed at exit.

    Raises ValueError for what is misspelt, empty or not as described here, FileNotFoundError for what is not there,
    and ImportError where TensorFlow Datasets is needed and not installed.
    """
    spec, chosen = without_list(spec)
    if chosen is not None:
        how: dict[str, Any] = {"labels": labels, "layout": layout, "value_range": value_range}
        images = load(spec, split, data_dir=data_dir, size=size, download=download, **how)
        rows, numbers, classes = chosen_rows(images.name, images.labels, images.classes, chosen)
        return take(images, rows)._replace(labels=numbers, classes=classes)
    kind, where = parsed(spec)
    check_size(size)
    check_options(spec, labels=labels, value_range=value_range)
    check_split(kind, spec, split)
    if kind == "tfds":
        return load_tfds(where, split, data_dir, size, download)
    if kind == "digits":
        return scattered_digits(split) if size is None else scattered_digits(split, size=size)
    path = Path(where).expanduser()
    if kind == "folder":
        return load_folder(path, split, size, labels=labels, layout=layout, value_range=value_range)
    if kind == "npy":
        return load_array(path, split, size, labels=labels, value_range=value_range)
    return load_archive(path, split, size, value_range=value_range)


def check_options(spec: str, *, labels: str | None, value_range: tuple[float, float] | None) -> None:
    """Raises ValueError for a file of labels, or a range of values, where a kind of data has none."""
    kind = spec.partition(":")[0]
    if labels is not None and kind not in ("folder", "npy"):
        raise ValueError(
            f"a file of labels (--labels) goes with folder:PATH and npy:PATH; {spec} has its own."
        )
    if value_range is not None:
        within(value_range)
        if kind in ("digits", "tfds"):
            raise ValueError(f"--value-range is for pixels of other than 8 bits; those of {spec} have 8.")


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
    close = difflib.get_close_matches(
        spec.partition(":")[0].lower(), ("digits", "tfds", "folder", "npz", "npy"), 1
    )
    if spec and path.is_dir():
        guess = f"folder:{spec}"
    elif spec.endswith((".npz", ".npy")):
        guess = f"{spec[-3:]}:{spec}"
    elif spec.lower() in KNOWN_TFDS:
        guess = f"tfds:{spec.lower()}"
    elif close and (close[0] == "digits" or ":" in spec):
        guess = close[0] + (":" + spec.partition(":")[2] if close[0] != "digits" else "")
    else:
        near = difflib.get_close_matches(spec.lower(), KNOWN_TFDS, 1)
        guess = f"tfds:{near[0]}" if near else ""
    return message + (f" Did you mean {guess}?" if guess and not guess.endswith(":") else "")
