"""Part 1: what is done to one image.

An op is a pair of pure functions on one float image [h, w, c] in [0, 1]; `vmap` does the rest:

    sample(key, shape) -> params      what is drawn: arrays with readable names, every coin among them
    apply(params, image) -> image     what is done with it: no randomness left

Drawing and doing are apart so that one op's parameters can be held fixed across views, a picture can print what
was drawn, and an op can be compared with another library's for the same parameters.

Colors follow tf.image, as SimCLR's code does: contrast is about each channel's mean (torchvision: about the mean
gray), saturation and hue are those of HSV, and a jittered image is clipped to [0, 1] after each of its four changes.
An image has one channel or three; with one, saturation, hue and grayscale change nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxcl.typing import Array, PyTree

Shape = tuple[int, int, int]


class Op(NamedTuple):
    """An augmentation: `sample(key, shape) -> params` and `apply(params, image) -> image`, for one image [h, w, c].

    settings
        what its maker was called with, as (name, value) pairs. `name` and `settings` together say what the op is, so
        that it can be built in another form: on the host (`data.tf_ops`), or fused with its neighbors.
    out
        the shape that it makes of a shape; None where that is found out by tracing `apply`.
    numbers, decide
        how many numbers of U(0, 1) it needs, and what it makes of them: `decide(u [numbers], shape) -> params`. Where
        all steps of a composed op say so, their numbers are drawn at once, which halves the time to compile.

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


class Crop(NamedTuple):
    """A box of whole pixels, before it is resized."""

    top: Array
    left: Array
    height: Array
    width: Array


class Flip(NamedTuple):
    """`on`: done, or not; so in every op with a probability."""

    on: Array


class Grayscale(NamedTuple):
    on: Array


class Solarize(NamedTuple):
    on: Array


class Drop(NamedTuple):
    """`kept`: the channel that stays."""

    on: Array
    kept: Array


class Jitter(NamedTuple):
    """`order` [4] names the changes, first to last, as places in JITTERS. `brightness` is a factor or a summand,
    `contrast` and `saturation` are factors, `hue` is in turns of the color circle."""

    on: Array
    order: Array
    brightness: Array
    contrast: Array
    saturation: Array
    hue: Array


class Blur(NamedTuple):
    """`sigma` in pixels."""

    on: Array
    sigma: Array


class Turn(NamedTuple):
    """`turns` of 90 degrees, counterclockwise."""

    turns: Array


class Shift(NamedTuple):
    """`down` and `right` in whole pixels; negative is up and left."""

    down: Array
    right: Array


JITTERS = ("brightness", "contrast", "saturation", "hue")

# ---------------------------------------------------------------------------------------------- crop and resize

# (uniform [attempts, 4], (h, w), area, ratio) -> the boxes [attempts], and which of them are allowed [attempts].
CropLaw = Callable[[Array, tuple[int, int], tuple[float, float], tuple[float, float]], tuple[Crop, Array]]


def uniform_area(u: Array, shape: tuple[int, int], area, ratio) -> tuple[Crop, Array]:
    """Area share and aspect ratio (width over height) are uniform; a box that does not fit is drawn again.

    This is what the SimCLR paper's appendix A says. What its code does is `uniform_height`.
    """
    return boxes_of(u, shape, area, between(u[:, 0], *ratio))


def uniform_area_log_ratio(u: Array, shape: tuple[int, int], area, ratio) -> tuple[Crop, Array]:
    """As `uniform_area`, but it is the logarithm of the aspect ratio that is uniform: torchvision's law, with which
    MoCo and CMC were trained. (Where no attempt fits, torchvision takes the center, and we the whole image.)"""
    return boxes_of(u, shape, area, jnp.exp(between(u[:, 0], math.log(ratio[0]), math.log(ratio[1]))))


