"""The host implementations of the ops of `augment`, in TensorFlow.

A recipe is written once, for device and host: its draws are its own (`op.sample`, in JAX, wherever it is used), so both
draw the very same parameters, and only what is done with them exists twice. `host_apply(op)` builds
TensorFlow's form of `op.apply` from the op's name and settings:

    apply = host_apply(augment.simclr(32))
    view = apply(params, image)             # inside a tf.function or tf.data's map; image uint8, or float in [0, 1]

For the same parameters the two forms differ by less than 1/255 a pixel, mostly by rounding. TensorFlow is imported
only when an op is built.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxcl.augment.blur import blur_radius, box_radius
from jaxcl.augment.color import JITTERS
from jaxcl.augment.composition import flat, flat_params
from jaxcl.augment.op import Op
from jaxcl.augment.pixels import hole_half
from jaxcl.augment.spaces import LAB_SCALE, XYZ, YCBCR, YCBCR_SCALE, YDBDR, YDBDR_SCALE
from jaxcl.data.tf_read import tensorflow
from jaxcl.images import BORDERS, gaussian_matrix

# Of gray, as torchvision has it.
LUMA = np.array([0.299, 0.587, 0.114], np.float32)

# (params, image [h, w, c]) -> image: tensors; float32 in [0, 1], or uint8 where the op is a crop.
Apply = Callable[[Any, Any], Any]
# What makes an op's host implementation: settings by name -> Apply.
Implementation = Callable[..., Apply]


def host_apply(op: Op, *, implementations: Mapping[str, Implementation] | None = None) -> Apply:
    """TensorFlow's form of `op.apply`, for one image [h, w, c], uint8 or float in [0, 1].

    implementations
        those of ops of your own: the op's name -> a function of its settings that returns
        `(params, image) -> image`. An op says what it was made with in `Op.settings`.

    Raises ValueError for an op (or a step of a composed one) that has no host implementation.
    """
    tf = tensorflow()
    first, *rest = [step_apply(step, {**IMPLEMENTATIONS, **(implementations or {})}) for step in flat(op)]
    crops = begins_with_crop(op)

    def apply(params, image):
        drawn = flat_params(op, params)
        # A crop takes bytes as they are (and so does a flip): fewer pixels are left to be turned into floats.
        image = first(drawn[0], image if crops else as_float(tf, image))
        for step, values in zip(rest, drawn[1:], strict=True):
            image = step(values, image)
        return image

    return apply


def begins_with_crop(op: Op) -> bool:
    """Whether a recipe's first op is a crop, or flips and a crop."""
    names = [step.name for step in flat(op) if step.name != "flip"]
    return bool(names) and names[0] == "crop"


def step_apply(op: Op, implementations: Mapping[str, Implementation]) -> Apply:
    settings = dict(op.settings)
    if "first_channels" in settings:
        return first_channels(step_apply(settings["op"], implementations), settings["first_channels"])
    if op.name == "each_patch" and "stride" in settings:
        inner = host_apply(settings["op"], implementations=implementations)
        return each_patch(inner, settings["size"], settings["stride"])
    if op.name not in implementations:
        raise ValueError(
            f"the op {op.name!r} has no host implementation; there are {', '.join(sorted(implementations))}. Make the"
            f" views on the device (--input device), or pass implementations={{{op.name!r}: f}}, f(**settings)"
            " returning (params, image) -> image."
        )
    return implementations[op.name](**settings)


def where_on(tf: Any, params: Any, changed: Callable[[], Any], image: Any) -> Any:
    """The changed image where an op's coin says so, else the image; only one of them is computed."""
    return tf.ensure_shape(tf.cond(params.on, changed, lambda: tf.identity(image)), image.shape)


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
        rotated = [functools.partial(tf.image.rot90, image, k) for k in range(4)]
        return tf.ensure_shape(tf.switch_case(params.quarters, rotated), image.shape)

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


