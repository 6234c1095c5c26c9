"""Where a training step runs: one program over global arrays, or one program a device (see `jaxcl.devices`)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxcl.devices import AXIS, SMALL, along, axis_name, replicate, split, spread
from jaxcl.train.state import TrainState
from jaxcl.typing import Array, Batch, PyTree


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


def layout(train: TrainState, mesh: Mesh, *, shard: bool = False, small: int = SMALL) -> TrainState:
    """The sharding of each array of a training state (of shapes, or of arrays): all whole on every device; or, with
    `shard`, parameters whole and of the optimizer's state and the method's memory (target network, queue, bank) each
    device's part; of what has fewer than `small` numbers all (`devices.spread`)."""
    everywhere = NamedSharding(mesh, PartitionSpec())
    parts = jax.tree.map(lambda _: everywhere, train)
    if not shard:
        return parts
    opt_state, state = (spread(tree, mesh, small=small) for tree in (train.opt_state, train.state))
    return parts._replace(opt_state=opt_state, state=state)


def place(
    step: Callable,
    placement: str,
    mesh: Mesh,
    *,
    axis: int = 0,
    check_vma: bool = True,
    carry: PyTree | None = None,
) -> Callable:
    """A compiled (replicated, replicated, split along `axis`) -> replicated; the first argument is donated.

    carry
        shardings of the first argument, as `layout` gives them, which the step returns laid out alike: XLA then sums a
        gradient where its part of the optimizer's state is, and sends round what has become of the parameters. Under
        "jit" alone: elsewhere each device runs a program of its own, to which the state is whole.

    Raises ValueError for a carry that is to be split under another placement.
    """
    axis_name(placement)
    check_carry(carry, placement)
    everywhere, shared = PartitionSpec(), along(axis)
    if placement == "jit":
        whole, rows = NamedSharding(mesh, everywhere), NamedSharding(mesh, shared)

        def on_mesh(*arguments):
            # Known while it is traced: what must be laid out anew, or computed by rows, can say so.
            with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
                return step(*arguments)

        kept, out = (whole, whole) if carry is None else (carry, (carry, whole))
        return jax.jit(on_mesh, in_shardings=(kept, whole, rows), out_shardings=out, donate_argnums=0)
    if placement == "shard_map" or mesh.is_multi_process:
        # pmap takes each process's rows apart from the others'. These are laid out over all of them already, so here it
        # is the program that jax makes of it, one for each device, without its checks.
        mapped = jax.shard_map(
            step,
            mesh=mesh,
            in_specs=(everywhere, everywhere, shared),
            out_specs=everywhere,
            check_vma=check_vma and placement == "shard_map",
        )
        return jax.jit(mapped, donate_argnums=0)
    devices = list(mesh.devices.flat)
    mapped = jax.pmap(
        step, AXIS, in_axes=(None, None, axis), out_axes=None, devices=devices, donate_argnums=0
    )

    return ByDevice(mapped, lambda x: x.reshape(*x.shape[:axis], mesh.size, -1, *x.shape[axis + 1 :]))


def check_carry(carry: PyTree | None, placement: str) -> None:
    """Raises ValueError for a carry that is to be split under a placement that cannot."""
    if carry is None or placement == "jit":
        return
    if not all(sharding.is_fully_replicated for sharding in jax.tree.leaves(carry)):
        raise ValueError(
            f"The training state can be split over the devices under --placement jit; got {placement}. Leave"
            " --shard-state out, or take jit."
        )


@dataclass(frozen=True)
class ByDevice:
    """A step under `pmap` that takes a whole batch, and can be compiled ahead of its first call as a jitted one can."""

    mapped: Any
    cut: Callable[[Array], Array]  # an array of a batch -> [devices, rows of each, ...]

    def __call__(self, *arguments: Any) -> Any:
        return self.mapped(*self.prepared(*arguments))

    def prepared(self, carry: PyTree, key: Array, batch: Batch) -> tuple[PyTree, Array, PyTree]:
        """What the compiled step takes."""
        return carry, key, jax.tree.map(self.cut, batch)

    def trace(self, *arguments: Any) -> MappedTrace:
        prepared = self.prepared(*arguments)
        return MappedTrace(jax.make_jaxpr(self.mapped)(*prepared), partial(self.mapped.lower, *prepared))


class MappedTrace(NamedTuple):
    """What the trace of a jitted step has of which a plan is made."""

    jaxpr: Any
    lower: Callable[[], Any]
