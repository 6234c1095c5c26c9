"""Probes by SGD: the linear evaluation on augmented images, and what it has in common with fine-tuning: a linear
layer's loss, the update with momentum, epochs along a schedule."""

from __future__ import annotations

import functools
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jax.sharding import Mesh

from jaxcl import data, devices, keys
from jaxcl.evaluate.checks import check_features, check_numbers, check_sets, numbered_classes
from jaxcl.evaluate.features import EncoderFn, as_partial
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
    nesterov: bool = True,
    weight_decay: float = 0.0,
    schedule: str = "cosine",
    drops: Sequence[float] = (0.6, 0.8),
    drop_factor: float = 0.1,
    start_std: float = 0.0,
    progress: Callable[[float], None] | None = None,
) -> LinearProbe:
    """The papers' linear evaluation: the classifier alone is trained, by SGD, on the frozen encoder's features.

    views
        (key, batch) -> views; the first is used, so give a recipe of random crop and flip that makes one. The features
        of the augmented images are computed anew at every step, by the subject's encoder. Without views they are
        those of the images as they are, which the subject computes once. Images that stay encoded are cropped whole, on
        the host, where the views are recipes that begin with a crop (`data.crops_of`); other views are made of their
        centre squares.
    learning_rate
        for a batch of 256: `learning_rate * batch_size / 256` is the highest, without warm-up.
    momentum, nesterov
        of SGD: v <- momentum v + g, and the step goes along v, or with Nesterov along g + momentum v.
    weight_decay
        l2 in the loss, of the weights and not of the bias.
    schedule, drops, drop_factor
        "cosine": the rate falls to 0 along half a cosine, at every step. "steps": it is multiplied by `drop_factor`
        at the first epoch from each of `drops` on, fractions of all epochs. "constant": it stays.
    start_std
        the weights start at N(0, start_std^2), the bias at 0.
    progress
        is called after every epoch with the fraction of them that is done.

    The defaults are those of SimCLR's README for CIFAR-10 (test images as they are). MoCo's protocol (He et al. 2020,
    section 4.1; main_lincls.py) is epochs=100, batch_size=256, learning_rate=30, nesterov=False, schedule="steps",
    start_std=0.01; LooC's on ImageNet-100 the same with epochs=200; CMC's with epochs=60, drops=(1/2, 2/3, 5/6) and
    drop_factor=0.2; BYOL's is epochs=80, batch_size=4096, learning_rate=0.2 and start_std=0.022, of views whose
    crops are uniform in area.

    The last incomplete batch of an epoch is dropped. The order is a function of (key, epoch), the augmentation of
    (key, step, the image's index), neither of the devices. `details` holds "losses", the mean cross-entropy of every
    epoch in nats, and "steps".

    Raises ValueError where labels are missing, a setting is out of its range or the loss is no longer finite.
    """
    train, test = subject.train, subject.test
    labels, test_labels = check_sets("The linear probe", train, test)
    classes, labels = numbered_classes("The linear probe", labels)
    n = len(labels)
    check_batch_size(batch_size, n)
    if epochs < 1:
        raise ValueError(f"epochs must be at least 1; got {epochs}.")
    check_numbers(learning_rate=learning_rate, momentum=momentum, weight_decay=weight_decay)
    check_numbers(drop_factor=drop_factor, start_std=start_std)
    rate = rates(schedule, drops=drops, drop_factor=drop_factor)
    encoder, inputs, test_features = frozen_inputs("The linear probe", subject, views)

    mesh = devices.even_mesh(batch_size)
    shape = (test_features.shape[1], len(classes))
    order_key, views_key = keys.of_protocol(key, 2)
    start = start_std * np.asarray(jax.random.normal(jax.random.fold_in(key, START), shape, jnp.float32))
    params = {"weights": start, "bias": np.zeros(shape[1], np.float32)}
    make = images_or_views(inputs, views, views_key)
    frozen, views_key = devices.replicate((as_partial(encoder), views_key), mesh)
    params, losses = sgd(
        order_key,
        functools.partial(_sgd_step, frozen, views_key, weight_decay=np.float32(weight_decay), views=views),
        params,
        make,
        labels,
        np.arange(n),
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        momentum=momentum,
        nesterov=nesterov,
        rate=rate,
        mesh=mesh,
        progress=progress or (lambda fraction: None),
    )
    check_end("The linear probe", losses, learning_rate, ", or look for very large features")
    predictions = predict_each(params["weights"][None], params["bias"][None], classes, test_features)[0]
    accuracy = float(np.mean(predictions == test_labels))
    details = {"losses": losses, "steps": epochs * (n // batch_size)}
    return LinearProbe(accuracy, params["weights"], params["bias"], classes, details)


@functools.partial(jax.jit, static_argnames="views", donate_argnames="carry")
def _sgd_step(encoder, key, carry, step, batch, numbers, *, weight_decay, views):
    params, velocity, total = carry
    features = features_of(encoder, key, step, batch, views)
    loss, grads = jax.value_and_grad(cross_entropy)(params, features, batch["label"])
    grads["weights"] += weight_decay * params["weights"]
    return *moved(params, velocity, grads, *numbers), total + loss


# --- what a classifier on a frozen encoder takes, and how its training may end ------------------------------------


def check_batch_size(batch_size: int, n: int) -> None:
    if not 1 <= batch_size <= n:
        raise ValueError(f"batch_size must be between 1 and the {n} training images; got {batch_size}.")


def frozen_inputs(who: str, subject: Subject, views: Views | None) -> tuple[EncoderFn, Any, np.ndarray]:
    """(encoder, inputs, test features): with views the encoder and the images, of which every step makes features anew;
    without views the features of the images as they are, which nothing embeds any more."""
    encoder = _as_they_are if views is None else subject.encoder_for(f"{who} on augmented images")
    test_features = check_features("The encoder's test features", subject.test_features())
    if views is not None:
        return encoder, subject.train.images, test_features
    return encoder, check_features("The encoder's features", subject.train_features()), test_features


def _as_they_are(features: Array) -> Array:
    return features


def features_of(encoder: EncoderFn, key: Array, step: Array, batch: Any, views: Views | None) -> Array:
    """A step's features, of a batch of `frozen_inputs`."""
    if views is None:
        return batch["image"]
    return encoder(views(keys.step_key(key, step), batch)[0]).astype(jnp.float32)


class Diverged(ValueError):
    """A training that ended with a loss that is not finite."""


def check_end(who: str, losses: Sequence[float], learning_rate: float, more: str = "") -> None:
    """Raises Diverged where the last epoch's loss is not finite; `more` is further advice."""
    if not np.isfinite(losses[-1]):
        raise Diverged(
            f"{who} diverged: its loss is {losses[-1]} after {len(losses)} epochs. Lower learning_rate"
            f" ({learning_rate}){more}."
        )


# What is folded into a key for the first weights.
START = 2**31 - 1

# (epoch, the fraction of all steps that is done, epochs) -> what the highest rate is multiplied by.
Rate = Callable[[int, float, int], float]

# (a step's rows: step -> numbers of images [b], how many steps) -> its batches, {"image" or "views", "index"}.
Batches = Callable[[Callable[[int], np.ndarray], int], Generator[dict[str, Any]]]


def rates(schedule: str, *, drops: Sequence[float] = (0.6, 0.8), drop_factor: float = 0.1) -> Rate:
    """A schedule by name: "cosine", "steps" (by whole epochs, as PyTorch code asks its schedules) or "constant".

    >>> [round(rates("steps")(epoch, epoch / 5, 5), 4) for epoch in range(5)]
    [1.0, 1.0, 1.0, 0.1, 0.01]
    """
    if schedule not in ("cosine", "steps", "constant"):
        raise ValueError(f'schedule must be "cosine", "steps" or "constant"; got {schedule!r}.')
    if not all(0 < drop <= 1 for drop in drops):
        raise ValueError(f"drops are fractions of all epochs, in (0, 1]; got {tuple(drops)}.")

    def rate(epoch: int, done: float, epochs: int) -> float:
        if schedule == "cosine":
            return 0.5 * (1 + np.cos(np.pi * done))
        fallen = sum(epoch >= drop * epochs - 1e-6 for drop in drops)
        return drop_factor**fallen if schedule == "steps" else 1.0

    return rate


def images_or_views(images: Any, views: Views | None, key: Array) -> Batches:
    """Where batches come from: the images (or features) themselves, of which the step makes its views with
    `keys.step_key(key, step)`; or the views of images that stay encoded, cropped whole by the host."""

    def read(rows: Callable[[int], np.ndarray], steps: int) -> Generator[dict[str, Any]]:
        if views is not None and data.crops_whole_images(images, views):
            yield from data.crops_of(key, images, views, rows, steps=steps)
            return
        for step in range(steps):
            chosen = rows(step)
            yield {"image": images[chosen], "index": chosen.astype(np.int32)}

    return read


def sgd(
    key: Array,
    step: Callable[..., Any],
    params: PyTree,
    batches: Batches,
    labels: np.ndarray,
    rows: np.ndarray,
    *,
    epochs: int,
    batch_size: int,
    learning_rate: float,
    momentum: float,
    nesterov: bool,
    rate: Rate,
    mesh: Mesh,
    progress: Callable[[float], None],
    rate_rule: str = "linear",
) -> tuple[PyTree, list[float]]:
    """Trains `params` on some rows of images and labels; gives them back with the mean loss of every epoch.

    step
        (carry, number, batch, (rate, momentum, nesterov)) -> carry, a triple of params, velocity and the sum of losses,
        which is donated.
    batches
        of `images_or_views`.
    learning_rate, rate_rule, rate
        the highest is `highest(learning_rate, batch_size, rate_rule)`, which `rate` multiplies.

    The order is a function of (key, epoch); the last incomplete batch of an epoch is dropped.
    """
    most = highest(learning_rate, batch_size, rate_rule)
    velocity = jax.tree.map(np.zeros_like, params)
    carry = devices.replicate((params, velocity, np.zeros((), np.float32)), mesh)
    steps = len(rows) // batch_size
    losses: list[float] = []

    @functools.lru_cache(maxsize=2)  # a batch is read ahead, in the next epoch perhaps
    def order(epoch: int) -> np.ndarray:
        return np.asarray(jax.random.permutation(jax.random.fold_in(key, epoch), len(rows)))

    def chosen(number: int) -> np.ndarray:
        epoch, i = divmod(number, steps)
        # Sorted: kinder to a memory-mapped file.
        some = np.sort(rows[order(epoch)[i * batch_size : (i + 1) * batch_size]])
        return some[devices.own_rows(batch_size)] if mesh.is_multi_process else some

    with closing(batches(chosen, epochs * steps)) as read:
        for number, batch in enumerate(read):
            batch = {**batch, "label": labels[batch["index"]].astype(np.int32)}
            epoch, done = number // steps, number / (epochs * steps)
            now = most * rate(epoch, done, epochs)
            numbers = np.asarray([now, momentum, nesterov], np.float32)
            carry = step(carry, np.int32(number), devices.split(batch, mesh), numbers)
            if (number + 1) % steps == 0:
                losses.append(float(carry[2]) / steps)
                carry = (*carry[:2], carry[2] * 0)
                progress((epoch + 1) / epochs)
    return jax.tree.map(np.asarray, carry[0]), losses


def moved(
    params: PyTree, velocity: PyTree, grads: PyTree, rate: Array | float, momentum: Array, nesterov: Array
) -> tuple[Any, Any]:
    """The next params and velocity; `nesterov` is 1 or 0."""
    velocity = jax.tree.map(lambda v, g: momentum * v + g, velocity, grads)
    ahead = jax.tree.map(lambda v, g: jnp.where(nesterov > 0, g + momentum * v, v), velocity, grads)
    return jax.tree.map(lambda w, u: w - rate * u, params, ahead), velocity


def lars_moved(
    params: PyTree,
    velocity: PyTree,
    grads: PyTree,
    rate: Array,
    momentum: Array,
    nesterov: Array,
    *,
    trust_coefficient: Array,
    adapted: PyTree,
) -> tuple[Any, Any]:
    """The same by LARS as SimCLR's code has it (lars_optimizer.py): g is scaled by trust_coefficient |w| / |g| (1 where
    either norm is 0) in what is `adapted`, a tree of True and False, and the rate is part of the velocity."""

    ratio = optax.masked(optax.scale_by_trust_ratio(trust_coefficient=trust_coefficient), adapted)
    grads, _ = ratio.update(grads, ratio.init(params), params)
    grads = jax.tree.map(lambda g: rate * g, grads)
    return moved(params, velocity, grads, 1.0, momentum, nesterov)


def kernels(params: PyTree) -> PyTree:
    """True where a parameter is decayed, and adapted by LARS: arrays of two axes or more, but for the scales and biases
    of a norm over whole maps, [h, w, c].

    >>> kernels({"kernel": np.zeros((3, 3)), "scale": np.zeros((7, 7, 4)), "bias": np.zeros(4)})
    {'bias': False, 'kernel': True, 'scale': False}
    """

    def is_kernel(path: tuple, w: Array) -> bool:
        name = jax.tree_util.keystr(path[-1:], simple=True)
        return np.ndim(w) > 1 and name not in ("scale", "bias")

    return jax.tree_util.tree_map_with_path(is_kernel, params)


def decayed(params: PyTree, grads: PyTree, weight_decay: Array) -> PyTree:
    """The gradients with those of weight_decay / 2 |w|^2 of all kernels."""
    return jax.tree.map(
        lambda g, w, kernel: g + weight_decay * w if kernel else g, grads, params, kernels(params)
    )


def highest(learning_rate: float, batch_size: int, rate_rule: str) -> float:
    """The highest rate, before a schedule: "linear", learning_rate batch_size / 256; "sqrt", learning_rate
    sqrt(batch_size), as in SimCLR's code (learning_rate_scaling).

    >>> highest(0.05, 512, "linear"), highest(0.005, 1024, "sqrt")
    (0.1, 0.16)
    """
    if rate_rule not in ("linear", "sqrt"):
        raise ValueError(f'rate_rule must be "linear" or "sqrt"; got {rate_rule!r}.')
    return learning_rate * (batch_size / 256 if rate_rule == "linear" else batch_size**0.5)


def cross_entropy(params: PyTree, features: Array, labels: Array) -> Array:
    """Of the linear layer params["weights"] [d, c], params["bias"] [c] on features [b, d]: the mean, in nats."""
    logits = jnp.matmul(features, params["weights"], precision=lax.Precision.HIGHEST) + params["bias"]
    right = jnp.take_along_axis(logits, labels[:, None], axis=1)[:, 0]
    return jnp.mean(jax.nn.logsumexp(logits, axis=1) - right)