def jitter(*, brightness_form: str, probability: float, colors: str, **strengths: float) -> Apply:
    tf = tensorflow()
    kept = [i for i, name in enumerate(JITTERS) if strengths[name] != 0]
    # Every order of the changes is one branch: a single jump an image instead of four.
    orders = list(itertools.permutations(range(4)))
    digits = [64, 16, 4, 1]
    number = [0] * 256
    for i, order in enumerate(orders):
        number[sum(change * digit for change, digit in zip(order, digits, strict=True))] = i

    def apply(params, image):
        def brighter(x):
            return x + params.brightness if brightness_form == "add" else x * params.brightness

        def gray_of(x):
            return x if x.shape[-1] == 1 else tf.tensordot(x, tf.constant(LUMA), 1)[..., None]

        def contrasted(x):
            if colors == "torchvision":
                mean = tf.reduce_mean(gray_of(x))
                return mean + params.contrast * (x - mean)
            return tf.raw_ops.AdjustContrastv2(images=x, contrast_factor=params.contrast)

        def saturated(x):
            if colors == "torchvision":
                gray = gray_of(x)
                return gray + params.saturation * (x - gray)
            return tf.raw_ops.AdjustSaturation(images=x, scale=params.saturation)

        def shifted(x):
            return tf.raw_ops.AdjustHue(images=x, delta=params.hue)

        changes = (brighter, contrasted, saturated, shifted)
        done = [i for i in kept if i < 2 or image.shape[-1] == 3]

        def in_order(order):
            x = image
            for i in order:
                # Clipped where a change is left out, too, as on the device: a crop overshoots.
                x = changes[i](x) if i in done else x
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
        if image.shape[-1] != 3:
            return image
        weights = tf.constant([[0.2989] * 3, [0.587] * 3, [0.114] * 3])

        def gray():
            return tf.reshape(tf.matmul(tf.reshape(image, (-1, 3)), weights), tf.shape(image))

        return where_on(tf, params, gray, image)

    return apply


def drop_channels(**how_it_is_drawn: Any) -> Apply:
    tf = tensorflow()

    def apply(params, image):
        channels = image.shape[-1]
        if channels == 1:
            return image
        dropped = tf.logical_and(params.on, tf.range(channels) != params.kept)
        return tf.where(dropped, 0.5, image)

    return apply


def solarize(*, threshold: float, **how_it_is_drawn: Any) -> Apply:
    tf = tensorflow()

    def apply(params, image):
        return tf.cond(
            params.on, lambda: tf.where(image >= threshold, 1 - image, image), lambda: tf.identity(image)
        )

    return apply


def blur(*, sigma: Any, border: str, radius: int | None, boxes: int | None, **how_it_is_drawn: Any) -> Apply:
    tf = tensorflow()

    def taps_of(params, height):
        if boxes:
            reach = math.ceil(box_radius(float(sigma[1]), boxes))
            width = box_radius(params.sigma, boxes)
            distance = tf.abs(tf.range(-reach, reach + 1, dtype=tf.float32))
            return tf.clip_by_value(width + 1 - distance, 0, 1) / (2 * width + 1)
        reach = blur_radius(height) if radius is None else radius
        distance = tf.range(-reach, reach + 1, dtype=tf.float32)
        taps = tf.exp(-((distance / params.sigma) ** 2) / 2)
        return taps / tf.reduce_sum(taps)

    def apply(params, image):
        h, w, c = image.shape
        if h is None or w is None:
            raise ValueError("a blur needs an image of known size, as its width follows from it. Crop first.")
        taps = taps_of(params, h)
        reach = taps.shape[0] // 2
        if reach == 0:
            return image

        def once_along_rows(x, n, rest):
            # All else as channels: those are what the convolution's kernel is vectorized over.
            kernel = tf.broadcast_to(tf.reshape(taps, (-1, 1, 1, 1)), (2 * reach + 1, 1, rest, 1))
            x = tf.reshape(x, (1, n, 1, rest))
            if border == "black":
                return tf.nn.depthwise_conv2d(x, kernel, (1, 1, 1, 1), "SAME")
            seen = np.asarray(BORDERS[border](jnp.arange(-reach, n + reach), n), np.int32)
            return tf.nn.depthwise_conv2d(tf.gather(x, seen, axis=1), kernel, (1, 1, 1, 1), "VALID")

        def along_rows(x, n, rest):
            for _ in range(boxes or 1):
                x = once_along_rows(x, n, rest)
            return x

        def blurred():
            x = tf.reshape(along_rows(image, h, w * c), (h, w, c))
            x = tf.reshape(along_rows(tf.transpose(x, (1, 0, 2)), w, h * c), (w, h, c))
            return tf.transpose(x, (1, 0, 2))

        return where_on(tf, params, blurred, image)

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

        return where_on(tf, params, changed, image)

    return apply


# ---------------------------------------------------------------------------------------------- edges, holes, noise


def sobel(**how_it_is_drawn: Any) -> Apply:
    tf = tensorflow()

    def apply(params, image):
        def edges():
            size = tf.sqrt(tf.reduce_sum(tf.square(tf.image.sobel_edges(image[None])[0]), axis=-1))
            return tf.minimum(size, 1.0)

        return where_on(tf, params, edges, image)

    return apply


def cutout(*, side: float, fill: float, **how_it_is_drawn: Any) -> Apply:
    tf = tensorflow()

    def apply(params, image):
        h, w, _ = image.shape
        if h is None or w is None:
            raise ValueError(
                "cutout needs an image of known size, as the hole's follows from it. Crop first."
            )
        half = hole_half(h, side)

        def within(center, n):
            return (tf.range(n) >= center - half) & (tf.range(n) < center + half)

        hole = within(params.row, h)[:, None] & within(params.column, w)[None] & params.on
        return tf.where(hole[:, :, None], tf.constant(fill, tf.float32), image)

    return apply


