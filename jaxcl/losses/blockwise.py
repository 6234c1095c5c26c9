"""Sums over all pairs of rows, in memory that grows with the rows and not with their pairs.

What the contrastive losses share is a row's log-partition

    L_i = log sum_k exp(q_i . k_k)

over a matrix of products that, stored, has 2N x 2N entries and several copies of itself in the backward pass. Here
the matrix is made a tile at a time, summed, forgotten, and made again for the gradient:

    dL_i / dq_i = sum_k p_ik k_k,    dL_i / dk_k = p_ik q_i,    p_ik = exp(q_i . k_k - L_i),

so that only L is kept. Where rows and columns are the same vectors the products are symmetric: a tile above the
diagonal serves the one below it, in both passes, which halves the exponentials and the forward's products. The idea of
the tiles is that of FlashAttention (Dao et al. 2022, arXiv:2205.14135) and Inf-CL (Cheng et al. 2024,
arXiv:2410.17243); the results are exact up to rounding.

Several devices share the tiles, under `jit` too (`collectives.by_rows`). Each gathers the rows of all and, in the
backward pass, holds a gradient for each of them, which are added up in the end. Where the rows of all take more than
`GATHERED` bytes (half a million of width 128), they go round a ring of the devices instead, one device's rows at a
time, with what has been found for them: memory is then a few times a device's own rows, however many devices.

Two ways to keep the exponentials in range: where all products are known to be at most `bound` and at least `-bound`
(unit rows over a temperature) they are shifted by it; else a running maximum is kept for every row (Milakov &
Gimelshein 2018, arXiv:1805.02867).

Sums are float32, and so are products on a CPU. An accelerator multiplies faster and rounder unless it is told
otherwise: float32 rows go into a product with the 10 bits of TF32 on NVIDIA's tensor cores and the 8 of bfloat16 on a
TPU, in every loss as in every network. Losses and gradients are then right to about 1e-3 of their largest entry (TF32)
and 1e-2 (bfloat16). It shows where rows have nearly collapsed onto one point, as at the start of a run, and cosines
differ by less than they are rounded by. There the positives are taken beside the tiles, unrounded; and of the losses
whose gradients were off by more (measured on an H100: the triplet loss by 2 % in TF32 and 20 % in bfloat16, the
supervised contrastive loss by 0.6 and 8 %, NT-Logistic by 0.4 and 3 %, the sliced Wasserstein distance by 0.5 and 2 %)
the products are asked for in float32. For all of them: `jax.default_matmul_precision("highest")`.

These functions have their own backward rule, so forward mode alone (`jax.jvp`) is refused: ask the losses for
`block_size=0`, the plain form. `jax.grad`, and derivatives of it (`jax.hessian`), work.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxcl import collectives
from jaxcl.typing import Array

# Below this many products the plain matrix is as fast, and small enough to keep.
PLAIN_BELOW = 1 << 20


# Rows of all devices that take no more bytes than this are gathered; of more, blocks go round in a ring. With a
# gradient for each and a copy or two it is a sixteenth of the memory of the smallest accelerator in use, 16 GiB.
GATHERED = 2**28


def goes_round(rows: Array, devices: int) -> bool:
    """Whether devices with so many rows each pass them round, and do not gather them, when nobody has said."""
    return devices > 1 and devices * rows.size * rows.dtype.itemsize > GATHERED


def is_worth_it(rows: int, columns: int) -> bool:
    """Whether the losses choose the blockwise form of a rows x columns problem when nobody has said."""
    return rows * columns > PLAIN_BELOW


def chosen(block_size: int | None, rows: int, columns: int) -> bool:
    """Whether to compute blockwise: as `block_size` says, or None: by the size."""
    if block_size is not None and block_size < 0:
        raise ValueError(
            f"block_size is None (decide by size), 0 (plain) or the rows of a block; got {block_size}."
        )
    return is_worth_it(rows, columns) if block_size is None else block_size > 0


def default_block(platform: str | None = None) -> int:
    """Rows of a tile: on a CPU a tile should stay in the cache of a core, elsewhere it should fill the machine."""
    return 256 if (platform or collectives.target().platform) == "cpu" else 2048


def log_partition(
    z: Array,
    *,
    group: int = 1,
    views: int = 0,
    bound: float | None = None,
    block_size: int | None = None,
    precision: str | None = None,
    ring: bool | None = None,
    axis_name: str | None = None,
) -> tuple[Array, Array]:
    """Of every row i: L_i = log of the sum of exp(z_i . z_k) over all rows k outside i's group, and its positive.

    [m, d] -> [m], [m].

    z
        this device's rows, already divided by the square root of the temperature; the k are the rows of all devices.
    group
        how many neighbouring rows leave each other out: 1 leaves out only k = i, v leaves out the v views of an image
        (which must lie beside each other), 0 leaves out none.
    views
        v > 1: the v views of an image lie beside each other, and a row's positive is its mean product with the others
        (it is taken along here because its gradient then needs no array of its own). 0: positives are zero.
    bound
        a number that no |z_i . z_k| exceeds, as 1/temperature for unit rows; None if unknown.
    precision
        of the products; None is the device's own, "highest" float32 everywhere.
    ring
        whether the rows of several devices go round in place of being gathered; None decides by their bytes
        (`GATHERED`). The same value, up to rounding.
    """
    bound, together = _usable(bound, z.dtype), max(group, views, 1)

    def of_own(z, axis_name):
        block = block_size or default_block()
        if axis_name is None:
            z, block = collectives.gather(z), _fit(block, len(z), together)
            return _symmetric(z, group, views, bound, block, precision)
        if goes_round(z, collectives.size(axis_name)) if ring is None else ring:
            return _ring(z, group, views, bound, _fit(block, len(z), together), axis_name, precision)
        # Sixteen tiles in all, or more: the two sides of what is made twice are one tile in T.
        block = min(block, -(-len(z) * collectives.size(axis_name) // 16))
        return _shared(z, group, views, bound, _fit(block, len(z), together), axis_name, precision)

    return collectives.by_rows(of_own, z, together=together, axis_name=axis_name)


def log_partition_between(
    q: Array,
    k: Array,
    *,
    bound: float | None = None,
    block_size: int | None = None,
    axis_name: str | None = None,
) -> Array:
    """L_i = log sum_j exp(q_i . k_j): this device's rows [n, d], and [m, d] that are the same on all -> [n]."""
    block = block_size or default_block()

    def of_own(q, k, axis_name):
        del axis_name  # nothing is gathered
        # Blocks cannot be cut from rows that an explicitly sharded mesh has split (elsewhere this does nothing).
        q, k = collectives.gather(q), collectives.gather(k)
        q, k = collectives.vary_like(q, k), collectives.vary_like(k, q)
        return _between(q, k, _usable(bound, q.dtype), _fit(block, len(q)), _fit(block, len(k)))

    return collectives.by_rows(of_own, q, whole=(k,), axis_name=axis_name)


