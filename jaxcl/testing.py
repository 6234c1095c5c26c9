"""The device law as an assertion: the same value and the same gradient on one device and on many.

    assert_same_everywhere(
        lambda params, batch, axis_name: nt_xent(batch["x"] @ params, batch["y"] @ params, axis_name=axis_name),
        params, {"x": x, "y": y})

The bug it finds is an old one: a loss that looks right on every device, with a gradient that is as many times too
large as there are devices, or that lacks what flows through other devices' negatives.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import jax
import numpy as np

from jaxcl import collectives
from jaxcl.devices import AXIS, make_mesh, split
from jaxcl.train.placement import place
from jaxcl.typing import Array, PyTree

# (params, batch, axis_name) -> scalar
PlacedLoss = Callable[[PyTree, PyTree, str | None], Array]

EVERYWHERE = ("jit", "shard_map", "shard_map_unchecked", "pmap", "vmap")


def value_and_grad(loss: PlacedLoss, params: PyTree, batch: PyTree, *, placement: str, devices: int = 8):
    """The loss and its gradient with respect to `params`, as a training step would compute them.

    placement is one of "one" (a single device), "jit", "shard_map", "shard_map_unchecked" (check_vma=False), "pmap",
    and "vmap" (which pretends `devices` devices on one, for a notebook). `batch`: a pytree of arrays [b, ...].
    """
    axis_name = None if placement in ("one", "jit") else AXIS

    def step(carry, params, batch):
        value, grads = jax.value_and_grad(loss)(params, batch, axis_name)
        return carry, (value, collectives.mean(grads, axis_name))

    if placement == "one":
        return jax.jit(step)(0, params, batch)[1]
    if placement == "vmap":
        rows = jax.tree.map(lambda x: x.reshape(devices, -1, *x.shape[1:]), batch)
        mapped = jax.jit(jax.vmap(step, in_axes=(None, None, 0), axis_size=devices, axis_name=AXIS))
        return jax.tree.map(lambda x: x[0], mapped(0, params, rows)[1])
    checked = placement != "shard_map_unchecked"
    mesh = make_mesh(devices=devices)
    run = place(step, placement.removesuffix("_unchecked"), mesh, check_vma=checked)
    if placement != "pmap":
        batch = split(batch, mesh)
    return run(np.zeros(()), params, batch)[1]


def assert_same_everywhere(
    loss: PlacedLoss,
    params: PyTree,
    batch: PyTree,
    *,
    devices: int = 8,
    placements: Sequence[str] = EVERYWHERE,
    tolerance: float = 1e-5,
) -> None:
    """Raises AssertionError where a placement's value or gradient differs from that of a single device.

    Differences are relative to the largest entry of each array. To pretend devices on a CPU, set
    XLA_FLAGS=--xla_force_host_platform_device_count=8 before jax is imported; `placements=("vmap",)` needs no second
    device.
    """
    truth = value_and_grad(loss, params, batch, placement="one")
    for placement in placements:
        here = value_and_grad(loss, params, batch, placement=placement, devices=devices)
        named = jax.tree_util.tree_leaves_with_path({"value": truth[0], "gradient": truth[1]})
        for (path, want), got in zip(
            named, jax.tree.leaves({"value": here[0], "gradient": here[1]}), strict=True
        ):
            want, got = np.asarray(want), np.asarray(got)
            scale = max(float(np.max(np.abs(want))), 1e-30)
            error = float(np.max(np.abs(want - got))) / scale
            if not error <= tolerance:
                ratio = float(np.vdot(got, want) / max(float(np.vdot(want, want)), 1e-30))
                raise AssertionError(
                    f"{placement} on {devices} devices differs from one device in {jax.tree_util.keystr(path)}:"
                    f" relative error {error:.2e}, allowed {tolerance:.0e}; it is {ratio:.4g} times that of one."
                )
