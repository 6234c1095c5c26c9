"""Probes by SGD: the linear evaluation on augmented images, and what it has in common with fine-tuning: a linear
layer's loss, Nesterov's update, epochs along a cosine."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh

from jaxcl import devices
from jaxcl.evaluate.checks import check_features, check_sets, numbered_classes
from jaxcl.evaluate.features import as_partial
from jaxcl.evaluate.probe import LinearProbe, predict_each
from jaxcl.evaluate.subject import Subject
from jaxcl.typing import Array, PyTree, Views


def linear_sgd(
    key: Array,
    subject: Subject,
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

    views
        (key, batch) -> views; the first is used, so give a recipe of random crop and flip that makes one. The features
        of the augmented images are computed anew at every step, by the subject's encoder. Without views they are
        those of the images as they are, which the subject computes once.
    learning_rate
        for a batch of 256: `learning_rate * batch_size / 256` is the highest, and falls to 0 along a cosine, without
        warm-up. Momentum is Nesterov's.
    weight_decay
        l2 in the loss, of the weights and not of the bias.
    progress
        is called after every epoch with the fraction of them that is done.

    The defaults are those of SimCLR's README for CIFAR-10 (weights start at zero, no warm-up, test images as they
    are). The last incomplete batch of an epoch is dropped. The order is a function of (key, epoch), the augmentation of
    (key, step, the image's index), neither of the devices. `details` holds "losses", the mean cross-entropy of every
    epoch in nats, and "steps".
    """
    train, test = subject.train, subject.test
    labels, test_labels = check_sets("The linear probe", train, test)
    classes, labels = numbered_classes("The linear probe", labels)
    n = len(labels)
    if not 1 <= batch_size <= n:
        raise ValueError(f"batch_size must be between 1 and the {n} training images; got {batch_size}.")
    if epochs < 1:
        raise ValueError(f"epochs must be at least 1; got {epochs}.")
    encoder = _as_they_are if views is None else subject.encoder_for("The linear probe on augmented images")
    test_features = check_features("The encoder's test features", subject.test_features())
    inputs = train.images
    if views is None:
        inputs = check_features("The encoder's features", subject.train_features())

    mesh = devices.even_mesh(batch_size)
    shape = (test_features.shape[1], len(classes))
    params = {"weights": np.zeros(shape, np.float32), "bias": np.zeros(shape[1], np.float32)}
    frozen, order_key, views_key = devices.replicate((as_partial(encoder), *jax.random.split(key)), mesh)
    params, losses = sgd(
        order_key,
        functools.partial(_sgd_step, frozen, views_key, weight_decay=np.float32(weight_decay), views=views),
        params,
        inputs,
        labels,
        np.arange(n),
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        momentum=momentum,
        mesh=mesh,
        progress=progress or (lambda fraction: None),
    )
    if not np.isfinite(losses[-1]):
        raise ValueError(
            f"The linear probe diverged: its loss is {losses[-1]} after {epochs} epochs. Lower learning_rate"
            f" ({learning_rate}), or look for very large features."
        )
    predictions = predict_each(params["weights"][None], params["bias"][None], classes, test_features)[0]
    accuracy = float(np.mean(predictions == test_labels))
    details = {"losses": losses, "steps": epochs * (n // batch_size)}
    return LinearProbe(accuracy, params["weights"], params["bias"], classes, details)


def _as_they_are(features: Array) -> Array:
    """Without views the step gets features in place of images; nothing is embedded any more."""
    return features


@functools.partial(jax.jit, static_argnames="views", donate_argnames="carry")
def _sgd_step(encoder, key, carry, step, batch, numbers, *, weight_decay, views):
    params, velocity, total = carry
    if views is None:
        features = batch["image"]
    else:
        features = encoder(views(jax.random.fold_in(key, step), batch)[0]).astype(jnp.float32)

    loss, grads = jax.value_and_grad(cross_entropy)(params, features, batch["label"])
    grads["weights"] += weight_decay * params["weights"]
    return *nesterov(params, velocity, grads, *numbers), total + loss


def sgd(
    key: Array,
    step: Callable[..., Any],
    params: PyTree,
    images: np.ndarray,
    labels: np.ndarray,
    rows: np.ndarray,
    *,
    epochs: int,
    batch_size: int,
    learning_rate: float,
    momentum: float,
    mesh: Mesh,
    progress: Callable[[float], None],
) -> tuple[PyTree, list[float]]:
    """Trains `params` on some rows of images and labels; gives them back with the mean loss of every epoch.

    step
        (carry, number, batch, (rate, momentum)) -> carry, a triple of params, velocity and the sum of losses, which is
        donated.
    learning_rate
        for a batch of 256; times `batch_size / 256` it is the highest, and falls to 0 along a cosine.

    The order is a function of (key, epoch); the last incomplete batch of an epoch is dropped.
    """
    velocity = jax.tree.map(np.zeros_like, params)
    carry = devices.replicate((params, velocity, np.zeros((), np.float32)), mesh)
    steps = len(rows) // batch_size
    losses = []
    for epoch in range(epochs):
        order = np.asarray(jax.random.permutation(jax.random.fold_in(key, epoch), len(rows)))
        for i in range(steps):
            # Sorted: kinder to a memory-mapped file.
            chosen = np.sort(rows[order[i * batch_size : (i + 1) * batch_size]])
            if mesh.is_multi_process:
                chosen = chosen[devices.own_rows(batch_size)]
            batch = {
                "image": images[chosen],
                "index": chosen.astype(np.int32),
                "label": labels[chosen].astype(np.int32),
            }
            number = epoch * steps + i
            rate = learning_rate * batch_size / 256 * 0.5 * (1 + np.cos(np.pi * number / (epochs * steps)))
            numbers = np.asarray([rate, momentum], np.float32)
            carry = step(carry, np.int32(number), devices.split(batch, mesh), numbers)
        losses.append(float(carry[2]) / steps)
        carry = (*carry[:2], carry[2] * 0)
        progress((epoch + 1) / epochs)
    return jax.tree.map(np.asarray, carry[0]), losses


def nesterov(
    params: PyTree, velocity: PyTree, grads: PyTree, rate: Array, momentum: Array
) -> tuple[Any, Any]:
    """The next params and velocity."""
    velocity = jax.tree.map(lambda v, g: momentum * v + g, velocity, grads)
    params = jax.tree.map(lambda w, v, g: w - rate * (g + momentum * v), params, velocity, grads)
    return params, velocity


def cross_entropy(params: PyTree, features: Array, labels: Array) -> Array:
    """Of the linear layer params["weights"] [d, c], params["bias"] [c] on features [b, d]: the mean, in nats."""
    logits = jnp.matmul(features, params["weights"], precision=lax.Precision.HIGHEST) + params["bias"]
    right = jnp.take_along_axis(logits, labels[:, None], axis=1)[:, 0]
    return jnp.mean(jax.nn.logsumexp(logits, axis=1) - right)
