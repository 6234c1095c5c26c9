"""A random order of the global batch, in which keys pass a network whose batch norm sees less than the global batch.

    order = draw(key, n)
    there = collectives.exchange(x, *order, axis_name)
    x     = collectives.exchange(there, *inverse(order), axis_name)

MoCo (He, Fan, Wu, Xie and Girshick, 2020, arXiv:1911.05722, section 3.3) shuffles the order of the keys' images before
they are dealt out to the devices, and shuffles the keys back, so that a query and its key are normalized with
statistics of different images. Its published code (moco/builder.py, `_batch_shuffle_ddp`) takes any of the N! orders
(`torch.randperm`), for which every device must gather the images of all. Here the order is drawn among those that
devices can exchange in equal parts: the N rows are cut into B blocks of neighbours, and every block receives
c = N / B^2 rows of every block,

    y[j, p] = x[i, before_i(j c + r)],   where after_j(p) = i c + r,   0 <= r < c,

with before_i and after_j independent uniform permutations of the N / B rows of a block: mixed within blocks, exchanged
between them, mixed within them again. B is the largest whole number whose square divides N, and no property of the
devices: the order is the same on one and on many, and any number of devices that can exchange equal parts at all
divides B.

What stays of a uniform order: every row goes to each of the N places with probability 1 / N. What differs: of the rows
that a group of neighbouring blocks (one of G groups, for G that divides B) gives away, exactly N / G^2 come to each
group, its own among them, which of a uniform order is the mean. Two rows of one block come to one block again with
probability (c - 1) / (N / B - 1), not (N / B - 1) / (N - 1): more seldom. With B = 1, which is all there is where no
square divides N, the order is uniform.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from jaxcl import collectives
from jaxcl.typing import Array


class Order(NamedTuple):
    """How the rows of each of B blocks are mixed before they are exchanged, and after: int [B, N / B] both."""

    before: Array
    after: Array


def block_count(n: int) -> int:
    """B, the largest whole number whose square divides n.

    >>> [block_count(n) for n in (256, 4096, 96, 30)]
    [16, 64, 4, 1]
    """
    return max(b for b in range(1, int(n**0.5) + 1) if n % (b * b) == 0)


def draw(key: Array, n: int, *, blocks: int | None = None) -> Order:
    """An order of n rows; `blocks`: B if it is to be another, 1 for a uniform order.

    Every device must draw it by the same key. Raises ValueError where the square of `blocks` does not divide n.

    >>> [part.shape for part in draw(jax.random.key(0), 32)]
    [(4, 8), (4, 8)]
    """
    blocks = block_count(n) if blocks is None else blocks
    if blocks < 1 or n % (blocks * blocks):
        raise ValueError(
            f"The square of blocks must divide the number of rows; got {blocks} blocks and {n} rows. Leave"
            f" blocks out for {block_count(n)}, or give 1 for a uniform order."
        )
    rows = jnp.broadcast_to(jnp.arange(n // blocks), (2, blocks, n // blocks))
    return Order(*jax.random.permutation(key, rows, axis=2, independent=True))


def inverse(order: Order) -> Order:
    """The order that brings every row back."""
    return Order(jnp.argsort(order.after, axis=1), jnp.argsort(order.before, axis=1))


def shuffled(
    key: Array,
    forward: Callable[[Array], tuple[Array, Any]],
    x: Array,
    *,
    shuffle: bool | Literal["uniform"] = True,
    axis_name: str | None = None,
) -> tuple[Array, Any]:
    """forward(x) -> rows, state, with x [n, ...] in a random order of the global batch and the rows put back.

    shuffle: True for an order that devices exchange, "uniform" for any order of all, which they must gather, False for
    x as it is.
    """
    if not shuffle:
        return forward(x)
    n = len(x) * collectives.size(axis_name)
    order = draw(key, n, blocks=1 if shuffle == "uniform" else None)
    rows, state = forward(collectives.exchange(x, *order, axis_name))
    return collectives.exchange(rows, *inverse(order), axis_name), state
