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

Sums are float32, and so are products on a CPU. An accelerator multiplies faster and less exactly unless it is asked
not to: float32 rows go into a product with the 10 bits of TF32 on NVIDIA's tensor cores and the 8 of bfloat16 on a
TPU, in every loss as in every network. Losses and gradients are then right to about 1e-3 of their largest entry (TF32)
and 1e-2 (bfloat16). It shows where rows have nearly collapsed onto one point, as at the start of a run, and cosines
differ by less than they are rounded by. There the positives are taken beside the tiles, unrounded; and of the losses
whose gradients were off by 0.4 % and more in TF32 (measured on an H100: the triplet loss by 2 % and in bfloat16 by
20 %, the supervised contrastive loss by 0.6 and 8 %, NT-Logistic by 0.4 and 3 %, the sliced Wasserstein distance by 0.5
and 2 %) the products are asked for in float32. So are those of queries with a queue, whose keys collapse with them, and
which are a small part of a step. What is left, in bfloat16, a TPU's: 0.4 % of `log_sum_exp`, 0.6 % of NT-Xent in its
plain form, 0.7 % of Barlow Twins, 1 % of `map_nce`, and a fifth of the value of `uniformity`. For all of them:
`jax.default_matmul_precision("highest")`.

These functions have their own backward rule, so forward mode alone (`jax.jvp`) is refused: ask the losses for
`block_size=0`, the plain form. `jax.grad`, and derivatives of it (`jax.hessian`), work.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxcl import collectives
from jaxcl.losses import tiles
from jaxcl.losses.ring import ring_sums
from jaxcl.typing import Array

# Below this many products the plain matrix is as fast, and small enough to keep.
PLAIN_BELOW = 1 << 20


# Rows of all devices that take no more bytes than this are gathered; of more, blocks go round in a ring. With a
# gradient for each and a copy or two it is a sixteenth of the memory of the smallest accelerator in use, 16 GiB.
GATHERED = 2**28


def goes_round(rows: Array, devices: int) -> bool:
    """Whether devices with so many rows each pass them round, and do not gather them, where `ring` is None."""
    return devices > 1 and devices * rows.size * rows.dtype.itemsize > GATHERED


def is_worth_it(rows: int, columns: int) -> bool:
    """Whether the losses choose the blockwise form of a rows x columns problem where `block_size` is None."""
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
            return tiles.symmetric(z, group, views, bound, block, precision)
        if goes_round(z, collectives.size(axis_name)) if ring is None else ring:
            return ring_sums(z, group, views, bound, _fit(block, len(z), together), axis_name, precision)
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
    precision: str | None = None,
    axis_name: str | None = None,
) -> Array:
    """L_i = log sum_j exp(q_i . k_j): this device's rows [n, d], and [m, d] that are the same on all -> [n]."""
    block = block_size or default_block()

    def of_own(q, k, axis_name):
        del axis_name  # nothing is gathered
        # Blocks cannot be cut from rows that an explicitly sharded mesh has split (elsewhere this does nothing).
        q, k = collectives.gather(q), collectives.gather(k)
        q, k = collectives.vary_like(q, k), collectives.vary_like(k, q)
        return _between(q, k, _usable(bound, q.dtype), _fit(block, len(q)), _fit(block, len(k)), precision)

    return collectives.by_rows(of_own, q, whole=(k,), axis_name=axis_name)


def _usable(bound: float | None, dtype) -> float | None:
    """The bound, if exp(-2 bound) is still a normal number: a row far from all others must not sum to zero."""
    return bound if bound is not None and 2 * bound < -0.9 * np.log(jnp.finfo(dtype).tiny) else None


