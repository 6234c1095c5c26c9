"""Features, labels and classes as an evaluation needs them, or an error that says what is wrong with them."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from jaxcl.typing import Images


def check_features(name: str, features: np.ndarray, *, keep_double: bool = False) -> np.ndarray:
    """The features as float32 [n, d] (or float64, where asked for and jax computes in it), or an error that says what
    is wrong with them. A warning where all rows are alike."""
    features = np.asarray(features)
    if features.ndim != 2 or 0 in features.shape:
        raise ValueError(f"{name} must be [n, d], one row an image; got {features.shape}.")
    double = keep_double and features.dtype == np.float64 and jax.config.read("jax_enable_x64")
    features = features.astype(np.float64 if double else np.float32, copy=False)
    bad = ~np.isfinite(features).all(axis=1)
    if bad.any():
        raise ValueError(
            f"{name} hold NaN or infinity in {bad.sum()} of {len(bad)} rows (the first is row {int(np.argmax(bad))}):"
            " the encoder diverged, or was evaluated in a type too narrow for it."
        )
    if len(features) > 1 and np.ptp(features, axis=0).max() <= 1e-6 * np.abs(features).max():
        warnings.warn(
            f"{name} are alike in all {len(features)} rows: the representation has collapsed, and an accuracy of it is"
            " chance.",
            stacklevel=3,
        )
    return features


def check_labels(who: str, labels: np.ndarray | None, n: int) -> np.ndarray:
    """The labels as integers [n], or an error that says what is wrong with them."""
    if labels is None:
        raise ValueError(
            f"{who} needs labels: this data set has none, and serves to pre-train and to embed. Give other images"
            " (--data SPEC) or another split (--evaluate-on SPLIT); of a folder, a file of labels (--labels FILE); of"
            " npz:PATH, labels in that file."
        )
    labels = np.asarray(labels)
    if labels.shape != (n,) or not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(f"{who} needs labels: one integer a row, ({n},); got {labels.dtype} {labels.shape}.")
    if n and labels.min() < 0:
        raise ValueError(
            f"{who} needs labels: {(labels < 0).sum()} of {n} are negative, which marks unlabelled images"
            " (as in STL-10's unlabelled split). Leave those out."
        )
    return labels


def check_sets(who: str, train: Images, test: Images) -> tuple[np.ndarray, np.ndarray]:
    """The labels of both sets, looked at before the minutes that embedding may take."""
    first, second = (
        check_labels(f"{who} on {images.name!r}", images.labels, len(images.images))
        for images in (train, test)
    )
    return first, second


def numbered_classes(who: str, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The classes [c] in rising order and, for every label, the number of its class; two classes at least."""
    classes, numbers = np.unique(labels, return_inverse=True)
    if len(classes) < 2:
        raise ValueError(
            f"{who} needs two classes at least; every one of the {len(labels)} labels is {classes.tolist()}."
        )
    return classes, numbers


# What numbers of a training may be: (whether one will do, in words).
RANGES: dict[str, tuple[Callable[[float], bool], str]] = {
    "learning_rate": (lambda x: x >= 0, "0 or more"),
    "momentum": (lambda x: 0 <= x < 1, "from 0 on, and below 1"),
    "weight_decay": (lambda x: x >= 0, "0 or more"),
    "drop_factor": (lambda x: x > 0, "above 0"),
    "trust_coefficient": (lambda x: x > 0, "above 0"),
    "start_std": (lambda x: x >= 0, "0 or more"),
    "tolerance": (lambda x: x >= 0, "0 or more"),
    "iterations": (lambda x: x >= 1, "1 or more"),
    "images": (lambda x: x >= 1, "1 or more"),
}


def check_numbers(**given: Any) -> None:
    """Raises ValueError where a number of a training is out of its range; other settings, and None, pass.

    >>> check_numbers(learning_rate=0.1, momentum=0.0, schedule="cosine")
    """
    for name, value in given.items():
        if name in RANGES and value is not None:
            serves, words = RANGES[name]
            if not (math.isfinite(value) and serves(value)):
                raise ValueError(f"{name} is a number {words}; got {value}.")
