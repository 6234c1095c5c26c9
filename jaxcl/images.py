"""Images as arrays: resampling, borders, Gaussians and patches, for whoever changes or cuts pictures."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxcl.typing import Array

# ---------------------------------------------------------------------------------------------- resampling


def cubic(x: Array) -> Array:
    """Keys' kernel, a = -0.5 (1981, eq. 15), for distances x >= 0."""
    near = ((1.5 * x - 2.5) * x) * x + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return jnp.where(x <= 1, near, jnp.where(x < 2, far, 0))


def triangle(x: Array) -> Array:
    """The kernel of bilinear resampling: 1 at 0, falling to 0 at a distance of 1."""
    return jnp.maximum(1 - x, 0)


KERNELS = {"bicubic": cubic, "bilinear": triangle}


def resize_matrix(
    start: Array | int, length: Array | int, n: int, out: int, method: str, antialias: bool
) -> Array:
    """The matrix [out, n] that resizes the `length` pixels from `start` of a line of n pixels to `out` pixels.

    >>> resize_matrix(1, 2, n=4, out=2, method="bilinear", antialias=False).tolist()
    [[0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0]]
    """
    start, length = jnp.float32(start), jnp.float32(length)
    scale = length / out
    center = (jnp.arange(out, dtype=jnp.float32) + 0.5) * scale - 0.5  # in pixels of the box
    pixel = jnp.arange(n, dtype=jnp.float32) - start
    width = jnp.maximum(scale, 1) if antialias else 1.0
    weights = KERNELS[method](jnp.abs(center[:, None] - pixel) / width)
    weights = jnp.where((pixel >= 0) & (pixel < length), weights, 0)
    return weights / jnp.sum(weights, axis=1, keepdims=True)


def resample(rows: Array, columns: Array, image: Array) -> Array:
    """rows [H, h], image [h, w, c], columns [W, w] -> [H, W, c], as two matrix products."""
    # Planes in front: then both are plain products of matrices, whose long side is contiguous.
    # The highest precision: an accelerator's default would round pixels to about three digits.
    image = jnp.einsum("chw,Ww->chW", jnp.moveaxis(image, 2, 0), columns, precision=lax.Precision.HIGHEST)
    image = jnp.einsum("Hh,chW->HcW", rows, image, precision=lax.Precision.HIGHEST)
    return jnp.swapaxes(image, 1, 2)


