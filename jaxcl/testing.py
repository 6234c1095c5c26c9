"""Two laws of devices as assertions: the same value and gradient on one and on many, and the work shared among them.

    assert_same_everywhere(
        lambda params, batch, axis_name: nt_xent(batch["x"] @ params, batch["y"] @ params, axis_name=axis_name),
        params, {"x": x, "y": y})

The bug it finds is an old one: a loss that looks right on every device, with a gradient that is as many times too
large as there are devices, or that lacks what flows through other devices' negatives.

    assert_shared(lambda axis_name: make_step(method_of(axis_name), tx, axis_name=axis_name), state, key, batch)

This one finds work that is not shared: a part of a step that every device computes in full. The numbers are right, but
more devices make the step no faster. Only the compiled program shows it (`jaxcl.cost`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxcl import collectives
from jaxcl.cost import Cost, cost
from jaxcl.devices import AXIS, PLACEMENTS, axis_name, make_mesh, split
from jaxcl.train.placement import place
from jaxcl.typing import Array, PyTree

# (params, batch, axis_name) -> scalar
PlacedLoss = Callable[[PyTree, PyTree, str | None], Array]

# The placements in which a loss is compared with itself on one device.
EVERYWHERE = ("jit", "shard_map", "shard_map_unchecked", "pmap", "vmap")


def step_of(loss: PlacedLoss) -> Callable[[str | None], Callable]:
    """axis_name -> (carry, params, batch) -> carry, (value, gradient), as a training step would compute them."""

    def make(axis_name):
        def step(carry, params, batch):
            value, grads = jax.value_and_grad(loss)(params, batch, axis_name)
            return carry, (value, collectives.mean(grads, axis_name))

        return step

    return make


def value_and_grad(
    loss: PlacedLoss, params: PyTree, batch: PyTree, *, placement: str, devices: int = 8
) -> tuple[Array, PyTree]:
    """The loss and its gradient with respect to `params`, as a training step would compute them.

    placement is one of "one" (a single device), "jit", "shard_map", "shard_map_unchecked" (check_vma=False), "pmap",
    and "vmap" (which pretends `devices` devices on one, for a notebook). `batch`: a pytree of arrays [b, ...].
    """
    step = step_of(loss)(None if placement in ("one", "jit") else AXIS)
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

    Differences are relative to the largest entry of each array. Where a loss ignores its axis, the message says so. To
    pretend devices on a CPU, set XLA_FLAGS=--xla_force_host_platform_device_count=8 before jax is imported;
    `placements=("vmap",)` needs no second device.
    """
    truth = value_and_grad(loss, params, batch, placement="one")
    for placement in placements:
        try:
            here = value_and_grad(loss, params, batch, placement=placement, devices=devices)
        except ValueError as failure:
            # shard_map finds out by itself that devices do not agree, in words of its own.
            if placement == "jit" or not ignores_the_axis(loss, params, batch, devices):
                raise
            raise AssertionError(
                f"{placement} on {devices} devices does not give the same value on each. {IGNORED}"
            ) from failure
        named = jax.tree_util.tree_leaves_with_path({"value": truth[0], "gradient": truth[1]})
        for (path, want), got in zip(
            named, jax.tree.leaves({"value": here[0], "gradient": here[1]}), strict=True
        ):
            want, got = np.asarray(want), np.asarray(got)
            scale = max(float(np.max(np.abs(want))), 1e-30)
            error = float(np.max(np.abs(want - got))) / scale
            if not error <= tolerance:
                ratio = float(np.vdot(got, want) / max(float(np.vdot(want, want)), 1e-30))
                why = ""
                if placement != "jit" and ignores_the_axis(loss, params, batch, devices):
                    why = f" {IGNORED}"
                raise AssertionError(
                    f"{placement} on {devices} devices differs from one device in {jax.tree_util.keystr(path)}:"
                    f" relative error {error:.2e}, allowed {tolerance:.0e}; it is {ratio:.4g} times that of one.{why}"
                )


