"""The color spaces in TensorFlow."""

from __future__ import annotations

from typing import Any

import numpy as np

from jaxcl.augment.spaces import LAB_SCALE, XYZ, YCBCR, YCBCR_SCALE, YDBDR, YDBDR_SCALE
from jaxcl.data.host_ops.op import Apply, clipped
from jaxcl.data.tf_read import tensorflow


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
