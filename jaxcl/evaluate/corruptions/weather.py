"""Weather: snow, frost, fog and brightness."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from jaxcl.evaluate.corruptions.common import (
    Constants,
    clipped,
    constants,
    eight_bits,
    exact,
    of_severity,
    smear,
    unit,
    zoom_matrix,
)
from jaxcl.images import resample
from jaxcl.typing import Array

# name -> the constants of the five severities: for CIFAR-10's size, and for ImageNet's.
CONSTANTS: dict[str, Constants] = {
    # mean and standard deviation of the flakes, their zoom, threshold, radius and sigma of their fall in pixels,
    # fraction of the image that is not whitened
    "snow": (
        (
            (0.1, 0.2, 1, 0.6, 8, 3, 0.95),
            (0.1, 0.2, 1, 0.5, 10, 4, 0.9),
            (0.15, 0.3, 1.75, 0.55, 10, 4, 0.9),
            (0.25, 0.3, 2.25, 0.6, 12, 6, 0.85),
            (0.3, 0.3, 1.25, 0.65, 14, 12, 0.8),
        ),
        (
            (0.1, 0.3, 3, 0.5, 10, 4, 0.8),
            (0.2, 0.3, 2, 0.5, 12, 4, 0.7),
            (0.55, 0.3, 4, 0.9, 12, 8, 0.7),
            (0.55, 0.3, 4.5, 0.85, 12, 8, 0.65),
            (0.55, 0.3, 2.5, 0.85, 12, 12, 0.55),
        ),
    ),
    # weight of the image, weight of the ice
    "frost": (
        ((1, 0.2), (1, 0.3), (0.9, 0.4), (0.85, 0.4), (0.75, 0.45)),
        ((1, 0.4), (0.8, 0.6), (0.7, 0.7), (0.65, 0.7), (0.6, 0.75)),
    ),
    # weight of the fog, by what its roughness falls from scale to scale
    "fog": (
        ((0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75)),
        ((1.5, 2), (2, 2), (2.5, 1.7), (2.5, 1.5), (3, 1.4)),
    ),
    # added to HSV's value
    "brightness": ((0.05, 0.1, 0.15, 0.2, 0.3), (0.1, 0.2, 0.3, 0.4, 0.5)),
}


def snow(key: Array, image: Array, severity: Array) -> Array:
    """Whitened, with flakes that fall in two directions."""
    h, w, _ = image.shape
    table = constants(CONSTANTS["snow"], h)
    table[:, 4:6] *= unit(h)
    mean, std, _, threshold, radius, sigma, kept = of_severity(table, severity)
    flakes_key, angle_key = jax.random.split(key)
    flakes = mean + std * jax.random.normal(flakes_key, (h, w, 1))
    rows, columns = (np.stack([zoom_matrix(n, z) for z in table[:, 2]]) for n in (h, w))
    flakes = resample(of_severity(rows, severity), of_severity(columns, severity), flakes)
    flakes = eight_bits(clipped(jnp.where(flakes < threshold, 0, flakes)))
    angle = jax.random.uniform(angle_key, (), jnp.float32, -135, -45)
    flakes = smear(flakes, radius, sigma, angle, most=np.max(table[:, 4]))
    pale = jnp.maximum(image, 1.5 * gray(image) + 0.5)
    return clipped(kept * image + (1 - kept) * pale + flakes + flakes[::-1, ::-1])


def frost(key: Array, image: Array, severity: Array) -> Array:
    """Ice over the image: bright ridges of a fractal height field, bluish. The texture is ours (see `corruptions`)."""
    h, w, c = image.shape
    mine, ice = of_severity(constants(CONSTANTS["frost"], h), severity)
    first, second = jax.random.split(key)
    ridges = [1 - jnp.abs(2 * plasma(k, h, w, jnp.float32(2.0)) - 1) for k in (first, second)]
    texture = (0.3 + 0.7 * jnp.maximum(*ridges) ** 3)[:, :, None]
    color = jnp.asarray([0.85, 0.95, 1.0] if c == 3 else [0.93], jnp.float32)
    return clipped(mine * image + ice * texture * color)


def fog(key: Array, image: Array, severity: Array) -> Array:
    """A fractal field added, and the sum scaled to the image's own brightest value."""
    h, w, _ = image.shape
    weight, decay = of_severity(constants(CONSTANTS["fog"], h), severity)
    brightest = jnp.max(image)
    foggy = image + weight * plasma(key, h, w, decay)[:, :, None]
    return clipped(foggy * brightest / (brightest + weight))


def brightness(key: Array, image: Array, severity: Array) -> Array:
    """HSV's value (the greatest channel) raised; hue and saturation stay."""
    top = jnp.max(image, axis=2, keepdims=True)
    raised = jnp.minimum(top + of_severity(constants(CONSTANTS["brightness"], len(image)), severity), 1)
    return clipped(jnp.where(top > 0, image * raised / jnp.where(top > 0, top, 1), raised))


# ---------------------------------------------------------------------------------------------- parts


def gray(image: Array) -> Array:
    """[h, w, c] -> [h, w, 1], by OpenCV's weights."""
    if image.shape[2] == 1:
        return image
    return exact("hwc,c->hw", image, jnp.asarray([0.299, 0.587, 0.114], jnp.float32))[:, :, None]


def plasma(key: Array, h: int, w: int, decay: Array) -> Array:
    """A fractal field [h, w] in [0, 1] by the diamond-square algorithm, on the power of two that holds the image.

    Every level halves the grid: centers of squares are the mean of their four corners, centers of edges the mean of
    two corners and two centers, on a torus, each plus U(-a, a), where a falls by decay^2 from level to level.
    """
    levels = int(np.ceil(np.log2(max(h, w, 2))))
    # All at once, the coarsest level's first: many small draws would take long to compile.
    draws = jax.random.uniform(key, (4**levels - 1,), jnp.float32, -1, 1)
    field, used = jnp.zeros((1, 1)), 0
    size = jnp.float32(100.0)
    for _ in range(levels):
        n = len(field)
        noise = size**2 * draws[used : used + 3 * n * n].reshape(3, n, n)
        corners = field + jnp.roll(field, -1, axis=0)
        squares = (corners + jnp.roll(corners, -1, axis=1)) / 4 + noise[0]
        across = field + jnp.roll(field, -1, axis=1) + squares + jnp.roll(squares, 1, axis=0)
        down = field + jnp.roll(field, -1, axis=0) + squares + jnp.roll(squares, 1, axis=1)
        across, down = across / 4 + noise[1], down / 4 + noise[2]
        used += 3 * n * n
        n *= 2
        above = jnp.stack([field, across], axis=2).reshape(-1, n)
        below = jnp.stack([down, squares], axis=2).reshape(-1, n)
        field = jnp.stack([above, below], axis=1).reshape(n, n)
        size = size / decay
    field = field - jnp.min(field)
    return (field / jnp.max(field))[:h, :w]
