"""Images that stay encoded where they are: found, looked at from outside, and decoded when their turn comes."""

from __future__ import annotations

import glob
import io
import os
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from jaxcl.data import records
from jaxcl.data.arrays import HELD_OUT, HOLD_OUT_EVERY, held_out
from jaxcl.data.classes import chosen_rows, without_list
from jaxcl.data.decode import (
    ToBytes,
    first,
    full_range,
    header,
    in_parallel,
    read,
    readable_formats,
    reason,
    within,
)
from jaxcl.data.folders import any_deep, checked_part, find_folder, labelled, range_of
from jaxcl.data.records import Span
from jaxcl.data.splits import check_split
from jaxcl.data.tfds import tfds_splits
from jaxcl.typing import Images


class Encoded(NamedTuple):
    """A data set of encoded images of any sizes, too large to be decoded ahead.

    `paths` [n], the file that each lies in; `sizes` int32 [n, 2], height and width as they will be seen; `plain` bool
    [n], a JPEG that every decoder reads alike (RGB or gray, not rotated); `labels` int32 [n] or None; `classes` their
    names; `skipped` what was found and is no image, each with the reason; `damaged` those of the n that turned out
    damaged when they were decoded (number -> reason; it grows); `spans` int64 [n, 2], the byte of its file at which
    each begins and its length, or None where every image is a file; `value_range` what becomes black and white of gray
    levels of more than 8 bits, None: 0 and 65,535; `root` the folder that was named, "" where images are no files of
    it; `notes` how it was read.
    """

    name: str
    paths: tuple[str, ...]
    sizes: np.ndarray
    plain: np.ndarray
    labels: np.ndarray | None
    classes: tuple[str, ...]
    skipped: tuple[str, ...]
    damaged: dict[int, str]
    spans: np.ndarray | None = None
    value_range: tuple[float, float] | None = None
    root: str = ""
    notes: tuple[str, ...] = ()

    @property
    def files(self) -> tuple[str, ...]:
        """The path of each image below the folder that was named; () where there is none."""
        start = len(self.root.rstrip(os.sep)) + 1
        return tuple(path[start:].replace(os.sep, "/") for path in self.paths) if self.root else ()

    @property
    def to_bytes(self) -> ToBytes:
        return full_range if self.value_range is None else within(self.value_range)

    def where(self, i: int) -> str:
        """Where image i lies, in words."""
        return self.paths[i] if self.spans is None else f"{self.paths[i]} (at byte {self.spans[i, 0]})"

    def content(self, i: int) -> bytes:
        """Image i, encoded. Raises OSError or ValueError where its file went away or became shorter."""
        return read_bytes(self.paths[i], *(Span(0, -1) if self.spans is None else self.spans[i]))


def find_images(
    spec: str,
    split: str,
    *,
    data_dir: str | os.PathLike | None = None,
    check: bool = False,
    labels: str | None = None,
    layout: str = "auto",
    value_range: tuple[float, float] | None = None,
    exact: bool = False,
) -> Encoded:
    """The images of a data set, undecoded: `data.load` for what does not fit into memory.

    spec
        "folder:PATH", with layouts and splits, `labels` and `layout` as in `data.load`.
        "tfds:NAME", prepared by TensorFlow Datasets as TFRecords under `data_dir`; names, splits and folders as in
        `data.load`.
        All may end in "#imagenet100", a list of classes to which they are restricted (`data.classes`).
        "tfrecord:PATTERN", files of tf.train.Examples with "image" and "label", or "image/encoded" and
        "image/class/label" (labels may be missing from all). In a pattern, * and ? stand for what they do in a shell,
        and {split} for train, or for test, val, valid or validation, as in "tfrecord:/data/{split}-*". Without
        {split}, every tenth image is "test" and the others are "train".
    check
        reads all TFRecords once and compares their checksums (with TensorFlow). Without it, a flipped bit
        is found in lengths and where it damages an image, but not in a label.
    value_range
        the gray levels that become black and white, of images of more than 8 bits; None: by the largest of a folder,
        elsewhere 0 and 65,535.
    exact
        of a TensorFlow data set: this split, and no other in its place where its labels are secret.

    The order is that of the paths, and within a file that of its records. Only heads are read, of TFRecords as of
    images (but PNGs in folders whole, as Pillow looks for EXIF at their end). What has no head of an image, and what
    has no label or an impossible one where the others have one, is left out, named in `skipped` and counted in a
    warning. An image that is damaged further in is found when it is decoded.

    Raises ValueError for what is misspelt, empty or not as described, and for TFRecord files that break off or have
    fewer images than they should; FileNotFoundError for what is not there, and ImportError where TensorFlow Datasets
    is needed and not installed.
    """
    spec, chosen = without_list(spec)
    kind, _, where = spec.partition(":")
    finders: dict[str, Callable[..., Encoded]] = {
        "folder": _in_folder,
        "tfds": _in_tfds,
        "tfrecord": _in_tfrecords,
    }
    if kind not in finders or not where:
        raise ValueError(
            f"expected folder:PATH, tfds:NAME or tfrecord:PATTERN, images that can be read one by one; got {spec!r}."
        )
    check_split(kind, spec, split)
    if labels is not None and kind != "folder":
        raise ValueError(f"a file of labels (--labels) goes with folder:PATH; {spec} has labels of its own.")
    if value_range is not None:
        within(value_range)
    known: dict[str, dict[str, Any]] = {
        "folder": {"labels": labels, "layout": layout, "value_range": value_range},
        "tfds": {"exact": exact},
    }
    how = known.get(kind, {})
    with warnings.catch_warnings():
        # Pillow warns of oddities that do not matter; of a decompression bomb it warns, then opens it.
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        found = finders[kind](where, split, data_dir, **how)
        if value_range is not None:
            found = found._replace(value_range=value_range)
    if chosen is not None:
        found = restricted(found, chosen)
    if check and found.spans is not None:
        from jaxcl.data import tf_read

        tf_read.check_records(sorted(set(found.paths)))
    if found.skipped:
        warnings.warn(
            f"{len(found.skipped)} of {len(found.skipped) + len(found.paths)} files or records of {found.name} were"
            f" left out (all are in Encoded.skipped): {first(list(found.skipped))}",
            stacklevel=2,
        )
    return found


