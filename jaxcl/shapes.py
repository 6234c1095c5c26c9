"""Shapes and dtypes at the public edge of parts 3 and 4: compared by chex, and said in a sentence.

jax would broadcast what was meant to be paired row by row, or fail some calls further in.
"""

from __future__ import annotations

from typing import Any

import chex
import jax
import jax.numpy as jnp

from jaxcl.typing import Array, PyTree


def check(who: str, **arrays: tuple[Any, str]) -> None:
    """Raises ValueError unless each array has the axes that its letters say; one letter is one length throughout.

    >>> q, k = jax.numpy.zeros((2, 3)), jax.numpy.zeros((4, 5))
    >>> check("dot", q=(q, "nd"), k=(q, "md"))
    >>> check("dot", q=(q, "nd"), k=(k, "md"))
    Traceback (most recent call last):
    ...
    ValueError: dot takes q [n, d] and k [m, d]; got [2, 3] and [4, 5].
    """
    lengths: dict[str, int] = {}
    try:
        for x, axes in arrays.values():
            chex.assert_shape(x, tuple(lengths.get(axis) for axis in axes))
            lengths |= dict(zip(axes, x.shape, strict=True))
    except AssertionError:
        takes = _listed([f"{name} [{', '.join(axes)}]" for name, (_, axes) in arrays.items()])
        got = _listed([str(list(x.shape)) for x, _ in arrays.values()])
        raise ValueError(f"{who} takes {takes}; got {got}.") from None


def _listed(words: list[str]) -> str:
    return " and ".join([", ".join(words[:-1]), words[-1]] if words[1:] else words)


def check_numbers(who: str, **arrays: Any) -> None:
    """Raises TypeError unless the arrays hold whole numbers, as those of images or rows."""
    for name, x in arrays.items():
        try:
            chex.assert_type(x, int)
        except AssertionError:
            raise TypeError(
                f"{who} takes {name} as whole numbers; got {x.dtype}. Convert them, as in x.astype(jnp.int32)."
            ) from None


def check_alike(who: str, one: PyTree, other: PyTree) -> None:
    """Raises ValueError unless two trees have the same structure, and their arrays the same shapes."""
    try:
        chex.assert_trees_all_equal_shapes(*(jax.tree.map(jax.numpy.asarray, tree) for tree in (one, other)))
    except (AssertionError, ValueError) as error:
        raise ValueError(f"{who} takes two trees of the same structure. {error}") from None


def widened(x: Array) -> Array:
    """x in float32 at least. A gradient that goes back to float16 is cut off at its largest number, not infinite."""
    if x.dtype == jnp.float16:
        return _from_float16(x)
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


@jax.custom_vjp
def _from_float16(x):
    return x.astype(jnp.float32)


def _to_float16(_, g):
    largest = float(jnp.finfo(jnp.float16).max)
    return (jnp.clip(g, -largest, largest).astype(jnp.float16),)


# At a zero row the gradient of a cosine is a million times that of a unit row.
_from_float16.defvjp(lambda x: (_from_float16(x), None), _to_float16)
