"""What `linear_sgd` and `finetune` share: a linear layer's loss, Nesterov's update, epochs along a cosine."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh

from jaxcl import devices
from jaxcl.typing import Array, PyTree


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
