"""Few labelled images a class: how quickly a linear classifier learns the classes from frozen features."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from scipy import stats

from jaxcl import devices
from jaxcl.evaluate.checks import check_features, check_labels, check_numbers
from jaxcl.evaluate.figures import TOP, Hits, hits, mean_hits, ranked
from jaxcl.typing import Array


class FewShot(NamedTuple):
    """What r draws of labelled images scored on the test set."""

    accuracies: np.ndarray  # [r], in [0, 1]
    mean: float
    interval: float  # half the width of the mean's 95 % confidence interval over draws; NaN for a single draw
    hits: Hits  # of every test image, the mean over draws


def few_shot(
    key: Array,
    train_features: np.ndarray,
    train_labels: np.ndarray,
    test_features: np.ndarray,
    test_labels: np.ndarray,
    *,
    shots: int,
    draws: int = 10,
    steps: int = 250,
    learning_rate: float = 0.03,
    standardize: bool = True,
    names: Sequence[str] = (),
) -> FewShot:
    """Accuracy on the test set of linear classifiers that have seen `shots` images a class, over several draws.

    The protocol of LooC (Xiao et al. 2020, arXiv:2008.05659, on Flowers-102): all classes at once, 5 or 10 labelled
    images of each, a linear layer trained by Adam with learning rate 0.03 for 250 iterations, the mean and its
    95 % confidence interval over 10 draws.

    The paper says no more, so the rest is ours: every iteration sees all labelled images; the layer starts at zero;
    features are centered and divided by one number, their root mean square over the draw's labelled images, so that
    the learning rate means the same for every encoder (standardize=False takes them as they are). The confidence
    interval is Student's, mean ± t s / sqrt(draws), with s the standard deviation over draws (the paper does not say
    how it computes its own). It covers the draw of labelled images, not that of the test images, which are the same in
    every draw.

    Draw r takes `balanced_subset(fold_in(key, r), train_labels, shots)`: a function of key and labels alone, so
    encoders are compared on the same images. Of several processes each makes its part of the draws.

    `names` of the classes serve the errors. Raises ValueError where a class has fewer images than `shots`, or labels
    are missing.

    >>> x, y = np.array([[1.0, 0.0], [0.0, 1.0]] * 4), np.array([3, 5] * 4)
    >>> score = few_shot(jax.random.key(0), x, y, x, y, shots=2, draws=3)
    >>> score.mean, score.interval
    (1.0, 0.0)
    """
    x = check_features("train_features", train_features)
    test = check_features("test_features", test_features)
    labels = check_labels("Few-shot", train_labels, len(x))
    test_labels = check_labels("Few-shot", test_labels, len(test))
    if shots < 1 or draws < 1 or steps < 1:
        raise ValueError(f"shots, draws and steps must be at least 1; got {shots}, {draws} and {steps}.")
    check_numbers(learning_rate=learning_rate)
    classes, y, counts = np.unique(labels, return_inverse=True, return_counts=True)
    if len(classes) < 2:
        raise ValueError(f"Few-shot needs two classes at least; every label is {classes.tolist()}.")
    fewest = int(np.min(counts))
    if fewest < shots:
        rarest = int(classes[np.argmin(counts)])
        name = f" ({names[rarest]})" if rarest < len(names) else ""
        raise ValueError(
            f"Few-shot draws {shots} images of every class, but class {rarest}{name} has only {fewest} training images."
            f" Ask for fewer shots: --set shots={fewest}"
        )
    found, own = [], devices.own_rows(draws)
    for r in range(draws)[own]:
        # One draw at a time: its images are few, and all of them together need not fit.
        rows = balanced_subset(jax.random.fold_in(key, r), labels, shots)
        center, scale = np.zeros(x.shape[1], x.dtype), np.float32(0)
        if standardize:
            center = x[rows].mean(axis=0)
            scale = np.sqrt(np.mean(np.square(x[rows] - center)))
        scale = scale if scale > 0 else np.float32(1)
        weights, bias = _adam(
            (x[rows] - center) / scale,
            y[rows].astype(np.int32),
            learning_rate,
            classes=len(classes),
            steps=steps,
        )
        weights = np.asarray(weights) / scale
        logits = test @ weights + (np.asarray(bias) - center @ weights)
        found.append(hits(ranked(logits, classes), test_labels, len(classes)))
    # Whole numbers travel, as fractions would be rounded to float32.
    told = np.array([[one.first, one.first if one.five is None else one.five] for one in found], np.int32)
    told = devices.gather_rows(told, draws).astype(np.float64)
    found = [Hits(first, five if len(classes) > TOP else None) for first, five in told]
    accuracies = np.asarray([one.first.mean() for one in found])
    interval = np.nan
    if draws > 1:
        interval = float(stats.t.ppf(0.975, draws - 1) * accuracies.std(ddof=1) / np.sqrt(draws))
    return FewShot(accuracies, float(accuracies.mean()), interval, mean_hits(found))


def balanced_subset(key: Array, labels: np.ndarray, per_class: int) -> np.ndarray:
    """The rows, in rising order, of `per_class` images of every class (all of a class that has fewer).

    A function of the key and the labels: the first of each class in a random order of all rows.

    >>> labels = np.array([0, 0, 0, 1, 1, 2])
    >>> labels[balanced_subset(jax.random.key(0), labels, 2)].tolist()
    [0, 0, 1, 1, 2]
    """
    order = np.asarray(jax.random.permutation(key, len(labels)))
    ordered = np.asarray(labels)[order]
    return np.sort(np.concatenate([order[ordered == c][:per_class] for c in np.unique(ordered)]))


def labelled_rows(key: Array, labels: np.ndarray, fraction: float) -> np.ndarray:
    """The rows whose labels are used. fraction < 1: the same number of every class, at least one (`balanced_subset`).
    fraction = 1: all rows. Raises ValueError for a fraction outside of (0, 1]."""
    if not 0 < fraction <= 1:
        raise ValueError(f"fraction is the part of the labels that is seen, in (0, 1]; got {fraction}.")
    if fraction == 1:
        return np.arange(len(labels))
    return balanced_subset(key, labels, _images_a_class(labels, fraction))


def labelled_count(labels: np.ndarray, fraction: float) -> int:
    """How many rows `labelled_rows` gives.

    >>> labels = np.array([0, 0, 0, 0, 0, 0, 1])
    >>> labelled_count(labels, 0.6), labelled_count(labels, 1.0)    # two a class, of which the second has one
    (3, 7)
    """
    if fraction == 1:
        return len(labels)
    counts = np.unique(labels, return_counts=True)[1]
    return int(np.minimum(counts, _images_a_class(labels, fraction)).sum())


def _images_a_class(labels: np.ndarray, fraction: float) -> int:
    return max(1, round(fraction * len(labels) / len(np.unique(labels))))


@functools.partial(jax.jit, static_argnames=("classes", "steps"))
def _adam(x: Array, y: Array, learning_rate: float, *, classes: int, steps: int) -> tuple[Array, Array]:
    """Weights [d, c] and bias [c] after so many steps from zero on the mean cross-entropy of x [n, d], y [n]."""
    tx = optax.adam(learning_rate)

    def loss(params):
        logits = jnp.matmul(x, params[0], precision=lax.Precision.HIGHEST) + params[1]
        return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, y))

    def step(carry, _):
        params, state = carry
        updates, state = tx.update(jax.grad(loss)(params), state, params)
        return (optax.apply_updates(params, updates), state), None

    start = (jnp.zeros((x.shape[1], classes), x.dtype), jnp.zeros(classes, x.dtype))
    (params, _), _ = lax.scan(step, (start, tx.init(start)), length=steps)
    return params
