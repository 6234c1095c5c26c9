"""Part 1, detail: Gaussian blur, and a random fine texture."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxcl import collectives
from jaxcl.augment.op import Number, Op, ascending, between, deciding, known, number, same_shape, uniform
from jaxcl.images import BORDERS, gaussian_matrix, gaussian_taps, resample, shifted_sum
from jaxcl.typing import Array


class Blur(NamedTuple):
    """`sigma` in pixels."""

    on: Array
    sigma: Array


def gaussian_blur(
    *,
    sigma: tuple[Number, Number] = (0.1, 2.0),
    probability: Number = 0.5,
    border: str = "black",
    radius: int | None = None,
    boxes: int | None = None,
) -> Op:
    """A Gaussian of random width, cut off at `blur_radius(h)` pixels: 23 taps for 224 pixels, 3 for 32.

    sigma
        the least and the greatest standard deviation, in pixels; drawn uniformly for every image. (SimCLR's code
        draws one for a whole batch on a device, which would make images depend on where they are.)

    border
        what lies beyond it. "black": zeros, without renormalizing, as in SimCLR; the border of a bright image darkens.
        "edge": the nearest pixel, so that a white image stays white. "reflect": the image mirrored at its border pixel,
        as in torchvision's GaussianBlur.
    radius
        of the kernel, in pixels, the same for images of any size; None is SimCLR's, a tenth of the height, by which an
        image of fewer than 20 rows has a single tap and stays as it is.
    boxes
        Not a Gaussian but so many box blurs in a row, of the same variance together (Gwosdek et al. 2011). Pillow's
        GaussianBlur, which MoCo v2 has, is `gaussian_blur(border="edge", boxes=3)`: each box extends the image anew.
        The greatest sigma must then be known, and there is no radius.
    """
    if border != "black" and border not in BORDERS:
        raise ValueError(f"border must be black, {' or '.join(BORDERS)}; got {border!r}.")
    if radius is not None and radius < 0:
        raise ValueError(f"radius is in pixels and must be at least 0; got {radius}.")
    if boxes is not None and (boxes < 1 or radius is not None or known(sigma[1]) is None):
        raise ValueError(
            "boxes, the number of box blurs, must be at least 1, with numbers for sigma and without radius; got"
            f" boxes={boxes}, sigma={sigma}, radius={radius}."
        )
    sigma = (number(sigma[0]), number(sigma[1]))
    if not ascending(0, *sigma, strict=True):
        raise ValueError(f"sigma must be 0 < least <= greatest; got {sigma}.")

    def decide(u, shape):
        return Blur(on=u[0] < probability, sigma=between(u[1], *sigma))

    settings = {
        "sigma": sigma,
        "probability": probability,
        "border": border,
        "radius": radius,
        "boxes": boxes,
    }

    def apply(params, image):
        blur = blur_of_lines(params, settings, image.shape[0])
        if blur is None:
            return image
        reach = blur_radius(image.shape[0]) if radius is None else radius
        plain = boxes is None and border == "black"
        if plain and reach > 2 and collectives.target().platform == "tpu":
            # Two matrix products: so many shifted copies would go through its memory in several passes.
            rows, columns = (blur_matrix(params, reach, n) for n in image.shape[:2])
            return resample(rows, columns, image)
        # Else XLA would compute each of the rows' sums anew for every tap of the columns.
        rows = lax.optimization_barrier(blur(image))
        return jnp.swapaxes(blur(jnp.swapaxes(rows, 0, 1)), 0, 1)

    return deciding("blur", 2, decide, apply, settings=settings)


def blur_of_lines(params: Blur, settings: Mapping[str, Any], height: int) -> Callable[[Array], Array] | None:
    """What blurs x [n, ...] along its first axis, for an op of these settings; None where it leaves all as it is."""
    boxes, border = settings["boxes"], settings["border"]
    if boxes:
        radius = math.ceil(box_radius(float(settings["sigma"][1]), boxes))
        taps = box_taps(box_radius(params.sigma, boxes), radius)
    else:
        radius = blur_radius(height) if settings["radius"] is None else settings["radius"]
        if radius == 0:
            return None
        taps = gaussian_taps(params.sigma, radius)
    # The coin is applied here, where it costs least.
    taps = jnp.where(params.on, taps, jnp.arange(-radius, radius + 1) == 0)

    def blur(x):
        for _ in range(boxes or 1):
            x = shifted_sum(taps, x, border=border)
        return x

    return blur


def box_radius(sigma: Any, boxes: int) -> Any:
    """The radius, with a fraction, of boxes that together have the variance sigma^2 (Gwosdek et al. 2011, as Pillow).

    >>> round(box_radius(2.0, 3), 4)
    1.375
    """
    variance = sigma**2 / boxes
    whole_part = ((12 * variance + 1) ** 0.5 - 1) // 2
    fraction = (2 * whole_part + 1) * (whole_part * (whole_part + 1) - 3 * variance)
    return whole_part + fraction / (6 * (variance - (whole_part + 1) ** 2))


def box_taps(radius: Array, reach: int) -> Array:
    """The weights [2 reach + 1] of a box: 1 within the radius, a fraction beside it, over their sum."""
    distance = jnp.abs(jnp.arange(-reach, reach + 1, dtype=jnp.float32))
    return jnp.clip(radius + 1 - distance, 0, 1) / (2 * radius + 1)


def blur_matrix(params: Blur, radius: int, n: int) -> Array:
    """The matrix [n, n] that does what `shifted_sum` does with a Gaussian's taps, to lines of n pixels. It is computed
    where it stands, as a TPU is slow to look taps up.

    >>> on = Blur(jnp.array(True), jnp.array(1.0))
    >>> bool(jnp.allclose(blur_matrix(on, 2, 5)[2], gaussian_taps(on.sigma, 2)))
    True
    """
    distance = np.abs(np.arange(n)[None] - np.arange(n)[:, None])
    total = jnp.sum(jnp.exp(-((np.arange(-radius, radius + 1) / params.sigma) ** 2) / 2))
    taps = jnp.exp(-((distance / params.sigma) ** 2) / 2) / total
    return jnp.where(params.on, jnp.where(distance <= radius, taps, 0), np.eye(n, dtype=np.float32))


def blur_radius(height: int) -> int:
    """SimCLR's rule: a kernel of a tenth of the image's height, made odd.

    >>> [2 * blur_radius(height) + 1 for height in (32, 96, 224)]
    [3, 9, 23]
    """
    return height // 10 // 2


class Texture(NamedTuple):
    """`angle` in radians and `period` in pixels of a grating, its `phase` and `warp` in radians; `amount` is a factor
    on the image's own local contrast."""

    on: Array
    angle: Array
    period: Array
    phase: Array
    warp: Array
    amount: Array


