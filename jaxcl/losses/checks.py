"""What the losses refuse, and in which words."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

from jaxcl import collectives
from jaxcl.shapes import widened
from jaxcl.typing import Array


def rows(name: str, what: str, x: Array) -> Array:
    """x [n, d] in float32 at least (float64 stays); TypeError for integers, ValueError for another shape."""
    x = jnp.asarray(x)
    if x.ndim != 2 or 0 in x.shape:
        raise ValueError(
            f"{name} takes {what} as one row a sample, [n, d] with n, d > 0; got {x.shape}."
            " Pool or flatten feature maps first."
        )
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise TypeError(
            f"{name} takes {what} as floating point; got {x.dtype}. Convert it, as in x.astype(jnp.float32)."
        )
    return widened(x)


def views(name: str, *views: Array, at_least: int = 2) -> tuple[Array, ...]:
    """Views of the same n samples, each [n, d], in one floating dtype."""
    if len(views) < at_least:
        raise ValueError(f"{name} takes {at_least} or more views, each [n, d]; got {len(views)}.")
    views = tuple(rows(name, f"z{i}", z) for i, z in enumerate(views, 1))
    for i, z in enumerate(views[1:], 2):
        if z.shape != views[0].shape:
            raise ValueError(
                f"{name} pairs row i of z1 with row i of z{i}, so their shapes must agree; got {views[0].shape} and"
                f" {z.shape}. If one was gathered, gather the other as well."
            )
    dtype = jnp.result_type(*views)
    return tuple(z.astype(dtype) for z in views)


def positive(name: str, what: str, value: Array | float, *, or_zero: bool = False) -> float | None:
    """value as a number if it is known now (a traced value is not: None); ValueError unless finite and positive, or
    zero where that may be."""
    try:
        known = float(value)
    except (jax.errors.ConcretizationTypeError, TypeError):
        return None
    if not ((known > 0 or (or_zero and known == 0)) and math.isfinite(known)):
        raise ValueError(
            f"{name} needs a finite {what} {'of 0 or more' if or_zero else 'above 0'}; got {known}."
        )
    return known


def several(name: str, n: int, axis_name: str | None, why: str) -> int:
    """The size of the global batch; ValueError if it is one."""
    total = n * collectives.size(axis_name)
    if total < 2:
        raise ValueError(f"{name} needs a batch of two images or more, because {why}; got one.")
    return total
