"""Part 1, colors: jitter, grayscale, dropped channels, solarization; clipping to [0, 1]."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
from jax import lax

from jaxcl.augment.op import Number, Op, ascending, between, coin, deciding, known, larger, number, whole
from jaxcl.typing import Array

JITTERS = ("brightness", "contrast", "saturation", "hue")


class Jitter(NamedTuple):
    """`order` [4] names the changes, first to last, as positions in JITTERS. `brightness` is a factor or a summand,
    `contrast` and `saturation` are factors, `hue` is a fraction of the color circle."""

    on: Array
    order: Array
    brightness: Array
    contrast: Array
    saturation: Array
    hue: Array


def color_jitter(
    brightness: Number,
    contrast: Number,
    saturation: Number,
    hue: Number,
    *,
    probability: Number = 0.8,
    brightness_form: str = "multiply",
    colors: str = "tensorflow",
) -> Op:
    """Brightness, contrast, saturation and hue changed in random order, clipped to [0, 1] after each.

    brightness
        "multiply": a factor from U(max(0, 1 - brightness), 1 + brightness), as in SimCLRv2's code and torchvision;
        "add": a summand from U(-brightness, brightness), as in SimCLR's first code.
    contrast, saturation
        factors from U(max(0, 1 - x), 1 + x).
    hue
        a fraction of the color circle from U(-hue, hue); at most 0.5.
    probability
        of doing any of it. Without it the image is not clipped either.
    colors
        whose contrast and saturation. "tensorflow", as in SimCLR's code: contrast about each channel's mean,
        mean + f (x - mean), and HSV's saturation times f. "torchvision", as in the code of MoCo, AMDIM, CPC's and
        CMC's followers: contrast about the mean of the gray image, saturation a mixture with it, gray + f (x - gray),
        with gray = 0.299 red + 0.587 green + 0.114 blue. Brightness and hue (HSV's, turned) are the same in both. Of
        images of 8 bits torchvision rounds after each change, by at most 1/510, and turns the hue in steps of 1/256 of
        the circle; here nothing is rounded.

    A strength that is known to be 0 leaves its change out altogether. The orders of all four are equally likely.
    """
    brightness, contrast, saturation, hue = map(number, (brightness, contrast, saturation, hue))
    strengths = {"brightness": brightness, "contrast": contrast, "saturation": saturation, "hue": hue}
    for name, strength in strengths.items():
        if not ascending(0, strength):
            raise ValueError(f"{name} is a strength, at least 0; got {strength}.")
    if not ascending(hue, 0.5):
        raise ValueError(f"hue is a fraction of the color circle, at most 0.5; got {hue}.")
    if brightness_form not in ("multiply", "add"):
        raise ValueError(f'brightness_form must be "multiply" or "add"; got {brightness_form!r}.')
    if colors not in COLORS:
        raise ValueError(f'colors are those of "tensorflow" or of "torchvision"; got {colors!r}.')
    contrast_change, saturation_change = COLORS[colors]

    def factor(u, strength):
        return between(u, larger(0.0, 1 - strength), 1 + strength)

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
            lambda planes: contrast_change(params.contrast, planes),
            lambda planes: saturation_change(params.saturation, planes),
            lambda planes: hue_of(params.hue, planes),
        )
        # Left out: what has no strength, and what cannot change a gray image.
        colorless = image.shape[2] == 1
        out = [
            known(strengths[name]) == 0 or (colorless and name in ("saturation", "hue")) for name in JITTERS
        ]
        if all(out):
            return image
        changes = tuple(
            (lambda planes: planes) if skip else change for skip, change in zip(out, changes, strict=True)
        )
        planes = before = channels(image)

        # A loop, not four lines: XLA would fuse the four into one and compute each pixel's past many times over.
        def change(i, planes):
            planes = lax.switch(params.order[i], changes, planes)
            return tuple(jnp.clip(x, 0, 1) for x in planes)

        planes = lax.fori_loop(0, 4, change, planes)
        return stack([jnp.where(params.on, x, y) for x, y in zip(planes, before, strict=True)])

    settings = {**strengths, "probability": probability, "brightness_form": brightness_form, "colors": colors}
    return deciding("jitter", 9, decide, apply, settings=settings)


class Grayscale(NamedTuple):
    on: Array


def grayscale(*, probability: Number = 0.2) -> Op:
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


class Drop(NamedTuple):
    """`kept`: the channel that stays."""

    on: Array
    kept: Array


def drop_channels(*, probability: Number = 0.5) -> Op:
    """Two of the three channels, any two, become the middle gray 0.5, with the given probability.

    ("Color dropping" of patches, against telling neighbors by chromatic aberration; Doersch, Gupta and Efros, 2015,
    arXiv:1505.05192, put noise there instead.) An image of one channel stays as it is.
    """

    def decide(u, shape):
        return Drop(on=u[0] < probability, kept=whole(u[1], 3))

    def apply(params, image):
        if image.shape[2] == 1:
            return image
        return jnp.where(params.on & (jnp.arange(image.shape[2]) != params.kept), 0.5, image)

    return deciding("drop_channels", 2, decide, apply, settings={"probability": probability})


class Solarize(NamedTuple):
    on: Array


def solarize(*, threshold: Number = 0.5, probability: Number = 0.2) -> Op:
    """Values at or above `threshold` are turned over: x -> 1 - x (BYOL's second view)."""

    def apply(params, image):
        return jnp.where(params.on & (image >= threshold), 1 - image, image)

    settings = {"threshold": threshold, "probability": probability}
    return deciding("solarize", 1, coin(Solarize, probability), apply, settings=settings)


def clip() -> Op:
    """To [0, 1]: the bicubic crop overshoots. Draws nothing."""
    return deciding("clip", 0, lambda u, shape: (), lambda params, image: jnp.clip(image, 0, 1), settings={})


# ---------------------------------------------------------------------------------------------- changes of color


def adjust_brightness(factor: Array, image: Array) -> Array:
    return image * factor


def adjust_contrast(factor: Array, image: Array) -> Array:
    """About each channel's mean: mean + factor (x - mean)."""
    return stack([contrast_of(factor, x) for x in channels(image)])


def adjust_saturation(factor: Array, image: Array) -> Array:
    """HSV's saturation times `factor`, at most 1; the value (the greatest channel) stays."""
    return stack(saturation_of(factor, channels(image)))


def adjust_hue(fraction: Array, image: Array) -> Array:
    """HSV's hue plus a fraction of the color circle; the greatest and the least channel's values stay."""
    return stack(hue_of(fraction, channels(image)))


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


def contrast_by_channel(factor: Array, planes: Channels) -> Channels:
    return tuple(contrast_of(factor, x) for x in planes)


def gray_of(planes: Channels) -> Array:
    if len(planes) == 1:
        return planes[0]
    r, g, b = planes
    return 0.299 * r + 0.587 * g + 0.114 * b


def contrast_about_gray(factor: Array, planes: Channels) -> Channels:
    mean = jnp.mean(gray_of(planes))
    return tuple(mean + factor * (x - mean) for x in planes)


def mixed_with_gray(factor: Array, planes: Channels) -> Channels:
    gray = gray_of(planes)
    return tuple(gray + factor * (x - gray) for x in planes)


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


def hue_of(fraction: Array, planes: Channels) -> Channels:
    if len(planes) == 1:
        return planes
    r, g, b = planes
    top, bottom = jnp.maximum(jnp.maximum(r, g), b), jnp.minimum(jnp.minimum(r, g), b)
    spread = top - bottom
    inverse = 1 / jnp.where(spread > 0, spread, 1)
    # The hue in sixths of the circle: red 0, yellow 1, green 2, cyan 3, blue 4, magenta 5.
    from_red, from_green, from_blue = (g - b) * inverse, 2 + (b - r) * inverse, 4 + (r - g) * inverse
    hue = jnp.where(top == r, from_red, jnp.where(top == g, from_green, from_blue)) + 6 * fraction

    def channel(offset):
        k = hue + offset
        k = k - 6 * jnp.floor(k / 6)
        return top - spread * jnp.clip(jnp.minimum(k, 4 - k), 0, 1)

    return channel(5), channel(3), channel(1)


# whose colors -> contrast, saturation: (factor, planes) -> planes
COLORS: dict[str, tuple[Callable[[Array, Channels], Channels], Callable[[Array, Channels], Channels]]] = {
    "tensorflow": (contrast_by_channel, saturation_of),
    "torchvision": (contrast_about_gray, mixed_with_gray),
}
