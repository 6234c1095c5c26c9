"""Color jitter, grayscale, dropped channels, solarization and clipping in TensorFlow."""

from __future__ import annotations

import functools
import itertools
from typing import Any

import numpy as np

from jaxcl.augment.color import JITTERS
from jaxcl.data.host_ops.op import Apply, clipped, where_on
from jaxcl.data.tf_read import tensorflow

# Of gray, as torchvision has it.
LUMA = np.array([0.299, 0.587, 0.114], np.float32)


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


def clip() -> Apply:
    tf = tensorflow()
    return lambda params, image: clipped(tf, image)
