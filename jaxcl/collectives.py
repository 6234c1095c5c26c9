"""The only file that speaks to device axes.

Every function takes `axis_name`: the name of the axis over which the batch is split under `shard_map` or `pmap`, or
None where one program sees the whole batch (a single device, or `jit` over global arrays).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import AbstractMesh, AxisType, NamedSharding, PartitionSpec

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


def is_split_by_xla() -> bool:
    """Whether XLA splits the program that is being traced over several devices, or may: then a loop over rows, or over
    groups of them, would be done by every device in full. Not so inside `shard_map` and `pmap`, where rows are a
    device's own. Where no mesh is known, several devices are taken to share it.
    """
    mesh = jax.sharding.get_abstract_mesh()
    own = not mesh.empty and all(kind == AxisType.Manual for kind in mesh.axis_types)
    return target().devices > 1 and not own


def shared_mesh(x: Array | None = None) -> AbstractMesh | None:
    """The mesh of several devices over which XLA splits the one program that is being traced; None if there is none
    (a single device, or the inside of `shard_map` or `pmap`) or none is known.

    It is known under `placement.place`, and elsewhere where `x` came to `jit` laid out over a mesh.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty and x is not None:
        mesh = jax.typeof(x).sharding.mesh
    split_by_xla = not mesh.empty and all(kind == AxisType.Auto for kind in mesh.axis_types)
    return mesh if split_by_xla and mesh.size > 1 and len(mesh.axis_names) == 1 else None


def sharers(x: Array, axis_name: AxisName = None) -> int:
    """How many devices share what is done with x, whose rows are split: by the axis, or else by XLA."""
    mesh = shared_mesh(x) if axis_name is None else None
    return mesh.size if mesh is not None else size(axis_name)


def split_rows(x: Array, *, axis: int = 0) -> Array:
    """x [n, ...] with its rows (along `axis`) split over the devices that share the program.

    Use it after rows were permuted or drawn: XLA would otherwise keep all rows on every device, and every device would
    compute all that follows. Returns x unchanged where rows cannot be split evenly, or no mesh is known.
    """
    mesh = shared_mesh(x)
    if mesh is None or x.shape[axis] % mesh.size:
        return x
    return lax.with_sharding_constraint(
        x, NamedSharding(mesh, PartitionSpec(*[None] * axis, *mesh.axis_names))
    )


def own_rows(x: Array, axis_name: AxisName = None) -> Array:
    """This device's rows of x [D n, ...], which all devices made: a draw by a shared key -> [n, ...].

    Where XLA splits the program, each device makes its own rows only.
    """
    if axis_name is None:
        return split_rows(x)
    n = len(x) // size(axis_name)
    return lax.dynamic_slice_in_dim(x, lax.axis_index(axis_name) * n, n)


def by_rows(
    function: Callable[..., Any],
    *rows: Array,
    whole: tuple[Array, ...] = (),
    together: int = 1,
    axis_name: AxisName = None,
) -> Any:
    """function(*rows, *whole, axis_name=...) -> arrays of rows [n, ...], of which each device computes its own.

    For functions that loop over rows or tiles: XLA cannot split a loop, so every device would run all of it. Where XLA
    splits the program (`jit` over a mesh), `function` is therefore called under `shard_map`, with each device's rows
    and the name of an axis. Otherwise it is simply called: under `shard_map` and `pmap`, where no mesh is known, and
    where the rows cannot be split evenly. `together` neighbouring rows always stay on one device.
    """
    mesh = shared_mesh(rows[0]) if axis_name is None else None
    if mesh is None or len(rows[0]) % (mesh.size * together):
        return function(*rows, *whole, axis_name=axis_name)
    (name,) = mesh.axis_names

    def of_one(rows, whole):
        # Marked as varying here, so that the gradients that come back from all devices are added up.
        return function(*rows, *(vary_like(x, rows[0]) for x in whole), axis_name=name)

    split = PartitionSpec(name)
    return jax.shard_map(of_one, mesh=mesh, in_specs=(split, PartitionSpec()), out_specs=split)(rows, whole)


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


