"""The images that a run is evaluated on: its own or others, as its encoder takes them, and none it was trained on."""

from __future__ import annotations

import dataclasses
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np

from jaxcl.config import resolved
from jaxcl.data.classes import numbers_by_name
from jaxcl.runs.directory import Run, trained_on
from jaxcl.typing import Images


def images_to_evaluate(
    run: Run,
    data: str | None,
    data_dir: str | None,
    *,
    evaluate_on: str | None = None,
    labels: str | None = None,
    layout: str | None = None,
    value_range: tuple[float, float] | None = None,
    encoded: bool = False,
) -> dict[str, tuple[Images, Images]]:
    """A kind of label -> training and test images that carry it: the run's own, or other data; `data_dir` is where TFDS
    has either."""
    changed: dict[str, Any] = {"labels": labels, "layout": layout, "value_range": value_range}
    if data is not None:
        how = {name: value for name, value in changed.items() if value is not None}
        how["encoded"] = encoded
        return {"": other_images(run, data, data_dir, evaluate_on=evaluate_on or "test", **how)}
    changed["evaluate_on"] = evaluate_on
    knobs = dataclasses.replace(run.knobs, **{name: v for name, v in changed.items() if v is not None})
    run = run._replace(knobs=resolved(knobs))
    try:
        own = run.data(data_dir)
        sets: dict[str, tuple[Images, Images | None]] = {"": (own.train, own.test)}
        if own.evaluated is not None:
            sets = {kind: (train, test) for kind, (train, test) in own.evaluated.items()}
    except FileNotFoundError as error:
        raise ValueError(
            f"The images of {run.dir} cannot be read, and an evaluation needs labelled images: bring them back, or"
            f" give others with --data. ({error})"
        ) from error
    except ValueError as error:
        raise ValueError(
            f"The images of {run.dir} cannot be used to evaluate; give others with --data. ({error})"
        ) from error
    found = {kind: (train, test) for kind, (train, test) in sets.items() if test is not None}
    if not found:
        raise ValueError(
            f"The data of {run.dir} has no test images, so nothing can be evaluated. Give others with --data."
        )
    return found


def other_images(
    run: Run,
    data: str,
    data_dir: str | None,
    *,
    evaluate_on: str = "test",
    **how: Any,
) -> tuple[Images, Images]:
    """Training and test images of another data set, in the size and with the channels of the run's; `how` it is read,
    as by `other_split`."""
    train, test = (other_split(run, data, split, data_dir, **how) for split in ("train", evaluate_on))
    return train, test


def other_split(
    run: Run,
    data: str,
    split: str,
    data_dir: str | None,
    *,
    labels: str | None = None,
    layout: str = "auto",
    value_range: tuple[float, float] | None = None,
    encoded: bool = False,
) -> Images:
    """One split of another data set; where it stays encoded, of the centre square the 7/8 in the middle is seen, and
    crops are of the whole image. Pixels of other than 8 bits are on the run's scale, unless a range is given."""
    from jaxcl import data as images

    known = range_for(run, data) if value_range is None else None
    opened = images.open(
        data,
        train_on=split,
        data_dir=data_dir or run.knobs.data_dir,
        size=side_of(run),
        labels=labels,
        layout=layout,
        value_range=value_range or known,
        encoded=encoded or None,
    )
    found = opened.train if known is None else told_of_range(opened.train)
    return fitting(found, run.about.shape)


def range_for(run: Run, data: str) -> tuple[float, float] | None:
    """The values of other data that become black and white where nobody says: those of the run's training images, as
    its encoder was trained on that scale. None where all pixels have 8 bits."""
    return None if data.partition(":")[0] in ("digits", "tfds") else run.value_range


