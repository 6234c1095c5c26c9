"""Part 1, where pixels come from: crops, flips, rotations by 90 degrees and shifts."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxcl.augment.op import Number, Op, ascending, between, coin, deciding, known, larger, number, whole
from jaxcl.images import BORDERS, KERNELS, center_matrices, resample, resize_matrix
from jaxcl.typing import Array

# ---------------------------------------------------------------------------------------------- crop and resize


class Crop(NamedTuple):
    """A box of whole pixels, before it is resized."""

    top: Array
    left: Array
    height: Array
    width: Array


# The least and the greatest value.
Bounds = tuple[Number, Number]

# (uniform [attempts, 4], (h, w), area, ratio) -> the boxes [attempts], and which of them are allowed [attempts].
CropDistribution = Callable[[Array, tuple[int, int], Bounds, Bounds], tuple[Crop, Array]]


def uniform_area(u: Array, shape: tuple[int, int], area: Bounds, ratio: Bounds) -> tuple[Crop, Array]:
    """The fraction of the area and the aspect ratio (width over height) are uniform; a box that does not fit is drawn
    again.

    This is what the SimCLR paper's appendix A says. What its code does is `uniform_height`.
    """
    return boxes_of(u, shape, area, between(u[:, 0], *ratio))


def uniform_area_log_ratio(
    u: Array, shape: tuple[int, int], area: Bounds, ratio: Bounds
) -> tuple[Crop, Array]:
    """As `uniform_area`, but the logarithm of the aspect ratio is uniform: torchvision's distribution, with
    which MoCo and CMC were trained. (Where no attempt fits, torchvision takes the center, and we the whole image.)"""
    return boxes_of(u, shape, area, jnp.exp(between(u[:, 0], log(ratio[0]), log(ratio[1]))))


def uniform_area_cut(u: Array, shape: tuple[int, int], area: Bounds, ratio: Bounds) -> tuple[Crop, Array]:
    """As `uniform_area_log_ratio`, but nothing is drawn again: a side longer than the image's is cut to it. The
    distribution of BYOL's code (byol/utils/dataset.py), whose crops are the largest: 0.53 of a square image
    on average, 0.52 of a 500 x 375 one."""
    box, _ = boxes_of(u, shape, area, jnp.exp(between(u[:, 0], log(ratio[0]), log(ratio[1]))), cut=True)
    return box, jnp.ones(len(u), bool)


def log(x: Number) -> Any:
    return math.log(x) if known(x) is not None else jnp.log(x)


def boxes_of(
    u: Array, shape: tuple[int, int], area, aspect: Array, *, cut: bool = False
) -> tuple[Crop, Array]:
    h, w = shape
    pixels = between(u[:, 1], *area) * (h * w)
    height = jnp.round(jnp.sqrt(pixels / aspect)).astype(jnp.int32)
    width = jnp.round(jnp.sqrt(pixels * aspect)).astype(jnp.int32)
    fits = (height >= 1) & (height <= h) & (width >= 1) & (width <= w)
    if cut:
        height, width = jnp.clip(height, 1, h), jnp.clip(width, 1, w)
    top = whole(u[:, 2], h - height + 1)
    left = whole(u[:, 3], w - width + 1)
    return Crop(top, left, height, width), fits


def uniform_height(u: Array, shape: tuple[int, int], area: Bounds, ratio: Bounds) -> tuple[Crop, Array]:
    """The distribution of TensorFlow's sample_distorted_bounding_box on a whole image, which SimCLR's code calls.

    The aspect ratio is uniform; then the *height* is uniform among those that keep the area within `area` and the box
    within the image, so small crops are commoner than under `uniform_area` (for a square image and the usual settings
    a crop keeps 0.42 of the area on average, not 0.48). Its `min_object_covered=0.1` also redraws every box under a
    tenth of the image, and its positions leave out the last row and column that would be possible.
    """
    h, w = shape
    least = larger(0.1, area[0])
    if not ascending(0.1, area[1]):
        raise ValueError(
            f"uniform_height draws no crops below 0.1 of the image, so area must end at 0.1 or above; got {area}."
            " For smaller crops use distribution=uniform_area."
        )
    smallest, largest = area[0] * h * w, area[1] * h * w
    aspect = between(u[:, 0], *ratio)
    low = jnp.round(jnp.sqrt(smallest / aspect))
    high = jnp.round(jnp.sqrt(largest / aspect))
    high = jnp.where(jnp.round(high * aspect) > w, jnp.floor((w + 0.5) / aspect), high)
    high = jnp.minimum(high, h)
    low = jnp.minimum(low, high)
    height = low + jnp.floor(u[:, 1] * (high - low + 1))
    # A box that rounding made a little too small or too large is mended by one row.
    height = height + (height * jnp.round(height * aspect) < smallest)
    height = height - (height * jnp.round(height * aspect) > largest)
    width = jnp.round(height * aspect)
    fraction = height * width / (h * w)
    fits = (
        (fraction >= least)
        & (fraction <= area[1])
        & (height >= 1)
        & (height <= h)
        & (width >= 1)
        & (width <= w)
    )
    height, width = height.astype(jnp.int32), width.astype(jnp.int32)
    top = whole(u[:, 2], jnp.maximum(h - height, 1))
    left = whole(u[:, 3], jnp.maximum(w - width, 1))
    return Crop(top, left, height, width), fits


def random_resized_crop(
    size: int | tuple[int, int],
    *,
    area: Bounds = (0.08, 1.0),
    ratio: Bounds = (3 / 4, 4 / 3),
    distribution: CropDistribution = uniform_area,
    method: str = "bicubic",
    antialias: bool = False,
    attempts: int = 10,
) -> Op:
    """Cut out a random box and resize it to `size`: [h, w, c] -> [size, size, c], or [height, width, c].

    area
        the least and the greatest fraction of the image's area.
    ratio
        the least and the greatest aspect ratio, width over height, relative to that of `size`.
    distribution
        of the boxes: `uniform_area`, `uniform_area_log_ratio`, `uniform_area_cut` or `uniform_height`. Of `attempts`
        draws the first allowed box is taken, and if there is none the whole image, as
        tf.image.sample_distorted_bounding_box does (after 100).
    method
        "bicubic" is Keys' cubic kernel with a = -0.5 and half-pixel centers: tf.image.resize(method="bicubic") of
        TensorFlow 2 on the box cut out (what is outside of the box plays no part). It may overshoot [0, 1] a little;
        clipping comes later, as in SimCLR. "bilinear" is the triangle kernel.
    antialias
        widen the kernel where the box shrinks (as Pillow does, and hence torchvision on its images). TensorFlow's
        default, and so SimCLR's, is not to.

    Raises ValueError where area or ratio is not 0 < least <= greatest, or the method is unknown.
    """
    out_h, out_w = (size, size) if isinstance(size, int) else size
    area, ratio = (number(area[0]), number(area[1])), (number(ratio[0]), number(ratio[1]))
    if not ascending(0, *area, 1, strict=True):
        raise ValueError(f"area must be fractions of the image, 0 < least <= greatest <= 1; got {area}.")
    if not ascending(0, *ratio, strict=True):
        raise ValueError(f"ratio must be 0 < least <= greatest; got {ratio}.")
    if method not in KERNELS:
        raise ValueError(f"method must be one of {', '.join(KERNELS)}; got {method!r}.")
    relative = (ratio[0] * out_w / out_h, ratio[1] * out_w / out_h)

    def decide(u, shape):
        h, w, _ = shape
        boxes, fits = distribution(u.reshape(attempts, 4), (h, w), area, relative)
        first = jnp.argmax(fits)
        whole_image = Crop(*(jnp.int32(value) for value in (0, 0, h, w)))
        return jax.tree.map(
            lambda box, otherwise: jnp.where(fits[first], box[first], otherwise), boxes, whole_image
        )

    def apply(params, image):
        h, w, _ = image.shape
        rows = resize_matrix(params.top, params.height, h, out_h, method, antialias)
        columns = resize_matrix(params.left, params.width, w, out_w, method, antialias)
        return resample(rows, columns, image)

    settings = {"size": (out_h, out_w), "area": area, "ratio": ratio, "distribution": distribution}
    settings |= {"method": method, "antialias": antialias, "attempts": attempts}
    out = lambda shape: (out_h, out_w, shape[2])  # noqa: E731
    return deciding("crop", 4 * attempts, decide, apply, settings=settings, out=out)


def is_crop_and_flip(op: Op, after: Op) -> bool:
    """Whether these two ops in a row are a crop and a flip of this file, which `crop_flipped` does in one."""
    names = (op.name, after.name) == ("crop", "flip")
    return names and "distribution" in dict(op.settings) and "probability" in dict(after.settings)


def crop_flipped(crop: Op, box: Crop, coin: Flip, image: Array) -> Array:
    """What the crop and then the flip make of an image, by their parameters: its columns are resized in reverse."""
    settings, (h, w, _) = dict(crop.settings), image.shape
    (out_h, out_w), how = settings["size"], (settings["method"], settings["antialias"])
    rows = resize_matrix(box.top, box.height, h, out_h, *how)
    columns = resize_matrix(box.left, box.width, w, out_w, *how)
    return resample(rows, jnp.where(coin.on, columns[::-1], columns), image)


def center_crop(
    size: int | tuple[int, int], *, fraction: Number = 0.875, method: str = "bicubic", antialias: bool = False
) -> Op:
    """What evaluation sees of a photograph: the largest box of `size`'s shape in the center, times `fraction`, resized.

    Draws nothing. `fraction=0.875` (224 of 256) is SimCLR's and everybody's for images of more than 32 pixels; small
    ones are evaluated whole. The box is rounded as in SimCLR's code. `antialias=True` is Pillow's way to shrink.

    >>> op = center_crop(2, fraction=0.5)
    >>> op.apply((), jnp.arange(16.0).reshape(4, 4, 1)).ravel().tolist()
    [5.0, 6.0, 9.0, 10.0]
    """
    out_h, out_w = (size, size) if isinstance(size, int) else size
    fraction = number(fraction)
    if not ascending(0, fraction, 1, strict=True):
        raise ValueError(
            f"fraction, the crop's side over the image's side, must be in (0, 1]; got {fraction}."
        )

    def apply(params, image):
        h, w, _ = image.shape
        rows, columns = center_matrices((h, w), (out_h, out_w), fraction, method, antialias)
        return resample(rows, columns, image)

    settings = {"size": (out_h, out_w), "fraction": fraction, "method": method, "antialias": antialias}
    out = lambda shape: (out_h, out_w, shape[2])  # noqa: E731
    return deciding("center crop", 0, lambda u, shape: (), apply, settings=settings, out=out)


# ---------------------------------------------------------------------------------------------- flip, rotate, shift


class Flip(NamedTuple):
    """`on`: done, or not; so in every op with a probability."""

    on: Array


def flip(*, probability: Number = 0.5) -> Op:
    """Left becomes right, with the given probability."""

    def apply(params, image):
        return jnp.where(params.on, image[:, ::-1], image)

    return deciding("flip", 1, coin(Flip, probability), apply, settings={"probability": probability})


class Rotation(NamedTuple):
    """`quarters`: by how many times 90 degrees, counterclockwise."""

    quarters: Array


def rotate90(*, probability: Number = 0.5) -> Op:
    """Rotate a square image by 90, 180 or 270 degrees (each as likely), with the given probability; else leave it."""

    def decide(u, shape):
        return Rotation(jnp.where(u[0] < probability, 1 + whole(u[1], 3), 0))

    def apply(params, image):
        if image.shape[0] != image.shape[1]:
            raise ValueError(
                f"rotate90 needs a square image, so that its shape stays; got {image.shape}. Crop first."
            )
        return lax.switch(params.quarters, [lambda x, k=k: jnp.rot90(x, k) for k in range(4)], image)

    return deciding("rotate90", 2, decide, apply, settings={"probability": probability})


class Shift(NamedTuple):
    """`down` and `right` in whole pixels; negative is up and left."""

    down: Array
    right: Array


def translate(pixels: int, *, probability: Number = 1.0, border: str = "edge") -> Op:
    """Shift by up to `pixels` each way, in whole pixels, with the given probability.

    border
        what comes in: "edge", the nearest border pixel; "reflect", the image mirrored at its border pixel (as AMDIM
        does on CIFAR-10).
    """
    if border not in BORDERS:
        raise ValueError(f"border must be one of {', '.join(BORDERS)}; got {border!r}.")

    def decide(u, shape):
        shift = jnp.where(u[2] < probability, whole(u[:2], 2 * pixels + 1) - pixels, 0)
        return Shift(shift[0], shift[1])

    def apply(params, image):
        h, w, _ = image.shape
        return image[BORDERS[border](jnp.arange(h) - params.down, h)][
            :, BORDERS[border](jnp.arange(w) - params.right, w)
        ]

    settings = {"pixels": pixels, "probability": probability, "border": border}
    return deciding("translate", 3, decide, apply, settings=settings)
