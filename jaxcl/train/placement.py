"""Where a step runs: one program over global arrays, or one program a device.

placement     axis_name   what a step sees
jit           None        the global batch; XLA splits the work over the mesh (the default)
shard_map     "devices"   its device's rows, with collectives where the code asks for them
pmap          "devices"   the same, in its older form
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from jaxcl.typing import Batch, PyTree

AXIS = "devices"
PLACEMENTS = ("jit", "shard_map", "pmap")


def axis_name(placement: str) -> str | None:
    """The axis that a method's losses and norms are given under this placement."""
    if placement not in PLACEMENTS:
        raise ValueError(f"placement must be one of {', '.join(PLACEMENTS)}; got {placement!r}.")
    return None if placement == "jit" else AXIS


def make_mesh(devices: int | None = None) -> Mesh:
    """All devices (of all processes), or the first `devices` of them, in a row."""
    chosen = jax.devices()[:devices]
    if devices is not None and len(chosen) < devices:
        raise ValueError(
            f"{devices} devices were asked for and {len(chosen)} are there. To pretend on a CPU, set"
            f" XLA_FLAGS=--xla_force_host_platform_device_count={devices} before jax is imported."
        )
    # Auto: since jax 0.9 make_mesh's default is Explicit, under which `z @ z.T` of a split batch is an error.
    return jax.make_mesh((len(chosen),), (AXIS,), axis_types=(AxisType.Auto,), devices=chosen)


def replicate(tree: PyTree, mesh: Mesh) -> PyTree:
    """The same arrays on every device; with several processes each gives its own, equal copy."""
    everywhere = NamedSharding(mesh, PartitionSpec())
    if jax.process_count() == 1:
        return jax.device_put(tree, everywhere)

    def put(x):
        if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key):
            return jax.random.wrap_key_data(put(jax.random.key_data(x)), impl=jax.random.key_impl(x))
        return jax.make_array_from_process_local_data(everywhere, np.asarray(x))

    return jax.tree.map(put, tree)


def along(axis: int) -> PartitionSpec:
    """Split over the devices along one axis."""
    return PartitionSpec(*[None] * axis, AXIS)


def split(batch: Batch, mesh: Mesh, *, axis: int = 0) -> PyTree:
    """This process's rows of a global batch, laid out over its devices; `axis` is that of the rows."""
    sharding = NamedSharding(mesh, along(axis))
    return jax.tree.map(lambda x: jax.make_array_from_process_local_data(sharding, np.asarray(x)), batch)


def resident(images: np.ndarray, mesh: Mesh, *, axis: int = 0) -> Callable[[Batch], PyTree]:
    """Keeps images [n, h, w, c] whole on every device, and returns what takes a batch's rows of them there.

    {"index": int [b]}, this process's -> {"image": [B, h, w, c], "index": [B]}, laid out as by `split`. Only the
    numbers of the images travel. With axis=1, [k, b] -> [k, B, ...].
    """
    whole, rows = NamedSharding(mesh, PartitionSpec()), NamedSharding(mesh, along(axis))
    kept = replicate(np.asarray(images), mesh)
    take = jax.jit(lambda images, index: images[index], in_shardings=(whole, rows), out_shardings=rows)

    def lay_out(batch):
        batch = split(batch, mesh, axis=axis)
        return {"image": take(kept, batch["index"]), **batch}

    return lay_out


def place(step: Callable, placement: str, mesh: Mesh, *, axis: int = 0, check_vma: bool = True) -> Callable:
    """A compiled (replicated, replicated, split along `axis`) -> replicated; the first argument is donated."""
    axis_name(placement)
    everywhere, shared = PartitionSpec(), along(axis)
    if placement == "jit":
        whole, rows = NamedSharding(mesh, everywhere), NamedSharding(mesh, shared)
        return jax.jit(step, in_shardings=(whole, whole, rows), out_shardings=whole, donate_argnums=0)
    if placement == "shard_map":
        mapped = jax.shard_map(
            step,
            mesh=mesh,
            in_specs=(everywhere, everywhere, shared),
            out_specs=everywhere,
            check_vma=check_vma,
        )
        return jax.jit(mapped, donate_argnums=0)
    devices = list(mesh.devices.flat)
    mapped = jax.pmap(step, AXIS, in_axes=(None, None, axis), out_axes=None, devices=devices)

    def by_device(carry, key, batch):
        def cut(x):
            return x.reshape(*x.shape[:axis], mesh.local_mesh.size, -1, *x.shape[axis + 1 :])

        return mapped(carry, key, jax.tree.map(cut, batch))

    return by_device
