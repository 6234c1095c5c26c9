"""The devices in a row, and how arrays are laid out over them, from outside a program; `collectives` speaks to their
axis from inside one.

placement     axis_name   what a step sees
jit           None        the global batch; XLA splits the work over the mesh (the default)
shard_map     "devices"   its device's rows, with collectives where the code asks for them
pmap          "devices"   the same, in its older form

A mesh of `make_mesh` holds the devices of all processes: training. One of `local_mesh` holds those of this process, and
embeds its part of the images (`own_rows`, `gather_rows`); one of `even_mesh` trains a probe's small batches.
"""

from __future__ import annotations

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from jaxcl.typing import PyTree

# The name of the axis over which a batch is split.
AXIS = "devices"
# How a training step runs on several devices.
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


def local_mesh() -> Mesh:
    """This process's devices in a row."""
    return row(jax.local_devices())


def even_mesh(rows: int) -> Mesh:
    """The devices of all processes, but of each only as many as split `rows` rows evenly.

    Where the processes themselves cannot share the rows evenly, it is a mesh of this process alone, which then computes
    what every other one computes as well.
    """
    local, processes = jax.local_devices(), jax.process_count()
    if processes == 1 or rows % processes:
        return row(local[: int(np.gcd(rows, len(local)))])
    each = int(np.gcd(rows // processes, jax.device_count() // processes))
    of: dict[int, list] = {i: [] for i in range(processes)}
    for device in jax.devices():
        of[device.process_index].append(device)
    return row([device for i in range(processes) for device in of[i][:each]])


def own_rows(n: int) -> slice:
    """Which of n rows this process works on: consecutive ones; all of them where there are fewer than processes.

    >>> own_rows(5)
    slice(0, 5, None)
    """
    processes, i = jax.process_count(), jax.process_index()
    return slice(0, n) if n < processes else slice(n * i // processes, n * (i + 1) // processes)


def gather_rows(part: np.ndarray, n: int, *, numbers: int = 2**24) -> np.ndarray:
    """All n rows, in every process, of which each gives its `own_rows`; with several processes all must call it.

    They travel so many numbers at a time, as those on their way lie on the devices.
    """
    processes = jax.process_count()
    if n < processes or processes == 1:
        return part
    starts = [n * i // processes for i in range(processes + 1)]
    longest = max(np.diff(starts))
    whole = np.empty((n, *part.shape[1:]), part.dtype)
    rows = max(1, numbers // max(1, processes * int(np.prod(part.shape[1:]))))
    for first in range(0, longest, rows):
        size = min(rows, longest - first)
        sent = np.zeros((size, *part.shape[1:]), part.dtype)
        here = part[first : first + size]
        sent[: len(here)] = here
        came = np.asarray(multihost_utils.process_allgather(sent))
        for i, start in enumerate(starts[:-1]):
            end = min(start + first + size, starts[i + 1])
            whole[start + first : end] = came[i, : max(0, end - start - first)]
    return whole


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


# Arrays of fewer numbers stay whole on every device: a message for each would cost more than they take.
SMALL = 2**14


def spread(tree: PyTree, mesh: Mesh, *, small: int = SMALL) -> PyTree:
    """The sharding of each array, of which every device is to keep a part: split along its longest axis that the
    devices divide evenly; whole where there is none, and where an array has fewer than `small` numbers."""

    def of_one(x) -> NamedSharding:
        axes = [axis for axis, n in enumerate(x.shape) if n % mesh.size == 0]
        if not axes or np.prod(x.shape) < small:
            return NamedSharding(mesh, PartitionSpec())
        return NamedSharding(mesh, along(max(axes, key=lambda axis: x.shape[axis])))

    return jax.tree.map(of_one, tree)


def lay_out(tree: PyTree, shardings: PyTree) -> PyTree:
    """The same arrays, laid out by a tree of shardings; over several processes each gives its own, equal copy."""

    def put(x, sharding):
        if sharding.is_fully_addressable:
            return jax.device_put(_own_copy(x), sharding)
        if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key):
            return jax.random.wrap_key_data(
                put(jax.random.key_data(x), sharding), impl=jax.random.key_impl(x)
            )
        here = np.asarray(x)
        return jax.make_array_from_callback(here.shape, sharding, lambda part: here[part])

    return jax.tree.map(put, tree, shardings)


def whole(tree: PyTree, mesh: Mesh) -> PyTree:
    """The same arrays, whole on every device of the mesh, of which each may hold a part; all processes must call it."""
    parts = [x for x in jax.tree.leaves(tree) if not x.sharding.is_fully_replicated]
    if not parts:
        return tree
    everywhere = NamedSharding(mesh, PartitionSpec())
    gathered = iter(jax.jit(lambda *parts: parts, out_shardings=everywhere)(*parts))
    return jax.tree.map(lambda x: x if x.sharding.is_fully_replicated else next(gathered), tree)


def split(tree: PyTree, mesh: Mesh, *, axis: int = 0) -> PyTree:
    """This process's rows of a global batch, laid out over the mesh; `axis` is that of the rows."""
    sharding = NamedSharding(mesh, along(axis))
    if sharding.is_fully_addressable:
        return jax.device_put(jax.tree.map(np.asarray, tree), sharding)
    return jax.tree.map(lambda x: jax.make_array_from_process_local_data(sharding, np.asarray(x)), tree)


def process_of(device: jax.Device) -> int:
    """The process that a device belongs to."""
    return device.process_index


def row(devices: list) -> Mesh:
    """These devices as a mesh, those of a process side by side and processes in order, as a batch is dealt out to them;
    they may be described ones that are not there."""
    # Auto: since jax 0.9 make_mesh's default is Explicit, under which `z @ z.T` of a split batch is an error.
    auto = {"axis_types": (AxisType.Auto,)}
    try:
        made = list(jax.make_mesh((len(devices),), (AXIS,), devices=devices, **auto).devices.flat)
    except (AssertionError, ValueError, NotImplementedError):
        made = devices  # chips of a TPU slice that fill no rectangle: make_mesh knows no order for them
    return Mesh(np.array(sorted(made, key=process_of)), (AXIS,), **auto)


def _own_copy(leaf):
    # Arrays that several processes share (parameters after training): this process's copy is the whole of it.
    if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:
        return np.asarray(leaf.addressable_data(0))
    return leaf
