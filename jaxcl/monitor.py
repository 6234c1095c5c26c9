"""Metrics of a training run, whatever the method. Nothing here has a gradient.

The equations are Chen et al. 2020 (contrastive accuracy and entropy, as their code logs them) and Wang & Isola 2020
(alignment and uniformity, arXiv:2005.10242).

Accelerators round the operands of a matrix product (to bfloat16 on a TPU, to TF32 on an NVIDIA GPU): cosines then carry
an error of about 1/256 or 1/2048. Where rows have nearly collapsed onto one point, all cosines differ by less than
that. So products are taken about a common center, where a row's rounding is relative to its distance from the center
and the cosines of collapsed rows keep their order at any precision.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxcl import collectives
from jaxcl.shapes import check, check_numbers
from jaxcl.similarity import normalize
from jaxcl.typing import Array, Scores


def contrast_monitor(
    z1: Array,
    z2: Array,
    h: Array,
    *,
    temperature: float | Array | None = None,
    block: int = 1024,
    scores: Scores | None = None,
    axis_name: str | None = None,
) -> dict[str, Array]:
    """How the projections z1, z2 [n, d] and the representation h [m, k] lie, as numbers of the global batch.

    contrast_accuracy  fraction of rows of z1 whose nearest row of z2 is their own (chance 1/N; ties are wrong)
    contrast_entropy   mean entropy, in nats, of softmax(z1 z2^T / temperature) along its rows (at most log N)
    alignment          mean squared distance of the two projections of an image, in [0, 4]; lower is closer
    uniformity         log of the mean of exp(-2 |z_i - z_j|^2) over pairs i != j of z1, in [-8, 0]; lower is flatter
    effective_rank     how many directions h fills, in [1, k]; falls where the representation collapses

    temperature
        the loss's (`losses.temperature_of`; the methods give theirs), so that the entropy is that of the softmax which
        is learnt by. None, where a loss has none: 0.1.
    scores
        (q, k, negatives, own=rows) -> more metrics (`score_monitor`), of the normalized rows of z1, their own of z2,
        and all of z2 over the global batch.

    The N x N similarities are made `block` columns at a time: every row stays on its device, and memory is that of
    `block` columns.

    axis_name
        the axis over which rows are split under `shard_map` or `pmap`; None where one program sees the global batch.
    """
    check("contrast_monitor", z1=(z1, "nd"), z2=(z2, "nd"), h=(h, "mk"))
    z1, z2, h = (jax.lax.stop_gradient(x.astype(jnp.float32)) for x in (z1, z2, h))
    temperature = 0.1 if temperature is None else jax.lax.stop_gradient(jnp.asarray(temperature, jnp.float32))
    z1, z2 = normalize(z1), normalize(z2)
    center = collectives.mean(jnp.mean(z1 + z2, axis=0) / 2, axis_name)
    keys = jnp.stack([collectives.gather(z, axis_name) for z in (z1, z2)], axis=1)
    total = len(keys)
    count = next(k for k in range(-(-total // block), total + 1) if total % k == 0)

    own = collectives.rows(len(z1), axis_name)[:, None]

    def add(sums, columns):
        partition, energy, largest, positive, spread = sums
        keys, numbers = columns
        is_own = numbers == own
        across = cosine_less_one(z1, keys[:, 1], center)
        # At most 0 up to rounding, so all exponentials are in range.
        e = jnp.exp(across / temperature)
        near = jnp.exp(4 * cosine_less_one(z1, keys[:, 0], center))  # |a - b|^2 = 2 - 2 a.b
        return (
            partition + jnp.sum(e, axis=1),
            energy + jnp.sum(e * across, axis=1),
            jnp.maximum(largest, jnp.max(jnp.where(is_own, -jnp.inf, across), axis=1)),
            # From the same product as its rivals, so that rows which are alike tie.
            positive + jnp.sum(jnp.where(is_own, across, 0), axis=1),
            spread + jnp.sum(jnp.where(is_own, 0, near), axis=1),
        ), None

    nothing = jnp.zeros_like(z1[:, 0])
    start = (nothing, nothing, nothing - jnp.inf, nothing, nothing)
    columns = keys.reshape(count, -1, *keys.shape[1:]), jnp.arange(total).reshape(count, -1)
    (partition, energy, largest, positive, spread), _ = jax.lax.scan(add, start, columns)
    # Two rows that are alike may score apart by rounding, which is relative to their distances from the center.
    apart = sum(jnp.sum(jnp.square(z - center), axis=1) for z in (z1, z2))
    tie = 8 * jnp.finfo(jnp.float32).eps * apart
    metrics = collectives.mean(
        {
            "contrast_accuracy": jnp.mean((positive > largest + tie).astype(jnp.float32)),
            "contrast_entropy": jnp.mean(jnp.log(partition) - energy / (partition * temperature)),
            "alignment": jnp.mean(jnp.sum(jnp.square(z1 - z2), axis=1)),
            "spread": jnp.mean(spread / (total - 1)),
        },
        axis_name,
    )
    metrics["uniformity"] = jnp.log(metrics.pop("spread"))
    if scores is not None:
        metrics |= scores(z1, z2, keys[:, 1], own=own, axis_name=axis_name)
    return metrics | {"effective_rank": effective_rank(h, axis_name=axis_name)}


def cosine_less_one(q: Array, k: Array, center: Array) -> Array:
    """q k^T - 1 of unit rows q [n, d], k [m, d], as -|q - k|^2 / 2 with distances taken about `center` [d] -> [n, m].

    >>> q = jnp.array([[1.0, 0.0], [0.0, -1.0]])
    >>> cosine_less_one(q, q, jnp.array([0.5, 0.5])).tolist()
    [[0.0, -1.0], [-1.0, 0.0]]
    """
    q, k = q - center, k - center
    lengths = jnp.sum(jnp.square(q), axis=1)[:, None] + jnp.sum(jnp.square(k), axis=1)
    return products(q, k) - lengths / 2


def dot_about(q: Array, k: Array, q_center: Array, k_center: Array) -> Array:
    """q k^T of any rows q [n, d], k [m, d] -> [n, m]; only what lies off the two centers [d] goes through the product.

    >>> q, k = jnp.array([[1.0, 2.0]]), jnp.array([[3.0, 4.0], [0.0, 1.0]])
    >>> dot_about(q, k, jnp.array([1.0, 1.0]), jnp.array([2.0, 0.0])).tolist()
    [[11.0, 2.0]]
    """
    return (
        products(q - q_center, k - k_center)
        + jnp.sum(q_center * (k - k_center), axis=1)
        + jnp.sum(q * k_center, axis=1, keepdims=True)
    )


def products(q: Array, k: Array) -> Array:
    """q k^T, rounded as the device does it."""
    return q @ k.T


def effective_rank(h: Array, *, axis_name: str | None = None) -> Array:
    """(sum_i v_i)^2 / sum_i v_i^2, v the eigenvalues of the global batch's covariance of h [m, k]: in [1, k].

    The participation ratio: k directions of equal variance count k. It is the exponential of the eigenvalues' Renyi
    entropy of order 2; that of order 1 (Roy & Vetterli 2007) needs the eigenvalues themselves, at every step.

    axis_name
        the axis over which rows are split under `shard_map` or `pmap`; None where one program sees the global batch.

    >>> x = jnp.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    >>> [round(float(effective_rank(x * jnp.array(scale))), 3) for scale in ([1.0, 1.0], [1.0, 0.0])]
    [2.0, 1.0]
    """
    check("effective_rank", h=(h, "mk"))
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
    score_accuracy      fraction of queries whose positive scores above all their negatives
    positive_histogram, negative_histogram
                        fractions [bins] of the scores in equal intervals from -1 to 1; what lies beyond counts for the
                        first or the last. Of very many negatives about a million scores, evenly spread, are counted.

    own
        int [n, s]: rows of `negatives` that belong to the query's own image and are left out of it all.

    `negatives` are the same on every device. They are scored `block` at a time.

    axis_name
        the axis over which rows are split under `shard_map` or `pmap`; None where one program sees the global batch.
    """
    check("score_monitor", q=(q, "nd"), k=(k, "nd"), negatives=(negatives, "md"))
    if own is not None:
        check("score_monitor", q=(q, "nd"), own=(own, "ns"))
        check_numbers("score_monitor", own=own)
    q, k, negatives = (jax.lax.stop_gradient(x.astype(jnp.float32)) for x in (q, k, negatives))
    n, m = len(q), len(negatives)
    own = jnp.full((n, 1), -1) if own is None else own
    q_center, center = collectives.mean(jnp.mean(q, axis=0), axis_name), jnp.mean(negatives, axis=0)

    def scored(rows, numbers):
        """Scores [n, len(rows)], and which of them are of negatives."""
        is_own = jnp.any(numbers[None, :, None] == own[:, None, :], axis=2)
        return dot_about(q, rows, q_center, center), ~is_own & (numbers < m)

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

    # Each by the product that its rivals come from, so that rows which are alike tie.
    positive = jax.vmap(lambda q, k: dot_about(q[None], k[None], q_center, center)[0, 0])(q, k)
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
    variance = jnp.mean(jnp.square(positive - metrics["positive_mean"]))
    return metrics | {"positive_variance": collectives.mean(variance, axis_name)}


def histogram(s: Array, weights: Array, bins: int) -> Array:
    """The fraction [bins] of the weights that lies in each of equal intervals from -1 to 1.

    >>> histogram(jnp.array([-0.9, 0.1, 0.2, 3.0]), jnp.ones(4), 4).tolist()
    [0.25, 0.0, 0.5, 0.25]
    """
    place = jnp.clip(jnp.floor((s + 1) * (bins / 2)), 0, bins - 1).astype(jnp.int32)
    counts = jnp.zeros(bins, jnp.float32).at[place.ravel()].add(weights.ravel().astype(jnp.float32))
    return counts / jnp.sum(counts)
