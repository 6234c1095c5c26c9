"""Sorting many rows exactly and fast, with the gradient that goes through the sorted values."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxcl.typing import Array


@jax.custom_vjp
def sort_rows(x: Array) -> Array:
    """Each row in ascending order: [p, m] -> [p, m]. nan last.

    The gradient of a sorted value goes to the element it came from; among equal elements the order is arbitrary.

    The compilers' sort of (value, index) pairs costs several times that of plain integers. So a row is first sorted by
    one integer an element, the value rounded to a grid of that row's range with the index in the low bits; then the
    exact values are put in order by swapping neighbours, which only those that share a grid point need. A row that is
    still unsorted after a few rounds (nearly all values alike but for an outlier, or a nan) is sorted by pairs.
    """
    return _sorted_with_origin(x)[0]


def _forward(x):
    ordered, origin = _sorted_with_origin(x)
    return ordered, origin


def _backward(origin, g):
    put = jax.vmap(lambda g, origin: jnp.zeros_like(g).at[origin].set(g, unique_indices=True))
    return (put(g, origin),)


sort_rows.defvjp(_forward, _backward)


def sort_values(x: Array) -> Array:
    """As `sort_rows`, for rows that have no gradient: the bits of a float, read as an integer, sort the same."""
    integer, rest = (jnp.int64, 63) if x.dtype == jnp.float64 else (jnp.int32, 31)
    if x.dtype not in (jnp.float32, jnp.float64):
        return lax.stop_gradient(jnp.sort(x, axis=-1))

    def flip(bits):  # negative numbers count downwards
        return bits ^ ((bits >> rest) & jnp.iinfo(integer).max)

    bits = flip(lax.bitcast_convert_type(lax.stop_gradient(x), integer))
    return lax.bitcast_convert_type(flip(lax.sort(bits, dimension=-1)), x.dtype)


ROUNDS = 6


def _sorted_with_origin(x: Array) -> tuple[Array, Array]:
    p, m = x.shape
    index_bits = max(1, int(np.ceil(np.log2(max(m, 2)))))
    index = lax.broadcasted_iota(jnp.int32, (p, m), 1)
    levels = 1 << (31 - index_bits)
    low, high = jnp.min(x, axis=-1, keepdims=True), jnp.max(x, axis=-1, keepdims=True)
    scale = jnp.where(high > low, (levels - 1) / jnp.where(high > low, high - low, 1), 0)
    grid = jnp.clip((x - low) * scale, 0, levels - 1).astype(jnp.int32)
    packed = lax.sort((grid << index_bits) | index, dimension=-1)
    origin = packed & ((1 << index_bits) - 1)
    values = jnp.take_along_axis(x, origin, axis=-1, mode="promise_in_bounds")

    def unsorted(values):
        return ~jnp.all(values[:, :-1] <= values[:, 1:])

    def swap_neighbours(state):
        """Odd-even transposition, two half rounds: values and origins are exchanged where the left is larger."""
        step, values, origin = state
        for first in (0, 1):
            last = first + (m - first) // 2 * 2
            a, b = values[:, first:last:2], values[:, first + 1 : last : 2]
            i, j = origin[:, first:last:2], origin[:, first + 1 : last : 2]
            wrong = a > b
            values = _zip(values, first, last, jnp.where(wrong, b, a), jnp.where(wrong, a, b))
            origin = _zip(origin, first, last, jnp.where(wrong, j, i), jnp.where(wrong, i, j))
        return step + 1, values, origin

    _, values, origin = lax.while_loop(
        lambda state: (state[0] < ROUNDS) & unsorted(state[1]), swap_neighbours, (0, values, origin)
    )

    def by_pairs():
        return tuple(lax.sort((x, index), dimension=-1, num_keys=1))

    return lax.cond(unsorted(values), by_pairs, lambda: (values, origin))


def _zip(whole: Array, first: int, last: int, left: Array, right: Array) -> Array:
    middle = jnp.stack([left, right], axis=-1).reshape(whole.shape[0], last - first)
    return jnp.concatenate([whole[:, :first], middle, whole[:, last:]], axis=1)
