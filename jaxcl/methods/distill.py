"""Distillation with unlabelled images (Chen et al. 2020, arXiv:2006.10029, section 2 and equation 2), on one page."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxcl import collectives, keys
from jaxcl.extract import pool
from jaxcl.methods import checks
from jaxcl.methods.probe import Classify, labels_of
from jaxcl.methods.supervised import classifier
from jaxcl.typing import Array, Batch, FiveParts, Method, Net, PyTree, Views


class Teacher(NamedTuple):
    """init      (key, batch) -> params, state: their shapes; the numbers come from the teacher's run
    classify  (params, state, images) -> logits [b, classes]: what it was fine-tuned or trained to say
    """

    init: Callable[[Array, Batch], tuple[PyTree, PyTree]]
    classify: Classify


def distill(
    *,
    views: Views,
    encoder: Net,
    head: Net,
    classes: int,
    teacher: Teacher,
    temperature: float | Array = 1.0,
    weight: float | Array = 1.0,
    factor: float | Array = 1.0,
    start: float = 0.0,
    extract: Callable[[tuple[Array, ...]], Array] = pool,
    axis_name: str | None = None,
) -> tuple[Method, Classify]:
    """A student learns the class probabilities that a teacher gives to every image:

        loss = -1/n sum_i sum_y P_teacher(y | x_i) log P_student(y | x_i),    P(y | x) = exp(f(x)[y] / t) / sum_y' ...

    Teacher and student see the same view. No labels are needed; the teacher does not learn, and takes the statistics of
    its own training. Where the student has the teacher's encoder, this is self-distillation, which the paper does first
    with the largest network, then from that to smaller ones.

    views
        (key, batch) -> one view; the paper's is crop and flip alone.
    head
        of the student, as in `supervised`: its first layer is kept where it starts from a pretrained run.
    temperature
        t. The paper has 1 for a student smaller than its teacher, and 0.1 for self-distillation.
    weight
        a of the paper's equation 3: (1 - a) times the cross-entropy with labels, and a times the loss above. The first
        is of the labelled images alone: a mean over those of the batch whose label is not -1, and 0 where there are
        none. With 1, no labels are looked at.
    factor
        of the whole loss. 1 is the paper's equations; temperature^2 is that of the authors' notebook
        (distillation_self_training.ipynb, which runs at temperature 1, where both agree): a hundredth at 0.1. Whether
        the paper's self-distillation at 0.1 had it was not found.
    start
        as in `supervised`.

    State holds the student's statistics as "encoder" and "head", and the teacher as "teacher": {"params", "state"}; it
    travels with every checkpoint, and is filled from the teacher's run by `Recipe.given`. Metrics: "teacher_agreement",
    how often both find the same class most likely (a fraction).

    axis_name
        the axis over which rows are split under `shard_map` or `pmap`; None where one program sees the global batch.
    """
    network = classifier("distill", encoder, head, classes, extract, start)
    # A population of runs maps over the weight; where it is known to be 1, batches need no labels.
    labelled = not (isinstance(weight, int | float) and weight == 1)

    def init(key, batch):
        views_key, *made_keys = keys.of_init(key, 4)
        params, state = network.init(made_keys[:3], views(views_key, batch)[0])
        teacher_params, teacher_state = teacher.init(made_keys[3], batch)
        return params, {**state, "teacher": {"params": teacher_params, "state": teacher_state}}

    def loss_fn(params, state, key, batch):
        (x,) = checks.views_of("distill", views(keys.views_key(key), batch), 1)
        told = teacher.classify(state["teacher"]["params"], state["teacher"]["state"], x)
        told = jax.lax.stop_gradient(told.astype(jnp.float32))
        if told.shape[1] != classes:
            raise ValueError(
                f"The teacher has {told.shape[1]} classes and the student {classes}; both must have the same."
            )
        own_state = {name: state[name] for name in ("encoder", "head")}
        logits, own_state = network.apply(params, own_state, x, train=True)
        target = jax.nn.softmax(told / temperature)
        value = jnp.mean(optax.softmax_cross_entropy(logits / temperature, target))
        if labelled:
            own = labels_of(batch)
            by_image = optax.softmax_cross_entropy_with_integer_labels(logits, jnp.maximum(own, 0))
            known = jnp.asarray(own >= 0, jnp.float32)
            # The number of all devices, each of which may have another number of labelled images.
            count = collectives.mean(jnp.sum(known), axis_name)
            plain = jnp.sum(known * by_image) / jnp.where(count > 0, count, 1.0)
            value = (1 - weight) * plain + weight * value
        value = factor * value
        same = jnp.mean(jnp.argmax(logits, axis=1) == jnp.argmax(told, axis=1), dtype=jnp.float32)
        value, same = collectives.mean((value, same), axis_name)
        return value, ({**own_state, "teacher": state["teacher"]}, {"teacher_agreement": same})

    five_parts = FiveParts(
        views={"views": views},
        encoder={"encoder": encoder},
        extraction={"extract": extract, "head": head, "teacher": teacher.classify},
        similarity={},
        loss={
            "loss": optax.softmax_cross_entropy,
            "temperature": temperature,
            "weight": weight,
            "factor": factor,
        },
    )
    return Method(init, loss_fn, network.embed, five_parts, network.layers), network.classify