def told_of_range(images: Images) -> Images:
    """The same with a sentence about it, where they are on the scale of a run."""
    if images.value_range is None:
        return images
    low, high = images.value_range
    some = np.asarray(images.images[: min(len(images.images), 256)])
    if some.size and (some == some.flat[0]).all():
        raise ValueError(
            f"On the scale of the run's training images, where {low:g} is black and {high:g} white, the pixels of"
            f" {images.name} are all {some.flat[0]} of 255. Say what is black and white in these: --value-range LOW"
            " HIGH."
        )
    line = f"Pixels of other than 8 bits are scaled as in training: {low:g} becomes black and {high:g} white."
    return images._replace(notes=(*images.notes, line))


def with_test_images(
    run: Run,
    sets: Mapping[str, tuple[Images, Images]],
    spec: str,
    data_dir: str | None,
    *,
    evaluate_on: str = "test",
    **how: Any,
) -> dict[str, tuple[Images, Images]]:
    """The same training images, and in place of the test images others of some of their classes: classifiers are asked
    about images of another kind. Of a run whose images stay encoded, these are seen as its own: 7/8 of their centres.

    spec
        as for `data.load`, whose classes are called as the training images' are; or objectnet13:PATH.
    how
        they are read, as by `other_split`.
    """
    from jaxcl.data import objectnet13
    from jaxcl.data.lazy import EVALUATED_FRACTION

    kind, _, where = spec.partition(":")
    encoded = run.encoded and kind not in ("digits", "npz", "npy")
    if kind == "objectnet13":
        if how:
            named = ", ".join(f"--{name.replace('_', '-')}" for name in how)
            raise ValueError(f"objectnet13:PATH has a single layout; leave out {named}.")
        images = objectnet13(where, size=side_of(run), fraction=EVALUATED_FRACTION if encoded else 1.0)
        images = fitting(images, run.about.shape)
    else:
        images = other_split(run, spec, evaluate_on, data_dir, encoded=encoded, **how)
    return {kind: (train, in_classes_of(train, images)) for kind, (train, _) in sets.items()}


def in_classes_of(train: Images, images: Images) -> Images:
    """Images labelled by the numbers that the training images' classes have, found by their names."""
    if images.labels is None or train.labels is None:
        raise ValueError(f"Both {train.name} and {images.name} need labels for a test on other images.")
    numbers, strange = numbers_by_name(images, train.classes)
    if strange:
        unnamed = next((some.name for some in (train, images) if not some.classes), None)
        remedy = f" Those of {unnamed} are numbers: store their names, as `classes` in the archive."
        raise ValueError(
            f"The test images of {images.name} have {len(strange)} classes that the training images of {train.name} do"
            f" not have: {', '.join(strange[:3])}; theirs are {', '.join(train.classes[:3]) or 'not named'}, ..."
            + (remedy if unnamed else "")
        )
    return images._replace(labels=numbers, classes=train.classes)


def of_several_classes(sets: Mapping[str, tuple[Images, Images]]) -> dict[str, tuple[Images, Images]]:
    """The same without the kinds of labels that are one class, of which nothing can be told, and a warning about each.
    Where all of them are, they stay: the protocols say what they need."""

    def constant(images: Images) -> bool:
        return images.labels is not None and len(np.unique(images.labels)) == 1

    made = {kind: pair for kind, pair in sets.items() if not constant(pair[0])}
    if not made:
        return dict(sets)
    for kind in sets.keys() - made.keys():
        warnings.warn(
            f"The labels {kind!r} are not evaluated: all training images have the same class.",
            stacklevel=1,
        )
    return made


def fitted_to(train: Images, test: Images) -> int:
    """How many of the test images are among those that classifiers are fitted to: by their files, where these show the
    same pixels; of images that are no files all or none, by some of their pixels."""
    if train.files and test.files:
        place = {file: i for i, file in enumerate(train.files)}
        shared = [(place[file], i) for i, file in enumerate(test.files) if file in place]
    else:
        same = train.images.shape == test.images.shape
        shared = [(i, i) for i in range(len(test.images))] if same else []
    if not shared:
        return 0
    some = np.array(shared)[np.unique(np.linspace(0, len(shared) - 1, 16).astype(int))]
    return len(shared) if np.array_equal(train.images[some[:, 0]], test.images[some[:, 1]]) else 0


