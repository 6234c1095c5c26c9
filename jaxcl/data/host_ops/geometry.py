"""Crop, flip, rotation and translation in TensorFlow."""

from __future__ import annotations

import functools
from typing import Any

from jaxcl.data.host_ops.op import Apply
from jaxcl.data.tf_read import tensorflow


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
