"""The log-partition of rows that lie on several devices and go round: memory is a few times a device's own rows.

Device p begins with its own pairs of rows. Then it gets the rows of device p + 1, p + 2, ... up to half of the D
devices round the ring, makes all tiles of its own rows with them, and adds what they tell of both to two sums: its own,
and one that goes round with the rows it is for and is sent home in the end. So each pair of devices meets once. Where D
is even the devices that face each other both make their tiles, each for its own rows only.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxcl import collectives
from jaxcl.losses import tiles
from jaxcl.typing import Array


class _Met(NamedTuple):
    """Two devices' tiles of rows [t, block, d], and the pairs of tiles of one with the other."""

    own: Array
    other: Array
    rows: int  # of a device, without the filling of the last tile
    precision: str | None

    @property
    def pairs(self) -> np.ndarray:
        return tiles.all_pairs(len(self.own), len(self.other))

    def tile(self, pair: Any) -> Array:
        i, j = pair
        s = tiles.products(self.own[i], self.other[j], self.precision)
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
    own, n = tiles.blocks(z, block), len(z)

    def meet(sums, others, found):
        met = _Met(own, others, n, precision)

        def twice(both, pair):
            (i, j), (sums, found) = pair, both
            s = met.tile(pair)
            if bound is None:
                return (tiles.add(sums, i, s, bound, 1), tiles.add(found, j, s, bound, 0)), None
            e = jnp.exp(s - bound)
            return ((sums[0].at[i].add(jnp.sum(e, axis=1)),), (found[0].at[j].add(jnp.sum(e, axis=0)),)), None

        return lax.scan(twice, (sums, found), met.pairs)[0]

    def meet_opposite(sums, others):
        met = _Met(own, others, n, precision)
        return lax.scan(
            lambda sums, pair: (tiles.add(sums, pair[0], met.tile(pair), bound, 1), None), sums, met.pairs
        )[0]

    sums, _ = tiles.symmetric_running(z, group, 0, bound, block, precision)
    going = own, tiles.start(own.shape[:2], z, bound)
    sums, home = _round_the_ring(meet, meet_opposite, sums, going, axis_name)
    if bound is None:
        top = jnp.maximum(sums[1], home[1])
        sums = (sum(part * jnp.exp(largest - top) for part, largest in (sums, home)), top)
    else:
        sums = (sums[0] + home[0],)
    return tiles.finish(sums, n, bound), tiles.positives(z, views)


def _ring_forward(z, group, views, bound, block, axis_name, precision):
    out = _ring_sums(z, group, views, bound, block, axis_name, precision)
    return out, (z, out[0])


def _ring_backward(group, views, bound, block, axis_name, precision, kept, cotangents):
    (z, log_z), (c, c_positive) = kept, cotangents
    own, lb, cb = (tiles.blocks(x, block) for x in (z, log_z, c))

    def weights(others):
        rows, *log_z_and_c = others
        met, both = (
            _Met(own, rows, len(z), precision),
            tiles.weights_of_both(lb, cb, bound, others=tuple(log_z_and_c)),
        )
        return met, lambda pair: both(met.tile(pair), *pair)

    def meet(dz, others, found):
        met, weight = weights(others)

        def twice(both, pair):
            (i, j), (dz, found), w = pair, both, weight(pair)
            dz = dz.at[i].add(tiles.weighted(w, met.other[j], precision))
            return (dz, found.at[j].add(tiles.weighted(w.T, own[i], precision))), None

        return lax.scan(twice, (dz, found), met.pairs)[0]

    def meet_opposite(dz, others):
        met, weight = weights(others)
        return lax.scan(
            lambda dz, pair: (
                dz.at[pair[0]].add(tiles.weighted(weight(pair), met.other[pair[1]], precision)),
                None,
            ),
            dz,
            met.pairs,
        )[0]

    dz = tiles.blocks(tiles.positives_backward(z, c_positive, views), block)
    dz = tiles.symmetric_gradient(dz, z, log_z, c, group, bound, block, precision)
    going = (own, lb, cb), collectives.vary_like(jnp.zeros_like(own), z)
    dz, home = _round_the_ring(meet, meet_opposite, dz, going, axis_name)
    return ((dz + home).reshape(-1, z.shape[1])[: len(z)],)


ring_sums = jax.custom_vjp(_ring_sums, nondiff_argnums=(1, 2, 3, 4, 5, 6))
ring_sums.defvjp(_ring_forward, _ring_backward)
