"""A residual network as the classifier of a grid of features: CPC's second evaluation, for few labels."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxcl import devices, keys, nets
from jaxcl.evaluate.checks import check_numbers, check_sets, numbered_classes
from jaxcl.evaluate.features import as_partial
from jaxcl.evaluate.fewshot import labelled_rows
from jaxcl.evaluate.figures import Hits, hits, ranked
from jaxcl.evaluate.progress import Progress, stage
from jaxcl.evaluate.sgd import (
    check_batch_size,
    check_end,
    decayed,
    features_of,
    frozen_inputs,
    images_or_views,
    moved,
    rates,
    sgd,
)
from jaxcl.evaluate.subject import Subject
from jaxcl.typing import Array, Net, PyTree, Views

# Channels of a position beyond which a grid was probably taken for one: 11 blocks of 2^14 channels have 3e9 weights.
MOST_CHANNELS = 2**14


class DeepProbe(NamedTuple):
    """A residual classifier of grids, and what it scored."""

    accuracy: float  # on the test set, in [0, 1]
    net: Net  # [b, side, side, c] -> logits
    params: PyTree
    state: PyTree  # running batch statistics
    classes: np.ndarray  # the labels that the logits stand for
    rows: np.ndarray  # the training images whose labels were seen
    details: dict[str, Any]
    hits: Hits  # of every test image


def deep_probe(
    key: Array,
    subject: Subject,
    *,
    side: int = 1,
    fraction: float = 1.0,
    views: Views | None = None,
    blocks: int = 11,
    inner: int | None = None,
    epochs: int = 60,
    batch_size: int = 256,
    learning_rate: float = 0.1,
    momentum: float = 0.9,
    nesterov: bool = True,
    schedule: str = "cosine",
    drops: Sequence[float] = (0.6, 0.8),
    drop_factor: float = 0.1,
    weight_decay: float = 1e-4,
    progress: Progress | None = None,
) -> DeepProbe:
    """Trains `nets.residual_classifier` on the frozen encoder's grids of features.

    Henaff et al. (2019, arXiv:1905.09272) learn from few labels by this: the encoder gives a grid of vectors z (the
    context network has no part in it), and a residual network of 11 bottlenecks, 4096 channels and 1024 within, learns
    to name what is on it. The number of blocks and their widths are the paper's, from memory, as this part of its text
    was not at hand. Ours are batch normalization, its place (after each convolution), and all of SGD's settings.

    side
        rows and columns of the grid: features [n, side side c] are read as [n, side, side, c], as `extract.flatten`
        lays them (configs/cpc.py: 7, or 6 as published). 1: the features are vectors.
    fraction
        of the labels, balanced over classes and drawn by the key, as in `finetune`; 1: all.
    views
        (key, batch) -> views, of which the first is used, as for `linear_sgd`. Without them the features are those of
        the images as they are, which the subject computes once.
    blocks, inner
        how many blocks, and channels of their 3x3 convolutions (None: a quarter of c).
    learning_rate, momentum, nesterov, schedule, drops, drop_factor
        as in `linear_sgd`.
    weight_decay
        l2 in the loss, of kernels.

    The last incomplete batch of an epoch is dropped. Order and augmentation are functions of the key. `details` holds
    "losses", the mean cross-entropy of every epoch in nats, "steps" and "trained_parameters".

    Raises ValueError where labels are missing, features are no grid of this side, a number is out of its range, or the
    loss is no longer finite.
    """
    labels, test_labels = check_sets("The deep probe", subject.train, subject.test)
    classes, numbered = numbered_classes("The deep probe", labels)
    if epochs < 1:
        raise ValueError(f"epochs must be at least 1; got {epochs}.")
    check_numbers(learning_rate=learning_rate, momentum=momentum, weight_decay=weight_decay)
    check_numbers(drop_factor=drop_factor)
    subset_key, order_key, views_key, net_key = keys.of_protocol(key, 4)
    rows = labelled_rows(subset_key, labels, fraction)
    check_batch_size(batch_size, len(rows))
    rate = rates(schedule, drops=drops, drop_factor=drop_factor)
    encoder, inputs, test_features = frozen_inputs("The deep probe", subject, views)
    shape = grid_shape(test_features.shape[1], side)
    net = _network(len(classes), blocks, inner)
    params, state = net.init(net_key, jnp.zeros((1, *shape)))
    mesh = devices.even_mesh(batch_size)
    make = images_or_views(inputs, views, views_key)
    frozen, views_key = devices.replicate((as_partial(encoder), views_key), mesh)
    step = functools.partial(_step, frozen, views_key, np.float32(weight_decay))
    trained, losses = sgd(
        order_key,
        functools.partial(step, net=net.apply, shape=shape, views=views),
        jax.tree.map(np.asarray, {"net": params, "statistics": state}),
        make,
        numbered,
        rows,
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        momentum=momentum,
        nesterov=nesterov,
        rate=rate,
        mesh=mesh,
        progress=stage(progress, "training"),
    )
    check_end("The deep probe", losses, learning_rate, ", or look for very large features")
    params, state = trained["net"], trained["statistics"]
    logits = np.concatenate(
        [
            np.asarray(_logits(params, state, some, net=net.apply, shape=shape))
            for some in np.split(test_features, range(batch_size, len(test_features), batch_size))
        ]
    )
    found = hits(ranked(logits, classes), test_labels, len(classes))
    details = {
        "losses": losses,
        "steps": epochs * (len(rows) // batch_size),
        "trained_parameters": sum(leaf.size for leaf in jax.tree.leaves(params)),
    }
    return DeepProbe(float(found.first.mean()), net, params, state, classes, rows, details, found)


def grid_shape(features: int, side: int) -> tuple[int, int, int]:
    """How so many features in a row are laid out on a grid of so many rows and columns.

    >>> grid_shape(7 * 7 * 4096, 7)
    (7, 7, 4096)
    """
    if side < 1 or features % side**2:
        raise ValueError(
            f"The {features} features are a grid of side x side vectors, so side x side must divide them; got"
            f" side={side}."
        )
    channels = features // side**2
    if channels > MOST_CHANNELS:
        raise ValueError(
            f"With side {side} a vector of the grid has {channels} channels, more than {MOST_CHANNELS}. Set the side of"
            " the encoder's grid, as side=7."
        )
    return side, side, channels


# The same object for the same settings, so that the step is compiled once.
@functools.cache
def _network(classes: int, blocks: int, inner: int | None) -> Net:
    return nets.residual_classifier(classes=classes, norm=nets.batch_norm(), blocks=blocks, inner=inner)


@functools.partial(jax.jit, static_argnames=("net", "shape"))
def _logits(params, state, features, *, net, shape):
    return net(params, state, features.reshape(-1, *shape), train=False)[0]


@functools.partial(jax.jit, static_argnames=("net", "shape", "views"), donate_argnames="carry")
def _step(encoder, views_key, weight_decay, carry, step, batch, numbers, *, net, shape, views):
    trained, velocity, total = carry
    grids = features_of(encoder, views_key, step, batch, views).reshape(-1, *shape)

    def loss_fn(params: PyTree) -> tuple[Array, PyTree]:
        logits, state = net(params, trained["statistics"], grids, train=True)
        own = optax.softmax_cross_entropy_with_integer_labels(logits, batch["label"])
        return jnp.mean(own), state

    (loss, state), grads = jax.value_and_grad(loss_fn, has_aux=True)(trained["net"])
    grads = decayed(trained["net"], grads, weight_decay)
    params, speed = moved(trained["net"], velocity["net"], grads, *numbers)
    return {"net": params, "statistics": state}, velocity | {"net": speed}, total + loss
