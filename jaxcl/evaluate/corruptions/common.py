"""What several corruptions use: constants by severity, rounding to eight bits, matrices, a blur along a line."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxcl.images import edge
from jaxcl.typing import Array

# The constants of the five severities: for CIFAR-10's size, and for ImageNet's.
Constants = tuple[Sequence, Sequence]


def constants(published: Constants, height: int) -> np.ndarray:
    """The constants of the five severities for images of so many rows: [5] or [5, k], float64; lengths unscaled.

    >>> contrast = ((0.75, 0.5, 0.4, 0.3, 0.15), (0.4, 0.3, 0.2, 0.1, 0.05))
    >>> constants(contrast, 32).tolist(), constants(contrast, 224).tolist()
    ([0.75, 0.5, 0.4, 0.3, 0.15], [0.4, 0.3, 0.2, 0.1, 0.05])
    """
    return np.asarray(published[0 if height <= 64 else 1], np.float64)


def unit(height: int) -> float:
    """By what the published lengths in pixels are multiplied.

    >>> unit(32), unit(224), unit(448)
    (1.0, 1.0, 2.0)
    """
    return height / (32 if height <= 64 else 224)


def of_severity(table: np.ndarray, severity: Array) -> Array:
    """The row of the table for severity 1 to 5, which may be traced."""
    return jnp.asarray(table, jnp.float32)[jnp.asarray(severity) - 1]


def clipped(x: Array) -> Array:
    return jnp.clip(x, 0, 1)


def eight_bits(x: Array) -> Array:
    """Cut off to a multiple of 1/255; what is one but for rounding stays it."""
    return jnp.floor(255 * x + 1e-3) / 255


def rounded(x: Array) -> Array:
    """To the nearest multiple of 1/255, as a library does that works in eight bits."""
    return jnp.round(255 * clipped(x)) / 255


def exact(formula: str, *operands: Array | np.ndarray) -> Array:
    # The highest precision: an accelerator's default would round pixels to about three digits.
    return jnp.einsum(formula, *operands, precision=lax.Precision.HIGHEST)


def gaussian_matrix(sigma: Array, n: int, *, most: float, truncate: float, border: Callable) -> Array:
    """The matrix [n, n] of a Gaussian, cut off at `truncate` sigma, rounded; `most` bounds sigma."""
    reach = int(truncate * most + 0.5)
    t = jnp.arange(-reach, reach + 1)
    r = jnp.floor(truncate * sigma + 0.5)
    taps = jnp.where(jnp.abs(t) <= r, jnp.exp(-0.5 * (t / jnp.maximum(sigma, 1e-6)) ** 2), 0)
    i = jnp.arange(n)[:, None]
    return jnp.zeros((n, n)).at[i, border(i + t, n)].add(taps / jnp.sum(taps))


def smear(image: Array, radius: Array, sigma: Array, angle: Array, *, most: float) -> Array:
    """ImageMagick's motion blur: a one-sided Gaussian of 2 ceil(radius) + 1 taps along a line, at whole pixels.

    The angle is in degrees, clockwise from the right, as rows count downward; beyond the border is its nearest pixel.
    """
    h, w, _ = image.shape
    width = 2 * jnp.ceil(radius) + 1
    i = jnp.arange(2 * int(np.ceil(most)) + 1, dtype=jnp.float32)
    taps = jnp.where(i < width, jnp.exp(-(i**2) / (2 * sigma**2)), 0)
    taps = taps / jnp.sum(taps)
    radians = angle * (np.pi / 180)
    dx = jnp.ceil(i * jnp.cos(radians) - 0.5).astype(jnp.int32)
    dy = jnp.ceil(i * jnp.sin(radians) - 0.5).astype(jnp.int32)

    def add(k, total):
        rows, columns = edge(jnp.arange(h) + dy[k], h), edge(jnp.arange(w) + dx[k], w)
        return total + taps[k] * image[rows][:, columns]

    return lax.fori_loop(0, len(i), add, jnp.zeros_like(image))


def zoom_matrix(n: int, factor: float) -> np.ndarray:
    """The matrix [n, n] that magnifies the center of a line, linearly, as scipy.ndimage.zoom and a crop do.

    >>> zoom_matrix(4, 2.0)[0].round(4).tolist()            # of the middle two pixels made four, the first
    [0.0, 1.0, 0.0, 0.0]
    """
    kept = int(np.ceil(n / factor))
    first = (n - kept) // 2
    made = round(kept * factor)
    trimmed = (made - n) // 2
    position = (np.arange(n) + trimmed) * ((kept - 1) / max(made - 1, 1)) + first
    return np.maximum(1 - np.abs(position[:, None] - np.arange(n)), 0)


def stacked(parts: list[np.ndarray], count: int) -> np.ndarray:
    """The matrices in one array, with matrices of zeros up to `count`."""
    return np.stack(parts + [np.zeros_like(parts[0])] * (count - len(parts)))
