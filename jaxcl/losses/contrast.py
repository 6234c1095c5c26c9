"""Losses that hold a positive against negatives."""

from __future__ import annotations

import jax.numpy as jnp
from jax.scipy.special import logsumexp

from jaxcl import collectives
from jaxcl.similarity import cosine
from jaxcl.typing import Array, Similarity


def nt_xent(
    z1: Array,
    z2: Array,
    *,
    temperature: float = 0.5,
    similarity: Similarity = cosine,
    axis_name: str | None = None,
) -> Array:
    """The normalised temperature-scaled cross entropy of SimCLR: [n, d], [n, d] -> scalar."""
    if z1.shape != z2.shape:
        raise ValueError(
            f"nt_xent pairs row i of z1 with row i of z2, so their shapes must agree; got {z1.shape} and {z2.shape}."
            " If one was gathered, gather the other as well."
        )
    z1, z2 = (z.astype(jnp.promote_types(z.dtype, jnp.float32)) for z in (z1, z2))
    keys1, keys2 = collectives.gather(z1, axis_name), collectives.gather(z2, axis_name)
    own = collectives.rows(len(z1), axis_name)
    is_self = own[:, None] == jnp.arange(len(keys1))[None, :]

    def one_side(anchors: Array, same: Array, other: Array) -> Array:
        across = similarity(anchors, other) / temperature
        within = jnp.where(is_self, -jnp.inf, similarity(anchors, same) / temperature)
        positive = jnp.take_along_axis(across, own[:, None], axis=1)[:, 0]
        return jnp.mean(logsumexp(jnp.concatenate([across, within], axis=1), axis=1) - positive)

    return collectives.mean((one_side(z1, keys1, keys2) + one_side(z2, keys2, keys1)) / 2, axis_name)
