"""Gaussian blur and the texture op in TensorFlow."""

from __future__ import annotations

import math
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxcl.augment.blur import blur_radius, box_radius
from jaxcl.data.host_ops.op import Apply, clipped, where_on
from jaxcl.data.tf_read import tensorflow
from jaxcl.images import BORDERS, gaussian_matrix


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
