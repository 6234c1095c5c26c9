"""Part 1, colors: jitter, grayscale, dropped channels, solarization; clipping to [0, 1]."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
from jax import lax

from jaxcl import collectives
from jaxcl.augment.op import Number, Op, ascending, between, coin, deciding, known, larger, number, whole
from jaxcl.typing import Array

JITTERS = ("brightness", "contrast", "saturation", "hue")
CONTRAST = JITTERS.index("contrast")


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
        with gray = 0.299 red + 0.587 green + 0.114 blue. Brightness and hue (HSV's, rotated) are the same in both. On
        images of 8 bits torchvision rounds after each change, by at most 1/510, and rotates the hue in steps of 1/256
        of the circle; here nothing is rounded.

    A strength that is known to be 0 leaves its change out altogether. The orders of all four are equally likely. Images
    of other than three channels have no saturation and no hue: these leave them as they are.
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
        raise ValueError(f'colors must be "tensorflow" or "torchvision"; got {colors!r}.')
    means_of, saturated = COLORS[colors]

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
        # Left out: what has no strength, and what only red, green and blue have.
        colorless = image.shape[2] != 3
        out = [
            known(strengths[name]) == 0 or (colorless and name in ("saturation", "hue")) for name in JITTERS
        ]
        if all(out):
            return image

        def changes_about(means: tuple[Array, ...] | None) -> list[Callable[[Channels], Channels]]:
            """The four changes; contrast about these means, or those of its own input."""

            def contrasted(planes):
                of = means or means_of(planes)
                return tuple(
                    contrast_about(params.contrast, x, mean) for x, mean in zip(planes, of, strict=True)
                )

            every = [
                lambda planes: brighter(params.brightness, planes, adds=brightness_form == "add"),
                contrasted,
                lambda planes: saturated(params.saturation, planes),
                lambda planes: hue_of(params.hue, planes),
            ]
            return [
                (lambda planes: planes) if skip else change for skip, change in zip(out, every, strict=True)
            ]

        before = channels(image)
        one = in_two_passes if collectives.target().platform == "tpu" else in_a_loop
        planes = one(changes_about, params.order, before, None if out[CONTRAST] else means_of)
        return stack([jnp.where(params.on, x, y) for x, y in zip(planes, before, strict=True)])

    settings = {**strengths, "probability": probability, "brightness_form": brightness_form, "colors": colors}
    return deciding("jitter", 9, decide, apply, settings=settings)


def in_a_loop(changes_about, order: Array, planes: Channels, means_of: Means | None) -> Channels:
    """The four changes in their order, each clipped: a loop, where XLA would fuse the four into one and compute each
    pixel's past many times over."""
    del means_of
    changes = changes_about(None)

    def change(i, planes):
        planes = lax.switch(order[i], changes, planes)
        return tuple(jnp.clip(x, 0, 1) for x in planes)

    return lax.fori_loop(0, 4, change, planes)


def in_two_passes(changes_about, order: Array, planes: Channels, means_of: Means | None) -> Channels:
    """The same, read once for the means that contrast needs and once for the rest: a TPU computes all four changes of a
    pixel sooner than it fetches it from memory four times."""

    def changed(planes, means, steps, *, until=4):
        changes = changes_about(means)
        for i in range(steps):
            new = tuple(jnp.clip(x, 0, 1) for x in lax.switch(order[i], changes, planes))
            planes = tuple(jnp.where(i < until, x, y) for x, y in zip(new, planes, strict=True))
        return planes

    if means_of is None:
        return changed(planes, None, 4)
    zeros = tuple(jnp.zeros(()) for _ in planes)
    until = jnp.argmax(order == CONTRAST)
    means = means_of(changed(planes, zeros, 3, until=until))
    # Else XLA would keep what both passes compute, and memory would be visited more often than twice.
    planes, means = lax.optimization_barrier((planes, means))
    return changed(planes, means, 4)


class Grayscale(NamedTuple):
    on: Array