# ---------------------------------------------------------------------------------------------- finding


def restricted(found: Encoded, chosen: Sequence[str]) -> Encoded:
    """The images of the chosen classes alone, labelled by their positions among these."""
    rows, labels, classes = chosen_rows(found.name, found.labels, found.classes, chosen)
    paths = tuple(found.paths[i] for i in rows)
    spans = None if found.spans is None else found.spans[rows]
    of_rows = {"sizes": found.sizes[rows], "plain": found.plain[rows], "spans": spans}
    return found._replace(paths=paths, labels=labels, classes=classes, damaged={}, **of_rows)


class Found(NamedTuple):
    """One image, seen from outside."""

    path: str
    span: Span | None
    size: tuple[int, int]
    plain: bool
    label: int | None


def gathered(
    name: str, classes: Sequence[str], found: Sequence[Found | str], skipped: Sequence[str] = ()
) -> Encoded:
    """What was found, where a string says why something was left out."""
    good = [one for one in found if isinstance(one, Found)]
    skipped = [*skipped, *(reason for reason in found if isinstance(reason, str))]
    if not good:
        raise ValueError(
            f"none of the {len(skipped)} files or records of {name} is an image: {first(skipped)}"
        )
    unlabelled = good[0].label is None
    return Encoded(
        name,
        tuple(one.path for one in good),
        np.array([one.size for one in good], np.int32),
        np.array([one.plain for one in good]),
        None if unlabelled else np.array([one.label for one in good], np.int32),
        tuple(classes),
        tuple(skipped),
        {},
        None if good[0].span is None else np.array([one.span for one in good], np.int64),
    )


def _in_folder(
    where: str, split: str, data_dir: Any, labels: str | None, layout: str, value_range: Any
) -> Encoded:
    whole = find_folder(Path(where).expanduser(), labels=labels, layout=layout)
    part = checked_part(whole, split)
    formats, files, root = readable_formats(), part.files, part.folder
    numbers: dict[str | None, int] = {name: k for k, name in enumerate(whole.classes)}
    found: list[Any] = [None] * len(files)

    def look(i):
        name, path = files[i]
        try:
            with open(path, "rb") as file:
                found[i] = Found(os.fspath(path), None, *header(file, formats), numbers.get(name))
        except Exception as error:  # one file, whatever is wrong with it, must not end the others
            found[i] = f"{os.path.relpath(path, root)}: {reason(error, path)}"

    in_parallel(look, len(files))
    skipped = [f"{os.path.relpath(path, root)}: {why}" for path, why in part.skipped]
    classes = whole.classes if labelled(whole, split) else ()
    images = gathered(f"folder:{where}/{split}", classes, found, skipped)
    notes = tuple(whole.notes(split))
    if value_range is None and any_deep([file for _, file in files], formats):
        value_range, note = range_of(whole, formats)
        notes += (note,)
    return images._replace(classes=whole.classes, root=str(whole.root), notes=notes, value_range=value_range)


