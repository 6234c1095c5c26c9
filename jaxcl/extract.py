"""Part 3: which vectors are compared. An encoder returns its feature maps, shallow to deep; these pick from them."""

from __future__ import annotations

from collections.abc import Callable

import jax.numpy as jnp

from jaxcl.typing import Array

Maps = tuple[Array, ...]


def pool(maps: Maps) -> Array:
    """The last map averaged over space: [b, h, w, c] -> [b, c]. A last map that is a vector [b, d] stays as it is."""
    last = maps[-1]
    return last if last.ndim == 2 else jnp.mean(last, axis=(1, 2))


def flatten(maps: Maps) -> Array:
    """The last map laid out in a row: [b, h, w, c] -> [b, h w c].

    >>> flatten((jnp.zeros((2, 7, 7, 4)), jnp.zeros((2, 3, 3, 8)))).shape
    (2, 72)
    """
    return maps[-1].reshape(len(maps[-1]), -1)


def last(maps: Maps) -> Maps:
    """The last map alone, as a tuple of one [b, h, w, c]; a vector [b, d] becomes a map of one place.

    >>> [m.shape for m in last((jnp.zeros((2, 7, 7, 4)), jnp.zeros((2, 8))))]
    [(2, 1, 1, 8)]
    """
    return (as_map(maps[-1]),)


def of_widths(*widths: int) -> Callable[[Maps], Maps]:
    """For each width the deepest map that is so wide, in the order asked for: AMDIM's are `of_widths(1, 5, 7)`.

    >>> shallow, seven, one = jnp.zeros((2, 7, 7, 4)), jnp.zeros((2, 7, 7, 8)), jnp.zeros((2, 16))
    >>> [m.shape for m in of_widths(1, 7)((shallow, seven, one))]
    [(2, 1, 1, 16), (2, 7, 7, 8)]
    """

    def extract(maps: Maps) -> Maps:
        found = {m.shape[2]: m for m in map(as_map, maps)}
        missing = [width for width in widths if width not in found]
        if missing:
            raise ValueError(
                f"this encoder has maps of width {', '.join(map(str, found))}; asked for"
                f" {', '.join(map(str, missing))}. Choose among its own, or take another encoder or image size."
            )
        return tuple(found[width] for width in widths)

    return extract


def as_map(x: Array) -> Array:
    """[b, d] -> [b, 1, 1, d]; a map stays as it is."""
    return x[:, None, None] if x.ndim == 2 else x
