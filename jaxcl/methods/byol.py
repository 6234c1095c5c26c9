"""BYOL (Grill et al., 2020, arXiv:2006.07733) on one page, and SimSiam (Chen and He, 2020, arXiv:2011.10566), which is
BYOL without the moving average."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from jaxcl import keys
from jaxcl.extract import pool
from jaxcl.memory import ema
from jaxcl.methods import checks
from jaxcl.methods.projected import of_state, projected
from jaxcl.monitor import contrast_monitor
from jaxcl.typing import Array, FiveParts, Loss, Method, Net, Scores, Views

Decay = float | Array | Callable[[Array], Array]


def byol(
    *,
    views: Views,
    encoder: Net,
    projector: Net,
    predictor: Net,
    loss: Loss,
    decay: Decay | None = 0.996,
    extract: Callable[[tuple[Array, ...]], Array] = pool,
    scores: Scores | None = None,
    axis_name: str | None = None,
) -> Method:
    """Predict the target network's projection of one view from the other; nothing is pushed away.

    views
        (key, batch) -> two views [b, h, w, c]; BYOL's differ in kind: `each_view(augment.byol(224))`.
    encoder, projector, predictor
        h = extract(encoder(x)), z = projector(h), p = predictor(z). BYOL's projector and predictor are both
        `mlp_head(norm=batch_norm(...), hidden=(4096,), out=256, bias=False)`.
    loss
        (key, p, z, axis_name=None) -> scalar of one direction, as `keyless(regression)`; both directions are added.
    decay
        of the target, a moving average of the online network's parameters: a number, or a function of the step
        (`cosine_decay(0.996, steps=steps)`). None: the target is the online network itself, without a gradient
        (`simsiam`).
    scores
        (q, k, negatives, own=None, axis_name=None) -> metrics (`monitor.score_monitor`), of
        predictions p against the target's z of the global batch.

    As in the authors' code: the target starts from weights of its own, not as a copy; it is averaged after each of
    the optimizer's steps, with that step's decay (here, before it is next used, which is the same); it runs in
    training mode with batch statistics of its own, which are no average of the online network's; every view is a
    batch by itself to all norms; images are standardized (`nets.standardized`). Its ResNet-50 starts the last scale of
    every block at 0 (haiku's bottleneck), its ResNet-18 does not. The classifier that the authors train at the same
    time is left out; `with_probe` adds one.
    """

    network = projected("byol", encoder, projector, extract, name="projector")

    def init(key, batch):
        views_key, online_key, predictor_key, target_key = keys.of_init(key, 3)
        x = views(views_key, batch)[0]
        params, stats = network.init(*jax.random.split(online_key), x)
        _, z, _ = network.apply(params, stats, x, train=False)
        params["predictor"], stats["predictor"] = predictor.init(predictor_key, z)
        state = {"online": stats}
        if decay is not None:
            state["target"], state["target_stats"] = network.init(*jax.random.split(target_key), x)
            state["step"] = jnp.zeros((), jnp.int32)
        return params, state

    def loss_fn(params, state, key, batch):
        views_key, *loss_keys = keys.of_step(key, 2)
        x = checks.views_of("byol", views(views_key, batch), 2)
        stats = state["online"]
        online = []
        for view in x:
            h, z, new = network.apply(params, stats, view, train=True)
            p, predictor_stats = predictor.apply(params["predictor"], stats["predictor"], z, train=True)
            online.append((h, z, p))
            stats = {**new, "predictor": predictor_stats}
        state = {**state, "online": stats}

        if decay is not None:
            step = state["step"]
            # What the step before has made is averaged in now; before the first there was none.
            keep = jnp.where(step == 0, 1.0, decay(step - 1) if callable(decay) else decay)
            averaged = {name: params[name] for name in state["target"]}
            target, target_stats = ema(state["target"], averaged, keep), state["target_stats"]
            targets = []
            for view in x:
                _, z, target_stats = network.apply(target, target_stats, view, train=True)
                targets.append(z)
            state = {**state, "target": target, "target_stats": target_stats, "step": step + 1}
        else:
            targets = [z for _, z, _ in online]

        z1, z2 = (jax.lax.stop_gradient(z) for z in targets)
        (h, _, p1), (_, _, p2) = online
        value = loss(loss_keys[0], p1, z2, axis_name=axis_name)
        value = value + loss(loss_keys[1], p2, z1, axis_name=axis_name)
        return value, (state, contrast_monitor(p1, z2, h, scores=scores, axis_name=axis_name))

    def embed(params, state, images):
        return network.represent(params, state["online"], images)

    five_parts = FiveParts(
        views={"views": views},
        encoder={"encoder": encoder, "decay": decay},
        extraction={"extract": extract, "projector": projector, "predictor": predictor},
        similarity={},
        loss={"loss": loss},
    )
    layers = of_state(network.layers, "online")
    return Method(init, loss_fn, embed, five_parts, layers)


def simsiam(
    *,
    views: Views,
    encoder: Net,
    projector: Net,
    predictor: Net,
    loss: Loss,
    extract: Callable[[tuple[Array, ...]], Array] = pool,
    scores: Scores | None = None,
    axis_name: str | None = None,
) -> Method:
    """BYOL whose target is the online network itself, without a gradient; the two directions are averaged.

    Arguments as in `byol`; the loss is `keyless(negative_cosine)`. Without the predictor, or with a
    gradient through z, all images come to one point (sections 4.1 and 4.2 of the paper).

    axis_name
        the axis over which rows are split under `shard_map` or `pmap`; None where one program sees the global batch.
    """

    def half(key, p, z, *, axis_name=None):
        return loss(key, p, z, axis_name=axis_name) / 2

    method = byol(
        views=views,
        encoder=encoder,
        projector=projector,
        predictor=predictor,
        loss=half,
        decay=None,
        extract=extract,
        scores=scores,
        axis_name=axis_name,
    )
    assert method.five_parts is not None
    return method._replace(five_parts=method.five_parts._replace(loss={"loss": loss}))


def cosine_decay(start: float | Array, *, steps: int) -> Callable[[Array], Array]:
    """BYOL's decay by the step: 1 - (1 - start) (1 + cos(pi step / steps)) / 2, from `start` to 1.

    Published starts: 0.97 for 40 epochs of ImageNet, 0.99 for 100 and 300, 0.996 for 1000.

    >>> [round(float(cosine_decay(0.9, steps=4)(step)), 4) for step in (0, 2, 4, 5)]
    [0.9, 0.95, 1.0, 1.0]
    """
    traced = isinstance(start, jax.core.Tracer)
    if steps < 1 or not (traced or 0 <= start <= 1):
        raise ValueError(f"cosine_decay needs a start in [0, 1] and steps >= 1; got {start} and {steps}.")

    def decay(step: Array) -> Array:
        done = jnp.clip(step / steps, 0.0, 1.0)
        return 1 - (1 - start) * (1 + jnp.cos(jnp.pi * done)) / 2

    return decay
