"""Part 1: the Op type, and how ops draw.

An op is a pair of pure functions on one float image [h, w, c] in [0, 1]; `vmap` does the rest:

    sample(key, shape) -> params      what is drawn: arrays with readable names, also whether it is applied
    apply(params, image) -> image     what is done with it: no randomness left

Drawing and doing are apart so that one op's parameters can be held fixed across views, a picture can print what
was drawn, and an op can be compared with another library's for the same parameters.

Colors follow tf.image, as SimCLR's code does: contrast is about each channel's mean, saturation and hue are those of
HSV, and a jittered image is clipped to [0, 1] after each of its four changes. `color_jitter(colors="torchvision")` has
torchvision's contrast and saturation, and the recipes of MoCo and AMDIM take it.
Saturation, hue and grayscale are of red, green and blue; images of other than three channels they leave as they are.

Numeric settings (strengths, probabilities, areas, widths) may be traced: an op can be made inside a function that
`jax.jit` or `jax.vmap` traces, from its arguments. A value that is not known yet is not checked.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxcl.typing import Array, PyTree

Shape = tuple[int, int, int]

# A setting of an op: a number, or an array [] that may be traced.
Number = float | Array


class Op(NamedTuple):
    """An augmentation: `sample(key, shape) -> params` and `apply(params, image) -> image`, for one image [h, w, c].

    settings
        what its maker was called with, as (name, value) pairs. `name` and `settings` together say what the op is, so
        that it can be built in another form: on the host (`data.host_ops`), or fused with its neighbors.
    out
        the shape that it makes of a shape; None where that is found out by tracing `apply`.
    numbers, decide
        how many numbers of U(0, 1) it needs, and what it makes of them: `decide(u [numbers], shape) -> params`. Where
        all ops of a composed op say so, their numbers are drawn at once, which halves the time to compile.

    >>> from jaxcl.augment import flip
    >>> op = flip(probability=1.0)
    >>> params = op.sample(jax.random.key(0), (1, 2, 1))
    >>> bool(params.on)
    True
    >>> op.apply(params, jnp.array([[[0.25], [0.5]]])).ravel().tolist()
    [0.5, 0.25]
    """

    name: str
    sample: Callable[[Array, Shape], PyTree]
    apply: Callable[[Any, Array], Array]
    settings: tuple[tuple[str, Any], ...] = ()
    out: Callable[[Shape], Shape] | None = None
    numbers: int = 0
    decide: Callable[[Array, Shape], PyTree] | None = None


def same_shape(shape: Shape) -> Shape:
    return shape


def deciding(name, numbers, decide, apply, *, settings: dict[str, Any], out=same_shape) -> Op:
    """An op that draws `numbers` numbers at once and decides by them."""

    def sample(key, shape):
        return decide(uniform(key, (numbers,)), shape)

    return Op(name, sample, apply, tuple(settings.items()), out, numbers, decide)


def uniform(key: Array, shape: tuple[int, ...] = ()) -> Array:
    """U(0, 1), of float32 always: with 64 bits switched on the same views are drawn."""
    return jax.random.uniform(key, shape, jnp.float32)


def coin(kind: Callable[[Array], PyTree], probability: Number) -> Callable[[Array, Shape], PyTree]:
    """`kind(on)`, with `on` true as often as `probability` says."""
    return lambda u, shape: kind(u[0] < probability)


def between(u: Array, low: Number, high: Number) -> Array:
    """U(low, high), of u from U(0, 1)."""
    return low + (high - low) * u


def whole(u: Array, n: Array | int) -> Array:
    """0, 1, ..., n - 1, equally likely."""
    return jnp.floor(u * n).astype(jnp.int32)


# ---------------------------------------------------------------------------------------------- settings


def known(value: Any) -> float | None:
    """The value of a setting as a number; None where it is traced, and found out when the program runs."""
    return None if isinstance(value, jax.core.Tracer) else float(value)


def number(value: Any) -> Any:
    """A setting as it is kept: an array [] whose value is known becomes a number, all else stays."""
    known_array = isinstance(value, jax.Array | np.ndarray) and known(value) is not None
    return float(value) if known_array else value


def ascending(*values: Number, strict: bool = False) -> bool:
    """Whether those of these values that are known never fall; `strict`: and the first, a number, is below the rest."""
    there = [value for value in map(known, values) if value is not None]
    return all(a <= b for a, b in pairwise(there)) and not (strict and there[0] in there[1:])


def larger(a: float, b: Number) -> Any:
    """max(a, b), of a number and a setting."""
    return max(a, b) if known(b) is not None else jnp.maximum(a, b)
