"""The linear probe: how well a linear classifier reads the classes from frozen features.

Two protocols. `linear_path` and `linear_probe` fit features that were computed once by L-BFGS, for many strengths of
regularization at a time, as the transfer experiments of SimCLR (Chen et al. 2020, arXiv:2002.05709, appendix B.8) and
Kornblith et al. (2019, arXiv:1805.08974). `linear_sgd` trains the classifier on features of augmented images, as
SimCLR's own linear evaluation (appendix B.6).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxcl import devices
from jaxcl.evaluate.embed import EmbedFn, as_partial, embed
from jaxcl.evaluate.knn import check_features, check_labels
from jaxcl.evaluate.sgd import cross_entropy, nesterov, sgd
from jaxcl.typing import Array, Images, Views

# Coarser than the 45 values of SimCLR's appendix, over the part of their range that matters for a mean cross-entropy.
L2 = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)

MEMORY = 10  # Pairs of steps that L-BFGS remembers.


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
        return _predict(self.weights, self.bias, self.classes, features)


def linear_path(
    train_features: np.ndarray,
    train_labels: np.ndarray,
    *,
    l2: Sequence[float] = L2,
    standardize: bool = True,
    tolerance: float = 1e-5,
    iterations: int = 500,
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
        stop where no entry of the gradient exceeds the tolerance, or after so many iterations; `converged` tells.

    Computes in float32, or in float64 where the features are and jax_enable_x64 is set.

    >>> path = linear_path(np.array([[-2.0], [-1.0], [1.0], [2.0]]), np.array([3, 3, 8, 8]), l2=(0.01, 1.0))
    >>> path.predict(np.array([[-1.0], [1.5]])).tolist()
    [[3, 8], [3, 8]]
    >>> bool(path.objective[0] < path.objective[1] < np.log(2))
    True
    """
    x = check_features("train_features", train_features, keep_double=True)
    classes, y = _classes("The linear probe", train_labels, len(x))
    strengths = np.asarray(l2, x.dtype)
    if strengths.ndim != 1 or not len(strengths) or not (strengths >= 0).all():
        raise ValueError(f"l2 must be a sequence of numbers, none of them negative; got {l2}.")
    # Centered in any case: the free bias makes up for it, so the problem is the same and better conditioned.
    center, scale = x.mean(axis=0, dtype=np.float64), np.ones(x.shape[1])
    if standardize:
        deviation = x.std(axis=0, dtype=np.float64)
        # A feature that never changes (but for the rounding of its mean) says nothing, and must not be blown up.
        scale = np.where(deviation > 1e-6 * np.abs(center), deviation, 1.0)
    inputs = jnp.asarray((x - center.astype(x.dtype)) / scale.astype(x.dtype))
    targets = jnp.asarray(y, jnp.int32)

    # As many at a time as keep an array [p, c, n] below 2^25 numbers; the last group is filled up by repetition.
    together = int(np.clip(2**25 // (len(y) * len(classes)), 1, len(strengths)))
    parts = []
    for first in range(0, len(strengths), together):
        group = np.resize(strengths[first:], together) if first + together > len(strengths) else None
        group = strengths[first : first + together] if group is None else group
        fit = _lbfgs(inputs, targets, jnp.asarray(group), tolerance, iterations, classes=len(classes))
        parts.append([np.asarray(part)[: len(strengths) - first] for part in fit])
    theta, entropies, gradient, counts, converged = (
        np.concatenate(column) for column in zip(*parts, strict=True)
    )
    theta = theta.astype(np.float64)
    penalty = 0.5 * np.asarray(l2, np.float64) * np.square(theta[:, :, :-1]).sum(axis=(1, 2))
    cross_entropy = entropies.mean(axis=1, dtype=np.float64)
    weights = np.swapaxes(theta[:, :, :-1] / scale, 1, 2)
    bias = theta[:, :, -1] - center @ weights
    return LinearPath(
        l2=np.asarray(l2, np.float64),
        weights=weights.astype(x.dtype),
        bias=bias.astype(x.dtype),
        classes=classes,
        objective=cross_entropy + penalty,
        cross_entropy=cross_entropy,
        gradient=gradient,
        iterations=counts,
        converged=converged,
    )


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
) -> LinearProbe:
    """`linear_path`, with l2 chosen on a held-out part of the training set and refitted on all of it.

    The test labels are looked at once, at the end. The held-out part is `held_out` of every class, the same at every
    call; or `split`, the rows to fit and the rows to hold out, says which it is. Where several values of l2 are right
    equally often, the largest is taken. `details` holds "l2" (the chosen one), "l2_path", "held_out_accuracies" (in
    percent, one a value of l2), "iterations", "converged" (of the refit), "path_converged", "cross_entropy".
    """
    labels = check_labels("The linear probe", train_labels, len(train_features))
    test_labels = check_labels("The linear probe", test_labels, len(test_features))
    train_features = np.asarray(train_features)
    fit = functools.partial(linear_path, standardize=standardize, tolerance=tolerance, iterations=iterations)
    fitted, held = hold_out(labels, held_out) if split is None else split
    path = fit(train_features[fitted], labels[fitted], l2=l2)
    scores = np.mean(path.predict(train_features[held]) == labels[held], axis=1)
    chosen = float(max(strength for strength, score in zip(l2, scores, strict=True) if score == scores.max()))
    final = fit(train_features, labels, l2=(chosen,))
    accuracy = float(np.mean(final.predict(test_features)[0] == test_labels))
    details = {
        "l2": chosen,
        "l2_path": [float(strength) for strength in l2],
        "held_out_accuracies": [100 * float(score) for score in scores],
        "iterations": int(final.iterations[0]),
        "converged": bool(final.converged[0]),
        "path_converged": [bool(c) for c in path.converged],
        "cross_entropy": float(final.cross_entropy[0]),
    }
    return LinearProbe(accuracy, final.weights[0], final.bias[0], final.classes, details)


def hold_out(labels: np.ndarray, part: float) -> tuple[np.ndarray, np.ndarray]:
    """The rows to fit and the rows to hold out: `part` of every class, at least one where it has two, always the same.

    >>> fitted, held = hold_out(np.array([0, 0, 0, 0, 1, 1, 2]), 0.25)
    >>> len(fitted), len(held), np.array([0, 0, 0, 0, 1, 1, 2])[held].tolist()
    (5, 2, [0, 1])
    """
    if not 0 < part < 1:
        raise ValueError(f"The part held out must lie between 0 and 1; got {part}.")
    # A fixed draw: files in the order of a folder are not in a random order.
    order = np.random.default_rng(0).permutation(len(labels))
    held = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        members = order[labels[order] == label]
        held[members[: min(len(members) - 1, max(1, round(part * len(members))))]] = True
    if not held.any():
        raise ValueError(
            "Nothing can be held out: every class has a single image. Fit one l2 by linear_path."
        )
    return np.flatnonzero(~held), np.flatnonzero(held)


def linear_sgd(
    key: Array,
    embed_fn: EmbedFn,
    train: Images,
    test: Images,
    *,
    views: Views | None = None,
    epochs: int = 100,
    batch_size: int = 512,
    learning_rate: float = 0.1,
    momentum: float = 0.9,
    weight_decay: float = 0.0,
    progress: Callable[[float], None] | None = None,
) -> LinearProbe:
    """SimCLR's linear evaluation: the classifier alone is trained, by SGD, on the frozen encoder's features.

    embed_fn
        float images [b, h, w, c] in [0, 1] -> features [b, d]; as for `embed`, best a `functools.partial`.
    views
        (key, batch) -> views; the first is used, so give a recipe of random crop and flip that makes one. The features
        of the augmented images are computed anew at every step. Without views they are computed once.
    learning_rate
        for a batch of 256: `learning_rate * batch_size / 256` is the highest, and falls to 0 along a cosine, without
        warm-up. Momentum is Nesterov's.
    weight_decay
        l2 in the loss, of the weights and not of the bias.
    progress
        is called after every epoch with the share that is done.

    The defaults are those of SimCLR's README for CIFAR-10 (weights start at zero, no warm-up, test images as they
    are). The last incomplete batch of an epoch is dropped. The order is a function of (key, epoch), the augmentation of
    (key, step, the image's index), neither of the devices. `details` holds "losses", the mean cross-entropy of every
    epoch in nats, and "steps".
    """
    labels = check_labels(f"The linear probe on {train.name!r}", train.labels, len(train.images))
    test_labels = check_labels(f"The linear probe on {test.name!r}", test.labels, len(test.images))
    classes, labels = _classes("The linear probe", labels, len(labels))
    n = len(labels)
    if not 1 <= batch_size <= n:
        raise ValueError(f"batch_size must be between 1 and the {n} training images; got {batch_size}.")
    if epochs < 1:
        raise ValueError(f"epochs must be at least 1; got {epochs}.")
    test_features = check_features(
        "The encoder's test features", embed(embed_fn, test.images, batch_size=batch_size)
    )
    inputs = train.images
    if views is None:
        inputs = check_features(
            "The encoder's features", embed(embed_fn, train.images, batch_size=batch_size)
        )

    mesh = devices.local_mesh(batch_size)
    shape = (test_features.shape[1], len(classes))
    params = {"weights": np.zeros(shape, np.float32), "bias": np.zeros(shape[1], np.float32)}
    embed_fn, order_key, views_key = devices.replicate((as_partial(embed_fn), *jax.random.split(key)), mesh)
    params, losses = sgd(
        order_key,
        functools.partial(_sgd_step, embed_fn, views_key, weight_decay=np.float32(weight_decay), views=views),
        params,
        inputs,
        labels,
        np.arange(n),
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        momentum=momentum,
        mesh=mesh,
        progress=progress or (lambda share: None),
    )
    if not np.isfinite(losses[-1]):
        raise ValueError(
            f"The linear probe diverged: its loss is {losses[-1]} after {epochs} epochs. Lower learning_rate"
            f" ({learning_rate}), or look for very large features."
        )
    predictions = _predict(params["weights"][None], params["bias"][None], classes, test_features)[0]
    accuracy = float(np.mean(predictions == test_labels))
    details = {"losses": losses, "steps": epochs * (n // batch_size)}
    return LinearProbe(accuracy, params["weights"], params["bias"], classes, details)


@functools.partial(jax.jit, static_argnames="views", donate_argnames="carry")
def _sgd_step(embed_fn, key, carry, step, batch, numbers, *, weight_decay, views):
    params, velocity, total = carry
    if views is None:
        features = batch["image"]
    else:
        features = embed_fn(views(jax.random.fold_in(key, step), batch)[0]).astype(jnp.float32)

    loss, grads = jax.value_and_grad(cross_entropy)(params, features, batch["label"])
    grads["weights"] += weight_decay * params["weights"]
    return *nesterov(params, velocity, grads, *numbers), total + loss


def _classes(who: str, labels, n: int) -> tuple[np.ndarray, np.ndarray]:
    classes, numbered = np.unique(check_labels(who, labels, n), return_inverse=True)
    if len(classes) < 2:
        raise ValueError(
            f"{who} needs two classes at least; every one of the {n} labels is {classes.tolist()}."
        )
    return classes, numbered


def _predict(weights, bias, classes, features) -> np.ndarray:
    features = np.asarray(features)
    if features.ndim != 2 or features.shape[1] != weights.shape[1]:
        raise ValueError(f"features must be [n, {weights.shape[1]}], as those fitted; got {features.shape}.")
    features = features.astype(weights.dtype, copy=False)
    return np.stack(
        [classes[np.argmax(features @ w + b, axis=1)] for w, b in zip(weights, bias, strict=True)]
    )


@functools.partial(jax.jit, static_argnames="classes")
def _lbfgs(x: Array, y: Array, l2: Array, tolerance, iterations, *, classes: int):
    """x [n, d], y int [n], l2 [p] -> theta [p, c, d + 1] (bias last), cross-entropies [p, n], max |gradient| [p],
    iterations [p], whether the tolerance was met [p].

    L-BFGS (Nocedal and Wright 2006, algorithm 7.5) on p problems side by side. Logits are linear in the step, so the
    line search needs no pass over x: an iteration reads x once for the direction's logits and once for the gradient.

    It works from the diagonal of the Hessian at zero, so that a strong l2, which binds the weights and leaves the bias
    free, does not make the problem ill-conditioned.

    Logits are kept relative to that of the right class, `z_j - z_y`, and the right class is left out of the sums: the
    loss log(1 + sum_j exp(z_j - z_y)) and the residuals keep their relative precision where they are tiny.
    """
    n, d = x.shape
    p, dtype = l2.shape[0], x.dtype
    wrong = jnp.arange(classes)[:, None] != y  # [c, n]
    exact = lax.Precision.HIGHEST

    def logits(theta):
        z = jnp.einsum("pcd,nd->pcn", theta[:, :, :-1], x, precision=exact) + theta[:, :, -1:]
        return z - jnp.sum(jnp.where(wrong, 0, z), axis=1, keepdims=True)

    def probabilities(z):
        """Those of the wrong classes [p, c, n] (0 at the right one), and the cross-entropies [p, n]."""
        top = jnp.maximum(jnp.max(z, axis=1), 0)
        weights = jnp.where(wrong, jnp.exp(z - top[:, None]), 0)
        rest = jnp.sum(weights, axis=1)
        entropy = jnp.where(top > 0, top + jnp.log(jnp.exp(-top) + rest), jnp.log1p(rest))
        return weights / (jnp.exp(-top) + rest)[:, None], entropy

    def penalty(theta, other):
        return l2 * jnp.sum(theta[:, :, :-1] * other[:, :, :-1], axis=(1, 2))

    def gradient(theta, z):
        residual, _ = probabilities(z)
        residual = jnp.where(wrong, residual, -jnp.sum(residual, axis=1, keepdims=True)) / n
        weights = (
            jnp.einsum("pcn,nd->pcd", residual, x, precision=exact) + l2[:, None, None] * theta[:, :, :-1]
        )
        return jnp.concatenate([weights, jnp.sum(residual, axis=2, keepdims=True)], axis=2)

    def inner(a, b):
        return jnp.sum(a * b, axis=(1, 2))

    def wide(a):
        return a[:, None, None]

    def direction(grad, steps, changes, rho, gamma, count):
        def newest_first(i, carry):
            q, alphas = carry
            slot = (count - 1 - i) % MEMORY
            alpha = rho[slot] * inner(steps[slot], q)  # An empty slot has rho 0 and does nothing.
            return q - wide(alpha) * changes[slot], alphas.at[slot].set(alpha)

        def oldest_first(i, r):
            slot = (count + i) % MEMORY
            beta = rho[slot] * inner(changes[slot], r)
            return r + wide(alphas[slot] - beta) * steps[slot]

        q, alphas = lax.fori_loop(0, MEMORY, newest_first, (grad, jnp.zeros((MEMORY, p), dtype)))
        return -lax.fori_loop(0, MEMORY, oldest_first, wide(gamma) * inverse * q)

    def line_search(theta, z, value, slope, move, dz, t, done):
        """t [p] with a sufficient decrease and half the slope gone, by Newton's method kept inside a bracket."""
        at, along, across = penalty(theta, theta), penalty(theta, move), penalty(move, move)
        slack = 4 * jnp.finfo(dtype).eps * jnp.abs(value)

        def look(carry):
            tries, t, low, high, found, _ = carry
            prob, entropy = probabilities(z + wide(t) * dz)
            first = jnp.sum(prob * dz, axis=1)
            second = jnp.sum(prob * jnp.square(dz), axis=1) - jnp.square(first)
            here = jnp.mean(entropy, axis=1) + 0.5 * at + t * along + 0.5 * jnp.square(t) * across
            slope_here = jnp.mean(first, axis=1) + along + t * across
            bend = jnp.mean(second, axis=1) + across
            fell = here <= value + 1e-4 * t * slope + slack
            found = fell & (jnp.abs(slope_here) <= 0.5 * jnp.abs(slope))
            # The loss is convex along the line: where it rises, the step was too long.
            rises = (slope_here > 0) | ~fell
            low, high = jnp.where(rises, low, t), jnp.where(rises, t, high)
            newton = t - slope_here / jnp.maximum(bend, jnp.finfo(dtype).tiny)
            newton = jnp.minimum(newton, 10 * t)
            middle = jnp.where(jnp.isfinite(high), 0.5 * (low + high), 2 * t)
            t_next = jnp.where((newton > low) & (newton < high), newton, middle)
            return tries + 1, jnp.where(found | done, t, t_next), low, high, found, here

        def searching(carry):
            tries, _, _, _, found, _ = carry
            return (tries < 20) & ~jnp.all(found | done)

        start = (0, t, jnp.zeros_like(t), jnp.full_like(t, jnp.inf), jnp.zeros(p, bool), value)
        _, t, _, _, found, here = lax.while_loop(searching, look, start)
        return jnp.where(found & ~done, t, 0), found, jnp.where(found & ~done, here, value)

    def iterate(carry):
        count, theta, z, value, grad, steps, changes, rho, gamma, done, stuck, counts = carry
        move = direction(grad, steps, changes, rho, gamma, count)
        slope = inner(grad, move)
        # Rounding can turn a direction uphill; the scaled gradient never is.
        uphill = slope >= 0
        move = jnp.where(wide(uphill), -inverse * grad, move)
        slope = jnp.where(uphill, inner(grad, move), slope)
        dz = logits(move)
        t, found, value_next = line_search(theta, z, value, slope, move, dz, jnp.ones(p, dtype), done)
        theta, z = theta + wide(t) * move, z + wide(t) * dz
        grad_next = gradient(theta, z)
        step, change = wide(t) * move, grad_next - grad
        product, length = inner(step, change), inner(change, inverse * change)
        useful = product > jnp.finfo(dtype).eps * length
        slot = count % MEMORY
        steps, changes = steps.at[slot].set(step), changes.at[slot].set(change)
        rho = rho.at[slot].set(jnp.where(useful, 1 / jnp.where(useful, product, 1), 0))
        gamma = jnp.where(useful, product / jnp.where(useful, length, 1), gamma)
        # At the floor of the arithmetic the loss no longer falls, though the gradient may be above the tolerance.
        stuck = jnp.where(value_next < value, 0, stuck + 1)
        counts = counts + ~done
        done = done | (jnp.max(jnp.abs(grad_next), axis=(1, 2)) <= tolerance) | ~found | (stuck >= 10)
        return count + 1, theta, z, value_next, grad_next, steps, changes, rho, gamma, done, stuck, counts

    def running(carry):
        return (carry[0] < iterations) & ~jnp.all(carry[9])

    # 1 / diagonal of the Hessian at zero, [p, 1, d + 1]: there every class has probability 1 / c.
    spread = (1 - 1 / classes) / classes
    curvature = spread * jnp.mean(jnp.square(x), axis=0) + l2[:, None]
    # A feature that is always zero has curvature 0 where l2 is; its gradient is 0 as well.
    curvature = jnp.concatenate([curvature, jnp.full((p, 1), spread, dtype)], axis=1)
    inverse = 1 / jnp.where(curvature > 0, curvature, 1)[:, None]

    theta = jnp.zeros((p, classes, d + 1), dtype)
    z = jnp.zeros((p, classes, n), dtype)
    # The gradient at zero, where probabilities(z) would be constants that XLA spends seconds on folding.
    residual = jnp.where(wrong, 1 / classes, 1 / classes - 1).astype(dtype) / n
    grad = jnp.concatenate(
        [jnp.matmul(residual, x, precision=exact), jnp.sum(residual, axis=1, keepdims=True)], axis=1
    )
    grad = jnp.broadcast_to(grad, theta.shape)
    memory = jnp.zeros((MEMORY, *theta.shape), dtype)
    zeros = jnp.zeros(p, jnp.int32)
    done = jnp.max(jnp.abs(grad), axis=(1, 2)) <= tolerance
    value = jnp.full(p, np.log(classes), dtype)
    start = (
        0,
        theta,
        z,
        value,
        grad,
        memory,
        memory,
        jnp.zeros((MEMORY, p), dtype),
        jnp.ones(p, dtype),
        done,
        zeros,
    )
    end = lax.while_loop(running, iterate, (*start, zeros))
    theta = end[1]
    z = logits(theta)  # Afresh: the sum of so many steps has gathered their rounding.
    met = jnp.max(jnp.abs(end[4]), axis=(1, 2)) <= tolerance
    return theta, probabilities(z)[1], jnp.max(jnp.abs(gradient(theta, z)), axis=(1, 2)), end[11], met
