"""What a host implementation is, and the steps that all of them share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

# (params, image [h, w, c]) -> image: tensors; float32 in [0, 1], or uint8 where the op is a crop.
Apply = Callable[[Any, Any], Any]

# What makes an op's host implementation: settings by name -> Apply.
Implementation = Callable[..., Apply]


def where_on(tf: Any, params: Any, changed: Callable[[], Any], image: Any) -> Any:
    """The changed image where the op is applied, else the image; only one of them is computed."""
    return tf.ensure_shape(tf.cond(params.on, changed, lambda: tf.identity(image)), image.shape)


def as_float(tf: Any, image: Any) -> Any:
    """uint8 -> float32 in [0, 1]; floats are taken to be there already."""
    return tf.cast(image, tf.float32) * (1 / 255) if image.dtype == tf.uint8 else tf.cast(image, tf.float32)


def clipped(tf: Any, image: Any) -> Any:
    return tf.raw_ops.ClipByValue(t=image, clip_value_min=0.0, clip_value_max=1.0)