def grayscale(*, probability: Number = 0.2) -> Op:
    """All three channels become 0.2989 red + 0.587 green + 0.114 blue (tf.image.rgb_to_grayscale). Images of another
    number of channels stay as they are."""

    def apply(params, image):
        planes = channels(image)
        if len(planes) != 3:
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
    arXiv:1505.05192, put noise there instead.) An image of another number of channels stays as it is.
    """

    def decide(u, shape):
        return Drop(on=u[0] < probability, kept=whole(u[1], 3))

    def apply(params, image):
        if image.shape[2] != 3:
            return image
        return jnp.where(params.on & (jnp.arange(image.shape[2]) != params.kept), 0.5, image)

    return deciding("drop_channels", 2, decide, apply, settings={"probability": probability})


class Solarize(NamedTuple):
    on: Array


def solarize(*, threshold: Number = 0.5, probability: Number = 0.2) -> Op:
    """Values at or above `threshold` are inverted: x -> 1 - x (BYOL's second view)."""

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
    return stack([contrast_about(factor, x, jnp.mean(x)) for x in channels(image)])


def adjust_saturation(factor: Array, image: Array) -> Array:
    """HSV's saturation times `factor`, at most 1; the value (the greatest channel) stays."""
    return stack(saturation_of(factor, channels(image)))


def adjust_hue(fraction: Array, image: Array) -> Array:
    """HSV's hue plus a fraction of the color circle; the greatest and the least channel's values stay."""
    return stack(hue_of(fraction, channels(image)))


# A jitter works on separate channels [h, w]: pixels stay contiguous in memory, which a CPU needs to be fast.
Channels = tuple[Array, ...]
Means = Callable[[Channels], tuple[Array, ...]]


def channels(image: Array) -> Channels:
    if image.ndim != 3:
        raise ValueError(f"an image is [h, w, c]; got {image.shape}. For a batch, vmap the op.")
    return tuple(image[:, :, i] for i in range(image.shape[2]))


def stack(planes) -> Array:
    return jnp.stack(planes, axis=-1)


def brighter(amount: Array, planes: Channels, *, adds: bool) -> Channels:
    return tuple(x + amount if adds else x * amount for x in planes)


def contrast_about(factor: Array, x: Array, mean: Array) -> Array:
    return mean + factor * (x - mean)


def means_of_channels(planes: Channels) -> tuple[Array, ...]:
    return tuple(jnp.mean(x) for x in planes)


def gray_of(planes: Channels) -> Array:
    if len(planes) == 1:
        return planes[0]
    r, g, b = planes
    return 0.299 * r + 0.587 * g + 0.114 * b


def mean_of_gray(planes: Channels) -> tuple[Array, ...]:
    return (jnp.mean(gray_of(planes)),) * len(planes)


def mixed_with_gray(factor: Array, planes: Channels) -> Channels:
    gray = gray_of(planes)
    return tuple(gray + factor * (x - gray) for x in planes)


def saturation_of(factor: Array, planes: Channels) -> Channels:
    if len(planes) != 3:
        return planes
    r, g, b = planes
    top, bottom = jnp.maximum(jnp.maximum(r, g), b), jnp.minimum(jnp.minimum(r, g), b)
    # With s = (top - bottom) / top and new s = min(factor s, 1), every channel's distance from the top is scaled by
    # new s / s. Below zero, where a crop may overshoot, TensorFlow's kernel takes s = 0: all channels become the top.
    spread = top - bottom
    scale = jnp.minimum(factor, jnp.maximum(top, 0) / jnp.where(spread > 0, spread, 1))
    return tuple(top - (top - x) * scale for x in planes)


def hue_of(fraction: Array, planes: Channels) -> Channels:
    if len(planes) != 3:
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
# What contrast is about, and how saturation changes.
COLORS: dict[str, tuple[Means, Callable[[Array, Channels], Channels]]] = {
    "tensorflow": (means_of_channels, saturation_of),
    "torchvision": (mean_of_gray, mixed_with_gray),
}
