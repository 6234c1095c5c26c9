"""An online classifier: trained beside any method, which learns nothing from it."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from jaxcl import collectives, keys
from jaxcl.typing import Array, Batch, Method, PyTree, Views

# (params, state, images [b, h, w, c] in [0, 1]) -> logits [b, classes]
Classify = Callable[[PyTree, PyTree, Array], Array]


def with_probe(
    method: Method,
    *,
    classes: int,
    views: Views,
    represent: Callable[[PyTree, PyTree, Array], Array] | None = None,
    axis_name: str | None = None,
) -> tuple[Method, Classify]:
    """The method with a linear classifier on its representation, trained in the same steps by the same optimizer.

    The gradient is stopped between the two and the method is given the key that it would have been given: it learns
    what it learns alone, unless the optimizer couples the two (by the norm of all gradients, say). SimCLR's code and
    the notebooks of arXiv:2011.02803 report accuracy in this way while they pretrain.

    classes
        how many; batches hold "label", int [b], in [0, classes). (`train` adds them where a recipe has `classify`.)
    views
        (key, batch) -> what the classifier is trained on; of several views it takes the first.
    represent
        (params, state, images) -> h [b, d], `method.embed` if not given. Give another to train the classifier on
        representations made with the batch's own statistics.

    Returns the new method, whose loss is the sum of both and whose metrics also hold "probe_loss" and
    "probe_accuracy" (of the training batch, a fraction), and `classify(params, state, images) -> logits [b, classes]`.
    Its parameters are {"method": ..., "probe": {"kernel" [d, classes], "bias" [classes]}}.

    axis_name
        the axis over which rows are split under `shard_map` or `pmap`; None where one program sees the global batch.
    """
    if classes < 2:
        raise ValueError(f"with_probe needs two classes or more; got classes={classes}.")
    features = method.embed if represent is None else represent

    def init(key, batch):
        params, state = method.init(key, batch)
        views_key, probe_key = keys.of_init(keys.probe_key(key), 1)
        d = features(params, state, views(views_key, batch)[0]).shape[-1]
        kernel = jax.nn.initializers.glorot_uniform()(probe_key, (d, classes))
        return {"method": params, "probe": {"kernel": kernel, "bias": jnp.zeros(classes)}}, state

    def loss(params, state, key, batch):
        value, (new_state, metrics) = method.loss(params["method"], state, key, batch)
        h = features(params["method"], state, views(keys.probe_key(key), batch)[0])
        logits = linear(params["probe"], jax.lax.stop_gradient(h))
        own = labels_of(batch)
        probe_loss = jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, own))
        right = jnp.mean(jnp.argmax(logits, axis=-1) == own, dtype=jnp.float32)
        probe_loss, right = collectives.mean((probe_loss, right), axis_name)
        return value + probe_loss, (new_state, metrics | {"probe_loss": probe_loss, "probe_accuracy": right})

    def embed(params, state, images):
        return method.embed(params["method"], state, images)

    def classify(params, state, images):
        return linear(params["probe"], embed(params, state, images))

    def layers(params, state, images):
        assert method.layers is not None
        return method.layers(params["method"], state, images)

    shown = None if method.layers is None else layers
    return Method(init, loss, embed, method.five_parts, shown), classify


def labels_of(batch: Batch) -> Array:
    labels = batch.get("label")
    if labels is None or labels.shape != batch["index"].shape:
        got = f"got {sorted(batch)}" if labels is None else f"got shape {labels.shape}"
        raise ValueError(f'with_probe needs batches with one "label" an image, int [b]; {got}.')
    return jnp.asarray(labels, jnp.int32)


def linear(params: PyTree, h: Array) -> Array:
    return h @ params["kernel"] + params["bias"]
