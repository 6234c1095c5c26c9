"""SimCLRv2's pretraining (Chen, Kornblith, Swersky, Norouzi and Hinton, 2020, arXiv:2006.10029) on one page: SimCLR
with MoCo's memory."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp

from jaxcl import collectives, keys
from jaxcl.extract import pool
from jaxcl.feature_transform import BatchScores
from jaxcl.losses import info_nce
from jaxcl.losses.contrast import interleave
from jaxcl.memory import ema, push
from jaxcl.methods import checks
from jaxcl.methods.moco import with_queue
from jaxcl.methods.projected import of_state, projected
from jaxcl.monitor import contrast_monitor
from jaxcl.similarity import dot, normalize
from jaxcl.typing import Array, FiveParts, Method, Net, Scores, Views


def simclr_v2(
    *,
    views: Views,
    encoder: Net,
    head: Net,
    temperature: float | Array = 0.1,
    queue_size: int = 65536,
    decay: float | Array = 0.999,
    factor: float | Array = 1.0,
    extract: Callable[[tuple[Array, ...]], Array] = pool,
    transform: BatchScores | None = None,
    scores: Scores | None = None,
    axis_name: str | None = None,
) -> Method:
    """NT-Xent whose denominator also runs over a queue of keys, which a moving average of the network has made.

        loss = 1/(2n) sum_i -log( exp(s_ij / t) / ( sum_{k != i} exp(s_ik / t) + sum_m exp(z_i.queue_m / t) ) )

    The paper gives it about one point on ImageNet (64K keys, decay 0.999) and says no more than that it is MoCo's
    mechanism. That keys of both views are remembered, and that positives stay those of the batch, is our reading.
    Scores are kept in memory: [2n, 2N + queue_size].

    head
        three layers, `nets.projection_head(layers=3)`; fine-tuning starts from its first (`supervised`).
    factor
        of the loss: 2 where learning rate and weight decay are those of the authors' code, which adds the means of the
        two views.
    transform
        what gives the scores of mixed features in place of the scores above (`feature_transform.batch_scores`). The
        queue itself keeps unmixed keys.
    scores
        (q, k, negatives, own=None, axis_name=None) -> metrics (`monitor.score_monitor`), of
        one view's z against the other's within the batch.
    """

    loss = partial(info_nce, temperature=temperature)
    network = projected("simclr_v2", encoder, head, extract)

    def forward(params, stats, images):
        h, z, stats = network.apply(params, stats, images, train=True)
        return h, normalize(z), stats

    def init(key, batch):
        views_key, *made_keys = keys.of_init(key, 3)
        return with_queue(made_keys, network, views(views_key, batch)[0], queue_size)

    def loss_fn(params, state, key, batch):
        views_key, mix_key = keys.of_step(key, 1)
        x = interleave(*checks.views_of("simclr_v2", views(views_key, batch), 2))
        target = ema(state["target"], params, decay)
        h, z, query_stats = forward(params, state["query"], x)
        _, remembered, key_stats = forward(target, state["key"], x)

        z1, z2, queue = z[0::2], z[1::2], state["queue"]
        if transform is None:
            rows = collectives.rows(len(z), axis_name)
            logits = dot(z, collectives.gather(z, axis_name))
            others = jnp.arange(logits.shape[1]) // 2 != rows[:, None] // 2
            with jax.default_matmul_precision("highest"):
                queued = dot(z, queue.keys)
            negatives = jnp.concatenate([jnp.where(others, logits, -jnp.inf), queued], axis=1)
            seen = jnp.repeat(jnp.sum(z1 * z2, axis=1), 2), negatives
        else:
            seen = transform(mix_key, z1, z2, queue=queue.keys, axis_name=axis_name)
        value = factor * loss(*seen, axis_name=axis_name)
        state = {
            "query": query_stats,
            "key": key_stats,
            "target": target,
            "queue": push(queue, remembered, axis_name=axis_name),
        }
        metrics = contrast_monitor(z1, z2, h, temperature=temperature, scores=scores, axis_name=axis_name)
        return value, (state, metrics)

    def embed(params, state, images):
        return network.represent(params, state["query"], images)

    five_parts = FiveParts(
        views={"views": views},
        encoder={"encoder": encoder, "decay": decay},
        extraction={"extract": extract, "head": head, "transform": transform},
        similarity={"rows": normalize, "scores": dot},
        loss={"loss": loss, "factor": factor, "queue_size": queue_size},
    )
    layers = of_state(network.layers, "query")
    return Method(init, loss_fn, embed, five_parts, layers)
