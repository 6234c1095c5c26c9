"""Tiles of a matrix of products: the running sums of their exponentials by rows, the weights of the gradient, and both
for all pairs of one set of rows, where the tiles above the diagonal serve twice. `blockwise` has the equations.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxcl import collectives
from jaxcl.typing import Array


def blocks(x: Array, block: int) -> Array:
    """[n, ...] -> [ceil(n / block), block, ...], filled up with zeros."""
    count = -(-len(x) // block)
    if count * block != len(x):
        x = jnp.pad(x, [(0, count * block - len(x))] + [(0, 0)] * (x.ndim - 1))
    return x.reshape(count, block, *x.shape[1:])


@lru_cache(maxsize=64)
def upper_pairs(count: int) -> np.ndarray:
    """Tile coordinates (i, j), i < j, in square bundles, so that the rows which a bundle reads stay in the cache."""
    i, j = np.triu_indices(count, 1)
    order = np.lexsort((j, i, j // 8, i // 8))
    return np.stack([i[order], j[order]], axis=1).astype(np.int32)


@lru_cache(maxsize=64)
def all_pairs(rows: int, columns: int) -> np.ndarray:
    return np.stack(np.divmod(np.arange(rows * columns), columns), axis=1).astype(np.int32)


# --- the running sums -------------------------------------------------------------------------------------------


def start(shape: tuple[int, ...], like: Array, bound: float | None) -> tuple[Array, ...]:
    """(sums,) or (sums, maxima) of nothing."""
    zeros = collectives.vary_like(jnp.zeros(shape, like.dtype), like)
    # A finite floor: -inf - -inf would be nan where a row has seen no column yet.
    return (zeros,) if bound is not None else (zeros, zeros + 0.5 * jnp.finfo(like.dtype).min)


def add(sums: tuple[Array, ...], i: Array, s: Array, bound: float | None, axis: int) -> tuple[Array, ...]:
    """Takes a tile of products s into the sums of block i; axis is the one that is summed."""
    if bound is not None:
        return (sums[0].at[i].add(jnp.sum(jnp.exp(s - bound), axis=axis)),)
    total, top = sums
    new_top = jnp.maximum(top[i], jnp.max(s, axis=axis))
    fresh = jnp.sum(jnp.exp(s - jnp.expand_dims(new_top, axis)), axis=axis)
    return total.at[i].set(total[i] * jnp.exp(top[i] - new_top) + fresh), top.at[i].set(new_top)


def finish(sums: tuple[Array, ...], n: int, bound: float | None) -> Array:
    top = bound if bound is not None else sums[1]
    return (jnp.log(sums[0]) + top).reshape(-1)[:n]


def weight_of(s: Array, log_z: Array, c: Array, bound: float | None) -> Array:
    """c exp(s - log_z), by one exponential of the tile that rows and columns may share where there is a bound."""
    if bound is not None:
        return jnp.exp(s - bound) * (c * jnp.exp(bound - log_z))
    return c * jnp.exp(s - log_z)


def weights_of_both(
    log_z: Array, c: Array, bound: float | None, *, others: tuple[Array, Array] | None = None
) -> Callable[[Array, Array, Array], Array]:
    """(s, i, j) -> what dL weighs the other row of each product s of tiles i and j with; log_z and c by tiles. Where
    the tiles j are of other rows, `others` are log_z and c of these.

    d/dz_i sum_k c_k L_k = sum_j (c_i exp(s_ij - L_i) + c_j exp(s_ij - L_j)) z_j
    """
    other_log_z, other_c = others or (log_z, c)
    if bound is None:

        def apart(s, i, j):
            return weight_of(s, log_z[i][:, None], c[i][:, None], bound) + weight_of(
                s, other_log_z[j][None, :], other_c[j][None, :], bound
            )

        return apart

    share, other_share = c * jnp.exp(bound - log_z), other_c * jnp.exp(bound - other_log_z)
    return lambda s, i, j: jnp.exp(s - bound) * (share[i][:, None] + other_share[j][None, :])


def products(q: Array, k: Array, precision: str | None = None) -> Array:
    return lax.dot_general(q, k, (((1,), (1,)), ((), ())), precision=precision)


def weighted(w: Array, k: Array, precision: str | None = None) -> Array:
    """sum_j w_ij k_j."""
    return lax.dot_general(w, k, (((1,), (0,)), ((), ())), precision=precision)


def _positives_of(block: int, views: int) -> np.ndarray:
    """Which entries of a tile on the diagonal are products of two views of one image: bool [block, block]."""
    image = np.arange(block) // max(views, 1)
    return (image[:, None] == image) & ~np.eye(block, dtype=bool) & (views > 1)


def _others(x: Array, views: int) -> Array:
    """The mean of each row's positives: [v n, ...] -> [v n, ...]."""
    own = x.reshape(-1, views, *x.shape[1:])
    total = own[:, ::-1] if views == 2 else (jnp.sum(own, axis=1, keepdims=True) - own) / (views - 1)
    return total.reshape(x.shape)


