"""Which box of a file the crops of its views need, and those crops within that box."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxcl.augment.composition import flat, flat_params
from jaxcl.augment.op import Op


def around(crops: Sequence[Any]) -> np.ndarray:
    """The smallest boxes (top, left, height, width) [b, 4] that hold one crop of every view."""
    top = np.min([crop.top for crop in crops], axis=0)
    left = np.min([crop.left for crop in crops], axis=0)
    bottom = np.max([crop.top + crop.height for crop in crops], axis=0)
    right = np.max([crop.left + crop.width for crop in crops], axis=0)
    return np.stack([top, left, bottom - top, right - left], axis=1).astype(np.int32)


def shown(op: Op, params: Any, widths: np.ndarray) -> Any:
    """The boxes [b] that a recipe's crop shows of images of these widths, before any flip that precedes it."""
    steps = flat(op)
    first = next(i for i, step in enumerate(steps) if step.name == "crop")
    *flips, crop = flat_params(op, params)[: first + 1]
    left = crop.left
    for flip in flips:
        left = np.where(flip.on, widths - left - crop.width, left)
    return crop._replace(left=left)


def shifted(
    tf: Any, op: Op, params: Any, box: Any, width: Any, flipped: Any = False
) -> tuple[Any, bool, Any]:
    """The parameters of a recipe that begins with a crop, or a flip and a crop, for an image of this width of which
    only a box (top, left, height, width) is there; whether the crop was among them; and whether it was flipped."""
    if "steps" in dict(op.settings):
        found, made = False, []
        for step, drawn in zip(dict(op.settings)["steps"], params, strict=True):
            if not found:
                drawn, found, flipped = shifted(tf, step, drawn, box, width, flipped)
            made.append(drawn)
        return tuple(made), found, flipped
    if op.name == "flip":
        return params, False, tf.math.logical_xor(flipped, params.on)
    # Seen in a mirror, a box begins where it ends.
    left = tf.where(flipped, width - box[1] - box[3], box[1])
    return params._replace(top=params.top - box[0], left=params.left - left), True, flipped
