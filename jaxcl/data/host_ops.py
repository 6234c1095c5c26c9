"""The ops of `augment`, done by TensorFlow on the host.

A recipe is written once, for both lanes: its draws are its own (`op.sample`, in JAX, wherever it is used), so both
lanes draw the very same parameters, and only what is done with them exists twice. `host_apply(op)` builds
TensorFlow's form of `op.apply` from the op's name and settings:

    apply = host_apply(augment.simclr(32))
    view = apply(params, image)             # inside a tf.function or tf.data's map; image uint8, or float in [0, 1]

For the same parameters the two forms differ by less than 1/255 a pixel, mostly by rounding. TensorFlow is imported
only when an op is built.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from jaxcl.augment.ops import JITTERS, Op, blur_radius
from jaxcl.augment.pipelines import flat, flat_params
from jaxcl.augment.shared import gaussian_matrix
from jaxcl.data.tf_pipeline import tensorflow

# (params, image [h, w, c]) -> image: tensors; float32 in [0, 1], or uint8 where the op is a crop.
Apply = Callable[[Any, Any], Any]
# What makes an op's host form: settings by name -> Apply.
Twin = Callable[..., Apply]


def host_apply(op: Op, *, twins: Mapping[str, Twin] | None = None) -> Apply:
    """TensorFlow's form of `op.apply`, for one image [h, w, c], uint8 or float in [0, 1].

    twins
        host forms of ops of your own: the op's name -> a function of its settings that returns
        `(params, image) -> image`. An op says what it was made with in `Op.settings`.

    Raises ValueError for an op (or a step of a composed one) that has no host form.
    """
    tf = tensorflow()
    first, *rest = [step_apply(step, {**TWINS, **(twins or {})}) for step in flat(op)]
    crops = flat(op)[0].name == "crop"

    def apply(params, image):
        drawn = flat_params(op, params)
        # A crop takes bytes as they are: fewer pixels are left to be turned into floats.
        image = first(drawn[0], image if crops else as_float(tf, image))
        for step, values in zip(rest, drawn[1:], strict=True):
            image = step(values, image)
        return image

    return apply


def step_apply(op: Op, twins: Mapping[str, Twin]) -> Apply:
    settings = dict(op.settings)
    if "first_channels" in settings:
        return first_channels(step_apply(settings["op"], twins), settings["first_channels"])
    if op.name not in twins:
        raise ValueError(
            f"the op {op.name!r} has no form for the host; there are {', '.join(sorted(twins))}. Make the views on"
            f" the device, or pass twins={{{op.name!r}: f}}, f(**settings) returning (params, image) -> image."
        )
    return twins[op.name](**settings)


def as_float(tf: Any, image: Any) -> Any:
    """uint8 -> float32 in [0, 1]; floats are taken to be there already."""
    return tf.cast(image, tf.float32) * (1 / 255) if image.dtype == tf.uint8 else tf.cast(image, tf.float32)


# ---------------------------------------------------------------------------------------------- geometry


def crop(*, size: tuple[int, int], method: str, antialias: bool, **how_it_is_drawn: Any) -> Apply:
    tf = tensorflow()
    kernel = {"bicubic": "keyscubic", "bilinear": "triangle"}[method]

    def apply(params, image):
        box = image[params.top : params.top + params.height, params.left : params.left + params.width]
        sides = tf.cast(tf.stack([params.height, params.width]), tf.float32)
        # ScaleAndTranslate computes its weights; ResizeBicubic looks them up in a table, up to 1e-3 off.
        out = tf.raw_ops.ScaleAndTranslate(
            images=box[None],
            size=size,
            scale=tf.constant(size, tf.float32) / sides,
            translation=(0.0, 0.0),
            kernel_type=kernel,
            antialias=antialias,
        )[0]
        out = tf.ensure_shape(out, (*size, image.shape[-1]))
        return out * (1 / 255) if image.dtype == tf.uint8 else out

    return apply


def flip(**how_it_is_drawn: Any) -> Apply:
    tf = tensorflow()
    # The old form of Reverse takes the axes as a tensor: no branch is needed.
    return lambda params, image: tf.raw_ops.Reverse(tensor=image, dims=tf.stack([False, params.on, False]))


def rotate90(**how_it_is_drawn: Any) -> Apply:
    tf = tensorflow()

    def apply(params, image):
        if image.shape[0] != image.shape[1]:
            raise ValueError(f"rotate90 needs a square image, so that its shape stays; got {image.shape}.")
        turned = [functools.partial(tf.image.rot90, image, k) for k in range(4)]
        return tf.ensure_shape(tf.switch_case(params.turns, turned), image.shape)

    return apply


def translate(*, border: str, **how_it_is_drawn: Any) -> Apply:
    tf = tensorflow()

    def within(i, n):
        if border == "reflect":
            i = n - 1 - tf.abs(n - 1 - tf.abs(i))
        return tf.clip_by_value(i, 0, n - 1)

    def apply(params, image):
        h, w = tf.shape(image)[0], tf.shape(image)[1]
        rows, columns = within(tf.range(h) - params.down, h), within(tf.range(w) - params.right, w)
        return tf.ensure_shape(tf.gather(tf.gather(image, rows), columns, axis=1), image.shape)

    return apply


# ---------------------------------------------------------------------------------------------- color


def jitter(*, brightness_form: str, probability: float, **strengths: float) -> Apply:
    tf = tensorflow()
    kept = [place for place, name in enumerate(JITTERS) if strengths[name] != 0]
    # Every order of the changes is one branch: a single jump an image instead of four.
    orders = list(itertools.permutations(range(4)))
    digits = [64, 16, 4, 1]
    number = [0] * 256
    for i, order in enumerate(orders):
        number[sum(place * digit for place, digit in zip(order, digits, strict=True))] = i

    def apply(params, image):
        def brighter(x):
            return x + params.brightness if brightness_form == "add" else x * params.brightness

        def contrasted(x):
            return tf.raw_ops.AdjustContrastv2(images=x, contrast_factor=params.contrast)

        def saturated(x):
            return tf.raw_ops.AdjustSaturation(images=x, scale=params.saturation)

        def turned(x):
            return tf.raw_ops.AdjustHue(images=x, delta=params.hue)

        changes = (brighter, contrasted, saturated, turned)
        done = [place for place in kept if place < 2 or image.shape[-1] == 3]

        def in_order(order):
            x = image
            for place in order:
                # Clipped where a change is left out, too, as on the device: a crop overshoots.
                x = changes[place](x) if place in done else x
                x = clipped(tf, x)
            return x

        if not kept:
            return image
        code = tf.tensordot(params.order, tf.constant(digits), 1)
        branch = tf.where(params.on, tf.constant(number)[code], len(orders))
        branches = [functools.partial(in_order, order) for order in orders]
        out = tf.switch_case(branch, [*branches, lambda: tf.identity(image)])
        return tf.ensure_shape(out, image.shape)

    return apply


def grayscale(**how_it_is_drawn: Any) -> Apply:
    tf = tensorflow()

    def apply(params, image):
        if image.shape[-1] == 1:
            return image
        weights = tf.constant([[0.2989] * 3, [0.587] * 3, [0.114] * 3])

        def gray():
            return tf.reshape(tf.matmul(tf.reshape(image, (-1, 3)), weights), tf.shape(image))

        return tf.ensure_shape(tf.cond(params.on, gray, lambda: tf.identity(image)), image.shape)

    return apply


def solarize(*, threshold: float, **how_it_is_drawn: Any) -> Apply:
    tf = tensorflow()

    def apply(params, image):
        return tf.cond(
            params.on, lambda: tf.where(image >= threshold, 1 - image, image), lambda: tf.identity(image)
        )

    return apply


def blur(**how_it_is_drawn: Any) -> Apply:
    tf = tensorflow()

    def apply(params, image):
        h, w, c = image.shape
        if h is None or w is None:
            raise ValueError("a blur needs an image of known size, as its width follows from it. Crop first.")
        radius = blur_radius(h)
        if radius == 0:
            return image
        distance = tf.range(-radius, radius + 1, dtype=tf.float32)
        taps = tf.exp(-((distance / params.sigma) ** 2) / 2)
        taps = taps / tf.reduce_sum(taps)

        def along_rows(x, n, rest):
            # All else as channels: those are what the convolution's kernel is vectorized over.
            kernel = tf.broadcast_to(tf.reshape(taps, (-1, 1, 1, 1)), (2 * radius + 1, 1, rest, 1))
            return tf.nn.depthwise_conv2d(tf.reshape(x, (1, n, 1, rest)), kernel, (1, 1, 1, 1), "SAME")

        def blurred():
            x = tf.reshape(along_rows(image, h, w * c), (h, w, c))
            x = tf.reshape(along_rows(tf.transpose(x, (1, 0, 2)), w, h * c), (w, h, c))
            return tf.transpose(x, (1, 0, 2))

        return tf.ensure_shape(tf.cond(params.on, blurred, lambda: tf.identity(image)), image.shape)

    return apply


def texture(**how_it_is_drawn: Any) -> Apply:
    tf = tensorflow()

    def apply(params, image):
        h, w, _ = image.shape
        if h is None or w is None:
            raise ValueError(
                "texture needs an image of known size, as its Gaussian follows from it. Crop first."
            )
        rows, columns = np.asarray(gaussian_matrix(h, h / 24)), np.asarray(gaussian_matrix(w, h / 24))

        def blurred(x):
            return tf.einsum("ab,bcd,ec->aed", rows, x, columns)

        def changed():
            low = blurred(image)
            rough = tf.reduce_mean(tf.square(image - low), axis=2, keepdims=True)
            contrast = tf.sqrt(tf.maximum(blurred(rough), 0.0) + 1e-12)
            y, x = tf.range(h, dtype=tf.float32)[:, None], tf.range(w, dtype=tf.float32)
            sine, cosine = tf.sin(params.angle), tf.cos(params.angle)
            u, v = cosine * x + sine * y, cosine * y - sine * x
            bend = params.warp * tf.sin(v / params.period)
            pattern = tf.cos(2 * np.pi * u / params.period + params.phase + bend)[:, :, None]
            return clipped(tf, low + params.amount * np.float32(np.sqrt(2)) * contrast * pattern)

        return tf.ensure_shape(tf.cond(params.on, changed, lambda: tf.identity(image)), image.shape)

    return apply


def clip() -> Apply:
    tf = tensorflow()
    return lambda params, image: clipped(tf, image)


def clipped(tf: Any, image: Any) -> Any:
    return tf.raw_ops.ClipByValue(t=image, clip_value_min=0.0, clip_value_max=1.0)


def first_channels(inner: Apply, channels: int) -> Apply:
    tf = tensorflow()

    def apply(params, image):
        return tf.concat([inner(params, image[..., :channels]), image[..., channels:]], axis=-1)

    return apply


TWINS: dict[str, Twin] = {
    "crop": crop,
    "flip": flip,
    "rotate90": rotate90,
    "translate": translate,
    "jitter": jitter,
    "grayscale": grayscale,
    "solarize": solarize,
    "blur": blur,
    "texture": texture,
    "clip": clip,
}