def joined(parts: Sequence[Encoded], name: str) -> Encoded:
    """Several splits as one, in their order; labels where all have them."""
    labels = [part.labels for part in parts if part.labels is not None]
    every = len(labels) == len(parts)
    spans = [part.spans for part in parts if part.spans is not None]
    return Encoded(
        name,
        tuple(path for part in parts for path in part.paths),
        np.concatenate([part.sizes for part in parts]),
        np.concatenate([part.plain for part in parts]),
        np.concatenate(labels) if every else None,
        parts[0].classes if every else (),
        tuple(reason for part in parts for reason in part.skipped),
        {},
        np.concatenate(spans) if spans else None,
    )


def _in_tfds(where: str, split: str, data_dir: Any, exact: bool) -> Encoded:
    if "+" in split:
        parts = [_in_tfds(where, part, data_dir, exact) for part in split.split("+")]
        return joined(parts, f"tfds:{where}/{split}")
    folder, candidates, _ = tfds_splits(where, split, data_dir)
    from jaxcl.data import tf_read

    for name in candidates:
        paths, counts, keys, classes = tf_read.shards(folder, name)
        found = in_records(paths, [keys], classes, counts)
        images = gathered(f"tfds:{where}/{name}", classes, found)
        if exact or images.labels is not None:  # those of a test split may be secret
            break
    return images


# What the image and the label are called: by TFDS, and in the TFRecords of TensorFlow's older models.
KEYS = (("image", "label"), ("image/encoded", "image/class/label"))


def _in_tfrecords(where: str, split: str, data_dir: Any) -> Encoded:
    names = ("train",) if split == "train" else HELD_OUT
    patterns = [where.replace("{split}", name) for name in names] if "{split}" in where else [where]
    listed = (sorted(filter(os.path.isfile, glob.glob(os.path.expanduser(one)))) for one in patterns)
    paths = next(filter(None, listed), [])
    if not paths:
        raise FileNotFoundError(f"there is no file {' or '.join(patterns)}.")
    found = in_records(paths, KEYS, (), None)
    if "{split}" not in where:
        chosen = held_out(len(found), split)
        if not chosen.any():
            raise ValueError(
                f"{where} has {len(found)} records, of which every {HOLD_OUT_EVERY}th would be held out for"
                " testing. Where training and test images lie apart, write {split} for their names in the pattern."
            )
        found = [found[i] for i in np.flatnonzero(chosen)]
    return gathered(f"tfrecord:{where}/{split}", (), found)


def in_records(
    paths: Sequence[str],
    keys: Sequence[tuple[str, str | None]],
    classes: Sequence[str],
    counts: Sequence[int] | None,
) -> list[Found | str]:
    """The images in TFRecord files, and why others are none; `counts` records should be in each.

    Labels are those of all images, or of none where there is not one from 0 on (TFDS writes -1 for a secret one).
    """
    formats = readable_formats()
    shards: list[list[Found | str]] = [[] for _ in paths]

    def look(k):
        with open(paths[k], "rb") as file:
            try:
                for record in records.record_spans(file):
                    shards[k].append(look_into(file, record))
            except ValueError as error:
                raise ValueError(f"{paths[k]} is damaged: {error} Copy or prepare it again.") from None
        if counts is not None and len(shards[k]) != counts[k]:
            raise ValueError(
                f"{paths[k]} has {len(shards[k])} of {counts[k]} images. Prepare the data set again."
            )

    def look_into(file, record):
        try:
            features = records.example(file, record)
            image, label = next((pair for pair in keys if pair[0] in features), (None, None))
            if image is None or features[image][0] != records.BYTES:
                raise ValueError(f"no encoded image is among its features ({', '.join(sorted(features))})")
            span, number = features[image][1], None
            if label in features and features[label][0] == records.INTEGERS:
                number = records.integer(file, features[label][1])
            seen = header(records.Window(file, span), formats)
            return Found(file.name, span, *seen, number)
        except Exception as error:  # one image, whatever is wrong with it, must not end the others
            return f"{file.name} (at byte {record.start}): {reason(error)}"

    in_parallel(look, len(paths), chunk=1)
    found = [one for shard in shards for one in shard]
    labels = [one.label for one in found if isinstance(one, Found) and one.label is not None]
    if max(labels, default=-1) < 0:
        return [one._replace(label=None) if isinstance(one, Found) else one for one in found]

    def checked(one):
        if isinstance(one, str) or (one.label is not None and 0 <= one.label < (len(classes) or 2**31)):
            return one
        reason = "it has no label" if one.label is None else f"its label is {one.label}"
        return f"{one.path} (at byte {one.span.start}): {reason}"

    return [checked(one) for one in found]


