"""A data set restricted to some of its classes: SPEC#LIST, as tfds:imagenet2012#imagenet100 or folder:PATH#imagenet100.

`imagenet100` is the list of a hundred classes that CMC's code (imagenet100.txt) and feature transformation's
(dataset/imagenet100.class) have in common, and with which LooC was trained: 126,689 training images and 5,000 for
validation. Other papers call other lists by this name.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from jaxcl.typing import Images

# WordNet's numbers of the classes, as ImageNet's folders and TFDS's labels are called.
IMAGENET100 = tuple(
    "n01558993 n01692333 n01729322 n01735189 n01749939 n01773797 n01820546 n01855672 n01978455 n01980166"
    " n01983481 n02009229 n02018207 n02085620 n02086240 n02086910 n02087046 n02089867 n02089973 n02090622"
    " n02091831 n02093428 n02099849 n02100583 n02104029 n02105505 n02106550 n02107142 n02108089 n02109047"
    " n02113799 n02113978 n02114855 n02116738 n02119022 n02123045 n02138441 n02172182 n02231487 n02259212"
    " n02326432 n02396427 n02483362 n02488291 n02701002 n02788148 n02804414 n02859443 n02869837 n02877765"
    " n02974003 n03017168 n03032252 n03062245 n03085013 n03259280 n03379051 n03424325 n03492542 n03494278"
    " n03530642 n03584829 n03594734 n03637318 n03642806 n03764736 n03775546 n03777754 n03785016 n03787032"
    " n03794056 n03837869 n03891251 n03903868 n03930630 n03947888 n04026417 n04067472 n04099969 n04111531"
    " n04127249 n04136333 n04229816 n04238763 n04336792 n04418357 n04429376 n04435653 n04485082 n04493381"
    " n04517823 n04589890 n04592741 n07714571 n07715103 n07753275 n07831146 n07836838 n13037406 n13040303".split()
)

CLASS_LISTS = {"imagenet100": IMAGENET100}


def without_list(spec: str) -> tuple[str, tuple[str, ...] | None]:
    """A specification -> the same of the whole data set, and the classes that are meant (None: all).

    Of a path that has a # of its own, what follows the last one is a list only where there is a list of that name.

    >>> without_list("tfds:cifar10"), without_list("tfds:imagenet2012#imagenet100")[0]
    (('tfds:cifar10', None), 'tfds:imagenet2012')
    """
    whole, mark, name = spec.rpartition("#")
    if name in CLASS_LISTS and mark:
        return whole, CLASS_LISTS[name]
    if mark and spec.startswith("tfds:"):
        raise ValueError(
            f"{spec!r} is not followed by a known list of classes; there are {', '.join(CLASS_LISTS)}."
        )
    return spec, None


def numbers_by_name(images: Images, classes: Sequence[str]) -> tuple[np.ndarray, list[str]]:
    """The labels of images as numbers in other `classes`, found by name; and the names that are not there, or several
    times, whose number is -1. A class without a name has its number for one.

    >>> images = Images("three", np.zeros((3, 1, 1, 1), np.uint8), np.array([0, 1, 2]), ("b", "a", "c"))
    >>> numbers, strange = numbers_by_name(images, ("a", "b"))
    >>> numbers.tolist(), strange
    ([1, 0, -1], ['c'])
    """
    labels = np.asarray(images.labels)
    if classes and tuple(images.classes) == tuple(classes):  # also where two of them have one name
        return labels, []
    found, which = np.unique(labels, return_inverse=True)
    names = [images.classes[k] if images.classes else str(k) for k in found]
    known = [name for name in classes if list(classes).count(name) == 1]
    place = {name: list(classes).index(name) for name in known}
    numbers = np.array([place.get(name, -1) for name in names], np.int32)
    return numbers[which], sorted(set(names) - set(known))


def chosen_rows(
    name: str, labels: np.ndarray | None, classes: Sequence[str], chosen: Sequence[str]
) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """Which images are of the chosen classes: their rows [m], their labels int32 [m] as positions among the chosen
    classes, and the names of these in order. `name` is that of the data set, for the message.

    Raises ValueError where there are no labels, or a chosen class is not among the classes.

    >>> rows, labels, names = chosen_rows("x", np.array([2, 0, 1, 2]), ("a", "b", "c"), ("c", "a"))
    >>> rows.tolist(), labels.tolist(), names
    ([0, 1, 3], [1, 0, 1], ('a', 'c'))
    """
    missing = sorted(set(chosen) - set(classes))
    if labels is None or missing:
        there = f"{', '.join(classes[:3])}, ..." if classes else "not named"
        raise ValueError(
            f"{name} is to be restricted to {len(chosen)} classes, and {len(missing)} of them are not there:"
            f" {', '.join(missing[:3])}, ... (Its own are {there}.)"
        )
    names = tuple(sorted(chosen))
    place = np.full(len(classes), -1, np.int32)
    place[[classes.index(one) for one in names]] = np.arange(len(names))
    found = place[np.asarray(labels)]
    rows = np.flatnonzero(found >= 0)
    return rows, found[rows], names