def side_of(run: Run) -> int:
    """To how many pixels a side other data is resized for a run."""
    h, w, _ = run.about.shape
    if h != w:
        raise ValueError(
            f"Other data is resized to squares, and the run's images are {h} x {w}: it can be evaluated on its own data"
            " alone, without --data."
        )
    return h


def fitting(images: Images, shape: Sequence[int]) -> Images:
    """Images of the right size with as many channels as `shape`, (height, width, channels), says."""
    pixels, c = images.images, shape[2]
    if pixels.shape[1:3] != tuple(shape[:2]):
        raise ValueError(
            f"The run's encoder takes images of {tuple(shape[:2])} pixels; those of {images.name} have"
            f" {pixels.shape[1:3]}. Resize them (size={shape[0]}), or give others."
        )
    found = pixels.shape[3]
    if found == 1 and c == 3:
        pixels = np.repeat(pixels, 3, axis=3)
    elif found == 3 and c == 1 and (gray := gray_of(pixels)) is not None:
        pixels = gray
    elif found != c:
        raise ValueError(
            f"The run's encoder takes images with {c} channels; those of {images.name} have {found}. Convert them, or"
            " give others."
        )
    return images._replace(images=pixels)


def gray_of(pixels: np.ndarray) -> np.ndarray | None:
    """Of images whose channels are all equal the first, [n, h, w, 1]; None of others. Encoded ones are decoded once."""
    from jaxcl.data.arrays import allocate

    out: np.ndarray | None = None
    for start in range(0, len(pixels), 256):
        some = np.asarray(pixels[start : start + 256])
        if (some != some[..., :1]).any():
            return None
        out = allocate((*pixels.shape[:3], 1)) if out is None else out
        out[start : start + 256] = some[..., :1]
    return out


def without_trained_on(
    run: Run,
    sets: dict[str, tuple[Images, Images]],
    data: str | None,
    say: Callable[[str], None],
) -> dict[str, tuple[Images, Images]]:
    """The same without those test images that the run was trained on, whatever links lead to them, and a line about it.
    `data` names where the test images are; None: they are the run's own."""
    from jaxcl.data import take

    own, spec = trained_on(run.dir), run.knobs.data
    if own is None:
        if any(test.files for _, test in sets.values()) and data is None and spec.startswith("folder:"):
            say(
                f"{run.dir} does not record which files it was trained on, as an older jaxcl made it; where a folder"
                " has no splits, test images may be among them."
            )
        return sets
    place = cache(_place)  # folders repeat
    root = folder_of(spec)
    known = {_resolved(os.path.join(root, file), place) for file in own}
    here = root if data is None else folder_of(data)
    made = {}
    for kind, (train, test) in sets.items():
        paths = (os.path.join(here, file) for file in test.files)
        rows = [i for i, path in enumerate(paths) if _resolved(path, place) not in known]
        seen = len(test.files) - len(rows)
        if seen and not rows:
            say(f"All {seen} test images were trained on: their accuracy is not that of new images.")
        elif seen:
            say(f"{seen} of {len(test.files)} test images were trained on, and are left out.")
            test = take(test, np.array(rows))
        made[kind] = train, test
    return made


def folder_of(spec: str) -> str:
    """The folder that a specification names, without the list of classes."""
    from jaxcl.data.classes import without_list

    return os.path.expanduser(without_list(spec)[0].partition(":")[2])


def _place(folder: str) -> tuple[str, set[str]]:
    """Where a folder's path leads to, and the names in it that are links: looked up once, not file by file."""
    try:
        with os.scandir(folder) as entries:
            return os.path.realpath(folder), {entry.name for entry in entries if entry.is_symlink()}
    except OSError:
        return os.path.realpath(folder), set()


def _resolved(path: str, place: Callable[[str], tuple[str, set[str]]]) -> str:
    """The file that a path leads to; `place` looks up folders."""
    folder, name = os.path.split(path)
    whole, links = place(folder)
    return os.path.realpath(path) if name in links else os.path.join(whole, name)