def noise(**how_it_is_drawn: Any) -> Apply:
    tf = tensorflow()

    def mixed(x):
        shift, xor = tf.bitwise.right_shift, tf.bitwise.bitwise_xor
        for by, factor in ((16, 0x7FEB352D), (15, 0x846CA68B)):
            x = xor(x, shift(x, tf.constant(by, tf.uint32))) * tf.constant(factor, tf.uint32)
        return xor(x, shift(x, tf.constant(16, tf.uint32)))

    def apply(params, image):
        h, w, c = image.shape
        if h is None or w is None:
            raise ValueError("noise needs an image of known size, as every pixel has its own. Crop first.")

        def noisy():
            start = mixed(tf.cast(params.seed, tf.uint32) + tf.constant(0x9E3779B9, tf.uint32))
            places = tf.constant(np.arange(2 * h * w * c, dtype=np.uint32).reshape(2, h, w, c))
            bits = tf.bitwise.right_shift(
                mixed(tf.bitwise.bitwise_xor(places, start)), tf.constant(8, tf.uint32)
            )
            u, v = tf.unstack((tf.cast(bits, tf.float32) + 0.5) * 2.0**-24)
            normal = tf.sqrt(-2 * tf.math.log(u)) * tf.cos(2 * np.pi * v)
            return clipped(tf, image + params.scale * normal)

        return where_on(tf, params, noisy, image)

    return apply


# ---------------------------------------------------------------------------------------------- color spaces


def lab() -> Apply:
    tf = tensorflow()

    def apply(params, image):
        x = clipped(tf, image)
        x = tf.where(x > 0.04045, ((x + 0.055) / 1.055) ** 2.4, x / 12.92)
        x = by_channel(tf, x, XYZ)
        x = tf.where(x > 0.008856, tf.maximum(x, 0.008856) ** (1 / 3), 7.787 * x + 16 / 116)
        x, y, z = tf.unstack(x, axis=-1)
        return standardized(tf.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1), LAB_SCALE)

    return apply


def ycbcr() -> Apply:
    tf = tensorflow()
    offset = np.array([16, 128, 128], np.float32)
    return lambda params, image: standardized(by_channel(tf, clipped(tf, image), YCBCR) + offset, YCBCR_SCALE)


def ydbdr() -> Apply:
    tf = tensorflow()
    return lambda params, image: standardized(by_channel(tf, clipped(tf, image), YDBDR), YDBDR_SCALE)


def by_channel(tf: Any, x: Any, matrix: np.ndarray) -> Any:
    """The matrix [3, 3] times each pixel of x [h, w, 3]."""
    flat_pixels = tf.matmul(tf.reshape(x, (-1, 3)), tf.constant(matrix.T.astype(np.float32)))
    return tf.ensure_shape(tf.reshape(flat_pixels, tf.shape(x)), x.shape)


def standardized(x: Any, scale: tuple[np.ndarray, np.ndarray]) -> Any:
    mean, std = scale
    return (x - mean.astype(np.float32)) / std.astype(np.float32)


# ---------------------------------------------------------------------------------------------- parts


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


def each_patch(inner: Apply, size: int, stride: int) -> Apply:
    tf = tensorflow()

    def apply(params, image):
        h, w, c = image.shape
        if h is None or w is None:
            raise ValueError("patches are cut from images of known size. Crop first.")
        corners = [(i, j) for i in range(0, h - size + 1, stride) for j in range(0, w - size + 1, stride)]
        grid = (h - size) // stride + 1, (w - size) // stride + 1
        cut = tf.stack([image[i : i + size, j : j + size] for i, j in corners])
        drawn = tf.nest.map_structure(
            lambda x: tf.reshape(x, (len(corners), *x.shape[2:])), params["patches"]
        )
        # One after the other: 49 patches, each in a graph of its own, would take long to build.
        made = tf.map_fn(lambda row: inner(*row), (drawn, cut), fn_output_signature=tf.float32)
        return tf.reshape(made, (*grid, size, size, c))

    return apply


IMPLEMENTATIONS: dict[str, Implementation] = {
    "crop": crop,
    "flip": flip,
    "rotate90": rotate90,
    "translate": translate,
    "jitter": jitter,
    "grayscale": grayscale,
    "drop_channels": drop_channels,
    "solarize": solarize,
    "blur": blur,
    "texture": texture,
    "sobel": sobel,
    "cutout": cutout,
    "noise": noise,
    "clip": clip,
    "lab": lab,
    "ycbcr": ycbcr,
    "ydbdr": ydbdr,
}
