"""The evaluations by name, each with one signature and its settings written into the result.

    features once, several protocols         evaluate_features("knn", train_features, train_labels, ...)
    an encoder and two data sets             PROTOCOLS["knn"](key, embed_fn, train, test)

    knn, knn200        neighbors                                      class, from features
    linear, transfer   logistic regression, l2 chosen on held-out     class, from features
    linear_sgd         the same by SGD on augmented images            class
    fewshot5, 10       5 or 10 labelled images a class                class, from features, by the key
    finetune1, 10      the whole encoder on 1 or 10 % of the labels   class
    corruption         the linear classifier on corrupted images      class
    rotation, hue      which of four rotations, of four hue shifts    needs no labels

The same code scores raw pixels (`embed_fn=lambda x: x.reshape(len(x), -1)`, or features from `raw_pixels`), an
untrained encoder and a trained one, so that their numbers compare.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from jaxcl.evaluate import transforms
from jaxcl.evaluate.corruption import CORRUPTIONS, robustness
from jaxcl.evaluate.embed import EmbedFn, Progress, embed, told
from jaxcl.evaluate.fewshot import few_shot
from jaxcl.evaluate.finetune import finetune
from jaxcl.evaluate.knn import check_labels, knn_accuracy
from jaxcl.evaluate.linear import L2, linear_probe, linear_sgd
from jaxcl.typing import Array, Images, Views

# SimCLR's appendix B.8 and Kornblith et al. (2019): 45 values, evenly spaced in their logarithm.
TRANSFER_L2 = tuple(float(x) for x in np.logspace(-6, 5, 45))

# What a protocol returns: numbers, strings, lists and dicts, which json.dump takes as they are.
Result = dict[str, Any]


def evaluate_features(
    protocol: str,
    train_features: np.ndarray,
    train_labels: np.ndarray,
    test_features: np.ndarray,
    test_labels: np.ndarray,
) -> Result:
    """The score of features [n, d] under "knn", "knn200", "linear" or "transfer".

    The result holds "protocol", "accuracy" (top-1 on the test set, in percent), "standard_error" (of that accuracy over
    the draw of the test images, in percent: `100 sqrt(a (1 - a) / n)`), "train_images", "test_images", "features" (the
    width), "settings", "seconds" and what the protocol adds: "linear" and "transfer" give "l2", "l2_path",
    "held_out_accuracies" and whether the fits converged.

    >>> x, y = np.array([[1.0, 0.1], [1.0, -0.1], [0.1, 1.0], [-0.1, 1.0]] * 3), np.array([0, 0, 1, 1] * 3)
    >>> result = evaluate_features("knn", x, y, x, y)
    >>> result["accuracy"], result["settings"]["k"]
    (100.0, 10)
    """
    if protocol not in FEATURE_PROTOCOLS:
        why = (
            f"{protocol} needs the encoder itself, or a key: call PROTOCOLS[{protocol!r}](key, embed_fn, ...)"
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


def _transfer(train_features, train_labels, test_features, test_labels):
    """Transfer as in SimCLR's appendix B.8: features as they are, no augmentation, 45 values of l2 from 1e-6 to 1e5.

    l2 is chosen on held-out training images, then the classifier is fitted to all of them. l2 counts against the mean
    cross-entropy (ours: the paper does not say whether against mean or sum). Images keep their size or are resized when
    they are loaded. "mean_class_accuracy" is what the paper reports for some data sets.
    """
    settings: dict[str, Any] = {"held_out": 0.1, "standardize": False, "tolerance": 1e-5, "iterations": 500}
    probe = linear_probe(train_features, train_labels, test_features, test_labels, l2=TRANSFER_L2, **settings)
    right = probe.classes[np.argmax(test_features @ probe.weights + probe.bias, axis=1)] == test_labels
    by_class = [float(right[test_labels == c].mean()) for c in np.unique(test_labels)]
    more = {**probe.details, "mean_class_accuracy": 100 * float(np.mean(by_class))}
    return probe.accuracy, {"optimizer": "L-BFGS", **settings}, more


# name -> (train_features, train_labels, test_features, test_labels) -> accuracy in [0, 1], settings, more results
FEATURE_PROTOCOLS: dict[str, Callable] = {
    "knn": functools.partial(_knn, k=10, vote="majority", temperature=0.1),
    "knn200": functools.partial(_knn, k=200, vote="weighted", temperature=0.1),
    "linear": _linear,
    "transfer": _transfer,
}


def _on_features(
    protocol: str,
    key: Array,
    embed_fn: EmbedFn,
    train: Images,
    test: Images,
    *,
    views: Views | None = None,
    progress: Progress | None = None,
) -> Result:
    """Embed both sets without augmentation, then `evaluate_features`. Nothing is drawn: key and views are unused."""
    _check_sets(protocol, train, test)
    start = time.perf_counter()
    train_features, test_features = _embed_both(embed_fn, train, test, progress)
    seconds = time.perf_counter() - start
    assert train.labels is not None
    assert test.labels is not None
    told(progress, "fitting")(0.0)
    result = evaluate_features(protocol, train_features, train.labels, test_features, test.labels)
    return {**result, "seconds": result["seconds"] + seconds, "embed_seconds": seconds}


def _embed_both(embed_fn, train, test, progress) -> tuple[np.ndarray, np.ndarray]:
    return (
        embed(embed_fn, train.images, progress=told(progress, "embedding training images")),
        embed(embed_fn, test.images, progress=told(progress, "embedding test images")),
    )


def _linear_sgd(
    key: Array,
    embed_fn: EmbedFn,
    train: Images,
    test: Images,
    *,
    views: Views | None = None,
    epochs: int = 100,
    progress: Progress | None = None,
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
    probe = linear_sgd(
        key, embed_fn, train, test, views=views, progress=told(progress, "training"), **settings
    )
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


def _few_shot(
    shots: int,
    key: Array,
    embed_fn: EmbedFn,
    train: Images,
    test: Images,
    *,
    views: Views | None = None,
    draws: int = 10,
    steps: int = 250,
    learning_rate: float = 0.03,
    progress: Progress | None = None,
) -> Result:
    """`few_shot`: "accuracy" is the mean over draws, "interval" half its 95 % interval, both in percent."""
    _check_sets(f"fewshot{shots}", train, test)
    start = time.perf_counter()
    settings: dict[str, Any] = {
        "shots": shots,
        "draws": draws,
        "steps": steps,
        "learning_rate": learning_rate,
    }
    train_features, test_features = _embed_both(embed_fn, train, test, progress)
    told(progress, "fitting")(0.0)
    assert train.labels is not None
    assert test.labels is not None
    score = few_shot(key, train_features, train.labels, test_features, test.labels, **settings)
    settings = {"optimizer": "Adam", "seed": _seed(key), **settings}
    seconds = time.perf_counter() - start
    return {
        **_result(f"fewshot{shots}", score.mean, len(train.images), len(test.images), settings, seconds),
        "interval": None if draws == 1 else 100 * score.interval,
        "accuracies": [100 * float(accuracy) for accuracy in score.accuracies],
        "features": int(train_features.shape[1]),
    }


def _finetune(
    percent: int,
    key: Array,
    embed_fn: EmbedFn,
    train: Images,
    test: Images,
    *,
    views: Views | None = None,
    epochs: int | None = None,
    batch_size: int = 128,
    learning_rate: float = 0.05,
    progress: Progress | None = None,
) -> Result:
    """`finetune` on so many percent of the labels: 60 epochs for 1 %, 30 for more."""
    protocol = f"finetune{percent}"
    _check_sets(protocol, train, test)
    start = time.perf_counter()
    settings: dict[str, Any] = {
        "share": percent / 100,
        "epochs": (60 if percent == 1 else 30) if epochs is None else epochs,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "momentum": 0.9,
    }
    tuned = finetune(key, embed_fn, train, test, views=views, progress=progress, **settings)
    settings = {
        "optimizer": "SGD, Nesterov",
        "schedule": "cosine",
        "augmentation": "crop and flip" if views is None else "the experiment's probe_views",
        "batch_statistics": "of pretraining",
        "seed": _seed(key),
        **settings,
    }
    seconds = time.perf_counter() - start
    return {
        **_result(protocol, tuned.accuracy, len(train.images), len(test.images), settings, seconds),
        "labelled_images": len(tuned.rows),
        "features": len(tuned.weights),
        **tuned.details,
    }


def _transform(
    protocol: str,
    probe_of: Callable[..., transforms.TransformProbe],
    names: tuple[int, ...],
    key: Array,
    embed_fn: EmbedFn,
    train: Images,
    test: Images,
    *,
    views: Views | None = None,
    most: int = 10000,
    progress: Progress | None = None,
) -> Result:
    """`rotation_probe` or `hue_probe`; the labels of the images are not looked at."""
    start = time.perf_counter()
    score = probe_of(key, embed_fn, train.images, test.images, most=most, progress=progress)
    settings = {"degrees": list(names), "most": most, "optimizer": "L-BFGS", "standardize": True}
    settings |= {"held_out": 0.1, "seed": _seed(key)}
    seconds = time.perf_counter() - start
    return {
        **_result(protocol, score.accuracy, score.train_images, len(test.images), settings, seconds),
        "standard_error": 100 * score.standard_error,
        "by_degrees": {str(name): 100 * float(a) for name, a in zip(names, score.by_transform, strict=True)},
        "features": len(score.probe.weights),
        **score.probe.details,
    }


def _corruption(
    key: Array,
    embed_fn: EmbedFn,
    train: Images,
    test: Images,
    *,
    views: Views | None = None,
    images: int | None = None,
    names: Sequence[str] = tuple(CORRUPTIONS),
    progress: Progress | None = None,
) -> Result:
    """`robustness`: "accuracy" is the mean over 15 corruptions and 5 severities; "groups", "severe" (severities 3 to
    5), "clean_accuracy" and "corruptions" (five severities each) beside it, all in percent."""
    _check_sets("corruption", train, test)
    start = time.perf_counter()
    score = robustness(key, embed_fn, train, test, images=images, names=names, progress=progress)
    shown = len(test.images) if images is None else min(images, len(test.images))
    settings = {"names": list(names), "severities": 5, "images": images, "seed": _seed(key)}
    settings |= {"classifier": "linear, fitted to clean images"}
    seconds = time.perf_counter() - start
    return {
        **_result("corruption", score.mean, len(train.images), shown, settings, seconds),
        "standard_error": 100 * score.standard_error,
        "clean_accuracy": 100 * score.clean,
        "severe": 100 * score.severe,
        "groups": {group: 100 * mean for group, mean in score.groups.items()},
        "corruptions": {name: [100 * float(a) for a in five] for name, five in score.accuracies.items()},
        "features": len(score.probe.weights),
        **score.probe.details,
    }


def _seed(key: Array) -> list[int]:
    """What the draws hang on, as numbers."""
    return np.asarray(jax.random.key_data(key)).tolist()


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


# name -> (key, embed_fn, train, test, *, views=None, progress=None, and settings of its own) -> Result. `views` matters
# to "linear_sgd" and the "finetune"s alone.
PROTOCOLS: dict[str, Callable[..., Result]] = {
    **{name: functools.partial(_on_features, name) for name in FEATURE_PROTOCOLS},
    "linear_sgd": _linear_sgd,
    "fewshot5": functools.partial(_few_shot, 5),
    "fewshot10": functools.partial(_few_shot, 10),
    "finetune1": functools.partial(_finetune, 1),
    "finetune10": functools.partial(_finetune, 10),
    "rotation": functools.partial(_transform, "rotation", transforms.rotation_probe, transforms.ANGLES),
    "hue": functools.partial(_transform, "hue", transforms.hue_probe, transforms.SHIFTS),
    "corruption": _corruption,
}