def texture(*, probability: Number = 0.5) -> Op:
    """Replace the fine texture of an image by a random one, and keep its shapes and colors.

    LooC's texture augmentation shows stylized copies of the images, made by style transfer (Gatys et al. 2016, as in
    Geirhos et al. 2019), which takes a pretrained network and a collection of paintings. This op is a *stand-in of
    our own* that takes neither: it serves to study an augmentation of texture, not to repeat the paper's numbers. With
    a Gaussian of 1/24 of the image's height (1.3 pixels of 32),

        low = blur(x),   contrast = sqrt(blur(mean over channels of (x - low)^2)),
        pattern = cos(2 pi u / period + phase + warp sin(v / period)),
        x' = clip(low + amount sqrt(2) contrast pattern),

    with (u, v) the pixel's position, rotated by `angle`. So what is coarser than the Gaussian stays, and where the
    image was rough it is rough again, with another pattern. Angle and phase are any, the period is 2 to 8 pixels of 32
    (and grows with the image), warp 0 to 4, amount 0.7 to 1.5.
    """

    def sample(key, shape):
        u = uniform(key, (6,))
        pixels = shape[0] / 32
        return Texture(
            on=u[0] < probability,
            angle=between(u[1], 0, np.pi),
            period=between(u[2], 2 * pixels, 8 * pixels),
            phase=between(u[3], 0, 2 * np.pi),
            warp=between(u[4], 0, 4),
            amount=between(u[5], 0.7, 1.5),
        )

    def apply(params, image):
        h, w, _ = image.shape
        rows, columns = gaussian_matrix(h, h / 24), gaussian_matrix(w, h / 24)
        low = resample(rows, columns, image)
        rough = jnp.mean(jnp.square(image - low), axis=2, keepdims=True)
        contrast = jnp.sqrt(jnp.maximum(resample(rows, columns, rough), 0) + 1e-12)
        y, x = jnp.arange(h, dtype=jnp.float32)[:, None], jnp.arange(w, dtype=jnp.float32)
        sine, cosine = jnp.sin(params.angle), jnp.cos(params.angle)
        u, v = cosine * x + sine * y, cosine * y - sine * x
        bend = params.warp * jnp.sin(v / params.period)
        pattern = jnp.cos(2 * np.pi * u / params.period + params.phase + bend)[:, :, None]
        changed = jnp.clip(low + params.amount * np.sqrt(2) * contrast * pattern, 0, 1)
        return jnp.where(params.on, changed, image)

    return Op("texture", sample, apply, (("probability", probability),), same_shape)
