"""Digital: contrast, elastic transform, pixelate and JPEG."""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from jaxcl.evaluate.corruptions.common import (
    Constants,
    clipped,
    constants,
    exact,
    gaussian_matrix,
    of_severity,
    rounded,
)
from jaxcl.images import reflect, resample, symmetric
from jaxcl.typing import Array

# name -> the constants of the five severities: for CIFAR-10's size, and for ImageNet's.
CONSTANTS: dict[str, Constants] = {
    # factor about each channel's mean
    "contrast": ((0.75, 0.5, 0.4, 0.3, 0.15), (0.4, 0.3, 0.2, 0.1, 0.05)),
    # strength and sigma of the displacement, displacement of the affine map's three points: in image heights
    "elastic_transform": (
        ((0, 0, 0.08), (0.05, 0.2, 0.07), (0.08, 0.06, 0.06), (0.1, 0.04, 0.05), (0.1, 0.03, 0.03)),
        # Of 244 pixels, as the authors wrote for 224.
        tuple(
            tuple(244 / 224 * x for x in row)
            for row in (
                (2, 0.7, 0.1),
                (2, 0.08, 0.2),
                (0.05, 0.01, 0.02),
                (0.07, 0.01, 0.02),
                (0.12, 0.01, 0.02),
            )
        ),
    ),
    # fraction of the side that is left
    "pixelate": ((0.95, 0.9, 0.85, 0.75, 0.65), (0.6, 0.5, 0.4, 0.3, 0.25)),
    # libjpeg's quality
    "jpeg_compression": ((80, 65, 58, 50, 40), (25, 18, 15, 10, 7)),
}


def contrast(key: Array, image: Array, severity: Array) -> Array:
    """About each channel's mean."""
    mean = jnp.mean(image, axis=(0, 1), keepdims=True)
    return clipped(
        (image - mean) * of_severity(constants(CONSTANTS["contrast"], len(image)), severity) + mean
    )


def elastic_transform(key: Array, image: Array, severity: Array) -> Array:
    """A random affine map, then a smooth random displacement of every pixel."""
    h, w, _ = image.shape
    table = constants(CONSTANTS["elastic_transform"], h) * h
    strength, sigma, jitter = of_severity(table, severity)
    affine_key, x_key, y_key = jax.random.split(key, 3)
    y, x = jnp.meshgrid(jnp.arange(h, dtype=jnp.float32), jnp.arange(w, dtype=jnp.float32), indexing="ij")

    # Three points (x, y) of the image and where they are moved; every position is traced back.
    cx, cy, side = w // 2, h // 2, min(h, w) // 3
    points = jnp.asarray(
        [[cx + side, cy + side], [cx + side, cy - side], [cx - side, cy - side]], jnp.float32
    )
    moved = points + jax.random.uniform(affine_key, (3, 2), jnp.float32, -1, 1) * jitter
    from_x, from_y = affine(moved, points, x, y)
    image = bilinear(image, from_y, from_x, reflect)

    matrix = functools.partial(gaussian_matrix, sigma, most=np.max(table[:, 1]), truncate=3, border=symmetric)
    dx, dy = (
        strength
        * resample(matrix(h), matrix(w), jax.random.uniform(k, (h, w, 1), jnp.float32, -1, 1))[..., 0]
        for k in (x_key, y_key)
    )
    return clipped(bilinear(image, y + dy, x + dx, symmetric))


def pixelate(key: Array, image: Array, severity: Array) -> Array:
    """Made smaller by Pillow's box filter, and as large as before by the same."""
    h, w, _ = image.shape
    fractions = constants(CONSTANTS["pixelate"], h)
    rows, columns = (
        np.stack([pixel_matrix(n, max(1, int(n * fraction))) for fraction in fractions]) for n in (h, w)
    )
    # Pillow rounds after each of its four passes; once, at the end, differs from it by a level or two.
    return rounded(resample(of_severity(rows, severity), of_severity(columns, severity), image))


def jpeg_compression(key: Array, image: Array, severity: Array) -> Array:
    """Baseline JPEG and back: Y'CbCr, chroma at half resolution, blocks of 8 x 8 in quantized cosines."""
    h, w, c = image.shape
    quality = constants(CONSTANTS["jpeg_compression"], h)
    factor = of_severity(np.where(quality < 50, np.floor(5000 / quality), 200 - 2 * quality), severity)
    luminance, chrominance = (
        jnp.clip(jnp.floor((table * factor + 50) / 100), 1, 255) for table in (LUMINANCE, CHROMINANCE)
    )
    if c == 1:
        y = coded(jnp.round(255 * image[..., 0]), luminance)
        return clipped(y[:, :, None] / 255)
    ycc = jnp.clip(jnp.round(exact("hwc,kc->hwk", 255 * image, TO_YCC) + CENTER), 0, 255)
    y = coded(ycc[..., 0], luminance)
    chroma = [upsampled(coded(halved(ycc[..., i]), chrominance), (h, w)) for i in (1, 2)]
    rgb = exact("hwk,ck->hwc", jnp.stack([y, *chroma], axis=2) - CENTER, FROM_YCC)
    return clipped(jnp.clip(jnp.round(rgb), 0, 255) / 255)


# ---------------------------------------------------------------------------------------------- parts


