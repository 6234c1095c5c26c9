"""Losses that look at every pair by itself, an anchor and one other row: the two that SimCLR compares with NT-Xent.

Rows are compared by `similarity`, cosine unless said otherwise; s below is its value, in float32 at least. Both return
the mean over the global batch, the same on every device; negatives come from all devices, with their gradients. A nan
anywhere makes the loss nan. `losses.contrast` has those that weigh an anchor's rows against each other.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxcl import collectives
from jaxcl.losses import checks
from jaxcl.similarity import cosine
from jaxcl.typing import Array, Similarity


def nt_logistic(
    z1: Array,
    z2: Array,
    *,
    temperature: float | Array = 0.5,
    sides: int = 1,
    semi_hard: bool = False,
    similarity: Similarity = cosine,
    axis_name: str | None = None,
) -> Array:
    """Every pair by itself, same image or not: [n, d], [n, d] -> scalar.

        loss = 1/(2n) sum_i ( -log sigmoid(s_ij / t) - mean_{k negative} log sigmoid(-s_ik / t) )

    (Chen et al. 2020, table 2; the table writes one negative, their mean is ours). With `semi_hard` an anchor's only
    negative is the most similar of those that are less similar than its positive (Schroff et al. 2015); an anchor that
    has none has no negative term. Memory grows with the square of the batch.

    sides
        1: the negatives of an anchor are the n - 1 rows of other images in the other view, 2: the 2n - 2 in both. The
        paper compares its losses with "the negatives from one augmentation view" (appendix B.10); that it is the
        anchor's other view is our reading.
    temperature
        one of 0.1, 0.2, 0.5 and 1.0 for table 4 (B.10), with a learning rate of 0.01, 0.1, 0.3, 0.5 or 1.0; which were
        best is not published.

    axis_name
        the axis over which rows are split under `shard_map` or `pmap`; None where one program sees the global batch.

    >>> round(float(nt_logistic(jnp.eye(2), jnp.eye(2), temperature=1.0)), 4)  # log(1 + 1/e) + log 2
    1.0064
    """
    checks.positive("nt_logistic", "temperature", temperature)
    s, positive, negatives = _triplets("nt_logistic", z1, z2, sides, similarity, axis_name)

    def push(s):
        return jax.nn.softplus(s / temperature)

    each = push(-positive) + _over_negatives(push, s, positive, negatives, sides, semi_hard)
    return collectives.mean(jnp.mean(each), axis_name)


def margin_triplet(
    z1: Array,
    z2: Array,
    *,
    margin: float | Array = 0.4,
    sides: int = 1,
    semi_hard: bool = False,
    similarity: Similarity = cosine,
    axis_name: str | None = None,
) -> Array:
    """The positive should be more similar than each negative by a margin: [n, d], [n, d] -> scalar.

        loss = 1/(2n) sum_i mean_{k negative} max(s_ik - s_ij + margin, 0)

    (Schroff et al. 2015, arXiv:1503.03832, as in Chen et al. 2020, table 2). In units of similarity. With `semi_hard`
    an anchor's only negative is the most similar of those that are less similar than its positive, so its term lies
    in [0, margin]; an anchor that has none contributes 0. Memory grows with the square of the batch.

    sides
        1: negatives of the other view alone, as the paper compares its losses; 2: of both. See `nt_logistic`.
    margin
        one of 0, 0.4, 0.8 and 1.6 for table 4 (appendix B.10), with a learning rate of 0.01, 0.1, 0.3, 0.5 or 1.0;
        which were best is not published.

    axis_name
        the axis over which rows are split under `shard_map` or `pmap`; None where one program sees the global batch.

    >>> round(float(margin_triplet(jnp.eye(2), jnp.eye(2), margin=1.5)), 4)
    0.5
    """
    checks.positive("margin_triplet", "margin", margin, or_zero=True)
    s, positive, negatives = _triplets("margin_triplet", z1, z2, sides, similarity, axis_name)

    def push(s):
        return jnp.maximum(s - positive[:, :, None] + margin, 0)

    each = _over_negatives(push, s, positive, negatives, sides, semi_hard)
    return collectives.mean(jnp.mean(each), axis_name)


def _triplets(name, z1, z2, sides, similarity, axis_name):
    """Of the rows of each view: similarities [2, n, m] to all rows of the other view, or of both; their positives
    [2, n]; and which are negatives [n, m]."""
    if sides not in (1, 2):
        raise ValueError(
            f"{name}: sides must be 1 (negatives from the other view) or 2 (from both views); got sides={sides!r}."
        )
    views = checks.views(name, z1, z2)
    checks.several(name, len(z1), axis_name, "the negatives are other images")
    everyone = collectives.gather(jnp.stack(views, axis=1), axis_name)
    own = collectives.rows(len(z1), axis_name)
    if sides == 1:
        keys, partner = everyone[:, ::-1], jnp.stack([own, own])
    else:
        keys, partner = everyone.reshape(-1, everyone.shape[2]), jnp.stack([2 * own + 1, 2 * own])
    # In float32 on every device: these losses compare single products of nearly equal rows.
    with jax.default_matmul_precision("highest"):
        s = jax.vmap(similarity, in_axes=(0, 1 if sides == 1 else None))(jnp.stack(views), keys)
    positive = jnp.take_along_axis(s, partner[:, :, None], axis=2)[:, :, 0]
    return s, positive, own[:, None] != jnp.repeat(jnp.arange(len(everyone)), sides)


def _over_negatives(term, s, positive, negatives, sides, semi_hard):
    """The mean over each row's negatives of term(s), or the term of its semi-hard one: [2, n, m] -> [2, n]."""
    if not semi_hard:
        return jnp.sum(jnp.where(negatives, term(s), 0), axis=2) / (s.shape[2] - sides)
    candidates = jnp.where(negatives & (s < positive[:, :, None]), s, -jnp.inf)
    hardest = jnp.argmax(candidates, axis=2)[:, :, None]
    found = jnp.take_along_axis(candidates, hardest, axis=2)[:, :, 0] > -jnp.inf
    # 0 * positive, not 0: an anchor that is nan has found nothing.
    return jnp.where(found, term(jnp.take_along_axis(s, hardest, axis=2))[:, :, 0], 0 * positive)