def boxes_of(u: Array, shape: tuple[int, int], area, aspect: Array) -> tuple[Crop, Array]:
    h, w = shape
    pixels = between(u[:, 1], *area) * (h * w)
    height = jnp.round(jnp.sqrt(pixels / aspect)).astype(jnp.int32)
    width = jnp.round(jnp.sqrt(pixels * aspect)).astype(jnp.int32)
    fits = (height >= 1) & (height <= h) & (width >= 1) & (width <= w)
    top = whole(u[:, 2], h - height + 1)
    left = whole(u[:, 3], w - width + 1)
    return Crop(top, left, height, width), fits


def uniform_height(u: Array, shape: tuple[int, int], area, ratio) -> tuple[Crop, Array]:
    """The law of TensorFlow's sample_distorted_bounding_box on a whole image, which SimCLR's code calls.

    The aspect ratio is uniform; then the *height* is uniform among those that keep the area share within `area` and
    the box within the image, so small crops are commoner than under `uniform_area` (for a square image and the usual
    settings the mean area share is 0.42, not 0.48). Its `min_object_covered=0.1` also redraws every box under a tenth
    of the image, and its places leave out the last row and column that would be possible.
    """
    h, w = shape
    least = max(0.1, area[0])
    if area[1] < least:
        raise ValueError(
            f"uniform_height redraws boxes under a tenth of the image, so area must reach that far; got {area}."
            " For smaller crops use law=uniform_area."
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
    share = height * width / (h * w)
    fits = (share >= least) & (share <= area[1]) & (height >= 1) & (height <= h) & (width >= 1) & (width <= w)
    height, width = height.astype(jnp.int32), width.astype(jnp.int32)
    top = whole(u[:, 2], jnp.maximum(h - height, 1))
    left = whole(u[:, 3], jnp.maximum(w - width, 1))
    return Crop(top, left, height, width), fits


def random_resized_crop(
    size: int | tuple[int, int],
    *,
    area: tuple[float, float] = (0.08, 1.0),
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
    law: CropLaw = uniform_area,
    method: str = "bicubic",
    antialias: bool = False,
    attempts: int = 10,
) -> Op:
    """Cut out a random box and resize it to `size`: [h, w, c] -> [size, size, c], or [height, width, c].

    area
        the least and the greatest share of the image's area.
    ratio
        the least and the greatest aspect ratio, width over height, relative to that of `size`.
    law
        how boxes are drawn: `uniform_area` or `uniform_height`. Of `attempts` draws the first allowed box is taken,
        and if there is none the whole image, as tf.image.sample_distorted_bounding_box does (after 100).
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
    if not 0 < area[0] <= area[1] <= 1:
        raise ValueError(f"area must be shares of the image, 0 < least <= greatest <= 1; got {area}.")
    if not 0 < ratio[0] <= ratio[1]:
        raise ValueError(f"ratio must be 0 < least <= greatest; got {ratio}.")
    if method not in KERNELS:
        raise ValueError(f"method must be one of {', '.join(KERNELS)}; got {method!r}.")
    relative = (ratio[0] * out_w / out_h, ratio[1] * out_w / out_h)

    def decide(u, shape):
        h, w, _ = shape
        boxes, fits = law(u.reshape(attempts, 4), (h, w), area, relative)
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

    settings = {"size": (out_h, out_w), "area": area, "ratio": ratio, "law": law}
    settings |= {"method": method, "antialias": antialias, "attempts": attempts}
    out = lambda shape: (out_h, out_w, shape[2])  # noqa: E731
    return deciding("crop", 4 * attempts, decide, apply, settings=settings, out=out)


def cubic(x: Array) -> Array:
    """Keys' kernel, a = -0.5 (1981, eq. 15), for distances x >= 0."""
    near = ((1.5 * x - 2.5) * x) * x + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return jnp.where(x <= 1, near, jnp.where(x < 2, far, 0))


def triangle(x: Array) -> Array:
    return jnp.maximum(1 - x, 0)


KERNELS = {"bicubic": cubic, "bilinear": triangle}


def resize_matrix(start: Array, length: Array, n: int, out: int, method: str, antialias: bool) -> Array:
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


# ---------------------------------------------------------------------------------------------- geometry


def flip(*, probability: float = 0.5) -> Op:
    """Left becomes right, with the given probability."""

    def apply(params, image):
        return jnp.where(params.on, image[:, ::-1], image)

    return deciding("flip", 1, coin(Flip, probability), apply, settings={"probability": probability})


def rotate90(*, probability: float = 0.5) -> Op:
    """Turn a square image by 90, 180 or 270 degrees (each as likely), with the given probability; else leave it."""

    def decide(u, shape):
        return Turn(jnp.where(u[0] < probability, 1 + whole(u[1], 3), 0))

    def apply(params, image):
        if image.shape[0] != image.shape[1]:
            raise ValueError(
                f"rotate90 needs a square image, so that its shape stays; got {image.shape}. Crop first."
            )
        return lax.switch(params.turns, [lambda x, k=k: jnp.rot90(x, k) for k in range(4)], image)

    return deciding("rotate90", 2, decide, apply, settings={"probability": probability})


def translate(pixels: int, *, probability: float = 1.0, border: str = "edge") -> Op:
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


# Where in a line of n pixels the place i is found that may lie outside.
BORDERS: dict[str, Callable[[Array, int], Array]] = {
    "edge": lambda i, n: jnp.clip(i, 0, n - 1),
    "reflect": lambda i, n: jnp.clip(n - 1 - jnp.abs(n - 1 - jnp.abs(i)), 0, n - 1),
}


def center_crop(
    size: int | tuple[int, int], *, share: float = 0.875, method: str = "bicubic", antialias: bool = False
) -> Op:
    """What evaluation sees of a photograph: the largest box of `size`'s shape in the center, times `share`, resized.

    Draws nothing. `share=0.875` (224 of 256) is SimCLR's and everybody's for images of more than 32 pixels; small
    ones are evaluated whole. The box is rounded as in SimCLR's code. `antialias=True` is Pillow's way to shrink.

    >>> op = center_crop(2, share=0.5)
    >>> op.apply((), jnp.arange(16.0).reshape(4, 4, 1)).ravel().tolist()
    [5.0, 6.0, 9.0, 10.0]
    """
    out_h, out_w = (size, size) if isinstance(size, int) else size
    if not 0 < share <= 1:
        raise ValueError(f"share is what is kept of a side, 0 < share <= 1; got {share}.")

    def apply(params, image):
        h, w, _ = image.shape
        rows, columns = center_matrices((h, w), (out_h, out_w), share, method, antialias)
        return resample(rows, columns, image)

    settings = {"size": (out_h, out_w), "share": share, "method": method, "antialias": antialias}
    out = lambda shape: (out_h, out_w, shape[2])  # noqa: E731
    return deciding("center crop", 0, lambda u, shape: (), apply, settings=settings, out=out)


def center_matrices(shape, out, share: float, method: str, antialias: bool) -> tuple[Array, Array]:
    h, w = shape
    aspect = out[1] / out[0]
    height, width = (w / aspect, w) if aspect > w / h else (h, h * aspect)
    matrices = []
    for n, length, size in ((h, height, out[0]), (w, width, out[1])):
        length = min(n, max(1, round(length * share)))
        matrices.append(resize_matrix((n - length + 1) // 2, length, n, size, method, antialias))
    return matrices[0], matrices[1]


# ---------------------------------------------------------------------------------------------- color


def adjust_brightness(factor: Array, image: Array) -> Array:
    return image * factor


def adjust_contrast(factor: Array, image: Array) -> Array:
    """About each channel's mean: mean + factor (x - mean)."""
    return stack([contrast_of(factor, x) for x in channels(image)])


def adjust_saturation(factor: Array, image: Array) -> Array:
    """HSV's saturation times `factor`, at most 1; the value (the greatest channel) stays."""
    return stack(saturation_of(factor, channels(image)))


def adjust_hue(turns: Array, image: Array) -> Array:
    """HSV's hue plus `turns` of the color circle; the greatest and the least channel's values stay."""
    return stack(hue_of(turns, channels(image)))


# A jitter works on separate channels [h, w]: pixels stay contiguous in memory, which a CPU needs to be fast.
Channels = tuple[Array, ...]


def channels(image: Array) -> Channels:
    if image.ndim != 3 or image.shape[2] not in (1, 3):
        raise ValueError(
            f"an image is [h, w, c] with one channel or three; got {image.shape}. For a batch, vmap the op."
        )
    return tuple(image[:, :, i] for i in range(image.shape[2]))


def stack(planes) -> Array:
    return jnp.stack(planes, axis=-1)


def contrast_of(factor: Array, x: Array) -> Array:
    mean = jnp.mean(x)
    return mean + factor * (x - mean)


def saturation_of(factor: Array, planes: Channels) -> Channels:
    if len(planes) == 1:
        return planes
    r, g, b = planes
    top, bottom = jnp.maximum(jnp.maximum(r, g), b), jnp.minimum(jnp.minimum(r, g), b)
    # With s = (top - bottom) / top and new s = min(factor s, 1), every channel's distance from the top is scaled by
    # new s / s. Below zero, where a crop may overshoot, TensorFlow's kernel takes s = 0: all channels become the top.
    spread = top - bottom
    scale = jnp.minimum(factor, jnp.maximum(top, 0) / jnp.where(spread > 0, spread, 1))
    return tuple(top - (top - x) * scale for x in planes)


def hue_of(turns: Array, planes: Channels) -> Channels:
    if len(planes) == 1:
        return planes
    r, g, b = planes
    top, bottom = jnp.maximum(jnp.maximum(r, g), b), jnp.minimum(jnp.minimum(r, g), b)
    spread = top - bottom
    inverse = 1 / jnp.where(spread > 0, spread, 1)
    # The hue in sixths of the circle: red 0, yellow 1, green 2, cyan 3, blue 4, magenta 5.
    from_red, from_green, from_blue = (g - b) * inverse, 2 + (b - r) * inverse, 4 + (r - g) * inverse
    hue = jnp.where(top == r, from_red, jnp.where(top == g, from_green, from_blue)) + 6 * turns

    def channel(offset):
        k = hue + offset
        k = k - 6 * jnp.floor(k / 6)
        return top - spread * jnp.clip(jnp.minimum(k, 4 - k), 0, 1)

    return channel(5), channel(3), channel(1)


def color_jitter(
    brightness: float,
    contrast: float,
    saturation: float,
    hue: float,
    *,
    probability: float = 0.8,
    brightness_form: str = "multiply",
) -> Op:
    """Brightness, contrast, saturation and hue changed in random order, clipped to [0, 1] after each.

    brightness
        "multiply": a factor from U(max(0, 1 - brightness), 1 + brightness), as in SimCLRv2's code and torchvision;
        "add": a summand from U(-brightness, brightness), as in SimCLR's first code.
    contrast, saturation
        factors from U(max(0, 1 - x), 1 + x).
    hue
        turns of the color circle from U(-hue, hue); at most 0.5.
    probability
        of doing any of it. Without it the image is not clipped either.

    A strength of 0 leaves its change out altogether. The orders of all four are equally likely.
    """
    strengths = {"brightness": brightness, "contrast": contrast, "saturation": saturation, "hue": hue}
    for name, strength in strengths.items():
        if strength < 0:
            raise ValueError(f"{name} is a strength, at least 0; got {strength}.")
    if hue > 0.5:
        raise ValueError(f"hue is in turns of the color circle, at most 0.5; got {hue}.")
    if brightness_form not in ("multiply", "add"):
        raise ValueError(f'brightness_form must be "multiply" or "add"; got {brightness_form!r}.')

    def factor(u, strength):
        return between(u, max(0.0, 1 - strength), 1 + strength)

    def decide(u, shape):
        adds = brightness_form == "add"
        return Jitter(
            on=u[0] < probability,
            order=jnp.argsort(u[5:]).astype(jnp.int32),
            brightness=between(u[1], -brightness, brightness) if adds else factor(u[1], brightness),
            contrast=factor(u[2], contrast),
            saturation=factor(u[3], saturation),
            hue=between(u[4], -hue, hue),
        )

    def apply(params, image):
        def brighter(planes):
            if brightness_form == "add":
                return tuple(x + params.brightness for x in planes)
            return tuple(x * params.brightness for x in planes)

        changes: tuple[Callable[[Channels], Channels], ...] = (
            brighter,
            lambda planes: tuple(contrast_of(params.contrast, x) for x in planes),
            lambda planes: saturation_of(params.saturation, planes),
            lambda planes: hue_of(params.hue, planes),
        )
        # Left out: what has no strength, and what cannot change a gray image.
        colorless = image.shape[2] == 1
        out = [strengths[name] == 0 or (colorless and name in ("saturation", "hue")) for name in JITTERS]
        if all(out):
            return image
        changes = tuple(
            (lambda planes: planes) if skip else change for skip, change in zip(out, changes, strict=True)
        )
        planes = before = channels(image)

        # A loop, not four lines: XLA would fuse the four into one and compute each pixel's past many times over.
        def change(place, planes):
            planes = lax.switch(params.order[place], changes, planes)
            return tuple(jnp.clip(x, 0, 1) for x in planes)

        planes = lax.fori_loop(0, 4, change, planes)
        return stack([jnp.where(params.on, x, y) for x, y in zip(planes, before, strict=True)])

    settings = {**strengths, "probability": probability, "brightness_form": brightness_form}
    return deciding("jitter", 9, decide, apply, settings=settings)


def grayscale(*, probability: float = 0.2) -> Op:
    """All three channels become 0.2989 red + 0.587 green + 0.114 blue (tf.image.rgb_to_grayscale)."""

    def apply(params, image):
        planes = channels(image)
        if len(planes) == 1:
            return image
        r, g, b = planes
        gray = 0.2989 * r + 0.587 * g + 0.114 * b
        return stack([jnp.where(params.on, gray, x) for x in planes])

    return deciding(
        "grayscale", 1, coin(Grayscale, probability), apply, settings={"probability": probability}
    )


def drop_channels(*, probability: float = 0.5) -> Op:
    """Two of the three channels, any two, become the middle gray 0.5, with the given probability.

    ("Color dropping" of patches, against telling neighbors by chromatic aberration; Doersch, Gupta and Efros, 2015,
    arXiv:1505.05192, put noise in their place.) An image of one channel stays as it is.
    """

    def decide(u, shape):
        return Drop(on=u[0] < probability, kept=whole(u[1], 3))

    def apply(params, image):
        if image.shape[2] == 1:
            return image
        return jnp.where(params.on & (jnp.arange(image.shape[2]) != params.kept), 0.5, image)

    return deciding("drop_channels", 2, decide, apply, settings={"probability": probability})


def solarize(*, threshold: float = 0.5, probability: float = 0.2) -> Op:
    """Values at or above `threshold` are turned over: x -> 1 - x (BYOL's second view)."""

    def apply(params, image):
        return jnp.where(params.on & (image >= threshold), 1 - image, image)

    settings = {"threshold": threshold, "probability": probability}
    return deciding("solarize", 1, coin(Solarize, probability), apply, settings=settings)


def gaussian_blur(*, sigma: tuple[float, float] = (0.1, 2.0), probability: float = 0.5) -> Op:
    """A Gaussian of random width, cut off at `blur_radius(h)` pixels: 23 taps for 224 pixels, 3 for 32.

    sigma
        the least and the greatest standard deviation, in pixels; drawn uniformly for every image. (SimCLR's code
        draws one for a whole batch on a device, which would make images depend on where they are.)

    Beyond the border is black, as in SimCLR: padding with zeros, without renormalizing. An image of fewer than 20
    rows has a single tap and stays as it is.
    """
    if not 0 < sigma[0] <= sigma[1]:
        raise ValueError(f"sigma must be 0 < least <= greatest; got {sigma}.")

    def decide(u, shape):
        return Blur(on=u[0] < probability, sigma=between(u[1], *sigma))

    def apply(params, image):
        radius = blur_radius(image.shape[0])
        if radius == 0:
            return image

        taps = blur_taps(params, radius)
        rows = shifted_sum(taps, image)
        # Else XLA would compute each of the rows' sums anew for every tap of the columns.
        rows = lax.optimization_barrier(rows)
        return jnp.swapaxes(shifted_sum(taps, jnp.swapaxes(rows, 0, 1)), 0, 1)

    return deciding("blur", 2, decide, apply, settings={"sigma": sigma, "probability": probability})


def blur_taps(params: Blur, radius: int) -> Array:
    """[2 radius + 1]; the coin is tossed here, where it is cheap."""
    place = jnp.arange(-radius, radius + 1, dtype=jnp.float32)
    taps = jnp.exp(-((place / params.sigma) ** 2) / 2)
    return jnp.where(params.on, taps / jnp.sum(taps), place == 0)


def shifted_sum(taps: Array, x: Array) -> Array:
    """The convolution of x [n, ...] with taps [2 r + 1] along its first axis, zeros beyond its ends."""
    radius, n = len(taps) // 2, len(x)
    padded = jnp.pad(x, ((radius, radius), *((0, 0) for _ in x.shape[1:])))
    total = taps[0] * padded[:n]
    for k in range(1, len(taps)):
        total += taps[k] * padded[k : k + n]
    return total


def blur_radius(height: int) -> int:
    """SimCLR's rule: a kernel of a tenth of the image's height, made odd.

    >>> [2 * blur_radius(height) + 1 for height in (32, 96, 224)]
    [3, 9, 23]
    """
    return height // 10 // 2


def clip() -> Op:
    """To [0, 1]: the bicubic crop overshoots. Draws nothing."""
    return deciding("clip", 0, lambda u, shape: (), lambda params, image: jnp.clip(image, 0, 1), settings={})


# ---------------------------------------------------------------------------------------------- color spaces

# CIE XYZ of linear sRGB (IEC 61966-2-1), relative to the white of D65.
XYZ = np.array(
    [[0.412453, 0.357580, 0.180423], [0.212671, 0.715160, 0.072169], [0.019334, 0.119193, 0.950227]]
) / np.array([[0.95047], [1.0], [1.08883]])
YDBDR = np.array([[0.299, 0.587, 0.114], [-0.45, -0.883, 1.333], [-1.333, 1.116, 0.217]])
YCBCR = np.array([[65.481, 128.553, 24.966], [-37.797, -74.203, 112.0], [112.0, -93.786, -18.214]])


def lab() -> Op:
    """CIE L*a*b* of sRGB pixels (D65), each channel scaled to [-1, 1] over the range that sRGB can reach.

    The ranges are CMC's (Tian et al., 2020, its code): L 0 to 100, a -86.183 to 98.233, b -107.857 to 94.478. Draws
    nothing. What comes out is no picture in [0, 1] any more: nothing may follow that takes it for one.
    """
    low, high = np.array([0, -86.183, -107.857]), np.array([100, 98.233, 94.478])

    def apply(params, image):
        x = jnp.clip(image, 0, 1)
        x = jnp.where(x > 0.04045, jnp.power((x + 0.055) / 1.055, 2.4), x / 12.92)
        x = jnp.einsum("hwc,kc->hwk", x, XYZ.astype(np.float32), precision="highest")
        x = jnp.where(x > 0.008856, jnp.cbrt(jnp.maximum(x, 0.008856)), 7.787 * x + 16 / 116)
        x = jnp.stack(
            [116 * x[..., 1] - 16, 500 * (x[..., 0] - x[..., 1]), 200 * (x[..., 1] - x[..., 2])], axis=-1
        )
        return scaled_to_one(x, low, high)

    return deciding("lab", 0, lambda u, shape: (), three_channels("lab", apply), settings={})


def ycbcr() -> Op:
    """Y'CbCr (ITU-R BT.601, 8 bits) of pixels in [0, 1], each channel scaled to [-1, 1] over its nominal range.

    The ranges are those of the standard, Y 16 to 235, Cb and Cr 16 to 240; whether CMC scaled just so was not
    verified. Draws nothing.
    """
    low, high = np.array([16, 16, 16]), np.array([235, 240, 240])

    def apply(params, image):
        x = jnp.einsum("hwc,kc->hwk", jnp.clip(image, 0, 1), YCBCR.astype(np.float32), precision="highest")
        return scaled_to_one(x + jnp.asarray([16, 128, 128], jnp.float32), low, high)

    return deciding("ycbcr", 0, lambda u, shape: (), three_channels("ycbcr", apply), settings={})


def ydbdr() -> Op:
    """Y'DbDr (SECAM) of pixels in [0, 1], each channel scaled to [-1, 1] over its nominal range.

    The ranges are Y 0 to 1, Db and Dr -1.333 to 1.333; the coefficients are scikit-image's. PyContrast, which has CMC
    in this space, may scale it in another way: not verified. Draws nothing.
    """
    low, high = np.array([0, -1.333, -1.333]), np.array([1, 1.333, 1.333])

    def apply(params, image):
        x = jnp.einsum("hwc,kc->hwk", jnp.clip(image, 0, 1), YDBDR.astype(np.float32), precision="highest")
        return scaled_to_one(x, low, high)

    return deciding("ydbdr", 0, lambda u, shape: (), three_channels("ydbdr", apply), settings={})


def scaled_to_one(x: Array, low: np.ndarray, high: np.ndarray) -> Array:
    middle, half = (low + high) / 2, (high - low) / 2
    return (x - jnp.asarray(middle, x.dtype)) / jnp.asarray(half, x.dtype)


def three_channels(name: str, apply):
    def checked(params, image):
        if image.ndim != 3 or image.shape[2] != 3:
            raise ValueError(f"{name} needs an image [h, w, 3]; got {image.shape}.")
        return apply(params, image)

    return checked


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


def each_patch(op: Op, size: int, stride: int) -> Op:
    """Cut an image into `patches` and do `op` to each, drawn anew: [h, w, c] -> [rows, columns, size, size, c].

    The last step of a recipe: CPC v2 changes an image as a whole, and then each patch by itself. What is drawn is not
    among what `describe` tells; look at the views themselves, by `mosaic`.
    """

    def grid(shape):
        h, w, _ = shape
        return (h - size) // stride + 1, (w - size) // stride + 1

    def sample(key, shape):
        rows, columns = grid(shape)
        keys = jax.random.split(key, (rows, columns))
        one = lambda key: op.sample(key, (size, size, shape[2]))  # noqa: E731
        return {"patches": jax.vmap(jax.vmap(one))(keys)}

    def apply(params, image):
        return jax.vmap(jax.vmap(op.apply))(params["patches"], patches(image, size, stride))

    return Op("each_patch", sample, apply, (("op", op), ("size", size), ("stride", stride)))


# ---------------------------------------------------------------------------------------------- draws


def uniform(key: Array, shape: tuple[int, ...] = ()) -> Array:
    """U(0, 1), of float32 always: with 64 bits switched on the same views are drawn."""
    return jax.random.uniform(key, shape, jnp.float32)


def coin(kind: Callable[[Array], PyTree], probability: float) -> Callable[[Array, Shape], PyTree]:
    return lambda u, shape: kind(u[0] < probability)


def between(u: Array, low: float, high: float) -> Array:
    return low + (high - low) * u


def whole(u: Array, n: Array | int) -> Array:
    """0, 1, ..., n - 1, equally likely."""
    return jnp.floor(u * n).astype(jnp.int32)
