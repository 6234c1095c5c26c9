"""What a run is: a pytree of arrays and nothing else, so it can be saved, donated and mapped over."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxcl.typing import Array, Batch, Method, PyTree


class TrainState(NamedTuple):
    step: Array  # int32 []
    params: PyTree
    opt_state: PyTree
    state: PyTree  # the method's memory: batch statistics, target network, queue


def init_state(key: Array, method: Method, tx: optax.GradientTransformation, batch: Batch) -> TrainState:
    """The state before the first step. Two examples of the batch are enough to know the shapes."""
    batch = jax.tree.map(lambda x: x[:2], dict(batch))

    @jax.jit
    def init(key, batch):
        params, state = method.init(key, batch)
        return TrainState(jnp.zeros((), jnp.int32), params, tx.init(params), state)

    return init(key, batch)