def center_matrices(
    shape: tuple[int, int], out: tuple[int, int], fraction: float | Array, method: str, antialias: bool
) -> tuple[Array, Array]:
    """Rows [H, h] and columns [W, w] for `resample`: the largest box of the shape `out` in the center of (h, w), times
    `fraction`, resized to `out`. The fraction may be traced."""
    h, w = shape
    aspect = out[1] / out[0]
    height, width = (w / aspect, w) if aspect > w / h else (h, h * aspect)
    matrices = []
    for n, side, size in ((h, height, out[0]), (w, width, out[1])):
        kept: Any = side * fraction
        if isinstance(kept, jax.core.Tracer):
            length = jnp.clip(jnp.round(kept), 1, n).astype(jnp.int32)
        else:
            length = min(n, max(1, round(kept)))
        matrices.append(resize_matrix((n - length + 1) // 2, length, n, size, method, antialias))
    return matrices[0], matrices[1]


# ---------------------------------------------------------------------------------------------- borders

# Which of n pixels in a line stands for position i, which may lie outside.


def edge(i: Array, n: int) -> Array:
    """The outermost pixel, again and again: a a | a b c d | d d."""
    return jnp.clip(i, 0, n - 1)


def reflect(i: Array, n: int) -> Array:
    """Mirrored at the outermost pixel: c b | a b c d | c b."""
    period = max(2 * (n - 1), 1)
    i = i % period
    return jnp.minimum(i, period - i) if n > 1 else jnp.zeros_like(i)


def symmetric(i: Array, n: int) -> Array:
    """Mirrored at the edge: b a | a b c d | d c."""
    i = i % (2 * n)
    return jnp.minimum(i, 2 * n - 1 - i)


# By the names that numpy.pad has for them.
BORDERS: dict[str, Callable[[Array, int], Array]] = {"edge": edge, "reflect": reflect}

# ---------------------------------------------------------------------------------------------- Gaussians


def gaussian_matrix(n: int, sigma: float) -> Array:
    """The matrix [n, n] that blurs a line of n pixels; at the ends the weights are those inside, made to sum to 1."""
    position = np.arange(n)
    weights = np.exp(-(((position[:, None] - position) / sigma) ** 2) / 2)
    return jnp.asarray(weights / weights.sum(axis=1, keepdims=True), jnp.float32)


def gaussian_taps(sigma: float | Array, radius: int) -> Array:
    """The weights [2 radius + 1] of a Gaussian of `sigma` pixels, cut off at `radius`; they sum to 1."""
    position = jnp.arange(-radius, radius + 1, dtype=jnp.float32)
    taps = jnp.exp(-((position / sigma) ** 2) / 2)
    return taps / jnp.sum(taps)


def shifted_sum(taps: Array, x: Array, *, border: str = "black") -> Array:
    """The convolution of x [n, ...] with taps [2 r + 1] along its first axis; beyond its ends are zeros, or what
    the border (of BORDERS) says."""
    radius, n = len(taps) // 2, len(x)
    how = "constant" if border == "black" else border
    padded = jnp.pad(x, ((radius, radius), *((0, 0) for _ in x.shape[1:])), mode=how)
    total = taps[0] * padded[:n]
    for k in range(1, len(taps)):
        total += taps[k] * padded[k : k + n]
    return total


# ---------------------------------------------------------------------------------------------- patches


def patches(images: Array, size: int, stride: int) -> Array:
    """Overlapping squares: [..., h, w, c] -> [..., rows, columns, size, size, c], as CPC looks at an image.

    Patch (i, j) begins at pixel (i stride, j stride); there are (h - size) // stride + 1 rows. CIFAR-10: `patches(x,
    8, 4)`, 7 x 7 patches of 32 x 32 pixels; 64 pixels: `(16, 8)`; 128: `(32, 16)`.

    >>> patches(jnp.arange(9).reshape(3, 3, 1), 2, 1)[1, 0].ravel().tolist()
    [3, 4, 6, 7]
    """
    h, w = images.shape[-3:-1]
    if not 0 < size <= min(h, w) or stride < 1:
        raise ValueError(f"patches of {size} at every {stride} pixels do not fit into an image of {h} x {w}.")
    rows = jnp.arange(0, h - size + 1, stride)[:, None] + jnp.arange(size)
    columns = jnp.arange(0, w - size + 1, stride)[:, None] + jnp.arange(size)
    cut = jnp.take(images, rows, axis=-3)  # [..., rows, size, w, c]
    cut = jnp.take(cut, columns, axis=-2)  # [..., rows, size, columns, size, c]
    return jnp.swapaxes(cut, -4, -3)


def mosaic(patches: Array) -> Array:
    """Patches side by side, to be looked at: [..., rows, columns, p, q, c] -> [..., rows p, columns q, c].

    >>> mosaic(jnp.arange(4).reshape(2, 1, 1, 2, 1)).ravel().tolist()       # two patches of a row each
    [0, 1, 2, 3]
    """
    *more, rows, columns, p, q, c = patches.shape
    return jnp.swapaxes(patches, -4, -3).reshape(*more, rows * p, columns * q, c)


def as_float(image: Any) -> Array:
    """uint8 -> float32 in [0, 1]; floats are taken to be there already."""
    if image.dtype == jnp.uint8:
        return jnp.asarray(image, jnp.float32) / 255
    if jnp.issubdtype(image.dtype, jnp.floating):
        return jnp.asarray(image, jnp.float32)
    raise ValueError(f"images are uint8 in 0..255 or floating point in [0, 1]; got {image.dtype}.")
