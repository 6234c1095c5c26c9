"""A data set that is read when it is asked for: `open` names it, `Data` is it."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Mapping
from functools import cache, cached_property
from pathlib import Path

from jaxcl.data.archives import about_archive, about_array
from jaxcl.data.arrays import about_images
from jaxcl.data.classes import without_list
from jaxcl.data.digits import SIZE, SPLITS
from jaxcl.data.folders import about_folder, find_folder, read_folder
from jaxcl.data.layout import Layout, check_layout
from jaxcl.data.load import KINDS, check_options, check_size, load, parsed
from jaxcl.data.splits import check_split
from jaxcl.data.stream import as_images, find_images
from jaxcl.data.tfds import about_tfds
from jaxcl.typing import About, Images

# Of an encoded image that is not augmented the middle of the centre square is seen, as papers do on ImageNet (224 of
# 256 pixels): of the test images, and of training images that stand beside them, in a kNN's bank or a fit to features.
EVALUATED_FRACTION = 7 / 8


class Data:
    """A data set of which nothing is read until it is asked for, and everything once.

        digits = data.open("digits")
        digits.about                        # About(count=8000, shape=(32, 32, 3), classes=("0", ..., "9")); no pixels
        digits.train.images[:8]             # now they are there

    A data set of one's own is made of functions that open it:

        def coded(split):
            return data.rand_bits(data.load("tfds:mnist", split), bits=8, seed=0)

        Data("mnist with bits", train=lambda: coded("train"), test=lambda: coded("test"))

    train, test
        open the images that are learnt from, and those that are evaluated on (None: there are none).
    about
        says what a recipe may know of the training images without reading them, or None. Left out, or where it gives
        None, the training images are opened for it.
    evaluated
        opens the images for evaluation, if they are not (train, test): kind of label -> (training images, test images)
        with such labels. None: (train, test).
    """

    def __init__(
        self,
        name: str,
        *,
        train: Callable[[], Images],
        test: Callable[[], Images] | None = None,
        about: Callable[[], About | None] | None = None,
        evaluated: Callable[[], Mapping[str, tuple[Images, Images]]] | None = None,
    ):
        self.name = name
        self._open_train, self._open_test = train, test
        self._describe, self._open_evaluated = about, evaluated

    @classmethod
    def of_kinds(
        cls, name: str, made: Callable[[str], Mapping[str, Images]], *, evaluate_on: str = "test"
    ) -> Data:
        """Images with several kinds of labels: `made(split)` gives the images of a split by the kind of their labels.
        Training sees those of the first kind; all kinds are evaluated.

            Data.of_kinds("two digits", lambda split: data.two_digits(digits[split], sizes=(20, 60), count=9, seed=0))
        """
        made = cache(made)

        def first(split: str) -> Images:
            return next(iter(made(split).values()))

        def evaluated() -> Mapping[str, tuple[Images, Images]]:
            train, test = made("train"), made(evaluate_on)
            return {kind: (train[kind], test[kind]) for kind in train}

        return cls(name, train=lambda: first("train"), test=lambda: first(evaluate_on), evaluated=evaluated)

    def __repr__(self) -> str:
        return f"Data({self.name!r})"

    @cached_property
    def train(self) -> Images:
        """The training images."""
        images = self._open_train()
        described, there = self.__dict__.get("about"), about_images(images)
        if described is not None and described != there:
            warnings.warn(
                f"{self.name} was described as {described}, and its training images are {there}. Files that are no"
                " images are left out; remove them (in a program, ask for `train` before `about`).",
                stacklevel=3,
            )
            self.__dict__["about"] = there
        return images

    @cached_property
    def test(self) -> Images | None:
        """The images to evaluate on."""
        return None if self._open_test is None else self._open_test()

    @cached_property
    def about(self) -> About:
        """Of the training images. Once these are opened it is what was read, before that what describes them."""
        described = None if "train" in self.__dict__ or self._describe is None else self._describe()
        return about_images(self.train) if described is None else described

    @cached_property
    def evaluated(self) -> Mapping[str, tuple[Images, Images]] | None:
        """What is evaluated, by the kind of label; None: (train, test)."""
        return None if self._open_evaluated is None else self._open_evaluated()


def open(
    spec: str,
    *,
    data_dir: str | os.PathLike | None = None,
    size: int | None = None,
    evaluate_on: str = "test",
    train_on: str = "train",
    encoded: bool | None = None,
    labels: str | None = None,
    layout: str = "auto",
    value_range: tuple[float, float] | None = None,
) -> Data:
    """The data set that `spec` names, unread: see `Data`.

    spec, data_dir, size, labels, layout, value_range
        as in `load`: "digits", "tfds:NAME", "folder:PATH", "npz:PATH", "npy:PATH"; and "tfrecord:PATTERN", as in
        `find_images`. With "#imagenet100" after it, restricted to these classes.
    evaluate_on
        the split that is `test`: "test" or "train"; of a TensorFlow data set or a folder any of its splits, as
        "validation".
    train_on
        the split that is `train`, and learnt from: of a TensorFlow data set any, as "unlabelled" or "train+unlabelled"
        of STL-10. What is evaluated by stays the split "train", with its labels.
    encoded
        True: the images stay encoded where they are, for what does not fit into memory ("tfds", "folder" and
        "tfrecord", which always do). They look like images in memory of [size, size, 3], and are decoded when they
        are asked for: of the centre square the 7/8 in the middle, as papers evaluate photographs. What trains reads
        the files themselves: `input_pipeline`, and where crops are made for a probe or fine-tuning, `data.crops_of`.
        It needs `size`. None: as the spec is.

    Nothing is read; a misspelt spec raises ValueError at once, and what is wrong with the data when it is asked for.

    >>> digits = open("digits", size=48)
    >>> digits.about.count, digits.about.shape
    (8000, (48, 48, 3))
    """
    kind, where = parsed(
        without_list(spec)[0],
        {**KINDS, "tfrecord:PATTERN": "files of tf.train.Examples, as tfrecord:/data/{split}-*"},
    )
    check_size(size)
    if encoded is None:
        encoded = kind == "tfrecord"
    check_options(spec, labels=labels, value_range=value_range)
    check_layout(layout)
    if encoded and kind in ("digits", "npz", "npy"):
        raise ValueError(
            f"{spec} is in memory when it is read, and cannot stay encoded; leave out --encoded, or say --no-encoded"
            " (encoded=None)."
        )
    if not encoded and kind == "tfrecord":
        raise ValueError(f"{spec} stays encoded where it is; leave out --no-encoded (encoded=False).")
    if encoded:
        if size is None:
            raise ValueError(
                f"the images of {spec} stay encoded and have any size; say what they are decoded to: size=224 (--size)."
            )
        side = size

        def opened(split: str) -> Images:
            found = find_images(
                spec, split, data_dir=data_dir, labels=labels, layout=layout, value_range=value_range
            )
            return as_images(found, side, fraction=EVALUATED_FRACTION)

        return Data(
            spec,
            train=lambda: opened(train_on),
            test=lambda: opened(evaluate_on),
            evaluated=None if train_on == "train" else lambda: {"": (opened("train"), opened(evaluate_on))},
        )

    @cache
    def folder() -> Layout:  # listed once for all that is asked
        return find_folder(Path(where).expanduser(), labels=labels, layout=layout)

    def describe() -> About | None:
        if without_list(spec)[1] is not None:
            return None  # how many images these classes have, their labels tell
        match kind:
            case "digits":
                side = size or SIZE
                return About(SPLITS["train"], (side, side, 3), tuple("0123456789"))
            case "npz":
                return about_archive(Path(where).expanduser(), size)
            case "npy":
                return about_array(Path(where).expanduser(), size, labels)
            case "folder":
                return about_folder(folder(), size)
        return about_tfds(where, data_dir, size)

    def opened_now(split: str) -> Images:
        if kind == "folder" and without_list(spec)[1] is None:
            check_split(kind, spec, split)
            return read_folder(folder(), split, size, value_range=value_range)
        return load(
            spec,
            split,
            data_dir=data_dir,
            size=size,
            labels=labels,
            layout=layout,
            value_range=value_range,
        )

    if train_on != "train":
        return Data(
            spec,
            train=lambda: opened_now(train_on),
            test=lambda: opened_now(evaluate_on),
            evaluated=lambda: {"": (opened_now("train"), opened_now(evaluate_on))},
        )
    return Data(spec, train=lambda: opened_now("train"), test=lambda: opened_now(evaluate_on), about=describe)