def _fit(block: int, rows: int, multiple: int = 1) -> int:
    """A block of about `block` rows, a multiple of `multiple`, that leaves the last one nearly full."""
    count = max(1, round(rows / block))
    size = -(-rows // count)
    return -(-size // multiple) * multiple


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
    n, own = len(z), tiles.blocks(z, block)
    everyone = collectives.gather(own, axis_name)
    count, total = len(own), len(everyone)
    first = collectives.rows(1, axis_name)[0] * count
    filled = count * block != n

    def place(tile, axis):
        """Where a tile's entries are among its device's rows, along an axis."""
        return tile % count * block + lax.broadcasted_iota(jnp.int32, (block, block), axis)

    def tile(i, j, grouped):
        s = tiles.products(own[i], everyone[j], precision)
        if not filled and not grouped:
            return s
        row, column = place(i, 0), place(j, 1)
        out = (column >= n) | (row >= n) if filled else jnp.zeros((), bool)
        if grouped:
            out |= ((first + i) // count == j // count) & (row // group == column // group)
        return jnp.where(out, -jnp.inf, s)

    i, k = np.divmod(np.arange(count * (total // 2 + 1), dtype=np.int32), total // 2 + 1)
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
        return tiles.add(sums, a, dealt.tile(i, b, group > 0), bound, 1), None

    def twice(sums, pair):
        i, a, b = dealt.numbers(pair)
        s = dealt.tile(i, b, False)
        if bound is None:
            return tiles.add(tiles.add(sums, a, s, bound, 1), b, s, bound, 0), None
        e = jnp.exp(s - bound)
        return (sums[0].at[a].add(jnp.sum(e, axis=1)).at[b].add(jnp.sum(e, axis=0)),), None

    sums = tiles.start(dealt.all.shape[:2], z, bound)
    sums, _ = lax.scan(once, sums, dealt.once)
    sums, _ = lax.scan(twice, sums, dealt.twice)
    if bound is None:
        # Every device has its own maxima; sums are brought to the largest before they are added.
        top = lax.pmax(lax.stop_gradient(sums[1]), axis_name)
        total = collectives.sum_own(sums[0] * jnp.exp(sums[1] - top), axis_name)
        sums = (total, lax.dynamic_slice_in_dim(top, dealt.first, len(dealt.own)))
    else:
        sums = (collectives.sum_own(sums[0], axis_name),)
    return tiles.finish(sums, len(z), bound), tiles.positives(z, views)


def _shared_forward(z, group, views, bound, block, axis_name, precision):
    out = _shared_sums(z, group, views, bound, block, axis_name, precision)
    return out, (z, out[0])


def _shared_backward(group, views, bound, block, axis_name, precision, kept, cotangents):
    (z, log_z), (c, c_positive) = kept, cotangents
    dealt = _deal(z, group, block, axis_name, precision)
    all_log_z, all_c = (collectives.gather(tiles.blocks(x, block), axis_name) for x in (log_z, c))
    both = tiles.weights_of_both(all_log_z, all_c, bound)

    def once(dz, pair):
        i, a, b = dealt.numbers(pair)
        w = both(dealt.tile(i, b, group > 0), a, b)
        return dz.at[a].add(tiles.weighted(w, dealt.all[b], precision)), None

    def twice(dz, pair):
        i, a, b = dealt.numbers(pair)
        w = both(dealt.tile(i, b, False), a, b)
        dz = dz.at[a].add(tiles.weighted(w, dealt.all[b], precision))
        return dz.at[b].add(tiles.weighted(w.T, dealt.own[i], precision)), None

    dz = collectives.vary_like(jnp.zeros_like(dealt.all), z)
    dz, _ = lax.scan(once, dz, dealt.once)
    dz, _ = lax.scan(twice, dz, dealt.twice)
    dz = collectives.sum_own(dz, axis_name).reshape(-1, z.shape[1])[: len(z)]
    return (dz + tiles.positives_backward(z, c_positive, views),)


_shared = jax.custom_vjp(_shared_sums, nondiff_argnums=(1, 2, 3, 4, 5, 6))
_shared.defvjp(_shared_forward, _shared_backward)


# --- two sets of rows -------------------------------------------------------------------------------------------


def _between_tiles(q: Array, k: Array, rows: int, columns: int, precision: str | None):
    qb, kb = tiles.blocks(q, rows), tiles.blocks(k, columns)
    filled = kb.shape[0] * columns != len(k)

    def tile(pair):
        i, j = pair
        s = tiles.products(qb[i], kb[j], precision)
        return tiles.mask(s, i, j, len(k), 0) if filled else s

    return qb, kb, tile, tiles.all_pairs(len(qb), len(kb))


def _between_sums(
    q: Array, k: Array, bound: float | None, rows: int, columns: int, precision: str | None
) -> Array:
    qb, _, tile, pairs = _between_tiles(q, k, rows, columns, precision)
    sums, _ = lax.scan(
        lambda sums, pair: (tiles.add(sums, pair[0], tile(pair), bound, 1), None),
        tiles.start(qb.shape[:2], q, bound),
        pairs,
    )
    return tiles.finish(sums, len(q), bound)


def _between_forward(q, k, bound, rows, columns, precision):
    log_z = _between_sums(q, k, bound, rows, columns, precision)
    return log_z, (q, k, log_z)


def _between_backward(bound, rows, columns, precision, kept, c):
    q, k, log_z = kept
    qb, kb, tile, pairs = _between_tiles(q, k, rows, columns, precision)
    lb, cb = tiles.blocks(log_z, rows), tiles.blocks(c, rows)

    # Two loops: a queue has no gradient, and the compiler drops the loop that nobody reads.
    def weight(pair):
        i = pair[0]
        return tiles.weight_of(tile(pair), lb[i][:, None], cb[i][:, None], bound)

    dq, _ = lax.scan(
        lambda dq, pair: (dq.at[pair[0]].add(tiles.weighted(weight(pair), kb[pair[1]], precision)), None),
        collectives.vary_like(jnp.zeros_like(qb), q),
        pairs,
    )
    dk, _ = lax.scan(
        lambda dk, pair: (dk.at[pair[1]].add(tiles.weighted(weight(pair).T, qb[pair[0]], precision)), None),
        collectives.vary_like(jnp.zeros_like(kb), q),
        pairs,
    )
    return dq.reshape(-1, q.shape[1])[: len(q)], dk.reshape(-1, k.shape[1])[: len(k)]


_between = jax.custom_vjp(_between_sums, nondiff_argnums=(2, 3, 4, 5))
_between.defvjp(_between_forward, _between_backward)
