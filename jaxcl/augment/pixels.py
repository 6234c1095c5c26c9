"""Part 1, changes of pixels other than geometry and color: Sobel edges, cutout, Gaussian noise.

SimCLR's section 3.1 (Chen et al. 2020, figures 4 and 5) compares them with crops, colors, blur and rotation. Its recipe
has none of them and its published code no form of them, so which filter, how large a hole and how strong a noise it
had is not known; what is said here of settings is ours.
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from jaxcl.augment.op import Number, Op, ascending, between, coin, deciding, number, whole
from jaxcl.typing import Array


class Edges(NamedTuple):
    on: Array


def sobel(*, probability: Number = 0.5) -> Op:
    """Every channel becomes the size of its gradient, min(1, sqrt(x^2 + y^2)), with x and y those of Sobel's filters

    y = [[-1, -2, -1], [0, 0, 0], [1, 2, 1]],    x its transpose    (tf.image.sobel_edges, mirrored at the border).
    """

    def apply(params, image):
        return jnp.where(params.on, jnp.minimum(1, gradient_size(image)), image)

    return deciding("sobel", 1, coin(Edges, probability), apply, settings={"probability": probability})


def gradient_size(image: Array) -> Array:
    """[h, w, c] -> [h, w, c]."""
    h, w, _ = image.shape
    x = jnp.pad(image, ((1, 1), (1, 1), (0, 0)), mode="reflect")
    smooth_rows = x[:-2] + 2 * x[1:-1] + x[2:]  # [h, w + 2, c]
    smooth_columns = x[:, :-2] + 2 * x[:, 1:-1] + x[:, 2:]  # [h + 2, w, c]
    across, down = smooth_rows[:, 2:] - smooth_rows[:, :w], smooth_columns[2:] - smooth_columns[:h]
    return jnp.sqrt(jnp.square(across) + jnp.square(down))


class Hole(NamedTuple):
    """`row` and `column`: the pixel in its middle."""

    on: Array
    row: Array
    column: Array


def cutout(*, side: float = 0.5, fill: float = 0.5, probability: Number = 0.5) -> Op:
    """A square hole around a random pixel (DeVries and Taylor 2017, arXiv:1708.04552); what of it lies beyond the image
    is cut off.

    With s = round(side times the image's height), rows row - s // 2 to row + s // 2 - 1, and columns likewise, become
    `fill`. In its authors' code a hole is 0 once images are standardized, which is the mean color; 0.5 is near it. 16
    of 32 pixels are theirs for CIFAR-10.
    """
    if not 0 < side <= 1:
        raise ValueError(f"side, the hole's side over the image's height, must be in (0, 1]; got {side}.")

    def decide(u, shape):
        return Hole(on=u[0] < probability, row=whole(u[1], shape[0]), column=whole(u[2], shape[1]))

    def apply(params, image):
        h, w, _ = image.shape
        half = hole_half(h, side)

        def within(center, n):
            return (jnp.arange(n) >= center - half) & (jnp.arange(n) < center + half)

        hole = within(params.row, h)[:, None] & within(params.column, w)
        return jnp.where((params.on & hole)[:, :, None], fill, image)

    settings = {"side": side, "fill": fill, "probability": probability}
    return deciding("cutout", 3, decide, apply, settings=settings)


def hole_half(height: int, side: float) -> int:
    """Half the side of a hole in pixels, at least one.

    >>> hole_half(32, 0.5), hole_half(224, 0.5)
    (8, 56)
    """
    return max(1, round(side * height) // 2)


class Noise(NamedTuple):
    """`scale` is the standard deviation, where the image's range is 1; `seed` says which noise it is."""

    on: Array
    scale: Array
    seed: Array


def gaussian_noise(*, scale: tuple[Number, Number] = (0.05, 0.2), probability: Number = 0.5) -> Op:
    """x + scale times N(0, 1), for every pixel and channel by itself, and clipped to [0, 1]; one scale an image, drawn
    evenly from `scale`. There are 2^24 different noises."""
    low, high = number(scale[0]), number(scale[1])
    if not ascending(0, low, high):
        raise ValueError(
            f"scale, a range of standard deviations, must be 0 <= least <= greatest; got {scale}."
        )

    def decide(u, shape):
        return Noise(on=u[0] < probability, scale=between(u[1], low, high), seed=whole(u[2], 2**24))

    def apply(params, image):
        count = int(np.prod(image.shape))
        noise = normal_of(params.seed, count).reshape(image.shape)
        return jnp.where(params.on, jnp.clip(image + params.scale * noise, 0, 1), image)

    settings = {"scale": (low, high), "probability": probability}
    return deciding("noise", 3, decide, apply, settings=settings)


def normal_of(seed: Array, count: int) -> Array:
    """`count` numbers from N(0, 1) that follow from the seed, by arithmetic that any library has (the host's
    implementation makes the same): two hashes of each number's position, and Box and Muller's transform of them."""
    places = jnp.arange(2 * count, dtype=jnp.uint32).reshape(2, count)
    start = mixed(seed.astype(jnp.uint32) + jnp.uint32(0x9E3779B9))
    # 24 bits each, as many as a float32 holds; never 0, whose logarithm there is none of.
    u, v = ((mixed(places ^ start) >> 8).astype(jnp.float32) + 0.5) * 2.0**-24
    return jnp.sqrt(-2 * jnp.log(u)) * jnp.cos(2 * np.pi * v)


def mixed(x: Array) -> Array:
    """A hash of 32 bits (two rounds of shift and multiply, "lowbias32" of Wellons 2018): uint32 -> uint32."""
    x = (x ^ (x >> 16)) * jnp.uint32(0x7FEB352D)
    x = (x ^ (x >> 15)) * jnp.uint32(0x846CA68B)
    return x ^ (x >> 16)
