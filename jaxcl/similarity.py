"""Part 4: how two sets of vectors are compared. (q [n, d], k [m, d]) -> [n, m].

An accelerator rounds the operands of these products to TF32 or bfloat16. `jaxcl.losses.blockwise` says which losses are
harmed by this, and computes those in float32. `jax.default_matmul_precision("highest")` computes all in float32.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax

from jaxcl import collectives
from jaxcl.shapes import check, check_numbers, widened
from jaxcl.typing import Array


def normalize(z: Array, *, epsilon: float = 1e-12) -> Array:
    """Rows scaled to unit length, `z / sqrt(max(|z|^2, epsilon))`: [..., d] -> [..., d].

    A zero row stays zero, with a finite gradient (`z / norm(z)` has none there). Of float16, in which epsilon would be
    0, lengths are taken in float32, and a gradient is cut off at float16's largest number.

    >>> normalize(jnp.array([[3.0, 4.0], [0.0, 0.0]])).tolist()
    [[0.6..., 0.8...], [0.0, 0.0]]
    """
    wide = widened(z) if z.dtype == jnp.float16 else z
    scale = lax.rsqrt(jnp.maximum(jnp.sum(jnp.square(wide), axis=-1, keepdims=True), epsilon))
    return (wide * scale).astype(z.dtype)


def dot(q: Array, k: Array) -> Array:
    """q k^T, the products of all pairs of rows as they come.

    >>> dot(jnp.array([[2.0, 1.0]]), jnp.array([[3.0, 0.0], [0.0, 4.0]])).tolist()
    [[6.0, 4.0]]
    """
    check("dot", q=(q, "nd"), k=(k, "md"))
    return q @ k.T


def cosine(q: Array, k: Array) -> Array:
    """q k^T of the normalised rows, in [-1, 1].

    >>> cosine(jnp.array([[2.0, 0.0]]), jnp.array([[1.0, 0.0], [0.0, 3.0], [-1.0, 0.0]])).tolist()
    [[1.0, 0.0, -1.0]]
    """
    check("cosine", q=(q, "nd"), k=(k, "md"))
    return normalize(q) @ normalize(k).T


def scaled_dot(q: Array, k: Array) -> Array:
    """q k^T / sqrt(d).

    >>> scaled_dot(jnp.ones((1, 4)), jnp.ones((1, 4))).tolist()
    [[2.0]]
    """
    check("scaled_dot", q=(q, "nd"), k=(k, "md"))
    return q @ k.T / q.shape[-1] ** 0.5


def cosine_by_row(q: Array, k: Array) -> Array:
    """Of each row with the row beside it alone: [n, d], [n, d] -> [n], the diagonal of `cosine`.

    >>> cosine_by_row(jnp.array([[2.0, 0.0], [1.0, 0.0]]), jnp.array([[3.0, 0.0], [0.0, 1.0]])).tolist()
    [1.0, 0.0]
    """
    check("cosine_by_row", q=(q, "nd"), k=(k, "nd"))
    return jnp.sum(normalize(q) * normalize(k), axis=1)


def dot_with_own(q: Array, k: Array) -> Array:
    """Of each row with rows of its own: q [n, d], k [n, m, d] -> [n, m], q_i . k_ij.

    >>> dot_with_own(jnp.array([[1.0], [2.0]]), jnp.array([[[1.0], [5.0]], [[0.0], [3.0]]])).tolist()
    [[1.0, 5.0], [0.0, 6.0]]
    """
    check("dot_with_own", q=(q, "nd"), k=(k, "nmd"))
    return jnp.einsum("nd,nmd->nm", q, k)


# Of the rows that `dot_with_rows` copies at a time.
COPIED_BYTES = 2**25


def dot_with_rows(q: Array, bank: Array, numbers: Array, *, axis_name: str | None = None) -> Array:
    """Of each row with some rows of a bank, q_i . bank[numbers_ij]: [n, d], [m, d], int [n, k] -> [n, k].

    As `dot_with_own(q, bank[numbers])`, but only a few rows of q at a time: [n, k, d] would be 2 GiB for 256 queries
    with 16,384 negatives of 128 numbers each. Under an axis q and numbers are this device's, the bank is whole.

    axis_name
        the axis over which rows are split under `shard_map` or `pmap`; None where one program sees the global batch.

    >>> bank = jnp.array([[1.0], [5.0], [3.0]])
    >>> dot_with_rows(jnp.array([[1.0], [2.0]]), bank, jnp.array([[0, 1], [2, 2]])).tolist()
    [[1.0, 5.0], [6.0, 6.0]]
    """
    check("dot_with_rows", q=(q, "nd"), bank=(bank, "md"), numbers=(numbers, "nk"))
    check_numbers("dot_with_rows", numbers=numbers)
    each = numbers.shape[1] * bank.shape[1] * bank.dtype.itemsize

    def some_at_a_time(q, numbers, bank, axis_name):
        del axis_name  # nothing is gathered
        most = max(1, COPIED_BYTES // each)
        some = next(size for size in range(min(most, len(q)), 0, -1) if len(q) % size == 0)
        if some == len(q):
            return dot_with_own(q, bank[numbers])
        # Copied again for the gradient: kept, the copies would be all there at once.
        one = jax.checkpoint(lambda row: dot_with_own(row[0][None], bank[row[1]][None])[0])
        return lax.map(one, (q, numbers), batch_size=some)

    return collectives.by_rows(some_at_a_time, q, numbers, whole=(bank,), axis_name=axis_name)


def tanh_clip(scores: Array, limit: float | Array) -> Array:
    """limit tanh(scores / limit): as they are near 0, never beyond `limit`.

    >>> tanh_clip(jnp.array([0.0, 0.1, 1e6]), 20.0).tolist()
    [0.0, 0.0999..., 20.0]
    """
    return limit * jnp.tanh(scores / limit)
