"""Online evaluation: scores of the representation while it is trained, as a callback for the training loop."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from jax.tree_util import Partial

from jaxcl.evaluate.checks import check_sets
from jaxcl.evaluate.features import embed as features_of
from jaxcl.evaluate.figures import figures, hits
from jaxcl.evaluate.knn import knn_ranked
from jaxcl.typing import Array, Images, PyTree

# (step, params, state) -> metrics by name, to be logged.
OnlineEvaluation = Callable[[int, PyTree, PyTree], dict[str, float]]


def online_knn(
    embed: Callable[[PyTree, PyTree, Array], Array],
    train: Images,
    test: Images,
    *,
    k: int = 10,
    **settings: Any,
) -> OnlineEvaluation:
    """(step, params, state) -> {"knn_accuracy": percent, ...}: online kNN, with the training images as the bank.

    Beside it stand "knn_mean_class_accuracy" and, with more than five classes, "knn_top5_accuracy".

    embed
        (params, state, float images [b, h, w, c] in [0, 1]) -> features [b, d]: a method's `embed`. It is compiled
        once, however often the accuracy is asked for, since params and state are arguments of the program.
    k, settings
        as for `knn`; a bank of fewer than k images is used whole.

    Raises ValueError where labels are missing, when it is made and not after hours of training.

    >>> import jax.numpy as jnp, numpy as np
    >>> images = np.array([0, 10, 240, 255], np.uint8).reshape(4, 1, 1, 1)
    >>> data = Images("grays", images, np.array([0, 0, 1, 1]))
    >>> evaluate = online_knn(lambda params, state, x: jnp.stack([x.ravel(), 1 - x.ravel()], 1), data, data, k=1)
    >>> evaluate(0, {}, {})
    {'knn_accuracy': 100.0, 'knn_mean_class_accuracy': 100.0}
    """
    try:
        train_labels, test_labels = check_sets("Online kNN", train, test)
    except ValueError as error:
        raise ValueError(f"{error} To train without online kNN: --knn-every 0 (knn_every=0).") from None

    def accuracy(step: int, params: PyTree, state: PyTree) -> dict[str, float]:
        encoder = Partial(embed, params, state)
        bank, queries = (features_of(encoder, images.images) for images in (train, test))
        best = knn_ranked(bank, train_labels, queries, k=min(k, len(bank)), **settings)
        found = hits(best, test_labels, len(np.unique(train_labels)))
        scores = figures(found, test_labels)
        metrics = {"knn_accuracy": 100 * float(found.first.mean())}
        metrics["knn_mean_class_accuracy"] = scores["mean_class_accuracy"]
        return metrics if found.five is None else metrics | {"knn_top5_accuracy": scores["top5_accuracy"]}

    return accuracy