def _usable(bound: float | None, dtype) -> float | None:
    """The bound, if exp(-2 bound) is still a normal number: a row far from all others must not sum to zero."""
    return bound if bound is not None and 2 * bound < -0.9 * np.log(jnp.finfo(dtype).tiny) else None


def _fit(block: int, rows: int, multiple: int = 1) -> int:
    """A block of about `block` rows, a multiple of `multiple`, that leaves the last one nearly full."""
    count = max(1, round(rows / block))
    size = -(-rows // count)
    return -(-size // multiple) * multiple


def _blocks(x: Array, block: int) -> Array:
    """[n, ...] -> [ceil(n / block), block, ...], filled up with zeros."""
    count = -(-len(x) // block)
    if count * block != len(x):
        x = jnp.pad(x, [(0, count * block - len(x))] + [(0, 0)] * (x.ndim - 1))
    return x.reshape(count, block, *x.shape[1:])


@lru_cache(maxsize=64)
def _upper_pairs(count: int) -> np.ndarray:
    """Tile coordinates (i, j), i < j, in square bundles, so that the rows which a bundle reads stay in the cache."""
    i, j = np.triu_indices(count, 1)
    order = np.lexsort((j, i, j // 8, i // 8))
    return np.stack([i[order], j[order]], axis=1).astype(np.int32)


@lru_cache(maxsize=64)
def _all_pairs(rows: int, columns: int) -> np.ndarray:
    return np.stack(np.divmod(np.arange(rows * columns), columns), axis=1).astype(np.int32)


# --- the running sums -------------------------------------------------------------------------------------------


def _start(shape: tuple[int, ...], like: Array, bound: float | None) -> tuple[Array, ...]:
    """(sums,) or (sums, maxima) of nothing."""
    zeros = collectives.vary_like(jnp.zeros(shape, like.dtype), like)
    # A finite floor: -inf - -inf would be nan where a row has seen no column yet.
    return (zeros,) if bound is not None else (zeros, zeros + 0.5 * jnp.finfo(like.dtype).min)


def _add(sums: tuple[Array, ...], i: Array, s: Array, bound: float | None, axis: int) -> tuple[Array, ...]:
    """Takes a tile of products s into the sums of block i; axis is the one that is summed."""
    if bound is not None:
        return (sums[0].at[i].add(jnp.sum(jnp.exp(s - bound), axis=axis)),)
    total, top = sums
    new_top = jnp.maximum(top[i], jnp.max(s, axis=axis))
    fresh = jnp.sum(jnp.exp(s - jnp.expand_dims(new_top, axis)), axis=axis)
    return total.at[i].set(total[i] * jnp.exp(top[i] - new_top) + fresh), top.at[i].set(new_top)


def _finish(sums: tuple[Array, ...], n: int, bound: float | None) -> Array:
    top = bound if bound is not None else sums[1]
    return (jnp.log(sums[0]) + top).reshape(-1)[:n]


def _weight(s: Array, log_z: Array, c: Array, bound: float | None) -> Array:
    """c exp(s - log_z), by one exponential of the tile that rows and columns may share where there is a bound."""
    if bound is not None:
        return jnp.exp(s - bound) * (c * jnp.exp(bound - log_z))
    return c * jnp.exp(s - log_z)


def _both(
    log_z: Array, c: Array, bound: float | None, *, others: tuple[Array, Array] | None = None
) -> Callable[[Array, Array, Array], Array]:
    """(s, i, j) -> what dL weighs the other row of each product s of tiles i and j with; log_z and c by tiles. Where
    the tiles j are of other rows, `others` are log_z and c of these.

    d/dz_i sum_k c_k L_k = sum_j (c_i exp(s_ij - L_i) + c_j exp(s_ij - L_j)) z_j
    """
    other_log_z, other_c = others or (log_z, c)
    if bound is None:

        def apart(s, i, j):
            return _weight(s, log_z[i][:, None], c[i][:, None], bound) + _weight(
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


def _positives_backward(z: Array, c: Array, views: int) -> Array:
    """d/dz of sum_i c_i positive_i."""
    if not views:
        return collectives.vary_like(jnp.zeros_like(z), z)
    return c[:, None] * _others(z, views) + _others(c[:, None] * z, views)


# --- one program sees all rows: tiles above the diagonal serve twice -----------------------------------------------


def _mask(s: Array, i: Array, j: Array, rows: int, group: int) -> Array:
    """Products with a row's own group, or with the filling of the last block, become -inf."""
    a = i * s.shape[0] + lax.broadcasted_iota(jnp.int32, s.shape, 0)
    b = j * s.shape[1] + lax.broadcasted_iota(jnp.int32, s.shape, 1)
    out = b >= rows
    if group:
        out |= a // group == b // group
    return jnp.where(out, -jnp.inf, s)


def _symmetric_running(
    z: Array, group: int, views: int, bound: float | None, block: int, precision: str | None
):
    """The running sums of all pairs of rows, by tiles, and each row's positive, within the tiles."""
    rows, zb = len(z), _blocks(z, block)
    filled = zb.shape[0] * block != rows

    # An image's views lie beside each other, so its products lie in a tile on the diagonal.
    own = _positives_of(block, views)

    def on_diagonal(sums, i):
        s = products(zb[i], zb[i], precision)
        positive = jnp.sum(jnp.where(own, s, 0), axis=1) / max(views - 1, 1)
        return _add(sums, i, _mask(s, i, i, rows, group), bound, 1), positive

    def above(sums, pair):
        i, j = pair
        s = products(zb[i], zb[j], precision)
        if filled:
            s = _mask(s, i, j, rows, 0)
        if bound is None:
            return _add(_add(sums, i, s, bound, 1), j, s, bound, 0), None
        e = jnp.exp(s - bound)
        return (sums[0].at[i].add(jnp.sum(e, axis=1)).at[j].add(jnp.sum(e, axis=0)),), None

    sums = _start(zb.shape[:2], z, bound)
    sums, positive = lax.scan(on_diagonal, sums, np.arange(len(zb), dtype=np.int32))
    sums, _ = lax.scan(above, sums, _upper_pairs(len(zb)))
    return sums, positive.reshape(-1)[:rows]


def _symmetric_sums(z: Array, group: int, views: int, bound: float | None, block: int, precision: str | None):
    sums, positive = _symmetric_running(z, group, views, bound, block, precision)
    return _finish(sums, len(z), bound), positive


def _symmetric_forward(z, group, views, bound, block, precision):
    out = _symmetric_sums(z, group, views, bound, block, precision)
    return out, (z, out[0])


def _symmetric_gradient(
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
    rows, zb, lb, cb = len(z), *(_blocks(x, block) for x in (z, log_z, c))
    filled = zb.shape[0] * block != rows
    both = _both(lb, cb, bound)

    def on_diagonal(dz, i):
        w = both(_mask(products(zb[i], zb[i], precision), i, i, rows, group), i, i)
        return dz.at[i].add(weighted(w, zb[i], precision)), None

    def above(dz, pair):
        i, j = pair
        s = products(zb[i], zb[j], precision)
        if filled:
            s = _mask(s, i, j, rows, 0)
        w = both(s, i, j)
        dz = dz.at[i].add(weighted(w, zb[j], precision))
        return dz.at[j].add(weighted(w.T, zb[i], precision)), None

    dz, _ = lax.scan(on_diagonal, dz, np.arange(len(zb), dtype=np.int32))
    return lax.scan(above, dz, _upper_pairs(len(zb)))[0]


def _symmetric_backward(group, views, bound, block, precision, kept, cotangents):
    (z, log_z), (c, c_positive) = kept, cotangents
    # Positives in full precision, not within the tiles: there an accelerator rounds z, and among rows that are nearly
    # alike the rounding of the one positive would be as large as what is left of it.
    dz = _blocks(_positives_backward(z, c_positive, views), block)
    dz = _symmetric_gradient(dz, z, log_z, c, group, bound, block, precision)
    return (dz.reshape(-1, z.shape[1])[: len(z)],)


_symmetric = jax.custom_vjp(_symmetric_sums, nondiff_argnums=(1, 2, 3, 4, 5))
_symmetric.defvjp(_symmetric_forward, _symmetric_backward)


# --- one program a device: the tiles above the diagonal, dealt out -------------------------------------------------
#
# All rows are cut into T tiles, in device order. A device makes the tiles (i, i + k mod T) of its own i, k = 1, 2, ...
# up to half of T: so each pair of tiles is made once, by one device, and all devices make equally many. What they find
# for rows of others is added up over the devices in the end. The tile on the diagonal, and where T is even that at
# k = T/2 (which both sides make), serve their own rows only.


class _Dealt(NamedTuple):
    """What a device has at hand.

    own     this device's tiles [a, block, d]
    all     everybody's [T, block, d]
    first   the number, among all, of this device's first
    tile    (i, j, grouped) -> products of its own i-th tile with the j-th of all; -inf for the filling and, if
            `grouped`, for rows of one group, which lie in one tile
    once    pairs (i, k) that serve the rows of i
    twice   pairs (i, k) that serve the rows of i and those of i + k
    """

    own: Array
    all: Array
    first: Array
    tile: Callable[[Array, Array, bool], Array]
    once: np.ndarray
    twice: np.ndarray

    def numbers(self, pair: Array) -> tuple[Array, Array, Array]:
        """(i, k) -> i, and the numbers among all of tiles i and i + k."""
        i, k = pair
        return i, self.first + i, (self.first + i + k) % len(self.all)


def _deal(z: Array, group: int, block: int, axis_name: str, precision: str | None) -> _Dealt:
    n, own = len(z), _blocks(z, block)
    everyone = collectives.gather(own, axis_name)
    tiles, total = len(own), len(everyone)
    first = collectives.rows(1, axis_name)[0] * tiles
    filled = tiles * block != n

    def place(tile, axis):
        """Where a tile's entries are among its device's rows, along an axis."""
        return tile % tiles * block + lax.broadcasted_iota(jnp.int32, (block, block), axis)

    def tile(i, j, grouped):
        s = products(own[i], everyone[j], precision)
        if not filled and not grouped:
            return s
        row, column = place(i, 0), place(j, 1)
        out = (column >= n) | (row >= n) if filled else jnp.zeros((), bool)
        if grouped:
            out |= ((first + i) // tiles == j // tiles) & (row // group == column // group)
        return jnp.where(out, -jnp.inf, s)

    i, k = np.divmod(np.arange(tiles * (total // 2 + 1), dtype=np.int32), total // 2 + 1)
    once = (k == 0) | (2 * k == total)
    # In square bundles, so that the tiles which a bundle reads stay in the cache.
    order = np.lexsort((k, i, k // 8, i // 8))
    pairs = np.stack([i, k], axis=1)[order]
    return _Dealt(own, everyone, first, tile, pairs[once[order]], pairs[~once[order]])


def _shared_sums(
    z: Array,
    group: int,
    views: int,
    bound: float | None,
    block: int,
    axis_name: str,
    precision: str | None,
):
    dealt = _deal(z, group, block, axis_name, precision)

    def once(sums, pair):
        i, a, b = dealt.numbers(pair)
        return _add(sums, a, dealt.tile(i, b, group > 0), bound, 1), None

    def twice(sums, pair):
        i, a, b = dealt.numbers(pair)
        s = dealt.tile(i, b, False)
        if bound is None:
            return _add(_add(sums, a, s, bound, 1), b, s, bound, 0), None
        e = jnp.exp(s - bound)
        return (sums[0].at[a].add(jnp.sum(e, axis=1)).at[b].add(jnp.sum(e, axis=0)),), None

    sums = _start(dealt.all.shape[:2], z, bound)
    sums, _ = lax.scan(once, sums, dealt.once)
    sums, _ = lax.scan(twice, sums, dealt.twice)
    if bound is None:
        # Every device has its own maxima; sums are brought to the largest before they are added.
        top = lax.pmax(lax.stop_gradient(sums[1]), axis_name)
        total = collectives.sum_own(sums[0] * jnp.exp(sums[1] - top), axis_name)
        sums = (total, lax.dynamic_slice_in_dim(top, dealt.first, len(dealt.own)))
    else:
        sums = (collectives.sum_own(sums[0], axis_name),)
    return _finish(sums, len(z), bound), positives(z, views)


def _shared_forward(z, group, views, bound, block, axis_name, precision):
    out = _shared_sums(z, group, views, bound, block, axis_name, precision)
    return out, (z, out[0])


def _shared_backward(group, views, bound, block, axis_name, precision, kept, cotangents):
    (z, log_z), (c, c_positive) = kept, cotangents
    dealt = _deal(z, group, block, axis_name, precision)
    all_log_z, all_c = (collectives.gather(_blocks(x, block), axis_name) for x in (log_z, c))
    both = _both(all_log_z, all_c, bound)

    def once(dz, pair):
        i, a, b = dealt.numbers(pair)
        w = both(dealt.tile(i, b, group > 0), a, b)
        return dz.at[a].add(weighted(w, dealt.all[b], precision)), None

    def twice(dz, pair):
        i, a, b = dealt.numbers(pair)
        w = both(dealt.tile(i, b, False), a, b)
        dz = dz.at[a].add(weighted(w, dealt.all[b], precision))
        return dz.at[b].add(weighted(w.T, dealt.own[i], precision)), None

    dz = collectives.vary_like(jnp.zeros_like(dealt.all), z)
    dz, _ = lax.scan(once, dz, dealt.once)
    dz, _ = lax.scan(twice, dz, dealt.twice)
    dz = collectives.sum_own(dz, axis_name).reshape(-1, z.shape[1])[: len(z)]
    return (dz + _positives_backward(z, c_positive, views),)


_shared = jax.custom_vjp(_shared_sums, nondiff_argnums=(1, 2, 3, 4, 5, 6))
_shared.defvjp(_shared_forward, _shared_backward)


# --- one program a device, rows that go round -----------------------------------------------------------------------
#
# Device p begins with its own pairs of rows. Then it gets the rows of device p + 1, p + 2, ... up to half of the D
# devices round the ring, makes all tiles of its own rows with them, and adds what they tell of both to two sums: its
# own, and one that goes round with the rows it is for and is sent home in the end. So each pair of devices meets once.
# Where D is even the devices that face each other both make their tiles, each for its own rows only.


class _Met(NamedTuple):
    """Two devices' tiles of rows [t, block, d], and the pairs of tiles of one with the other."""

    own: Array
    other: Array
    rows: int  # of a device, without the filling of the last tile
    precision: str | None

    @property
    def pairs(self) -> np.ndarray:
        return _all_pairs(len(self.own), len(self.other))

    def tile(self, pair: Any) -> Array:
        i, j = pair
        s = products(self.own[i], self.other[j], self.precision)
        if len(self.own) * s.shape[0] == self.rows:
            return s
        a = i * s.shape[0] + lax.broadcasted_iota(jnp.int32, s.shape, 0)
        b = j * s.shape[1] + lax.broadcasted_iota(jnp.int32, s.shape, 1)
        return jnp.where((a >= self.rows) | (b >= self.rows), -jnp.inf, s)


def _round_the_ring(meet: Callable, meet_opposite: Callable, own, going, axis_name: str):
    """own after all devices have been met, and what has come home of those `going`, a pair (rows, found for them).

    meet            (own, rows, found) -> own, found: tiles that serve both
    meet_opposite   (own, rows) -> own: tiles that serve own rows only
    """
    devices = collectives.size(axis_name)
    last = (devices - 1) // 2

    def step(carry, _):
        own, going = carry
        rows, found = collectives.from_next(going, axis_name)
        own, found = meet(own, rows, found)
        return (own, (rows, found)), None

    (own, (rows, found)), _ = lax.scan(step, (own, going), length=last)
    if devices % 2 == 0:
        own = meet_opposite(own, collectives.from_next(rows, axis_name))
    return own, collectives.from_next(found, axis_name, steps=-last)


def _ring_sums(
    z: Array,
    group: int,
    views: int,
    bound: float | None,
    block: int,
    axis_name: str,
    precision: str | None,
):
    own, n = _blocks(z, block), len(z)

    def meet(sums, others, found):
        met = _Met(own, others, n, precision)

        def twice(both, pair):
            (i, j), (sums, found) = pair, both
            s = met.tile(pair)
            if bound is None:
                return (_add(sums, i, s, bound, 1), _add(found, j, s, bound, 0)), None
            e = jnp.exp(s - bound)
            return ((sums[0].at[i].add(jnp.sum(e, axis=1)),), (found[0].at[j].add(jnp.sum(e, axis=0)),)), None

        return lax.scan(twice, (sums, found), met.pairs)[0]

    def meet_opposite(sums, others):
        met = _Met(own, others, n, precision)
        return lax.scan(
            lambda sums, pair: (_add(sums, pair[0], met.tile(pair), bound, 1), None), sums, met.pairs
        )[0]

    sums, _ = _symmetric_running(z, group, 0, bound, block, precision)
    going = own, _start(own.shape[:2], z, bound)
    sums, home = _round_the_ring(meet, meet_opposite, sums, going, axis_name)
    if bound is None:
        top = jnp.maximum(sums[1], home[1])
        sums = (sum(part * jnp.exp(largest - top) for part, largest in (sums, home)), top)
    else:
        sums = (sums[0] + home[0],)
    return _finish(sums, n, bound), positives(z, views)


def _ring_forward(z, group, views, bound, block, axis_name, precision):
    out = _ring_sums(z, group, views, bound, block, axis_name, precision)
    return out, (z, out[0])


def _ring_backward(group, views, bound, block, axis_name, precision, kept, cotangents):
    (z, log_z), (c, c_positive) = kept, cotangents
    own, lb, cb = (_blocks(x, block) for x in (z, log_z, c))

    def weights(others):
        rows, *log_z_and_c = others
        met, both = _Met(own, rows, len(z), precision), _both(lb, cb, bound, others=tuple(log_z_and_c))
        return met, lambda pair: both(met.tile(pair), *pair)

    def meet(dz, others, found):
        met, weight = weights(others)

        def twice(both, pair):
            (i, j), (dz, found), w = pair, both, weight(pair)
            dz = dz.at[i].add(weighted(w, met.other[j], precision))
            return (dz, found.at[j].add(weighted(w.T, own[i], precision))), None

        return lax.scan(twice, (dz, found), met.pairs)[0]

    def meet_opposite(dz, others):
        met, weight = weights(others)
        return lax.scan(
            lambda dz, pair: (
                dz.at[pair[0]].add(weighted(weight(pair), met.other[pair[1]], precision)),
                None,
            ),
            dz,
            met.pairs,
        )[0]

    dz = _blocks(_positives_backward(z, c_positive, views), block)
    dz = _symmetric_gradient(dz, z, log_z, c, group, bound, block, precision)
    going = (own, lb, cb), collectives.vary_like(jnp.zeros_like(own), z)
    dz, home = _round_the_ring(meet, meet_opposite, dz, going, axis_name)
    return ((dz + home).reshape(-1, z.shape[1])[: len(z)],)


_ring = jax.custom_vjp(_ring_sums, nondiff_argnums=(1, 2, 3, 4, 5, 6))
_ring.defvjp(_ring_forward, _ring_backward)


# --- two sets of rows -------------------------------------------------------------------------------------------


def _between_tiles(q: Array, k: Array, rows: int, columns: int):
    qb, kb = _blocks(q, rows), _blocks(k, columns)
    filled = kb.shape[0] * columns != len(k)

    def tile(pair):
        i, j = pair
        s = products(qb[i], kb[j])
        return _mask(s, i, j, len(k), 0) if filled else s

    return qb, kb, tile, _all_pairs(len(qb), len(kb))


def _between_sums(q: Array, k: Array, bound: float | None, rows: int, columns: int) -> Array:
    qb, _, tile, pairs = _between_tiles(q, k, rows, columns)
    sums, _ = lax.scan(
        lambda sums, pair: (_add(sums, pair[0], tile(pair), bound, 1), None),
        _start(qb.shape[:2], q, bound),
        pairs,
    )
    return _finish(sums, len(q), bound)


def _between_forward(q, k, bound, rows, columns):
    log_z = _between_sums(q, k, bound, rows, columns)
    return log_z, (q, k, log_z)


def _between_backward(bound, rows, columns, kept, c):
    q, k, log_z = kept
    qb, kb, tile, pairs = _between_tiles(q, k, rows, columns)
    lb, cb = _blocks(log_z, rows), _blocks(c, rows)

    # Two loops: a queue has no gradient, and the compiler drops the loop that nobody reads.
    def weight(pair):
        i = pair[0]
        return _weight(tile(pair), lb[i][:, None], cb[i][:, None], bound)

    dq, _ = lax.scan(
        lambda dq, pair: (dq.at[pair[0]].add(weighted(weight(pair), kb[pair[1]])), None),
        collectives.vary_like(jnp.zeros_like(qb), q),
        pairs,
    )
    dk, _ = lax.scan(
        lambda dk, pair: (dk.at[pair[1]].add(weighted(weight(pair).T, qb[pair[0]])), None),
        collectives.vary_like(jnp.zeros_like(kb), q),
        pairs,
    )
    return dq.reshape(-1, q.shape[1])[: len(q)], dk.reshape(-1, k.shape[1])[: len(k)]


_between = jax.custom_vjp(_between_sums, nondiff_argnums=(2, 3, 4))
_between.defvjp(_between_forward, _between_backward)
