"""Losses without negatives: a prediction p is to point where a target z points. They stand only with what keeps all
rows from pointing to one point (a predictor, and a target through which no gradient flows)."""

from __future__ import annotations

import jax.numpy as jnp

from jaxcl import collectives
from jaxcl.losses import checks
from jaxcl.similarity import cosine_by_row
from jaxcl.typing import Array


def regression(p: Array, z: Array, *, axis_name: str | None = None) -> Array:
    """BYOL's regression of one view's target on the other's prediction: [n, d], [n, d] -> scalar in [0, 4].

        loss = 1/n sum_i | p_i / |p_i| - z_i / |z_i| |^2  =  1/n sum_i ( 2 - 2 cos(p_i, z_i) )

    (Grill et al. 2020, arXiv:2006.07733, eq. 2.) One direction; the method adds both. The gradient goes to whatever
    is not constant: stop it at z.

    axis_name
        the axis over which rows are split under `shard_map` or `pmap`; None where one program sees the global batch.

    >>> round(float(regression(jnp.array([[2.0, 0.0], [0.0, 1.0]]), jnp.array([[1.0, 0.0], [3.0, 0.0]]))), 4)
    1.0

    (0 for the first row, 2 for the second.)
    """
    return 2 + 2 * negative_cosine(p, z, axis_name=axis_name)


def negative_cosine(p: Array, z: Array, *, axis_name: str | None = None) -> Array:
    """SimSiam's -cos(p_i, z_i), averaged: [n, d], [n, d] -> scalar in [-1, 1].

    (Chen and He 2020, arXiv:2011.10566, eq. 1.) It is `regression / 2 - 1`. Stop the gradient at z.

    axis_name
        the axis over which rows are split under `shard_map` or `pmap`; None where one program sees the global batch.

    >>> float(negative_cosine(jnp.array([[2.0, 0.0]]), jnp.array([[3.0, 0.0]])))
    -1.0
    """
    p, z = checks.views("a regression", p, z)
    return -collectives.mean(jnp.mean(cosine_by_row(p, z)), axis_name)
