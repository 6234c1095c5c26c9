"""Part 3: which vectors are compared. An encoder returns its feature maps, shallow to deep; these pick from them."""

from __future__ import annotations

import jax.numpy as jnp

from jaxcl.typing import Array


def pool(maps: tuple[Array, ...]) -> Array:
    """The last map averaged over space: [b, h, w, c] -> [b, c]. A last map that is a vector [b, d] stays as it is."""
    last = maps[-1]
    return last if last.ndim == 2 else jnp.mean(last, axis=(1, 2))