def pixel_matrix(n: int, m: int) -> np.ndarray:
    """The matrix [n, n] that shrinks a line to m pixels and widens it again, both by Pillow's box filter."""

    def box(size, out):
        scale = size / out
        center, reach = (np.arange(out) + 0.5) * scale, max(scale, 1) / 2
        # Half-open: of two pixels that are as near the left one counts, where the filter is one pixel wide.
        offset = (np.arange(size) + 0.5 - center[:, None]) / (2 * reach)
        inside = (offset > -0.5) & (offset <= 0.5)
        return inside / inside.sum(axis=1, keepdims=True)

    return box(m, n) @ box(n, m)


def affine(before: Array, after: Array, x: Array, y: Array) -> tuple[Array, Array]:
    """Where the affine map that takes the three points `before` to `after`, each [3, 2], takes the positions (x, y)."""
    (ax, ay), (bx, by) = before[1] - before[0], before[2] - before[0]
    area = ax * by - ay * bx
    px, py = x - before[0, 0], y - before[0, 1]
    s, t = (px * by - py * bx) / area, (ax * py - ay * px) / area
    out = after[0] + s[..., None] * (after[1] - after[0]) + t[..., None] * (after[2] - after[0])
    return out[..., 0], out[..., 1]


def bilinear(image: Array, y: Array, x: Array, border: Callable) -> Array:
    """The image [h, w, c] at the positions (y, x), each [h, w], that may lie outside."""
    h, w, _ = image.shape
    top, left = jnp.floor(y), jnp.floor(x)
    down, right = (y - top)[..., None], (x - left)[..., None]
    rows = [border(top.astype(jnp.int32) + i, h) for i in (0, 1)]
    columns = [border(left.astype(jnp.int32) + i, w) for i in (0, 1)]
    above = image[rows[0], columns[0]] * (1 - right) + image[rows[0], columns[1]] * right
    below = image[rows[1], columns[0]] * (1 - right) + image[rows[1], columns[1]] * right
    return above * (1 - down) + below * down


# ---------------------------------------------------------------------------------------------- JPEG

# ITU-T T.81, annex K, tables K.1 and K.2.
LUMINANCE = np.array(
    [
        [16, 11, 10, 16, 24, 40, 51, 61],
        [12, 12, 14, 19, 26, 58, 60, 55],
        [14, 13, 16, 24, 40, 57, 69, 56],
        [14, 17, 22, 29, 51, 87, 80, 62],
        [18, 22, 37, 56, 68, 109, 103, 77],
        [24, 35, 55, 64, 81, 104, 113, 92],
        [49, 64, 78, 87, 103, 121, 120, 101],
        [72, 92, 95, 98, 112, 100, 103, 99],
    ],
    np.float32,
)
CHROMINANCE = np.full((8, 8), 99, np.float32)
CHROMINANCE[:4, :4] = [[17, 18, 24, 47], [18, 21, 26, 66], [24, 26, 56, 99], [47, 66, 99, 99]]
# JFIF 1.02.
TO_YCC = np.array(
    [[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]], np.float32
)
FROM_YCC = np.array([[1, 0, 1.402], [1, -0.344136, -0.714136], [1, 1.772, 0]], np.float32)
CENTER = np.array([0, 128, 128], np.float32)
# Orthonormal cosines: [frequency, position].
COSINES = np.cos(np.pi * np.outer(np.arange(8), np.arange(8) + 0.5) / 8).astype(np.float32) / 2
COSINES[0] /= np.sqrt(2, dtype=np.float32)


def coded(plane: Array, table: Array) -> Array:
    """A plane [h, w] of 0 to 255 after quantization of its 8 x 8 blocks; filled up by its last row and column."""
    h, w = plane.shape
    padded = jnp.pad(plane, ((0, -h % 8), (0, -w % 8)), mode="edge") - 128
    blocks = padded.reshape(padded.shape[0] // 8, 8, padded.shape[1] // 8, 8)
    waves = jnp.round(exact("ui,aibj,vj->aubv", COSINES, blocks, COSINES) / table[:, None]) * table[:, None]
    blocks = exact("ui,aubv,vj->aibj", COSINES, waves, COSINES)
    return jnp.clip(jnp.round(blocks.reshape(padded.shape)[:h, :w] + 128), 0, 255)


def halved(plane: Array) -> Array:
    """The mean of every 2 x 2 pixels, rounded up and down alternately, as libjpeg does."""
    h, w = plane.shape
    padded = jnp.pad(plane, ((0, h % 2), (0, w % 2)), mode="edge")
    total = padded.reshape(padded.shape[0] // 2, 2, padded.shape[1] // 2, 2).sum(axis=(1, 3))
    return jnp.floor((total + 1 + jnp.arange(total.shape[1]) % 2) / 4)


def upsampled(plane: Array, shape: tuple[int, int]) -> Array:
    """Twice as large: every new pixel takes 3/4 of the nearest old one and 1/4 of the next, along each axis."""

    def twice(x):
        before, after = jnp.concatenate([x[:1], x[:-1]]), jnp.concatenate([x[1:], x[-1:]])
        return jnp.stack([3 * x + before, 3 * x + after], axis=1).reshape(2 * len(x), -1)

    sixteenths = twice(twice(plane).T).T
    # Rounded up and down alternately, as libjpeg does.
    return jnp.floor((sixteenths + 8 - jnp.arange(sixteenths.shape[1]) % 2) / 16)[: shape[0], : shape[1]]
