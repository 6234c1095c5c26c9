"""What a method may remember from step to step: a queue of keys, and a moving average of parameters."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxcl import collectives
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


def ema(old: PyTree, new: PyTree, decay: float | Array) -> PyTree:
    """decay old + (1 - decay) new, of every array; no gradient flows into it.

    MoCo's m and BYOL's tau are this decay. Give it parameters only: batch statistics are running averages already, and
    the network that is averaged keeps its own.

    >>> float(ema(1.0, 3.0, 0.75))
    1.5
    """
    return jax.tree.map(lambda a, b: jax.lax.stop_gradient(decay * a + (1 - decay) * b), old, new)
