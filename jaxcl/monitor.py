"""What one may watch while training, whatever the method. Nothing here has a gradient.

The equations are Chen et al. 2020 (contrastive accuracy and entropy, as their code logs them) and Wang & Isola 2020
(alignment and uniformity, arXiv:2005.10242).
"""

from __future__ import annotations

from collections.abc import Callable

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
    scores: Callable[..., dict[str, Array]] | None = None,
    axis_name: str | None = None,
) -> dict[str, Array]:
    """How the projections z1, z2 [n, d] and the representation h [m, k] lie, as numbers of the global batch.

    contrast_accuracy  share of rows of z1 whose nearest row of z2 is their own (chance 1/N; a tie is wrong)
    contrast_entropy   mean entropy, in nats, of softmax(z1 z2^T / temperature) along its rows (at most log N)
    alignment          mean squared distance of the two projections of an image, in [0, 4]; lower is closer
    uniformity         log of the mean of exp(-2 |z_i - z_j|^2) over pairs i != j of z1, in [-8, 0]; lower is flatter
    effective_rank     how many directions h fills, in [1, k]; falls where the representation collapses

    scores
        (q, k, negatives, own=rows) -> more metrics (`score_monitor`), of the normalized rows of z1, their own of z2,
        and all of z2 over the global batch.

    The N x N similarities are made `block` columns at a time: every row stays on its device, and memory is that of
    `block` columns.
    """
    z1, z2, h = (jax.lax.stop_gradient(x.astype(jnp.float32)) for x in (z1, z2, h))
    z1, z2 = normalize(z1), normalize(z2)
    keys = jnp.stack([collectives.gather(z, axis_name) for z in (z1, z2)], axis=1)
    total = len(keys)
    count = next(k for k in range(-(-total // block), total + 1) if total % k == 0)

    own = collectives.rows(len(z1), axis_name)[:, None]

    def add(sums, columns):
        partition, energy, largest, spread = sums
        keys, numbers = columns
        across = z1 @ keys[:, 1].T
        # Cosines are at most 1, so one constant keeps all exponentials in range.
        e = jnp.exp((across - 1) / temperature)
        near = jnp.exp(4 * (z1 @ keys[:, 0].T - 1))  # |a - b|^2 = 2 - 2 a.b
        return (
            partition + jnp.sum(e, axis=1),
            energy + jnp.sum(e * (across - 1), axis=1),
            jnp.maximum(largest, jnp.max(jnp.where(numbers == own, -1.0, across), axis=1)),
            spread + jnp.sum(near, axis=1),
        ), None

    positive = jnp.sum(z1 * z2, axis=1)
    nothing = jnp.zeros_like(positive)
    start = (nothing, nothing, nothing - 1, nothing)
    columns = keys.reshape(count, -1, *keys.shape[1:]), jnp.arange(total).reshape(count, -1)
    (partition, energy, largest, spread), _ = jax.lax.scan(add, start, columns)
    metrics = collectives.mean(
        {
            "contrast_accuracy": jnp.mean((positive > largest).astype(jnp.float32)),
            "contrast_entropy": jnp.mean(jnp.log(partition) - energy / (partition * temperature)),
            "alignment": jnp.mean(2 - 2 * positive),
            "spread": jnp.mean((spread - 1) / (total - 1)),  # a row is at distance 0 from itself
        },
        axis_name,
    )
    metrics["uniformity"] = jnp.log(metrics.pop("spread"))
    if scores is not None:
        metrics |= scores(z1, z2, keys[:, 1], own=own, axis_name=axis_name)
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


def score_monitor(
    q: Array,
    k: Array,
    negatives: Array,
    *,
    temperature: float,
    own: Array | None = None,
    bins: int = 64,
    block: int = 4096,
    axis_name: str | None = None,
) -> dict[str, Array]:
    """How queries q [n, d] score with their positives k [n, d] and with negatives [m, d], before the temperature.

    Scores are dot products of the rows as they come, so what is given are the rows that a loss sees. The statistics
    are those that Zhu et al. 2021 (arXiv:2108.02982) draw, of the global batch:

    positive_mean       mean of q.k
    positive_variance   its variance over the batch
    negative_mean       mean over the negatives of q.n
    negative_variance   a query's unbiased variance over the negatives, averaged over the batch (another kind of
                        variance than that of the positives)
    positive_exp        mean of exp(q.k / temperature)
    negative_exp        mean of exp(q.n / temperature)
    score_accuracy      share of queries whose positive scores above all their negatives
    positive_histogram, negative_histogram
                        shares [bins] of the scores in equal intervals from -1 to 1; what lies beyond counts for the
                        first or the last. Of very many negatives about a million scores, evenly spread, are counted.

    own
        int [n, s]: rows of `negatives` that belong to the query's own image and are left out of it all.

    `negatives` are the same on every device. They are scored `block` at a time.
    """
    q, k, negatives = (jax.lax.stop_gradient(x.astype(jnp.float32)) for x in (q, k, negatives))
    n, m = len(q), len(negatives)
    own = jnp.full((n, 1), -1) if own is None else own

    def scored(rows, numbers):
        """Scores [n, len(rows)], and which of them are of negatives."""
        is_own = jnp.any(numbers[None, :, None] == own[:, None, :], axis=2)
        return q @ rows.T, ~is_own & (numbers < m)

    def add(sums, columns):
        s, counts = scored(*columns)
        count, total, square, exp, largest = sums
        s = jnp.where(counts, s, 0)
        exps = jnp.where(counts, jnp.exp(s / temperature), 0)
        return (
            count + jnp.sum(counts, axis=1, dtype=jnp.float32),
            total + jnp.sum(s, axis=1),
            square + jnp.sum(jnp.square(s), axis=1),
            exp + jnp.sum(exps, axis=1),
            jnp.maximum(largest, jnp.max(jnp.where(counts, s, -jnp.inf), axis=1)),
        ), None

    positive = jnp.sum(q * k, axis=1)
    nothing = jnp.zeros_like(positive)
    blocks = -(-m // block)
    size = -(-m // blocks)
    padded = jnp.pad(negatives, ((0, blocks * size - m), (0, 0))).reshape(blocks, size, -1)
    numbers = jnp.arange(blocks * size).reshape(blocks, size)
    sums, _ = jax.lax.scan(add, (nothing, nothing, nothing, nothing, nothing - jnp.inf), (padded, numbers))
    count, total, square, exp, largest = sums
    mean = total / count
    stride = max(1, n * m // 2**20)
    thinned, counts = scored(negatives[::stride], jnp.arange(0, m, stride))
    metrics = collectives.mean(
        {
            "positive_mean": jnp.mean(positive),
            "positive_exp": jnp.mean(jnp.exp(positive / temperature)),
            "negative_mean": jnp.mean(mean),
            "negative_variance": jnp.mean((square - count * jnp.square(mean)) / jnp.maximum(count - 1, 1)),
            "negative_exp": jnp.mean(exp / count),
            "score_accuracy": jnp.mean((positive > largest).astype(jnp.float32)),
            "positive_histogram": histogram(positive, jnp.ones_like(positive), bins),
            "negative_histogram": histogram(thinned, counts, bins),
        },
        axis_name,
    )
    deviation = jnp.mean(jnp.square(positive - metrics["positive_mean"]))
    return metrics | {"positive_variance": collectives.mean(deviation, axis_name)}


def histogram(s: Array, weights: Array, bins: int) -> Array:
    """The share [bins] of the weights that lies in each of equal intervals from -1 to 1.

    >>> histogram(jnp.array([-0.9, 0.1, 0.2, 3.0]), jnp.ones(4), 4).tolist()
    [0.25, 0.0, 0.5, 0.25]
    """
    place = jnp.clip(jnp.floor((s + 1) * (bins / 2)), 0, bins - 1).astype(jnp.int32)
    counts = jnp.zeros(bins, jnp.float32).at[place.ravel()].add(weights.ravel().astype(jnp.float32))
    return counts / jnp.sum(counts)