# ---------------------------------------------------------------------------------------------- decoding


def read_bytes(path: str, start: int, length: int) -> bytes:
    """The bytes of a file from `start` on: `length` of them, or with -1 all that follow."""
    with open(path, "rb") as file:
        return file.read() if length < 0 else records.read(file, Span(int(start), int(length)))


def as_images(source: Encoded, size: int, *, fraction: float = 1.0) -> Images:
    """Encoded images as if they were in memory: `Images` of [n, size, size, 3] whose pixels are decoded when a part of
    them is asked for, by Pillow, on all cores. What is asked for twice is decoded twice. (Random crops are made of the
    whole images: `data.crops_of`.)

    fraction
        of the centre square's side that is kept and resized.

    Asking for an image that is damaged raises ValueError that names it.
    """
    if size < 1 or not 0 < fraction <= 1:
        raise ValueError(f"expected size >= 1 and 0 < fraction <= 1; got size={size}, fraction={fraction}.")
    pixels: Any = Pixels(source, size, fraction)
    about = (source.skipped, source.files, source.notes, source.value_range)
    return Images(source.name, pixels, source.labels, source.classes, *about)


def take(images: Images, rows: np.ndarray) -> Images:
    """The images of these rows; of encoded ones nothing is decoded for it."""
    labels = None if images.labels is None else images.labels[rows]
    files = tuple(images.files[i] for i in rows) if images.files else ()
    pixels: Any = images.images
    if not isinstance(pixels, Pixels):
        return images._replace(images=pixels[rows], labels=labels, files=files)
    whole = pixels.source
    source = whole._replace(
        paths=tuple(whole.paths[i] for i in rows),
        sizes=whole.sizes[rows],
        plain=whole.plain[rows],
        labels=labels,
        damaged={},
        spans=None if whole.spans is None else whole.spans[rows],
    )
    some: Any = Pixels(source, pixels.shape[1], pixels.fraction)
    return images._replace(images=some, labels=labels, files=files)


class Pixels:
    """What `as_images` makes: looked at like an array uint8 [n, size, size, 3]. `nbytes` is what it keeps of them in
    memory: nothing."""

    dtype, ndim, nbytes = np.dtype(np.uint8), 4, 0

    def __init__(self, source: Encoded, size: int, fraction: float):
        self.source, self.fraction = source, fraction
        self.shape = (len(source.paths), size, size, 3)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, which: Any) -> np.ndarray:
        index = list(which) if isinstance(which, tuple) else [which]
        if (at := next((k for k, one in enumerate(index) if one is Ellipsis), None)) is not None:
            if sum(one is Ellipsis for one in index) > 1:
                raise IndexError("an index can only have a single ellipsis ('...')")
            given = sum(_axes(one) for one in index)
            index[at : at + 1] = [slice(None)] * max(0, self.ndim - given)
        first, *rest = index or [slice(None)]
        if isinstance(first, slice):
            return self._decoded(np.arange(len(self))[first])[(slice(None), *rest)]
        if first is None or isinstance(first, bool | np.bool_) or _axes(first) > 1:
            return self._decoded(np.arange(len(self)))[(first, *rest)]
        rows = np.arange(len(self))[first]
        # Each once; numpy then pairs the rows with what else is given.
        once, place = np.unique(rows, return_inverse=True)
        return self._decoded(once)[(place.reshape(rows.shape) if rows.ndim else 0, *rest)]

    def _decoded(self, rows: np.ndarray) -> np.ndarray:
        out, formats = np.empty((len(rows), *self.shape[1:]), np.uint8), readable_formats()

        def decode(k):
            i = int(rows[k])
            try:
                content = io.BytesIO(self.source.content(i))
                out[k] = read(content, formats, self.shape[1], self.fraction, self.source.to_bytes)
            except Exception as error:
                raise ValueError(
                    f"{self.source.where(i)} is damaged: {reason(error)}. Mend or remove it."
                ) from error

        in_parallel(decode, len(rows), chunk=4)
        return out

    def __array__(self, dtype=None, copy=None) -> np.ndarray:
        return np.asarray(self[:], dtype)


def _axes(one: Any) -> int:
    """How many axes of an array one part of an index takes: a mask as many as it has."""
    if one is None or one is Ellipsis or isinstance(one, bool | np.bool_):
        return 0
    mask = isinstance(one, list | np.ndarray) and np.asarray(one).dtype == bool
    return np.ndim(one) if mask else 1
