"""The only file that speaks to device axes.

Every function takes `axis_name`: the name of the axis over which the batch is split under `shard_map` or `pmap`, or
None where one program sees the whole batch (a single device, or `jit` over global arrays).
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import AxisType, PartitionSpec

from jaxcl.typing import Array, PyTree

AxisName = str | None


class Target(NamedTuple):
    """What a program is made for: "cpu", "gpu" or "tpu", and how many devices share it."""

    platform: str
    devices: int


def target() -> Target:
    """What the program that is being traced is made for; where no mesh is known, this process's devices.

    The machine that traces may be another one: a program for a pod is compiled on a laptop. Under `placement.place`
    the mesh is known, also where `jit` sees the global batch.

    >>> target().platform  # on a machine without an accelerator
    'cpu'
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty:
        return Target(jax.default_backend(), jax.device_count())
    kind = mesh.abstract_device.platform if mesh.abstract_device else jax.default_backend()
    return Target("gpu" if kind in ("cuda", "rocm") else kind, mesh.size)


def gather(x: Array, axis_name: AxisName = None) -> Array:
    """All devices' rows: [n, ...] on each of D devices -> [D n, ...] on every one, in device order.

    Differentiable: its transpose sums what every device sent back, so negatives that live elsewhere get their part
    of the gradient.
    """
    if axis_name is not None:
        return lax.all_gather(x, axis_name, tiled=True)
    sharding = jax.typeof(x).sharding
    if any(axis is not None for axis in sharding.spec):
        # An explicitly sharded mesh refuses `z @ z.T` with both sides split along the batch.
        return jax.sharding.reshard(x, PartitionSpec(*[None] * x.ndim))
    return x


def gather_same(x: Array, axis_name: AxisName = None) -> Array:
    """`gather`, for what all devices keep as one and the same (a queue): known to be equal, not differentiated."""
    if axis_name is None or axis_name not in jax.typeof(x).manual_axis_type.varying:
        return gather(x, axis_name)  # nothing is known of what varies: one program, or `vmap`, or unchecked
    return lax.all_gather(x, axis_name, tiled=True, to="invarying")


def take(x: Array, order: Array, axis_name: AxisName = None) -> Array:
    """The rows `order` of all devices' rows, dealt out again: x [n, ...] on each of D devices, order [D n] -> [n, ...].

    With a permutation for `order`, `take(take(x, order), argsort(order))` is x.
    """
    if axis_name is not None:
        return gather(x, axis_name)[order[rows(len(x), axis_name)]]
    # Without this constraint XLA leaves the result whole on every device, and all that follows is computed on each.
    return along_rows(gather(x)[order])


def sharers() -> int:
    """Over how many devices the program's rows are split: 1 where it sees one device's rows, or no mesh is known."""
    mesh = jax.sharding.get_abstract_mesh()
    return mesh.size if not mesh.empty and set(mesh.axis_types) == {AxisType.Auto} else 1


def along_rows(x: Array, *, axis: int = 0) -> Array:
    """x, whose rows (along `axis`) are to lie split over the devices, where one program sees the whole batch.

    Elsewhere, and where they cannot be split evenly: x.
    """
    devices = sharers()
    if devices == 1 or x.shape[axis] % devices:
        return x
    mesh = jax.sharding.get_abstract_mesh()
    return lax.with_sharding_constraint(x, PartitionSpec(*[None] * axis, mesh.axis_names))


def mean(tree: PyTree, axis_name: AxisName = None) -> PyTree:
    """The mean over devices of every leaf; with equal shares this is the mean over the global batch."""
    return tree if axis_name is None else lax.pmean(tree, axis_name)


def rows(n: int, axis_name: AxisName = None) -> Array:
    """The numbers [n] that this device's n rows have in `gather`'s result."""
    first = 0 if axis_name is None else lax.axis_index(axis_name) * n
    return first + jnp.arange(n)


def size(axis_name: AxisName = None) -> int:
    """How many devices share the batch."""
    return 1 if axis_name is None else lax.axis_size(axis_name)


def vary_like(x: Array, like: Array) -> Array:
    """x, marked as varying over the device axes that `like` varies over.

    Under `shard_map` a loop's state must vary from the start if what is added to it does. Elsewhere: x.
    """
    # The compiler removes this; the marking is inferred from what the expression reads.
    return x + jnp.where(False, jnp.sum(like), 0).astype(x.dtype)


def share_columns(x: Array, axis_name: AxisName = None) -> Array:
    """Columns dealt out for rows: [n, c] on each of D devices -> [D n, c / D]; c must be a multiple of D.

    Device r gets the r-th run of columns, with all devices' rows in device order.
    """
    return x if axis_name is None else lax.all_to_all(x, axis_name, split_axis=1, concat_axis=0, tiled=True)