# What `assert_same_everywhere` says of a loss that sends nothing between devices.
IGNORED = (
    "The loss ignores its axis_name: it sends nothing between devices, so each has the loss of its own rows alone. Hand"
    " axis_name on to whatever compares or averages rows: nt_xent(z1, z2, axis_name=axis_name), collectives.gather,"
    " collectives.mean."
)


def ignores_the_axis(loss: PlacedLoss, params: PyTree, batch: PyTree, devices: int) -> bool:
    """Whether a loss speaks to no device axis at all."""
    rows = jax.tree.map(lambda x: jax.numpy.asarray(x)[: len(x) // devices], batch)
    program = jax.make_jaxpr(lambda params, rows: loss(params, rows, AXIS), axis_env=[(AXIS, devices)])
    return not re.search(rf"\baxes=\([^)]*{AXIS}|axis_name=\(?\W?{AXIS}", str(program(params, rows)))


class Shares(NamedTuple):
    """What one of D devices does or needs over a D-th of what a single device does for the same batch: 1 is ideal, and
    D is a device that does everything.

    products, operations    see `cost.Cost`; operations are products and all others
    temporaries             bytes between arguments and results
    one, each               what a single device does, and each of the D
    """

    products: float
    operations: float
    temporaries: float
    one: Cost
    each: Cost


# Fused, what is cheap is computed wherever it is used: once more on each occasion, and on one device otherwise than on
# eight. Unfused each operation stands in the program once, and each array takes memory.
UNFUSED = {"xla_disable_hlo_passes": "fusion", "xla_backend_optimization_level": 0}


def shares(
    make: Callable[[str | None], Callable],
    carry: PyTree,
    given: PyTree,
    batch: PyTree,
    *,
    placements: Sequence[str] = PLACEMENTS,
    devices: int = 8,
    whole: int = 0,
    compiler_options: dict | None = None,
) -> dict[str, Shares]:
    """How evenly a step is shared, in each placement: compiled for one device and for many, and read; never run.

    make
        axis_name -> step, with step(carry, given, batch) as `placement.place` takes it; `step_of(loss)` for a loss.
    carry, given, batch
        arrays, or their shapes (`jax.ShapeDtypeStruct`): a training state, a key and the global batch, for instance.
        For a loss anything, its parameters, the global batch.
    whole
        bytes of temporaries that every device must have (rows of all devices, say), which are left out.
    compiler_options
        `UNFUSED` if not given; {} for memory as it will be.
    """
    options = UNFUSED if compiler_options is None else compiler_options

    def of(placement, devices):
        run: Any = place(make(axis_name(placement)), placement, make_mesh(devices=devices))
        run = run if placement != "pmap" else jax.jit(run)
        return cost(run.lower(carry, given, batch).compile(compiler_options=options))

    def share(of_each, of_one):
        return devices * of_each / of_one if of_one else 1.0

    one, found = of("jit", 1), {}
    for placement in placements:
        each = of(placement, devices)
        found[placement] = Shares(
            share(each.products, one.products),
            share(each.operations, one.operations),
            share(max(each.temporaries - whole, 0), one.temporaries),
            one,
            each,
        )
    return found


def assert_shared(
    make: Callable[[str | None], Callable],
    carry: PyTree,
    given: PyTree,
    batch: PyTree,
    *,
    placements: Sequence[str] = PLACEMENTS,
    devices: int = 8,
    whole: int = 0,
    operations: float = 1.1,
    temporaries: float = 1.25,
) -> None:
    """Raises AssertionError where a device does more than `operations` times its share of the matrix products or of
    all work, or needs more than `temporaries` times its share of memory beside `whole` bytes. Arguments as in `shares`.
    """
    allowed = {"products": operations, "operations": operations, "temporaries": temporaries}
    for placement, found in shares(
        make, carry, given, batch, placements=placements, devices=devices, whole=whole
    ).items():
        for name, most in allowed.items():
            share = getattr(found, name)
            if share > most:
                raise AssertionError(
                    f"{placement}: each of {devices} devices has {share:.2f} times its share of the {name}, allowed"
                    f" {most}: {getattr(found.each, name):.4g}, of {getattr(found.one, name):.4g} on a single device."
                    " Does each compute all rows, or walk a loop over them? See collectives.by_rows and split_rows."
                )
