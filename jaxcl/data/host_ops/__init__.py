"""The host implementations of the ops of `augment`, in TensorFlow.

A recipe is written once, for device and host: its draws are its own (`op.sample`, in JAX, wherever it is used), so both
draw the very same parameters, and only what is done with them exists twice. `host_apply(op)` builds
TensorFlow's form of `op.apply` from the op's name and settings:

    apply = host_apply(augment.simclr(32))
    view = apply(params, image)             # inside a tf.function or tf.data's map; image uint8, or float in [0, 1]

For the same parameters the two forms differ by less than 1/255 a pixel, mostly by rounding. TensorFlow is imported
only when an op is built.
"""

from jaxcl.data.host_ops.composition import begins_with_crop, host_apply
from jaxcl.data.host_ops.op import Apply, Implementation
from jaxcl.data.host_ops.table import IMPLEMENTATIONS

__all__ = [
    "IMPLEMENTATIONS",
    "Apply",
    "Implementation",
    "begins_with_crop",
    "host_apply",
]
