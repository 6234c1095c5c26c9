"""A recipe's host implementation, from those of its ops."""

from __future__ import annotations

from collections.abc import Mapping

from jaxcl.augment.composition import flat, flat_params
from jaxcl.augment.op import Op
from jaxcl.data.host_ops.inner import each_patch, first_channels
from jaxcl.data.host_ops.op import Apply, Implementation, as_float
from jaxcl.data.host_ops.table import IMPLEMENTATIONS
from jaxcl.data.tf_read import tensorflow


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
    """Whether a recipe's first op is a crop, or flips and a crop, of all channels."""
    whole = [None if "first_channels" in dict(step.settings) else step.name for step in flat(op)]
    return [name for name in whole if name != "flip"][:1] == ["crop"]


def step_apply(op: Op, implementations: Mapping[str, Implementation]) -> Apply:
    settings = dict(op.settings)
    if "first_channels" in settings:
        inner = host_apply(settings["op"], implementations=implementations)
        return first_channels(inner, settings["first_channels"], op.name)
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
