"""What methods ask of the parts that they are given, and what they say where it is not so."""

from __future__ import annotations

from typing import Any

import jax

from jaxcl.typing import Array


def views_of(name: str, made: tuple[Array, ...], count: int) -> tuple[Array, ...]:
    """The views, which must be so many."""
    if len(made) != count:
        raise ValueError(
            f"{name} needs {count} view{'s' * (count > 1)} of an image; its `views` made {len(made)}."
            f" As augment.{'two_views(recipe)' if count == 2 else f'n_views(recipe, {count})'}."
        )
    return made


def vectors(name: str, h: Any) -> Array:
    """What `extract` made of an encoder's maps, which must be vectors [b, d]."""
    if not isinstance(h, jax.Array) or h.ndim != 2:
        raise ValueError(
            f"{name} needs an `extract` that makes one vector of an image's maps, [b, d], as extract.pool does; got"
            f" {shapes(h)}."
        )
    return h


def maps(name: str, r: Any) -> tuple[Array, ...]:
    """What `extract` made of an encoder's maps, which must be maps [b, h, w, c]."""
    if not isinstance(r, tuple | list) or not all(x.ndim == 4 for x in r):
        raise ValueError(
            f"{name} needs an `extract` that picks maps, a tuple of [b, h, w, c], as extract.last does;"
            f" got {shapes(r)}."
        )
    return tuple(r)


def shapes(x: Any) -> str:
    if isinstance(x, tuple | list):
        return f"({', '.join(map(shapes, x))}{',' if len(x) == 1 else ''})"
    return f"an array {list(x.shape)}" if hasattr(x, "shape") else repr(x)
