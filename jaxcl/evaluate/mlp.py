"""A classifier with one hidden layer on frozen features: AMDIM's second probe, and the evaluation of PyTorch Lightning
Bolts, from which Falcon and Cho (2020, arXiv:2009.00104) have theirs."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

from jaxcl import devices, keys
from jaxcl.evaluate.checks import check_numbers, check_sets, numbered_classes
from jaxcl.evaluate.features import as_partial
from jaxcl.evaluate.figures import Hits, hits, ranked
from jaxcl.evaluate.sgd import (
    check_batch_size,
    check_end,
    features_of,
    frozen_inputs,
    images_or_views,
    rates,
    sgd,
)
from jaxcl.evaluate.subject import Subject
from jaxcl.typing import Array, PyTree, Views

EPSILON, MOMENTUM = 1e-5, 0.9  # of batch normalization: PyTorch's 0.1 is one minus this


class MLPProbe(NamedTuple):
    """A classifier with one hidden layer, and what it scored."""

    accuracy: float  # on the test set, in [0, 1]
    params: dict[
        str, np.ndarray
    ]  # "hidden" [d, m]; "scale", "offset", "mean", "var" [m]; "weights" [m, c], "bias" [c]; of none "weights" [d, c]
    classes: np.ndarray  # [c], the labels that the columns stand for
    details: dict[str, Any]
    hits: Hits  # of every test image


def mlp_probe(
    key: Array,
    subject: Subject,
    *,
    views: Views | None = None,
    hidden: int = 1024,
    dropout: float = 0.2,
    epochs: int = 120,
    batch_size: int = 256,
    learning_rate: float = 2e-4,
    drops: Sequence[float] = (80 / 120, 110 / 120),
    weight_decay: float = 1e-5,
    progress: Callable[[float], None] | None = None,
) -> MLPProbe:
    """Trains a classifier with one hidden layer on the frozen encoder's features, as AMDIM's code does:

        dropout > dense without bias > batch norm > ReLU > dropout > dense
        loss = -1/n sum_i log softmax(10 tanh(logits_i / 10))[y_i] + 0.001 mean(logits^2)

    `MLPClassifier` of its model.py, `loss_xent` of its costs.py, `train_classifiers` of its task_classifiers.py
    (Bachman, Hjelm and Buchwalter, 2019, arXiv:1906.00910): 1,024 hidden units, dropout 0.2, Adam (b1 = 0.8) at 2e-4,
    times 0.2 after the 80th and the 110th of 120 epochs (ImageNet: after 15 and 25 of 30, so drops=(1/2, 5/6)), l2 of
    1e-5. Weights and biases start uniform within 1 / sqrt(fan in), scales of the norm uniform in [0, 1] (its utils.py,
    PyTorch 0.4.1's). The batch of 256 is ours (theirs: that of pretraining). Batch norm differs: here the encoder keeps
    the statistics of pretraining, and the classifier those of the training images. Theirs trains on batch statistics of
    the encoder as well, and before each test moves both to 50 batches of the test images (`_warmup_batchnorm` of its
    utils.py), so what it reports depends on the images that are tested together.

    views
        (key, batch) -> views, of which the first is used: the authors train it on augmented images. Without views the
        features are those of the images as they are, which the subject computes once.
    hidden
        units; 0: no hidden layer, which is their other classifier, a dense layer by the same loss and Adam without
        dropout. What they call linear accuracy is its.
    drops
        fractions of all epochs; the rate is multiplied by 0.2 at the first epoch from each of them on.

    Order, augmentation and dropout are functions of the key. `details` holds "losses", the mean of every epoch, "steps"
    and "hidden". Raises ValueError where labels are missing, a number is out of its range, or the loss is no longer
    finite.
    """
    train, test = subject.train, subject.test
    labels, test_labels = check_sets("The MLP probe", train, test)
    classes, numbered = numbered_classes("The MLP probe", labels)
    n = len(numbered)
    check_batch_size(batch_size, n)
    if epochs < 1 or hidden < 0 or not 0 <= dropout < 1:
        raise ValueError(
            "mlp_probe needs epochs of 1 at least, hidden of 0 at least, and dropout in [0, 1); got"
            f" {epochs}, {hidden} and {dropout}."
        )
    check_numbers(learning_rate=learning_rate, weight_decay=weight_decay)
    encoder, inputs, test_features = frozen_inputs("The MLP probe", subject, views)
    d, steps = test_features.shape[1], epochs * (n // batch_size)
    rate = rates("steps", drops=drops, drop_factor=0.2)
    order_key, views_key, dropout_key, *made_keys = keys.of_protocol(key, 5)
    net = _started(made_keys, d, hidden, len(classes))
    statistics = {"mean": jnp.zeros(hidden), "var": jnp.ones(hidden)} if hidden else {}
    start = jax.tree.map(np.asarray, {"net": net, "adam": _adam().init(net), "statistics": statistics})
    mesh = devices.even_mesh(batch_size)
    make = images_or_views(inputs, views, views_key)
    frozen, views_key, dropout_key = devices.replicate((as_partial(encoder), views_key, dropout_key), mesh)
    settings = np.asarray([weight_decay, dropout], np.float32)
    trained, losses = sgd(
        order_key,
        functools.partial(_step, frozen, views_key, dropout_key, settings, views=views),
        start,
        make,
        numbered,
        np.arange(n),
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate * 256 / batch_size,  # which does not grow with the batch
        momentum=0.0,  # Adam has its own
        nesterov=False,
        rate=rate,
        mesh=mesh,
        progress=progress or (lambda fraction: None),
    )
    check_end("The MLP probe", losses, learning_rate, ", or look for very large features")
    params = trained["net"] | trained["statistics"]
    found = hits(ranked(mlp_logits(params, test_features), classes), test_labels, len(classes))
    details = {"losses": losses, "steps": steps, "hidden": hidden}
    return MLPProbe(float(found.first.mean()), params, classes, details, found)


def mlp_logits(params: dict[str, np.ndarray], features: np.ndarray) -> np.ndarray:
    """What a trained probe says of features [n, d]: [n, c]."""
    if "hidden" not in params:
        return features @ params["weights"] + params["bias"]
    y = (features @ params["hidden"] - params["mean"]) / np.sqrt(params["var"] + np.float32(EPSILON))
    return np.maximum(y * params["scale"] + params["offset"], 0) @ params["weights"] + params["bias"]


def clipped_cross_entropy(logits: Array, labels: Array) -> Array:
    """AMDIM's loss of its classifiers: of logits softly clipped at 10, with a penalty on their squares; in nats.

    >>> round(float(clipped_cross_entropy(jnp.zeros((2, 4)), jnp.array([0, 3]))), 4)      # log 4
    1.3863
    """
    clipped = 10 * jnp.tanh(logits / 10)
    own = optax.softmax_cross_entropy_with_integer_labels(clipped, labels)
    return jnp.mean(own) + 1e-3 * jnp.mean(jnp.square(logits))


def _started(made_keys: Sequence[Array], d: int, hidden: int, classes: int) -> dict[str, Array]:
    """The first weights, as AMDIM's code draws them."""

    def uniform(key: Array, shape: tuple[int, ...], fan_in: int) -> Array:
        return jax.random.uniform(key, shape, jnp.float32, -1, 1) * fan_in**-0.5

    first, last = made_keys
    width = hidden or d
    net = {
        "weights": uniform(last, (width, classes), width),
        "bias": uniform(jax.random.fold_in(last, 1), (classes,), width),
    }
    if hidden:
        net["hidden"] = uniform(first, (d, hidden), d)
        net["scale"] = jax.random.uniform(jax.random.fold_in(first, 1), (hidden,))
        net["offset"] = jnp.zeros(hidden)
    return net


def _adam() -> optax.GradientTransformation:
    return optax.scale_by_adam(b1=0.8, b2=0.999)


@functools.partial(jax.jit, static_argnames="views", donate_argnames="carry")
def _step(encoder, views_key, dropout_key, settings, carry, step, batch, numbers, *, views):
    trained, velocity, total = carry
    weight_decay, dropout = settings
    rate = numbers[0]
    features = features_of(encoder, views_key, step, batch, views)
    drop_keys = jax.random.split(keys.step_key(dropout_key, step))

    dense = functools.partial(jnp.matmul, precision=lax.Precision.HIGHEST)

    def dropped(key: Array, x: Array) -> Array:
        return jnp.where(jax.random.bernoulli(key, 1 - dropout, x.shape), x / (1 - dropout), 0.0)

    def loss_fn(net: PyTree) -> tuple[Array, PyTree]:
        if "hidden" not in net:
            return clipped_cross_entropy(dense(features, net["weights"]) + net["bias"], batch["label"]), {}
        y = dense(dropped(drop_keys[0], features), net["hidden"])
        mean, var = jnp.mean(y, axis=0), jnp.var(y, axis=0)
        y = (y - mean) * lax.rsqrt(var + EPSILON) * net["scale"] + net["offset"]
        y = dropped(drop_keys[1], jax.nn.relu(y))
        logits = dense(y, net["weights"]) + net["bias"]
        return clipped_cross_entropy(logits, batch["label"]), {"mean": mean, "var": var}

    (loss, now), grads = jax.value_and_grad(loss_fn, has_aux=True)(trained["net"])
    grads = jax.tree.map(lambda g, w: g + weight_decay * w, grads, trained["net"])
    updates, adam = _adam().update(grads, trained["adam"])
    net = jax.tree.map(lambda w, u: w - rate * u, trained["net"], updates)
    statistics = jax.tree.map(
        lambda old, new: MOMENTUM * old + (1 - MOMENTUM) * new, trained["statistics"], now
    )
    return {"net": net, "adam": adam, "statistics": statistics}, velocity, total + loss
