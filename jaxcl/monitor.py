"""What one may watch while training, whatever the method. Nothing here has a gradient.

The equations are Chen et al. 2020 (contrastive accuracy and entropy, as their code logs them) and Wang & Isola 2020
(alignment and uniformity, arXiv:2005.10242).
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxcl import collectives
from jaxcl.similarity import normalize
from jaxcl.typing import Array


def contrast_monitor(
    z1: Array,
    z2: Array,
    h: Array,
    *,
    temperature: float = 0.1,
    block: int = 1024,
    axis_name: str | None = None,
) -> dict[str, Array]:
    """How the projections z1, z2 [n, d] and the representation h [m, k] lie, as numbers of the global batch.

    contrast_accuracy  share of rows of z1 whose nearest row of z2 is their own (chance 1/N; other views only)
    contrast_entropy   mean entropy, in nats, of softmax(z1 z2^T / temperature) along its rows (at most log N)
    alignment          mean squared distance of the two projections of an image, in [0, 4]; lower is closer
    uniformity         log of the mean of exp(-2 |z_i - z_j|^2) over pairs i != j of z1, in [-8, 0]; lower is flatter
    effective_rank     how many directions h fills, in [1, k]; falls where the representation collapses

    The N x N similarities are made `block` rows at a time, so their memory is that of `block` rows.
    """
    z1, z2, h = (jax.lax.stop_gradient(x.astype(jnp.float32)) for x in (z1, z2, h))
    z1, z2 = normalize(z1), normalize(z2)
    keys1, keys2 = collectives.gather(z1, axis_name), collectives.gather(z2, axis_name)
    own, total = collectives.rows(len(z1), axis_name), len(keys1)

    def a_row(row):
        anchor, i = row
        across = keys2 @ anchor
        log_p = jax.nn.log_softmax(across / temperature)
        spread = jnp.exp(4 * (keys1 @ anchor - 1)).at[i].set(0.0)  # |a - b|^2 = 2 - 2 a.b
        return jnp.argmax(across) == i, -jnp.sum(jnp.exp(log_p) * log_p), jnp.sum(spread) / (total - 1)

    correct, entropy, spread = jax.lax.map(a_row, (z1, own), batch_size=min(block, len(z1)))
    metrics = collectives.mean(
        {
            "contrast_accuracy": jnp.mean(correct.astype(jnp.float32)),
            "contrast_entropy": jnp.mean(entropy),
            "alignment": jnp.mean(jnp.sum(jnp.square(z1 - z2), axis=1)),
            "spread": jnp.mean(spread),
        },
        axis_name,
    )
    metrics["uniformity"] = jnp.log(metrics.pop("spread"))
    return metrics | {"effective_rank": effective_rank(h, axis_name=axis_name)}


def effective_rank(h: Array, *, axis_name: str | None = None) -> Array:
    """(sum_i v_i)^2 / sum_i v_i^2, v the eigenvalues of the global batch's covariance of h [m, k]: in [1, k].

    The participation ratio: k directions of equal variance count k. It is the exponential of the eigenvalues' Renyi
    entropy of order 2; that of order 1 (Roy & Vetterli 2007) needs the eigenvalues themselves, at every step.

    >>> x = jnp.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    >>> [round(float(effective_rank(x * jnp.array(scale))), 3) for scale in ([1.0, 1.0], [1.0, 0.0])]
    [2.0, 1.0]
    """
    h = h - collectives.mean(jnp.mean(h, axis=0), axis_name)
    # The sums of v and v^2 are the trace and the squared norm of the covariance.
    covariance = collectives.mean(h.T @ h / len(h), axis_name)
    square = jnp.sum(jnp.square(covariance))
    return jnp.square(jnp.trace(covariance)) / jnp.maximum(square, jnp.finfo(h.dtype).tiny)
