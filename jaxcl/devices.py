"""The devices in a row, and how arrays are laid out over them, from outside a program; `collectives` speaks to their
axis from inside one.

placement     axis_name   what a step sees
jit           None        the global batch; XLA splits the work over the mesh (the default)
shard_map     "devices"   its device's rows, with collectives where the code asks for them
pmap          "devices"   the same, in its older form

A mesh of `make_mesh` holds the devices of all processes: training. One of `local_mesh` holds those of this process:
evaluation, where each process computes everything on its own.
"""

from __future__ import annotations

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from jaxcl.typing import PyTree

AXIS = "devices"
PLACEMENTS = ("jit", "shard_map", "pmap")


def axis_name(placement: str) -> str | None:
    """The axis that a method's losses and norms are given under this placement.

    >>> axis_name("jit"), axis_name("shard_map")
    (None, 'devices')
    """
    if placement not in PLACEMENTS:
        raise ValueError(f"placement must be one of {', '.join(PLACEMENTS)}; got {placement!r}.")
    return None if placement == "jit" else AXIS


def make_mesh(*, devices: int | None = None) -> Mesh:
    """All devices (of all processes), or the first `devices` of them, in a row."""
    chosen = jax.devices()[:devices]
    if devices is not None and len(chosen) < devices:
        raise ValueError(
            f"{devices} devices were asked for and {len(chosen)} are there. To pretend on a CPU, set"
            f" XLA_FLAGS=--xla_force_host_platform_device_count={devices} before jax is imported."
        )
    return row(chosen)


def local_mesh(*, divides: int | None = None) -> Mesh:
    """This process's devices in a row; only as many as split `divides` rows evenly, where that is given.

    With several processes each one evaluates everything on its own devices: no collective, the same numbers.
    """
    devices = jax.local_devices()
    if divides is not None:
        devices = devices[: int(np.gcd(divides, len(devices)))]
    return row(devices)


def along(axis: int) -> PartitionSpec:
    """Split over the devices along one axis.

    >>> tuple(along(1))
    (None, 'devices')
    """
    return PartitionSpec(*[None] * axis, AXIS)


def replicate(tree: PyTree, mesh: Mesh) -> PyTree:
    """The same arrays on every device of the mesh; over several processes each gives its own, equal copy."""
    everywhere = NamedSharding(mesh, PartitionSpec())
    if everywhere.is_fully_addressable:
        return jax.device_put(jax.tree.map(_own_copy, tree), everywhere)

    def put(x):
        if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key):
            return jax.random.wrap_key_data(put(jax.random.key_data(x)), impl=jax.random.key_impl(x))
        return jax.make_array_from_process_local_data(everywhere, np.asarray(x))

    return jax.tree.map(put, tree)


def split(tree: PyTree, mesh: Mesh, *, axis: int = 0) -> PyTree:
    """This process's rows of a global batch, laid out over the mesh; `axis` is that of the rows."""
    sharding = NamedSharding(mesh, along(axis))
    if sharding.is_fully_addressable:
        return jax.device_put(jax.tree.map(np.asarray, tree), sharding)
    return jax.tree.map(lambda x: jax.make_array_from_process_local_data(sharding, np.asarray(x)), tree)


def row(devices: list) -> Mesh:
    """These devices as a mesh; they may be described ones that are not there."""
    # Auto: since jax 0.9 make_mesh's default is Explicit, under which `z @ z.T` of a split batch is an error.
    return jax.make_mesh((len(devices),), (AXIS,), axis_types=(AxisType.Auto,), devices=devices)


def _own_copy(leaf):
    # Arrays that several processes share (parameters after training): this process's copy is the whole of it.
    if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:
        return np.asarray(leaf.addressable_data(0))
    return leaf
