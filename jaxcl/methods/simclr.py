"""SimCLR (Chen, Kornblith, Norouzi and Hinton, 2020, arXiv:2002.05709) on one page."""

from __future__ import annotations

from collections.abc import Callable

import jax.numpy as jnp

from jaxcl import collectives, keys
from jaxcl.extract import pool
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
        (key, batch) -> two views [b, h, w, c] of every image.
    encoder, head
        f and g: the representation is h = extract(f(x)), the projection z = g(h).
    loss
        (key, z1, z2, axis_name=None) -> scalar, as `keyless(nt_xent, temperature=0.5)`.
    scores
        (q, k, negatives, own=None, axis_name=None) -> metrics, as `partial(score_monitor, temperature=0.5)`, of
        normalized projections: every view is a query in turn, the negatives are the rows of other images in the global
        batch.
    axis_name
        the axis over which the batch is split under `shard_map` or `pmap`; loss and scores are given it too.
    """

    network = projected("simclr", encoder, head, extract)

    def init(key, batch):
        views_key, encoder_key, head_key = keys.of_init(key, 2)
        return network.init(encoder_key, head_key, views(views_key, batch)[0])

    def loss_fn(params, state, key, batch):
        views_key, loss_key = keys.of_step(key, 1)
        x1, x2 = checks.views_of("simclr", views(views_key, batch), 2)
        # Both views in one batch, side by side: their batch statistics are the same, and they stay on their device.
        h, z, state = network.apply(params, state, interleave(x1, x2), train=True)
        z1, z2 = z[0::2], z[1::2]
        value = loss(loss_key, z1, z2, axis_name=axis_name)
        metrics = contrast_monitor(z1, z2, h, axis_name=axis_name)
        if scores is not None:
            z, positives = normalize(z), normalize(interleave(z2, z1))
            rows = collectives.rows(len(z), axis_name)
            own = jnp.stack([rows, rows ^ 1], axis=1)
            metrics |= scores(z, positives, collectives.gather(z, axis_name), own=own, axis_name=axis_name)
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


def interleave(*views: Array) -> Array:
    """v arrays [b, ...] -> [b v, ...], the views of one image beside each other."""
    return jnp.stack(views, axis=1).reshape(-1, *views[0].shape[1:])
