"""Semi-supervised learning: the whole encoder, and a linear classifier on it, trained on few labelled images."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from jaxcl import augment, devices, keys
from jaxcl.evaluate.checks import check_features, check_numbers, check_sets, numbered_classes
from jaxcl.evaluate.features import EncoderFn, as_partial, embed
from jaxcl.evaluate.fewshot import labelled_rows
from jaxcl.evaluate.figures import Hits, hits, ranked
from jaxcl.evaluate.progress import Progress, stage
from jaxcl.evaluate.sgd import (
    check_end,
    cross_entropy,
    decayed,
    images_or_views,
    kernels,
    lars_moved,
    moved,
    rates,
    sgd,
)
from jaxcl.evaluate.subject import Subject
from jaxcl.typing import Array, Views


class FineTuned(NamedTuple):
    """An encoder and a classifier, trained together, with what they scored."""

    accuracy: float  # on the test set, in [0, 1]
    encoder: EncoderFn  # float images [b, h, w, c] in [0, 1] -> features [b, d]
    weights: np.ndarray  # [d, c]
    bias: np.ndarray  # [c]
    classes: np.ndarray  # [c], the labels that the columns stand for
    rows: np.ndarray  # the training images whose labels were seen
    details: dict[str, Any]
    hits: Hits  # of every test image


def finetune(
    key: Array,
    subject: Subject,
    *,
    fraction: float,
    views: Views | None = None,
    epochs: int = 30,
    batch_size: int = 128,
    learning_rate: float = 0.05,
    rate_rule: str = "linear",
    optimizer: str = "sgd",
    momentum: float = 0.9,
    nesterov: bool | None = None,
    trust_coefficient: float = 0.001,
    schedule: str = "cosine",
    drops: Sequence[float] = (0.6, 0.8),
    drop_factor: float = 0.1,
    weight_decay: float = 0.0,
    progress: Progress | None = None,
) -> FineTuned:
    """Trains all parameters of the encoder, and a linear layer on its features, on a fraction of the labels.

    As SimCLR (Chen et al. 2020, arXiv:2002.05709, appendix B.5): Nesterov momentum 0.9, learning rate 0.05 times batch
    size over 256, no warm-up, no weight decay, random crop and flip; 60 epochs for 1 % of the labels, 30 for 10 %. Its
    batches are of 4096 images. The batch of 128, the learning rate's cosine to zero and the layer's start at zero are
    ours.

    Batch normalization keeps the statistics that were learnt in pretraining, as `Method.embed` does; its scales and
    offsets are trained. (SimCLR normalizes by the batch's own statistics.) The encoder ends where its features are
    taken: for SimCLRv2's fine-tuning from the first layer of the projection head (arXiv:2006.10029) take the encoder
    of that layer, `load_encoder(run, layer=1)` or `jaxcl evaluate --layers 1`.

    By SimCLRv2's optimizer, of its code's README (1 % of ImageNet's labels, 60 epochs): optimizer="lars",
    learning_rate=0.005, rate_rule="sqrt", batch_size=1024. It suits encoders of any scale of weights, where SGD's rate
    has to be chosen anew (the same README, "Known issues").

    subject
        its encoder is a `functools.partial(method.embed, params, state)`: of its arguments the first,
        `params`, is trained, and the others stay. A function without arguments (raw pixels) has nothing to train:
        then it is the layer alone.
    fraction
        1: all images. Below, of every class: `balanced_subset(key, labels, round(fraction n / classes))`, at least one
        image a class, a function of key and labels, so encoders are compared on the same labels.
    views
        (key, batch) -> views; the first is used. `augment.crop_and_flip` if not given: give another where left and
        right matter. Images that stay encoded are cropped whole where the views are recipes that begin with a crop.
    learning_rate, momentum, schedule, drops, drop_factor
        as in `linear_sgd`.
    rate_rule
        "linear": the highest rate is `learning_rate * batch_size / 256`. "sqrt": `learning_rate * sqrt(batch_size)`.
    optimizer, trust_coefficient
        "sgd", or "lars": the step of every kernel of the encoder is scaled by trust_coefficient |w| / |g|, and the rate
        is part of the momentum's buffer, as in SimCLR's lars_optimizer.py. Biases, scales and the new layer
        ("head_supervised" there) are not scaled.
    nesterov
        None: with "sgd" and not with "lars", as in that code.
    weight_decay
        l2 in the loss, of kernels. `finetune_grid` chooses it, and the learning rate, on held-out images.

    The last incomplete batch of an epoch is dropped. The order is a function of (key, epoch), the augmentation of
    (key, step, the image's index). `details` holds "losses", the mean cross-entropy of every epoch in nats, "steps" and
    "trained_parameters" (of encoder and layer together).

    Raises ValueError where labels are missing, a number is out of its range, or the loss is no longer finite.
    """
    pretrained = as_partial(subject.encoder_for("Fine-tuning"))
    train, test = subject.train, subject.test
    labels, test_labels = check_sets("Fine-tuning", train, test)
    if epochs < 1 or batch_size < 1:
        raise ValueError(f"epochs and batch_size must be at least 1; got {epochs} and {batch_size}.")
    if optimizer not in ("sgd", "lars"):
        raise ValueError(f'optimizer must be "sgd" or "lars"; got {optimizer!r}.')
    check_numbers(learning_rate=learning_rate, momentum=momentum, weight_decay=weight_decay)
    check_numbers(drop_factor=drop_factor, trust_coefficient=trust_coefficient)
    classes, numbered = numbered_classes("Fine-tuning", labels)
    subset_key, order_key, views_key = keys.of_protocol(key, 3)
    rows = labelled_rows(subset_key, labels, fraction)
    n = len(rows)
    batch_size = min(batch_size, n)
    if views is None:
        views = _crop_and_flip(train.images.shape[1])

    mesh = devices.even_mesh(batch_size)
    # A function without arguments (raw pixels) has no parameters to train: () stands for them, and it is kept frozen.
    encoder, *frozen = pretrained.args or ((), pretrained)
    apply = pretrained.func if pretrained.args else _without_parameters
    shape = jax.eval_shape(pretrained, jax.ShapeDtypeStruct((1, *train.images.shape[1:]), jnp.float32)).shape
    params = {
        # Copies: what is donated must not be the caller's.
        "encoder": jax.tree.map(np.asarray, devices.replicate(encoder, mesh)),
        "weights": np.zeros((shape[1], len(classes)), np.float32),
        "bias": np.zeros(len(classes), np.float32),
    }
    make = images_or_views(train.images, views, views_key)
    frozen, views_key = devices.replicate((frozen, views_key), mesh)
    params, losses = sgd(
        order_key,
        functools.partial(
            _step,
            frozen,
            views_key,
            weight_decay=np.float32(weight_decay),
            trust_coefficient=np.float32(trust_coefficient) if optimizer == "lars" else None,
            apply=apply,
            views=views,
        ),
        params,
        make,
        numbered,
        rows,
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        momentum=momentum,
        nesterov=has_nesterov(optimizer, nesterov),
        rate=rates(schedule, drops=drops, drop_factor=drop_factor),
        rate_rule=rate_rule,
        mesh=mesh,
        progress=stage(progress, "fine-tuning"),
    )
    check_end("Fine-tuning", losses, learning_rate)
    tuned = Partial(apply, params["encoder"], *frozen)
    features = check_features(
        "The fine-tuned encoder's features",
        embed(tuned, test.images, progress=stage(progress, "embedding test images")),
    )
    best = ranked(features @ params["weights"] + params["bias"], classes)
    found = hits(best, test_labels, len(classes))
    details = {
        "losses": losses,
        "steps": epochs * (n // batch_size),
        "trained_parameters": sum(leaf.size for leaf in jax.tree.leaves(params)),
    }
    accuracy = float(found.first.mean())
    return FineTuned(accuracy, tuned, params["weights"], params["bias"], classes, rows, details, found)


def has_nesterov(optimizer: str, nesterov: bool | None) -> bool:
    """Whether the momentum is Nesterov's: as asked, or as the optimizer's authors have it."""
    return optimizer == "sgd" if nesterov is None else nesterov


# The same object at every call, so that the step is compiled once.
@functools.cache
def _crop_and_flip(size: int) -> Views:
    return augment.n_views(augment.crop_and_flip(size), 1)


def _without_parameters(nothing: tuple, encoder: EncoderFn, images: Array) -> Array:
    return encoder(images)


@functools.partial(jax.jit, static_argnames=("apply", "views"), donate_argnames="carry")
def _step(frozen, key, carry, step, batch, numbers, *, weight_decay, trust_coefficient, apply, views):
    params, velocity, total = carry
    x = views(keys.step_key(key, step), batch)[0]

    def loss_fn(params):
        features = apply(params["encoder"], *frozen, x).astype(jnp.float32)
        return cross_entropy(params, features, batch["label"])

    loss, grads = jax.value_and_grad(loss_fn)(params)
    grads = decayed(params, grads, weight_decay)
    if trust_coefficient is None:
        return *moved(params, velocity, grads, *numbers), total + loss
    adapted = {**kernels(params), "weights": False}
    how = {"trust_coefficient": trust_coefficient, "adapted": adapted}
    return *lars_moved(params, velocity, grads, *numbers, **how), total + loss
