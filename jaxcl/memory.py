"""What a method may remember from step to step: a queue of keys (by age), a bank of them (by image), and a moving
average of parameters."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxcl import collectives
from jaxcl.shapes import check_alike, check_numbers
from jaxcl.similarity import normalize
from jaxcl.typing import Array, PyTree


class Queue(NamedTuple):
    """The last `size` keys that were pushed, in a ring: `keys` [size, d], of which row `oldest` is replaced next.

    It is the same on every device.
    """

    keys: Array
    oldest: Array  # int32 []


def random_queue(key: Array, size: int, d: int) -> Queue:
    """A queue of `size` random unit vectors, which is what MoCo's starts with; they are pushed out in time."""
    if size < 1:
        raise ValueError(f"a queue holds at least one key; got size={size}.")
    return Queue(normalize(jax.random.normal(key, (size, d), jnp.float32)), jnp.zeros((), jnp.int32))


def push(queue: Queue, keys: Array, *, axis_name: str | None = None) -> Queue:
    """The queue with all devices' keys [n, d] in place of its oldest, in the order of the global batch.

    Any n will do; of more keys than the queue is long the last are kept. No gradient flows into it.

    axis_name
        the axis over which rows are split under `shard_map` or `pmap`; None where one program sees the global batch.

    >>> queue = Queue(jnp.array([[1.0], [2.0], [3.0]]), jnp.int32(2))
    >>> push(queue, jnp.array([[4.0], [5.0]])).keys.ravel().tolist()
    [5.0, 2.0, 4.0]
    """
    size, d = queue.keys.shape
    if keys.ndim != 2 or keys.shape[1] != d:
        raise ValueError(f"this queue holds keys of width {d}; got keys of shape {keys.shape}.")
    keys = jax.lax.stop_gradient(collectives.gather_same(keys, axis_name)).astype(queue.keys.dtype)
    pushed = len(keys)
    rows = (queue.oldest + jnp.arange(pushed)) % size
    ring = queue.keys.at[rows[-size:]].set(keys[-size:], unique_indices=True)
    return Queue(ring, (queue.oldest + pushed) % size)


def by_age(queue: Queue) -> Array:
    """The keys [size, d], the oldest first.

    >>> by_age(Queue(jnp.array([[5.0], [2.0], [4.0]]), jnp.int32(1))).ravel().tolist()
    [2.0, 4.0, 5.0]
    """
    return jnp.roll(queue.keys, -queue.oldest, axis=0)


class Bank(NamedTuple):
    """One row for every image of the data set: `rows` [n, d], by the image's number. It is the same on every device."""

    rows: Array


def random_bank(key: Array, images: int, d: int) -> Bank:
    """Uniform within sqrt(3 / d), so of length 1 in the mean; what CMC's banks start with."""
    if images < 2:
        raise ValueError(f"a bank holds a row for each of two images or more; got images={images}.")
    side = (3 / d) ** 0.5
    return Bank(jax.random.uniform(key, (images, d), jnp.float32, -side, side))


def blend(
    bank: Bank, index: Array, rows: Array, *, momentum: float | Array, axis_name: str | None = None
) -> Bank:
    """The bank with all devices' rows blended in: index int [b] and rows [b, d] of this device's images.

        row <- normalize(momentum row + (1 - momentum) new)                      for the images of the batch

    An image must not be twice in a batch. A number beyond the bank is left out silently (nothing can be raised
    inside a compiled step), so give the bank the size of the data set. No gradient flows into it.

    axis_name
        the axis over which rows are split under `shard_map` or `pmap`; None where one program sees the global batch.

    >>> bank = Bank(jnp.array([[1.0, 0.0], [0.0, 1.0]]))
    >>> blend(bank, jnp.array([1]), jnp.array([[1.0, 0.0]]), momentum=0.5).rows.round(3).tolist()
    [[1.0, 0.0], [0.707..., 0.707...]]
    """
    if rows.ndim != 2 or rows.shape[1] != bank.rows.shape[1] or index.shape != rows.shape[:1]:
        raise ValueError(
            f"this bank holds rows of width {bank.rows.shape[1]}, one for each index; got rows of shape {rows.shape}"
            f" and indices of shape {index.shape}."
        )
    check_numbers("blend", index=index)
    rows = jax.lax.stop_gradient(collectives.gather_same(rows, axis_name)).astype(bank.rows.dtype)
    index = collectives.gather_same(index, axis_name)
    new = normalize(momentum * bank.rows[index] + (1 - momentum) * rows)
    return Bank(bank.rows.at[index].set(new, mode="drop"))


def ema(old: PyTree, new: PyTree, decay: float | Array) -> PyTree:
    """decay old + (1 - decay) new, of every array; no gradient flows into it.

    MoCo's m and BYOL's tau are this decay. Give it parameters only: batch statistics are running averages already, and
    the network that is averaged keeps its own.

    >>> float(ema(1.0, 3.0, 0.75))
    1.5
    """
    check_alike("ema", old, new)
    return jax.tree.map(lambda a, b: jax.lax.stop_gradient(decay * a + (1 - decay) * b), old, new)
