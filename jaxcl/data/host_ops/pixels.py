"""Sobel edges, cutout and Gaussian noise in TensorFlow."""

from __future__ import annotations

from typing import Any

import numpy as np

from jaxcl.augment.pixels import hole_half
from jaxcl.data.host_ops.op import Apply, clipped, where_on
from jaxcl.data.tf_read import tensorflow


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
