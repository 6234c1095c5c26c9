"""What a classifier's answers come to: top-1, top-5, every class by itself, and the mean over classes.

Accuracy alone hides a class that is never recognized: where 90 % of the images are of one class, a constant answer
scores 90 %, and its mean over two classes is 50 %.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

TOP = 5


class Hits(NamedTuple):
    """How often the answer about each of n images was right, in [0, 1]: a fraction where it was asked several times."""

    first: np.ndarray  # [n]: the label itself
    five: np.ndarray | None  # [n]: one of the best five; None where there are no more than five classes


def ranked(scores: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """The labels [n, min(5, c)] of the classes [c] with the highest scores [n, c], the best first.

    Of equal scores the smaller label comes first, as with argmax.

    >>> ranked(np.array([[0.0, 2.0, 2.0, -1.0, 5.0, 1.0]]), np.array([10, 11, 12, 13, 14, 15])).tolist()
    [[14, 11, 12, 15, 10]]
    """
    return classes[np.argsort(-scores, axis=1, kind="stable")[:, :TOP]]


def hits(best: np.ndarray, labels: np.ndarray, classes: int) -> Hits:
    """Of `ranked` answers [n, t] among so many classes. A label that is none of them is never hit.

    >>> hits(np.array([[3, 1], [1, 3]]), np.array([3, 3]), 2)
    Hits(first=array([1., 0.]), five=None)
    """
    right = best == np.asarray(labels)[:, None]
    five = right.any(axis=1).astype(np.float64) if classes > TOP else None
    return Hits(right[:, 0].astype(np.float64), five)


def mean_hits(several: Sequence[Hits]) -> Hits:
    """The mean over several times that the same images were asked about."""
    five = None if several[0].five is None else np.mean([np.asarray(one.five) for one in several], axis=0)
    return Hits(np.mean([one.first for one in several], axis=0), five)


def figures(found: Hits, labels: np.ndarray, *, names: Sequence[str] = ()) -> dict[str, Any]:
    """Percentages, for a protocol's result.

    "top5_accuracy"
        None with five classes or fewer, of which every answer would be right.
    "mean_class_accuracy"
        the mean over the classes of the test images, each counting alike: "class-balanced" or "mean per class".
    "by_class"
        name (or label) of every class among the test images -> its accuracy.

    >>> constant = Hits(np.array([1.0] * 9 + [0.0]), None)
    >>> figures(constant, np.array([0] * 9 + [1]), names=("cat", "dog"))
    {'top5_accuracy': None, 'mean_class_accuracy': 50.0, 'by_class': {'cat': 100.0, 'dog': 0.0}}
    """
    labels = np.asarray(labels)
    own = {int(c): 100 * float(found.first[labels == c].mean()) for c in np.unique(labels)}
    # Two classes may have one name (ImageNet's two cranes); then labels tell them apart.
    named = len(set(names)) == len(names) and max(own) < len(names)
    return {
        "top5_accuracy": None if found.five is None else 100 * float(found.five.mean()),
        "mean_class_accuracy": float(np.mean(list(own.values()))),
        "by_class": {names[c] if named else str(c): a for c, a in own.items()},
    }
