"""The online classifier of a run, evaluated as it is: the protocol "joint"."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from jaxcl.data.classes import numbers_by_name
from jaxcl.typing import Array, Images


def joint(classify: Callable[[Array], Array], test: Images, classes: Sequence[str]) -> dict[str, Any]:
    """How often the online classifier is right about the test images, as a protocol's result.

    classes
        the names that its logits stand for, those of training; the test images' are found among them by name.
    """
    from jaxcl import evaluate

    if test.labels is None:
        raise ValueError(
            f"{test.name} has no labels, so the run's classifier cannot be evaluated on it. Give labelled images with"
            " --data."
        )
    start = time.perf_counter()
    wanted = numbers_of(test, classes)
    logits = evaluate.embed(classify, test.images)
    numbers = np.arange(logits.shape[1])
    found = evaluate.hits(evaluate.ranked(logits, numbers), wanted, len(numbers))
    accuracy, n = float(found.first.mean()), len(logits)
    error = 100 * (accuracy * (1 - accuracy) / n) ** 0.5
    seconds = time.perf_counter() - start
    return {
        "protocol": "joint",
        "accuracy": 100 * accuracy,
        "standard_error": error,
        **evaluate.figures(found, test.labels, names=test.classes),
        "settings": {},
        "seconds": seconds,
    }


def numbers_of(test: Images, classes: Sequence[str]) -> np.ndarray:
    """The labels of images as the numbers that their classes, by name, have among those of training.

    >>> test = Images("three", np.zeros((3, 1, 1, 1), np.uint8), np.array([0, 1, 1]), ("b", "a"))
    >>> numbers_of(test, ("a", "b")).tolist()
    [1, 0, 0]

    Raises ValueError where some are not among them.
    """
    numbers, strange = numbers_by_name(test, classes)
    if strange:
        raise ValueError(
            f"the online classifier was trained on the classes {', '.join(classes[:3])}{', ...' * (len(classes) > 3)};"
            f" {len(strange)} of the classes of {test.name} are not among them: {', '.join(strange[:3])}. Give images"
            " of its classes."
        )
    return numbers