def positives(z: Array, views: int) -> Array:
    """Of every row, the mean product with the others of its image; zeros for views = 0."""
    if not views:
        return collectives.vary_like(jnp.zeros(len(z), z.dtype), z)
    return jnp.sum(z * _others(z, views), axis=1)


def positives_backward(z: Array, c: Array, views: int) -> Array:
    """d/dz of sum_i c_i positive_i."""
    if not views:
        return collectives.vary_like(jnp.zeros_like(z), z)
    return c[:, None] * _others(z, views) + _others(c[:, None] * z, views)


# --- one program sees all rows: tiles above the diagonal serve twice -----------------------------------------------


def mask(s: Array, i: Array, j: Array, rows: int, group: int) -> Array:
    """Products with a row's own group, or with the filling of the last block, become -inf."""
    a = i * s.shape[0] + lax.broadcasted_iota(jnp.int32, s.shape, 0)
    b = j * s.shape[1] + lax.broadcasted_iota(jnp.int32, s.shape, 1)
    out = b >= rows
    if group:
        out |= a // group == b // group
    return jnp.where(out, -jnp.inf, s)


def symmetric_running(
    z: Array, group: int, views: int, bound: float | None, block: int, precision: str | None
):
    """The running sums of all pairs of rows, by tiles, and each row's positive, within the tiles."""
    rows, zb = len(z), blocks(z, block)
    filled = zb.shape[0] * block != rows

    # An image's views lie beside each other, so its products lie in a tile on the diagonal.
    own = _positives_of(block, views)

    def on_diagonal(sums, i):
        s = products(zb[i], zb[i], precision)
        positive = jnp.sum(jnp.where(own, s, 0), axis=1) / max(views - 1, 1)
        return add(sums, i, mask(s, i, i, rows, group), bound, 1), positive

    def above(sums, pair):
        i, j = pair
        s = products(zb[i], zb[j], precision)
        if filled:
            s = mask(s, i, j, rows, 0)
        if bound is None:
            return add(add(sums, i, s, bound, 1), j, s, bound, 0), None
        e = jnp.exp(s - bound)
        return (sums[0].at[i].add(jnp.sum(e, axis=1)).at[j].add(jnp.sum(e, axis=0)),), None

    sums = start(zb.shape[:2], z, bound)
    sums, positive = lax.scan(on_diagonal, sums, np.arange(len(zb), dtype=np.int32))
    sums, _ = lax.scan(above, sums, upper_pairs(len(zb)))
    return sums, positive.reshape(-1)[:rows]


def _symmetric_sums(z: Array, group: int, views: int, bound: float | None, block: int, precision: str | None):
    sums, positive = symmetric_running(z, group, views, bound, block, precision)
    return finish(sums, len(z), bound), positive


def _symmetric_forward(z, group, views, bound, block, precision):
    out = _symmetric_sums(z, group, views, bound, block, precision)
    return out, (z, out[0])


def symmetric_gradient(
    dz: Array,
    z: Array,
    log_z: Array,
    c: Array,
    group: int,
    bound: float | None,
    block: int,
    precision: str | None,
):
    """dz and d/dz of sum_i c_i L_i over all pairs of rows, by tiles [t, block, d]."""
    rows, zb, lb, cb = len(z), *(blocks(x, block) for x in (z, log_z, c))
    filled = zb.shape[0] * block != rows
    both = weights_of_both(lb, cb, bound)

    def on_diagonal(dz, i):
        w = both(mask(products(zb[i], zb[i], precision), i, i, rows, group), i, i)
        return dz.at[i].add(weighted(w, zb[i], precision)), None

    def above(dz, pair):
        i, j = pair
        s = products(zb[i], zb[j], precision)
        if filled:
            s = mask(s, i, j, rows, 0)
        w = both(s, i, j)
        dz = dz.at[i].add(weighted(w, zb[j], precision))
        return dz.at[j].add(weighted(w.T, zb[i], precision)), None

    dz, _ = lax.scan(on_diagonal, dz, np.arange(len(zb), dtype=np.int32))
    return lax.scan(above, dz, upper_pairs(len(zb)))[0]


def _symmetric_backward(group, views, bound, block, precision, kept, cotangents):
    (z, log_z), (c, c_positive) = kept, cotangents
    # Positives in full precision, not within the tiles: there an accelerator rounds z, and among rows that are nearly
    # alike the rounding of the one positive would be as large as what is left of it.
    dz = blocks(positives_backward(z, c_positive, views), block)
    dz = symmetric_gradient(dz, z, log_z, c, group, bound, block, precision)
    return (dz.reshape(-1, z.shape[1])[: len(z)],)


symmetric = jax.custom_vjp(_symmetric_sums, nondiff_argnums=(1, 2, 3, 4, 5))
symmetric.defvjp(_symmetric_forward, _symmetric_backward)
