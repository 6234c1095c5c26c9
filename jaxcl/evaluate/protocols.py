"""The evaluations by name, each with one signature and its settings written into the result.

    features once, several protocols         evaluate_features("knn", train_features, train_labels, ...)
    an encoder and two data sets             PROTOCOLS["knn"](key, embed_fn, train, test)

The same code scores raw pixels (`embed_fn=lambda x: x.reshape(len(x), -1)`, or features from `raw_pixels`), an
untrained encoder and a trained one, so that their numbers compare.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from jaxcl.evaluate.embed import EmbedFn, embed
from jaxcl.evaluate.knn import check_labels, knn_accuracy
from jaxcl.evaluate.linear import L2, linear_probe, linear_sgd
from jaxcl.typing import Array, Images, Views

# What a protocol returns: numbers, strings, lists and dicts, which json.dump takes as they are.
Result = dict[str, Any]


def evaluate_features(
    protocol: str,
    train_features: np.ndarray,
    train_labels: np.ndarray,
    test_features: np.ndarray,
    test_labels: np.ndarray,
) -> Result:
    """The score of features [n, d] under "knn", "knn200" or "linear".

    The result holds "protocol", "accuracy" (top-1 on the test set, in percent), "standard_error" (of that accuracy over
    the draw of the test images, in percent: `100 sqrt(a (1 - a) / n)`), "train_images", "test_images", "features" (the
    width), "settings", "seconds" and what the protocol adds: "linear" gives "l2", "l2_path", "held_out_accuracies" and
    whether the fits converged.

    >>> x, y = np.array([[1.0, 0.1], [1.0, -0.1], [0.1, 1.0], [-0.1, 1.0]] * 3), np.array([0, 0, 1, 1] * 3)
    >>> result = evaluate_features("knn", x, y, x, y)
    >>> result["accuracy"], result["settings"]["k"]
    (100.0, 10)
    """
    if protocol not in FEATURE_PROTOCOLS:
        why = (
            "linear_sgd embeds augmented images at every step: call PROTOCOLS['linear_sgd'](key, embed_fn, ...)"
            if protocol in PROTOCOLS
            else f"the protocols on features are {', '.join(FEATURE_PROTOCOLS)}"
        )
        raise ValueError(f"{protocol!r} is no protocol on features; {why}.")
    train_labels = check_labels(protocol, train_labels, len(train_features))
    test_labels = check_labels(protocol, test_labels, len(test_features))
    start = time.perf_counter()
    accuracy, settings, more = FEATURE_PROTOCOLS[protocol](
        train_features, train_labels, test_features, test_labels
    )
    return {
        **_result(
            protocol, accuracy, len(train_labels), len(test_labels), settings, time.perf_counter() - start
        ),
        "features": int(np.shape(train_features)[1]),
        **more,
    }


def _knn(train_features, train_labels, test_features, test_labels, *, k, vote, temperature):
    # A small data set has fewer neighbors than 200; the k that was used is in the settings.
    k = min(k, len(train_labels))
    accuracy = knn_accuracy(
        train_features, train_labels, test_features, test_labels, k=k, vote=vote, temperature=temperature
    )
    weighted = {"temperature": temperature} if vote == "weighted" else {}
    return accuracy, {"k": k, "vote": vote, "similarity": "cosine", **weighted}, {}


def _linear(train_features, train_labels, test_features, test_labels):
    settings: dict[str, Any] = {"held_out": 0.1, "standardize": True, "tolerance": 1e-5, "iterations": 500}
    probe = linear_probe(train_features, train_labels, test_features, test_labels, l2=L2, **settings)
    return probe.accuracy, {"optimizer": "L-BFGS", **settings}, probe.details


# name -> (train_features, train_labels, test_features, test_labels) -> accuracy in [0, 1], settings, more results
FEATURE_PROTOCOLS: dict[str, Callable] = {
    "knn": functools.partial(_knn, k=10, vote="majority", temperature=0.1),
    "knn200": functools.partial(_knn, k=200, vote="weighted", temperature=0.1),
    "linear": _linear,
}


def _on_features(
    protocol: str, key: Array, embed_fn: EmbedFn, train: Images, test: Images, *, views: Views | None = None
) -> Result:
    """Embed both sets without augmentation, then `evaluate_features`. Nothing is drawn: key and views are unused."""
    _check_sets(protocol, train, test)
    start = time.perf_counter()
    train_features, test_features = embed(embed_fn, train.images), embed(embed_fn, test.images)
    seconds = time.perf_counter() - start
    assert train.labels is not None
    assert test.labels is not None
    result = evaluate_features(protocol, train_features, train.labels, test_features, test.labels)
    return {**result, "seconds": result["seconds"] + seconds, "embed_seconds": seconds}


def _linear_sgd(
    key: Array,
    embed_fn: EmbedFn,
    train: Images,
    test: Images,
    *,
    views: Views | None = None,
    epochs: int = 100,
) -> Result:
    _check_sets("linear_sgd", train, test)
    start = time.perf_counter()
    settings: dict[str, Any] = {
        "epochs": epochs,
        "batch_size": min(512, len(train.images)),
        "learning_rate": 0.1,
        "momentum": 0.9,
        "weight_decay": 0.0,
    }
    probe = linear_sgd(key, embed_fn, train, test, views=views, **settings)
    settings = {
        "optimizer": "SGD, Nesterov",
        "schedule": "cosine",
        "augmented": views is not None,
        **settings,
    }
    seconds = time.perf_counter() - start
    return {
        **_result("linear_sgd", probe.accuracy, len(train.images), len(test.images), settings, seconds),
        "features": len(probe.weights),
        **probe.details,
    }


def _result(protocol, accuracy, train_images, test_images, settings, seconds) -> Result:
    return {
        "protocol": protocol,
        "accuracy": 100 * accuracy,
        "standard_error": 100 * float(np.sqrt(accuracy * (1 - accuracy) / test_images)),
        "train_images": train_images,
        "test_images": test_images,
        "settings": settings,
        "seconds": seconds,
    }


def _check_sets(protocol: str, train: Images, test: Images) -> None:
    # Before the minutes that the embedding may take.
    for images in (train, test):
        check_labels(f"{protocol} on {images.name!r}", images.labels, len(images.images))


# name -> (key, embed_fn, train, test, *, views=None) -> Result. `views` matters to "linear_sgd" alone.
PROTOCOLS: dict[str, Callable[..., Result]] = {
    **{name: functools.partial(_on_features, name) for name in FEATURE_PROTOCOLS},
    "linear_sgd": _linear_sgd,
}
