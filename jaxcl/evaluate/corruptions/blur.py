"""Blur: defocus, glass, motion and zoom."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxcl.evaluate.corruptions.common import (
    Constants,
    clipped,
    constants,
    eight_bits,
    exact,
    gaussian_matrix,
    of_severity,
    rounded,
    smear,
    stacked,
    unit,
    zoom_matrix,
)
from jaxcl.images import edge, reflect, resample
from jaxcl.typing import Array

# name -> the constants of the five severities: for CIFAR-10's size, and for ImageNet's.
CONSTANTS: dict[str, Constants] = {
    # radius of the disk in pixels, sigma of its softening
    "defocus_blur": (
        ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1)),
        ((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5)),
    ),
    # sigma of the blur before and after in pixels, largest displacement in pixels, repetitions
    "glass_blur": (
        ((0.05, 1, 1), (0.25, 1, 1), (0.4, 1, 1), (0.25, 1, 2), (0.4, 1, 2)),
        ((0.7, 1, 2), (0.9, 2, 1), (1, 2, 3), (1.1, 3, 2), (1.5, 4, 2)),
    ),
    # radius and sigma in pixels
    "motion_blur": (
        ((6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5)),
        ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15)),
    ),
    # end and step of the zoom factors, which start at 1
    "zoom_blur": (
        ((1.06, 0.01), (1.11, 0.01), (1.16, 0.01), (1.21, 0.01), (1.26, 0.01)),
        ((1.11, 0.01), (1.16, 0.01), (1.21, 0.02), (1.26, 0.02), (1.31, 0.03)),
    ),
}


def defocus_blur(key: Array, image: Array, severity: Array) -> Array:
    """Convolution with a disk that is softened by a small Gaussian; mirrored at the border's pixels."""
    h = len(image)
    table = constants(CONSTANTS["defocus_blur"], h)
    table[:, 0] *= unit(h)
    r, softness = of_severity(table, severity)
    reach = int(np.ceil(np.max(table[:, 0]))) + 2
    x = jnp.arange(-reach, reach + 1, dtype=jnp.float32)
    disk = (x[:, None] ** 2 + x**2 <= r**2).astype(jnp.float32)
    # OpenCV's kernels of 3 and 5 taps, cut off where they are not small.
    taps = jnp.exp(-(x**2) / (2 * softness**2)) * (jnp.abs(x) <= jnp.where(r <= 8 * unit(h), 1, 2))
    soften = taps / jnp.sum(taps)
    disk = exact("ij,jk,lk->il", toeplitz(soften), disk / jnp.sum(disk), toeplitz(soften))
    return clipped(correlate(disk, image))


def glass_blur(key: Array, image: Array, severity: Array) -> Array:
    """Blurred, every pixel replaced by a random neighbor's, blurred again."""
    h, w, _ = image.shape
    table = constants(CONSTANTS["glass_blur"], h)
    table[:, 0] *= unit(h)
    table[:, 1] = np.maximum(1, np.round(table[:, 1] * unit(h)))
    sigma, delta, times = of_severity(table, severity)
    delta = delta.astype(jnp.int32)
    rows = gaussian_matrix(sigma, h, most=np.max(table[:, 0]), truncate=4, border=edge)
    columns = gaussian_matrix(sigma, w, most=np.max(table[:, 0]), truncate=4, border=edge)
    y, x = jnp.arange(h)[:, None], jnp.arange(w)
    inside = (y > delta) & (y <= h - delta) & (x > delta) & (x <= w - delta)

    def shuffle(i, image):
        moved = jax.random.randint(jax.random.fold_in(key, i), (2, h, w), -delta, delta)
        dy, dx = jnp.where(inside, moved, 0)
        return image[jnp.clip(y + dy, 0, h - 1), jnp.clip(x + dx, 0, w - 1)]

    blurred = eight_bits(resample(rows, columns, image))
    return clipped(resample(rows, columns, lax.fori_loop(0, times.astype(jnp.int32), shuffle, blurred)))


def motion_blur(key: Array, image: Array, severity: Array) -> Array:
    """Smeared along a line, in a direction within 45 degrees of the horizontal."""
    table = constants(CONSTANTS["motion_blur"], len(image)) * unit(len(image))
    radius, sigma = of_severity(table, severity)
    angle = jax.random.uniform(key, (), jnp.float32, -45, 45)
    return rounded(smear(image, radius, sigma, angle, most=np.max(table[:, 0])))


def zoom_blur(key: Array, image: Array, severity: Array) -> Array:
    """The mean of the image and of its center at several magnifications, of which the first is 1."""
    h, w, _ = image.shape
    factors = [np.arange(1, end, step) for end, step in constants(CONSTANTS["zoom_blur"], h)]
    counts = [len(f) for f in factors]
    rows, columns = (
        np.stack([stacked([zoom_matrix(n, z) for z in f], max(counts)) for f in factors]) for n in (h, w)
    )
    zoomed = exact("zij,jkc,zlk->ilc", of_severity(rows, severity), image, of_severity(columns, severity))
    return clipped((image + zoomed) / (of_severity(np.array(counts), severity) + 1))


# ---------------------------------------------------------------------------------------------- parts


def toeplitz(taps: Array) -> Array:
    """The matrix that convolves a line with symmetric taps [2 r + 1], nothing beyond its ends: [2 r + 1, 2 r + 1]."""
    n = len(taps)
    offset = jnp.arange(n)[:, None] - jnp.arange(n) + n // 2
    return jnp.where((offset >= 0) & (offset < n), taps[jnp.clip(offset, 0, n - 1)], 0)


def correlate(kernel: Array, image: Array) -> Array:
    """kernel [2 r + 1, 2 r + 1] over image [h, w, c], mirrored at the border's pixels."""
    h, w, _ = image.shape
    r = len(kernel) // 2
    around = [reflect(jnp.arange(-r, n + r), n) for n in (h, w)]
    padded = jnp.moveaxis(image[around[0]][:, around[1]], 2, 0)[:, None]
    out = lax.conv(padded, kernel[None, None], (1, 1), "VALID", precision=lax.Precision.HIGHEST)
    return jnp.moveaxis(out[:, 0], 0, 2)
