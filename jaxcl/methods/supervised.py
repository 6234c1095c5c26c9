"""Learning from labels, on one page: the reference beside every representation that was learnt without them, and
fine-tuning of one that was (Chen et al. 2020, arXiv:2006.10029, section 2)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxcl import collectives, keys
from jaxcl.extract import pool
from jaxcl.methods import checks
from jaxcl.methods.probe import Classify, labels_of, linear
from jaxcl.methods.projected import projected
from jaxcl.typing import Array, FiveParts, Method, Net, Views


def supervised(
    *,
    views: Views,
    encoder: Net,
    head: Net,
    classes: int,
    smoothing: float | Array = 0.0,
    start: float = 0.0,
    extract: Callable[[tuple[Array, ...]], Array] = pool,
    axis_name: str | None = None,
) -> tuple[Method, Classify]:
    """Cross-entropy of a linear classifier on head(extract(encoder(x))), through all of which the gradient goes:

        loss = 1/n sum_i -log softmax(W g(h_i) + b)[y_i]

    views
        (key, batch) -> one view; batches also hold "label", int [b], in [0, classes). (`train` adds them where a recipe
        has `classify`.)
    head
        what is kept of a projection head. SimCLRv2 fine-tunes from its first layer, `nets.projection_head(layers=3,
        until=1)`, with 1 % and 10 % of the labels, and without it, `until=0`, with all of them or in supervised runs.
    smoothing
        of the labels: (1 - smoothing) for the right class and smoothing / classes for each.
    start
        standard deviation of the classifier's weights when training begins: 0 where it is fine-tuned (the code's
        `zero_init_logits_layer`), 0.01 where all begins anew. Its bias starts at 0.

    Returns the method, whose metrics hold "accuracy" (of the training batch, a fraction), and `classify(params, state,
    images) -> logits [b, classes]`. Parameters are {"encoder", "head", "probe": {"kernel", "bias"}}, so a run may start
    from the first two of another (`Recipe.carries`), and an optimizer that leaves the head of labels out of adaptation
    (SimCLR's LARS) knows it by "probe".

    axis_name
        the axis over which rows are split under `shard_map` or `pmap`; None where one program sees the global batch.
    """
    network = classifier("supervised", encoder, head, classes, extract, start)

    def loss_fn(params, state, key, batch):
        (x,) = checks.views_of("supervised", views(keys.views_key(key), batch), 1)
        logits, state = network.apply(params, state, x, train=True)
        own = labels_of(batch)
        target = optax.smooth_labels(jax.nn.one_hot(own, classes), smoothing)
        value = jnp.mean(optax.softmax_cross_entropy(logits, target))
        right = jnp.mean(jnp.argmax(logits, axis=1) == own, dtype=jnp.float32)
        value, right = collectives.mean((value, right), axis_name)
        return value, (state, {"accuracy": right})

    def init(key, batch):
        views_key, *made_keys = keys.of_init(key, 3)
        return network.init(made_keys, views(views_key, batch)[0])

    five_parts = FiveParts(
        views={"views": views},
        encoder={"encoder": encoder},
        extraction={"extract": extract, "head": head},
        similarity={},
        loss={"loss": optax.softmax_cross_entropy, "smoothing": smoothing},
    )
    return Method(init, loss_fn, network.embed, five_parts, network.layers), network.classify


class Classifier(NamedTuple):
    """init      (three keys, images) -> params, state
    apply     (params, state, images, *, train) -> logits [b, classes] in float32, state
    embed     (params, state, images) -> what the classifier reads [b, d], with the running statistics
    layers    as `Projected.layers`
    classify  (params, state, images) -> logits, with the running statistics
    """

    init: Callable[..., Any]
    apply: Callable[..., Any]
    embed: Callable[..., Array]
    layers: Callable[..., Any] | None
    classify: Classify


def classifier(
    method: str, encoder: Net, head: Net, classes: int, extract: Callable, start: float
) -> Classifier:
    """Encoder, head and a linear layer on them, as one network."""
    if classes < 2:
        raise ValueError(f"{method} needs two classes or more; got classes={classes}.")
    network = projected(method, encoder, head, extract)

    def init(made_keys, images):
        encoder_key, head_key, probe_key = made_keys
        params, state = network.init(encoder_key, head_key, images)
        d = network.apply(params, state, images, train=False)[1].shape[1]
        kernel = start * jax.random.normal(probe_key, (d, classes))
        return {**params, "probe": {"kernel": kernel, "bias": jnp.zeros(classes)}}, state

    def apply(params, state, images, *, train):
        _, g, state = network.apply(params, state, images, train=train)
        return linear(params["probe"], g.astype(jnp.float32)), state

    def embed(params, state, images):
        return network.apply(params, state, images, train=False)[1]

    def classify(params, state, images):
        return apply(params, state, images, train=False)[0]

    return Classifier(init, apply, embed, network.layers, classify)
