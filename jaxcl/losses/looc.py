"""InfoNCE of given scores, and what LooC makes of it: several spaces, each with its own positive."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax.scipy.special import logsumexp

from jaxcl import collectives
from jaxcl.losses import checks
from jaxcl.similarity import dot
from jaxcl.typing import Array


def info_nce(
    positive: Array,
    negatives: Array,
    *,
    temperature: float | Array = 0.2,
    axis_name: str | None = None,
) -> Array:
    """InfoNCE (van den Oord et al. 2018) of scores: positive [n], negatives [n, m] -> scalar.

        loss = 1/n sum_i -log( exp(p_i / t) / ( exp(p_i / t) + sum_j exp(n_ij / t) ) )

    A score of -inf is no negative. For scores that no ready-made loss forms: nt_xent and queue_nce make theirs from
    vectors, and need less memory. 0 for an anchor without negatives.

    axis_name
        the axis over which rows are split under `shard_map` or `pmap`; None where one program sees the global batch.

    >>> round(float(info_nce(jnp.array([1.0]), jnp.array([[0.0, -jnp.inf]]), temperature=1.0)), 4)  # log(1 + 1/e)
    0.3133
    """
    negatives = checks.rows("info_nce", "negatives", negatives)
    positive = jnp.asarray(positive).astype(negatives.dtype)
    if positive.shape != negatives.shape[:1]:
        raise ValueError(
            f"info_nce takes one positive score a row of negatives, [n] and [n, m]; got {positive.shape} and"
            f" {negatives.shape}."
        )
    checks.positive("info_nce", "temperature", temperature)
    positive = positive / temperature
    everything = logsumexp(jnp.concatenate([positive[:, None], negatives / temperature], axis=1), axis=1)
    return collectives.mean(jnp.mean(everything - positive), axis_name)


def looc(
    q: Array,
    k: Array,
    queue: Array | Sequence[Array],
    *,
    where: Array | None = None,
    temperature: float | Array = 0.2,
    axis_name: str | None = None,
) -> Array:
    """The loss of leave-one-out contrastive learning in s = n + 1 spaces: scalar.

        q      [s, b, d]      the query in every space
        k      [s, s, b, d]   k[i, j]: key view j in space i
        queue  [s, m, d]      each space's own negatives (an array, or a sequence of s arrays)

    (Xiao, Wang, Efros and Darrell, 2020, arXiv:2008.05659, eq. 2.) With E_ij = exp(q_i.k_ij / t) and Q_i the sum of
    exp(q_i.queue_i / t),

        loss = -1/s [ log( E_00 / (E_00 + Q_0) ) + sum_{i >= 1} log( E_ii / (sum_j E_ij + Q_i) ) ].

    Space 0 is invariant to everything: its positive is key 0, and the other keys play no part in it. In space i >= 1
    the positive is key i, whose i-th augmentation is the query's own, and all *other keys of the same image*, key 0
    among them, are negatives: so this space has to know how the i-th augmentation was applied.

    where
        bool [s, s, b]: which same-image keys count as negatives of a space (all, as in the paper, if not given). A
        key may have drawn the very same parameters by chance (`augment.leave_one_out` says which).

    With a single key view, k [s, 1, b, d], it is the positive in every space and there are no same-image negatives:
    the mean of s MoCo losses, as in the paper's control MoCo++. With s = 1 it is `queue_nce`.

    Rows are compared as they come: normalize them first.

    axis_name
        the axis over which rows are split under `shard_map` or `pmap`; None where one program sees the global batch.

    >>> e = jnp.eye(2)
    >>> one = looc(e[:1][None], e[:1][None, None], e[1:][None], temperature=1.0)
    >>> round(float(one), 4)  # log(1 + 1/e)
    0.3133
    """
    spaces, b, d = q.shape
    if k.shape not in ((spaces, spaces, b, d), (spaces, 1, b, d)) or len(queue) != spaces:
        raise ValueError(
            "looc takes q [s, b, d], k [s, s, b, d] (or [s, 1, b, d]) and s queues [m, d];"
            f" got {q.shape}, {k.shape} and {len(queue)} queues."
        )
    dtype = jnp.promote_types(jnp.result_type(q, k), jnp.float32)
    q, k = q.astype(dtype), k.astype(dtype)
    total = jnp.zeros((), dtype)
    for i in range(spaces):
        own = jnp.sum(q[i] * k[i], axis=-1)  # [views, b]
        positive = min(i, len(own) - 1)
        with jax.default_matmul_precision("highest"):
            negatives = dot(q[i], queue[i].astype(dtype))
        for j in range(len(own)):
            if i > 0 and j != positive:
                same_image = own[j] if where is None else jnp.where(where[i, j], own[j], -jnp.inf)
                negatives = jnp.concatenate([same_image[:, None], negatives], axis=1)
        total += info_nce(own[positive], negatives, temperature=temperature, axis_name=axis_name)
    return total / spaces
