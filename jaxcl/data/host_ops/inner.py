"""An op on a part of an image, in TensorFlow: on its first channels, on each of its patches."""

from __future__ import annotations

from jaxcl.augment.channels import check_keeps_size
from jaxcl.data.host_ops.op import Apply, as_float
from jaxcl.data.tf_read import tensorflow


def first_channels(inner: Apply, channels: int, name: str) -> Apply:
    tf = tensorflow()

    def apply(params, image):
        # The inner function makes floats, also of bytes.
        changed, kept = inner(params, image[..., :channels]), as_float(tf, image[..., channels:])
        check_keeps_size(name, tuple(changed.shape), tuple(kept.shape))
        return tf.concat([changed, kept], axis=-1)

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