def exchange(x: Array, before: Array, after: Array, axis_name: AxisName = None) -> Array:
    """All devices' rows in another order, dealt out again: x [n, ...] on each of D devices -> [n, ...].

    before, after
        int [B, N / B], the same everywhere, for the N = D n rows in B blocks of neighbours: how those of each block are
        mixed, before every block gives a B-th of its own to every block (the j-th B-th of block i becomes the i-th of
        block j), and after. B^2 divides N. See `jaxcl.shuffle`, which draws them.

    Where D divides B, each device sends and receives its own n rows. Where it does not, with g = gcd(B, D), the D / g
    devices that share a block gather its rows first, N / g of them; for g = 1 that is all. Under `vmap` all are
    gathered. Where XLA splits the program, it is the same, by `by_rows`.
    """
    return by_rows(_exchange, x, whole=(before, after), axis_name=axis_name)


def _exchange(x: Array, before: Array, after: Array, axis_name: AxisName = None) -> Array:
    if axis_name is None:
        return split_rows(gather(x)[order_of(before, after)])
    (blocks, length), devices = before.shape, size(axis_name)
    parties = math.gcd(blocks, devices)
    if parties == 1 or axis_name not in jax.sharding.get_abstract_mesh().axis_names:
        return gather(x, axis_name)[order_of(before, after)[rows(len(x), axis_name)]]
    # Of the devices of a party each holds a part of its blocks, `own` in number.
    each, own, part = devices // parties, blocks // parties, length // blocks
    party, member = lax.axis_index(axis_name) // each, lax.axis_index(axis_name) % each
    of_party, of_member = None, None
    if each > 1:
        of_party = [[i * each + k for k in range(each)] for i in range(parties)]
        of_member = [[i * each + k for i in range(parties)] for k in range(each)]
    n, first = len(x), jnp.arange(own)[:, None]
    if each > 1:
        x = lax.all_gather(x, axis_name, axis_index_groups=of_party, tiled=True)
    # The order in which rows are sent, [party, own block, its block, part]: row numbers are transposed, never the rows.
    sent = lax.dynamic_slice_in_dim(before, party * own, own) + first * length
    sent = sent.reshape(own, parties, own, part).swapaxes(0, 1).reshape(-1)
    x = lax.all_to_all(x[sent], axis_name, 0, 0, axis_index_groups=of_member, tiled=True)
    # As they come: [block, own block, part].
    come = lax.dynamic_slice_in_dim(after, party * own, own)
    come = (come // part * own + first) * part + come % part
    return x[lax.dynamic_slice_in_dim(come.reshape(-1), member * n, n)]


def order_of(before: Array, after: Array) -> Array:
    """The numbers [N] of the rows in the order in which `exchange` lays them."""
    blocks = len(before)
    order = before + jnp.arange(blocks)[:, None] * before.shape[1]
    order = order.reshape(blocks, blocks, -1).swapaxes(0, 1).reshape(before.shape)
    return jnp.take_along_axis(order, after, axis=1).reshape(-1)


def from_next(tree: PyTree, axis_name: str, *, steps: int = 1) -> PyTree:
    """What the device `steps` further along the ring of devices has; -1 is the one before."""
    n = size(axis_name)
    ring = [(i, (i - steps) % n) for i in range(n)]
    return jax.tree.map(lambda x: lax.ppermute(x, axis_name, ring), tree)


def mean(tree: PyTree, axis_name: AxisName = None) -> PyTree:
    """The mean over devices of every leaf; with equal shares this is the mean over the global batch."""
    if axis_name is None:
        return tree
    # What is known to be the same everywhere is its own mean: gradients that `shard_map` has added up, which would
    # otherwise be sent again.
    leaves, structure = jax.tree.flatten(tree)
    differ = [i for i, leaf in enumerate(leaves) if not is_same(leaf, axis_name)]
    means = lax.pmean([leaves[i] for i in differ], axis_name)
    for i, value in zip(differ, means, strict=True):
        leaves[i] = value
    return jax.tree.unflatten(structure, leaves)


def is_same(x: Array, axis_name: str) -> bool:
    """Whether x is known to be equal on all devices; never where nothing is known (`vmap`, `pmap`, unchecked)."""

    def varies(x):
        return axis_name in jax.typeof(x).manual_axis_type.varying

    # A device's own number varies wherever it is known what does.
    return varies(lax.axis_index(axis_name)) and not varies(x)


def total(x: Array, axis_name: AxisName = None) -> Array:
    """The sum over devices, which each of them gets."""
    return x if axis_name is None else lax.psum(x, axis_name)


def sum_own(x: Array, axis_name: AxisName = None) -> Array:
    """The sum over the devices, of which each gets its own rows: [D n, ...] on each of D devices -> [n, ...].

    It is the transpose of `gather`.
    """
    return x if axis_name is None else lax.psum_scatter(x, axis_name, tiled=True)


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
