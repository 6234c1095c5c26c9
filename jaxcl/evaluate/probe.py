"""The linear probe: how well a linear classifier reads the classes from frozen features, l2 chosen on held-out images.

Features that were computed once are fitted by L-BFGS, for many strengths of regularization at a time, as the transfer
experiments of SimCLR (Chen et al. 2020, arXiv:2002.05709, appendix B.8) and Kornblith et al. (2019, arXiv:1805.08974).
`sgd.linear_sgd` trains the classifier on features of augmented images in their place.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jaxcl import devices
from jaxcl.evaluate.checks import check_features, check_labels, numbered_classes
from jaxcl.evaluate.lbfgs import fit_logistic, fit_with_progress
from jaxcl.evaluate.progress import Progress, stage

# Coarser than the 45 values of SimCLR's appendix, over the part of their range that matters for a mean cross-entropy.
L2 = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)

# Numbers in the features that one device fits alone: those of 8,192 images by 512.
SHARED = 2**22

# Numbers in an array [problems, classes, images] of logits that a device holds at a time, of which there are several.
MOST = 2**25


class LinearPath(NamedTuple):
    """p linear classifiers, one a strength of regularization. They apply to the features as given: x W + b."""

    l2: np.ndarray  # [p]
    weights: np.ndarray  # [p, d, c]
    bias: np.ndarray  # [p, c]
    classes: np.ndarray  # [c], the labels that the columns stand for
    objective: np.ndarray  # [p], mean cross-entropy in nats + l2 / 2 |W|^2
    cross_entropy: np.ndarray  # [p]
    gradient: np.ndarray  # [p], the largest entry of the objective's gradient, computed afresh at the end
    iterations: np.ndarray  # [p]
    converged: (
        np.ndarray
    )  # [p], bool: stopped by the tolerance, not by the iterations or the arithmetic's floor

    def predict(self, features: np.ndarray) -> np.ndarray:
        """[n, d] -> the labels [p, n] that the p classifiers give."""
        return predict_each(self.weights, self.bias, self.classes, features)


def linear_path(
    train_features: np.ndarray,
    train_labels: np.ndarray,
    *,
    l2: Sequence[float] = L2,
    standardize: bool = True,
    tolerance: float = 1e-5,
    iterations: int = 500,
    progress: Callable[[float], None] | None = None,
) -> LinearPath:
    """Multinomial logistic regression for every value of l2 at once.

    Minimizes, for features x_i [d] with labels y_i,

        1/n sum_i -log softmax(x_i W + b)[y_i]  +  l2 / 2 |W|^2

    over W [d, c] and b [c], which is not regularized. This is scikit-learn's `LogisticRegression(C=1 / (n l2))`, whose
    objective is n C times this one. (With two classes scikit-learn fits one column in place of two, which halves the
    penalty of the same classifier; its C is then twice as large, C = 2 / (n l2).)

    l2
        the strengths, one classifier each. All are fitted together, so the features are read twice an iteration,
        whatever their number.
    standardize
        fit features of zero mean and unit variance, for which l2 then counts; the classifier returned applies to the
        features as given all the same. It makes one range of l2 fit all encoders, and converges in fewer iterations.
    tolerance, iterations
        stop where no entry of the gradient exceeds the tolerance, or after so many iterations; `converged` says which.
    progress
        is called about once a second with the fraction that is done, where one device fits.

    Computes in float32, or in float64 where the features are and jax_enable_x64 is set. Features of more than `SHARED`
    numbers are shared by the devices of all processes, which must all call it; with fewer a message an iteration would
    take longer than what it saves, and each process finds the same alone.

    >>> path = linear_path(np.array([[-2.0], [-1.0], [1.0], [2.0]]), np.array([3, 3, 8, 8]), l2=(0.01, 1.0))
    >>> path.predict(np.array([[-1.0], [1.5]])).tolist()
    [[3, 8], [3, 8]]
    >>> bool(path.objective[0] < path.objective[1] < np.log(2))
    True
    """
    x = check_features("train_features", train_features, keep_double=True)
    classes, y = numbered_classes("The linear probe", check_labels("The linear probe", train_labels, len(x)))
    strengths = _strengths(l2, x.dtype)
    center, scale = _scaling(x, standardize)
    inputs, targets, mesh = shared_out(_scaled(x, center, scale), y.astype(np.int32))

    # As many at a time as keep an array [p, c, n] below MOST numbers a device; the last group repeats some to be full.
    sharers = 1 if mesh is None else mesh.size
    together = int(np.clip(sharers * MOST // (len(y) * len(classes)), 1, len(strengths)))
    parts = []
    for first in range(0, len(strengths), together):
        group = np.resize(strengths[first:], together) if first + together > len(strengths) else None
        group = strengths[first : first + together] if group is None else group
        if mesh is not None:
            fit = fit_logistic(inputs, targets, group, tolerance, iterations, classes=len(classes))
        else:  # also where nobody watches: another program would round otherwise
            share = min(together, len(strengths) - first) / len(strengths)
            part = functools.partial(_part, progress, first / len(strengths), share)
            fit = fit_with_progress(
                inputs, targets, group, tolerance, iterations, classes=len(classes), progress=part
            )
        if mesh is not None:
            fit = devices.whole(fit, mesh)
        parts.append([np.asarray(part)[: len(strengths) - first] for part in fit])
    fitted = [np.concatenate(column) for column in zip(*parts, strict=True)]
    return _path(fitted, l2, classes, center, scale, len(y), x.dtype)


def _part(progress: Callable[[float], None] | None, before: float, share: float, fraction: float) -> None:
    if progress is not None:
        progress(before + share * fraction)


def linear_path_each(
    train_features: np.ndarray,
    train_labels: np.ndarray,
    *,
    l2: np.ndarray,
    standardize: bool = True,
    tolerance: float = 1e-5,
    iterations: int = 500,
) -> list[LinearPath]:
    """`linear_path` of m encoders' features [m, n, d] of the same images, each for its own l2 [m, p].

    One minimizer is mapped over the members; each stops where it would alone, and waits for the last. As many are
    fitted at a time as keep an array [members, p, c, n] below `MOST` numbers; larger ones, and those that several
    devices share, one after the other.
    """
    x = [check_features("train_features", own, keep_double=True) for own in train_features]
    labels = check_labels("The linear probe", train_labels, len(x[0]))
    classes, y = numbered_classes("The linear probe", labels)
    strengths = np.stack([_strengths(own, x[0].dtype) for own in l2])
    settings: dict[str, Any] = {"tolerance": tolerance, "iterations": iterations}
    together = min(MOST // (strengths.shape[1] * len(y) * len(classes)), len(x))
    if together < 2 or (x[0].size > SHARED and jax.device_count() > 1):
        pairs = zip(x, l2, strict=True)
        return [
            linear_path(one, train_labels, l2=tuple(own), standardize=standardize, **settings)
            for one, own in pairs
        ]
    targets, made = jnp.asarray(y.astype(np.int32)), []
    for first in range(0, len(x), together):
        # The last ones again, so that there is one program.
        members = [min(i, len(x) - 1) for i in range(first, first + together)]
        scalings = [_scaling(x[i], standardize) for i in members]
        inputs = jnp.stack([_scaled(x[i], *own) for i, own in zip(members, scalings, strict=True)])
        fit = _fit_each(inputs, targets, strengths[members], tolerance, iterations, classes=len(classes))
        fitted = [np.asarray(part) for part in fit]
        made += [
            _path([part[j] for part in fitted], l2[i], classes, *scalings[j], len(y), x[0].dtype)
            for j, i in enumerate(members)
            if first + j < len(x)
        ]
    return made


@functools.partial(jax.jit, static_argnames="classes")
def _fit_each(x, y, l2, tolerance, iterations, *, classes: int):
    """`fit_logistic` of x [m, n, d] and l2 [m, p], all with the labels y [n]."""

    def fit(x, l2):
        return fit_logistic(x, y, l2, tolerance, iterations, classes=classes)

    return jax.vmap(fit)(x, l2)


def _strengths(l2: Sequence[float] | np.ndarray, dtype: Any) -> np.ndarray:
    strengths = np.asarray(l2, dtype)
    if strengths.ndim != 1 or not len(strengths) or not (strengths >= 0).all():
        raise ValueError(f"l2 must be a sequence of numbers, none of them negative; got {l2}.")
    return strengths


def _scaling(x: np.ndarray, standardize: bool) -> tuple[np.ndarray, np.ndarray]:
    """What is subtracted from every feature, and what it is divided by."""
    # Centered in any case: the free bias makes up for it, so the problem is the same and better conditioned.
    center, scale = x.mean(axis=0, dtype=np.float64), np.ones(x.shape[1])
    if standardize:
        std = x.std(axis=0, dtype=np.float64)
        # A feature that never changes (but for the rounding of its mean) says nothing, and must not be blown up.
        scale = np.where(std > 1e-6 * np.abs(center), std, 1.0)
    return center, scale


def _scaled(x: np.ndarray, center: np.ndarray, scale: np.ndarray) -> np.ndarray:
    return (x - center.astype(x.dtype)) / scale.astype(x.dtype)


def _path(
    fitted: Sequence[np.ndarray],
    l2: Sequence[float] | np.ndarray,
    classes: np.ndarray,
    center: np.ndarray,
    scale: np.ndarray,
    n: int,
    dtype: Any,
) -> LinearPath:
    """What `fit_logistic` found of scaled features, as classifiers of those that were given."""
    theta, entropies, gradient, counts, converged = fitted
    theta = theta.astype(np.float64)
    penalty = 0.5 * np.asarray(l2, np.float64) * np.square(theta[:, :, :-1]).sum(axis=(1, 2))
    cross_entropy = entropies[:, :n].mean(axis=1, dtype=np.float64)
    weights = np.swapaxes(theta[:, :, :-1] / scale, 1, 2)
    bias = theta[:, :, -1] - center @ weights
    return LinearPath(
        l2=np.asarray(l2, np.float64),
        weights=weights.astype(dtype),
        bias=bias.astype(dtype),
        classes=classes,
        objective=cross_entropy + penalty,
        cross_entropy=cross_entropy,
        gradient=gradient,
        iterations=counts,
        converged=converged,
    )


def shared_out(x: np.ndarray, y: np.ndarray) -> tuple[Any, Any, Mesh | None]:
    """Features [n, d] and labels [n] as `fit_logistic` takes them: large ones split over the devices of that mesh,
    filled up with rows that do not count."""
    if x.size <= SHARED or jax.device_count() == 1:
        return jnp.asarray(x), jnp.asarray(y), None
    mesh = devices.make_mesh()
    more = -len(x) % mesh.size
    own = devices.own_rows(len(x) + more)
    x, y = np.pad(x, [(0, more), (0, 0)]), np.pad(y, (0, more), constant_values=-1)
    return *devices.split((x[own], y[own]), mesh), mesh


class LinearProbe(NamedTuple):
    """A linear classifier with what it scored."""

    accuracy: float  # on the test set, in [0, 1]
    weights: np.ndarray  # [d, c]
    bias: np.ndarray  # [c]
    classes: np.ndarray  # [c], the labels that the columns stand for
    details: dict[str, Any]  # how it was found, as numbers and lists


def linear_probe(
    train_features: np.ndarray,
    train_labels: np.ndarray,
    test_features: np.ndarray,
    test_labels: np.ndarray,
    *,
    l2: Sequence[float] = L2,
    held_out: float = 0.1,
    standardize: bool = True,
    tolerance: float = 1e-5,
    iterations: int = 500,
    split: tuple[np.ndarray, np.ndarray] | None = None,
    progress: Progress | None = None,
) -> LinearProbe:
    """`linear_path`, with l2 chosen on a held-out part of the training set and refitted on all of it.

    The test labels are used once, at the end. The held-out part is the fraction `held_out` of every class, the
    same at every call; or `split`, the rows to fit and the rows to hold out, says which it is. Where several values of
    l2 are right equally often, the largest is taken. `details` holds "l2" (the chosen one), "l2_path",
    "held_out_accuracies" (in percent, one a value of l2), "iterations", "converged" (of the refit), "path_converged",
    "cross_entropy". `progress` is called about once a second with ("fitting" or "fitting all images", the fraction of
    it that is done).
    """
    labels = check_labels("The linear probe", train_labels, len(train_features))
    test_labels = check_labels("The linear probe", test_labels, len(test_features))
    train_features = np.asarray(train_features)
    fit = functools.partial(linear_path, standardize=standardize, tolerance=tolerance, iterations=iterations)
    fitted, held = hold_out(labels, held_out) if split is None else split
    part = None if progress is None else stage(progress, "fitting")
    path = fit(train_features[fitted], labels[fitted], l2=l2, progress=part)
    chosen, scores = _chosen(path, train_features[held], labels[held], l2)
    part = None if progress is None else stage(progress, "fitting all images")
    final = fit(train_features, labels, l2=(chosen,), progress=part)
    return _probe(path, final, test_features, test_labels, chosen, scores)


def linear_probe_each(
    train_features: np.ndarray,
    train_labels: np.ndarray,
    test_features: np.ndarray,
    test_labels: np.ndarray,
    *,
    l2: Sequence[float] = L2,
    held_out: float = 0.1,
    standardize: bool = True,
    tolerance: float = 1e-5,
    iterations: int = 500,
) -> list[LinearProbe]:
    """`linear_probe` of m encoders' features [m, n, d] and [m, q, d] of the same images, by `linear_path_each`: each
    chooses its own l2, and the classifiers are those that it has alone up to rounding."""
    x = np.asarray(train_features)
    labels = check_labels("The linear probe", train_labels, x.shape[1])
    test_labels = check_labels("The linear probe", test_labels, np.shape(test_features)[1])
    settings: dict[str, Any] = {
        "standardize": standardize,
        "tolerance": tolerance,
        "iterations": iterations,
    }
    fitted, held = hold_out(labels, held_out)
    paths = linear_path_each(
        x[:, fitted], labels[fitted], l2=np.tile(np.asarray(l2), (len(x), 1)), **settings
    )
    choices = [_chosen(path, own, labels[held], l2) for path, own in zip(paths, x[:, held], strict=True)]
    finals = linear_path_each(x, labels, l2=np.array([[chosen] for chosen, _ in choices]), **settings)
    return [
        _probe(path, final, own, test_labels, *choice)
        for path, final, own, choice in zip(paths, finals, test_features, choices, strict=True)
    ]


def _chosen(
    path: LinearPath, features: np.ndarray, labels: np.ndarray, l2: Sequence[float]
) -> tuple[float, np.ndarray]:
    """The largest l2 that is right most often about held-out images, and how often each is."""
    scores = np.mean(path.predict(features) == labels, axis=1)
    chosen = float(max(strength for strength, score in zip(l2, scores, strict=True) if score == scores.max()))
    return chosen, scores


def _probe(
    path: LinearPath,
    final: LinearPath,
    test_features: np.ndarray,
    test_labels: np.ndarray,
    chosen: float,
    scores: np.ndarray,
) -> LinearProbe:
    accuracy = float(np.mean(final.predict(test_features)[0] == test_labels))
    details = {
        "l2": chosen,
        "l2_path": [float(strength) for strength in path.l2],
        "held_out_accuracies": [100 * float(score) for score in scores],
        "iterations": int(final.iterations[0]),
        "converged": bool(final.converged[0]),
        "path_converged": [bool(c) for c in path.converged],
        "cross_entropy": float(final.cross_entropy[0]),
    }
    return LinearProbe(accuracy, final.weights[0], final.bias[0], final.classes, details)


def hold_out(labels: np.ndarray, fraction: float) -> tuple[np.ndarray, np.ndarray]:
    """The rows to fit and the rows to hold out: a fraction of every class, at least one row where it has two.

    It is the same draw at every call.

    >>> fitted, held = hold_out(np.array([0, 0, 0, 0, 1, 1, 2]), 0.25)
    >>> len(fitted), len(held), np.array([0, 0, 0, 0, 1, 1, 2])[held].tolist()
    (5, 2, [0, 1])
    """
    if not 0 < fraction < 1:
        raise ValueError(f"The fraction held out must lie between 0 and 1; got {fraction}.")
    # A fixed draw: files in the order of a folder are not in a random order.
    order = np.random.default_rng(0).permutation(len(labels))
    held = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        members = order[labels[order] == label]
        held[members[: min(len(members) - 1, max(1, round(fraction * len(members))))]] = True
    if not held.any():
        raise ValueError(
            "Nothing can be held out: every class has a single image. Fit one l2 by linear_path."
        )
    return np.flatnonzero(~held), np.flatnonzero(held)


def predict_each(weights, bias, classes, features) -> np.ndarray:
    """The labels [p, n] that p classifiers, weights [p, d, c] and bias [p, c], give to features [n, d]."""
    features = np.asarray(features)
    if features.ndim != 2 or features.shape[1] != weights.shape[1]:
        raise ValueError(
            f"features must be [n, {weights.shape[1]}], the width it was fitted on; got {features.shape}."
        )
    features = features.astype(weights.dtype, copy=False)
    return np.stack(
        [classes[np.argmax(features @ w + b, axis=1)] for w, b in zip(weights, bias, strict=True)]
    )
