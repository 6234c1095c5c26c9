"""SimCLR (Chen, Kornblith, Norouzi and Hinton, 2020, arXiv:2002.05709) on one page."""

from __future__ import annotations

from collections.abc import Callable

import jax.numpy as jnp

from jaxcl import collectives, keys
from jaxcl.extract import pool
from jaxcl.losses import temperature_of
from jaxcl.losses.contrast import interleave
from jaxcl.methods import checks
from jaxcl.methods.projected import projected
from jaxcl.monitor import contrast_monitor
from jaxcl.similarity import normalize
from jaxcl.typing import Array, FiveParts, Loss, Method, Net, Scores, Views


def simclr(
    *,
    views: Views,
    encoder: Net,
    head: Net,
    loss: Loss,
    scores: Scores | None = None,
    extract: Callable[[tuple[Array, ...]], Array] = pool,
    axis_name: str | None = None,
) -> Method:
    """Pull two views of an image together, push all other images of the batch away.

    views
        (key, batch) -> two views [b, h, w, c] of every image; or more, of several sizes (`augment.multi_crop`), where
        the loss takes more (`nt_xent`, `dcl`). Views of one size are one batch to the encoder and its norms; its
        running statistics are then averaged once a size. What is monitored are the first two.
    encoder, head
        f and g: the representation is h = extract(f(x)), the projection z = g(h).
    loss
        (key, z1, z2, axis_name=None) -> scalar, as `keyless(nt_xent, temperature=0.5)`.
    scores
        (q, k, negatives, own=None, axis_name=None) -> metrics, as `partial(score_monitor, temperature=0.5)`, of
        normalized projections: every view is a query in turn and the next view its positive, the negatives are the
        rows of other images in the global batch.
    axis_name
        the axis over which the batch is split under `shard_map` or `pmap`; loss and scores are given it too.
    """

    network = projected("simclr", encoder, head, extract)

    def init(key, batch):
        views_key, encoder_key, head_key = keys.of_init(key, 2)
        return network.init(encoder_key, head_key, views(views_key, batch)[0])

    def loss_fn(params, state, key, batch):
        views_key, loss_key = keys.of_step(key, 1)
        made = views(views_key, batch)
        made = made if len(made) > 2 else checks.views_of("simclr", made, 2)
        h: list[Array] = []
        by_view: dict[int, Array] = {}
        for alike in of_one_size(made):
            # Side by side in one batch: their batch statistics are the same, and they stay on their device.
            x = interleave(*(made[view] for view in alike))
            own_h, own_z, state = network.apply(params, state, x, train=True)
            h.append(own_h)
            by_view |= {view: own_z[place :: len(alike)] for place, view in enumerate(alike)}
        z = [by_view[view] for view in range(len(made))]
        value = loss(loss_key, *z, axis_name=axis_name)
        metrics = contrast_monitor(z[0], z[1], h[0], temperature=temperature_of(loss), axis_name=axis_name)
        if scores is not None:
            q, positives = normalize(interleave(*z)), normalize(interleave(*z[1:], z[0]))
            first = collectives.rows(len(q), axis_name) // len(z) * len(z)
            own = first[:, None] + jnp.arange(len(z))
            metrics |= scores(q, positives, collectives.gather(q, axis_name), own=own, axis_name=axis_name)
        return value, (state, metrics)

    return Method(
        init,
        loss_fn,
        network.represent,
        FiveParts(
            views={"views": views},
            encoder={"encoder": encoder},
            extraction={"extract": extract, "head": head},
            similarity={},
            loss={"loss": loss},
        ),
        network.layers,
    )


def of_one_size(views: tuple[Array, ...]) -> list[list[int]]:
    """The views' numbers, those of one shape together.

    >>> of_one_size((jnp.ones((1, 8, 8, 3)), jnp.ones((1, 4, 4, 3)), jnp.ones((1, 8, 8, 3))))
    [[0, 2], [1]]
    """
    alike: dict[tuple[int, ...], list[int]] = {}
    for view, x in enumerate(views):
        alike.setdefault(x.shape, []).append(view)
    return list(alike.values())
