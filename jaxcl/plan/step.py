"""The plan of a config on a machine: its training step compiled, and what that makes of the whole run."""

from __future__ import annotations

import time
from types import ModuleType
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from jaxcl import keys, programs
from jaxcl.config import CommonKnobs, Recipe, recipe_of
from jaxcl.devices import along, axis_name, row
from jaxcl.machines import Machine
from jaxcl.plan.costs import Costs, compile_for
from jaxcl.plan.inputs import abstract_batch, check_batch, is_encoded
from jaxcl.train.finite import guarded
from jaxcl.train.loop import PREFETCHED, calls_ahead
from jaxcl.train.placement import check_carry, layout, place
from jaxcl.train.state import TrainState, init_state
from jaxcl.train.step import make_step
from jaxcl.typing import About, PyTree

# JPEGs of 500 x 375 pixels and 110 KiB, ImageNet's average, that a core reads for 224 pixels, a second: decoded alone,
# and made into two views as well (benchmarks/results/augment-cpu.md).
DECODED_A_CORE = {"images": 254.0, "host": 136.0}


class Plan(NamedTuple):
    """What one training step needs of each device, and what that makes of the whole run. Bytes and FLOPs are a
    device's; None is what is not known."""

    config: str
    machine: str
    placement: str
    batch_size: int
    devices: int
    hosts: int
    chips: int
    parameters: int
    flops_per_device: float
    flops_shared_out: float  # products and convolutions of the traced step, divided by the devices
    temporary_bytes: int | None
    argument_bytes: int | None
    output_bytes: int | None
    input_bytes: int  # batches that wait for their turn, and images that stay on the device
    peak_bytes: int | None
    capacity_bytes: int | None
    bytes_accessed: float | None
    collectives: dict[str, dict[str, int]] | None
    compute_seconds: float | None
    memory_seconds: float | None
    links_seconds: float | None
    step_seconds_floor: float | None
    bound_by: str | None  # "compute", "memory" or "links"
    images_per_second: float | None  # at the floor
    fits: bool | None
    steps: int
    hours: float | None  # of the whole run, at the floor
    chip_hours: float | None
    decoded_images_per_second: (
        float | None
    )  # by all hosts together, to keep the devices busy; None: nothing to decode
    decoding_cores_per_host: float | None
    cpus_per_host: int | None  # hardware threads of a host that is rented; None: not known
    compile_seconds: float
    rates_from: str
    notes: tuple[str, ...] = ()
    advice: tuple[str, ...] = ()


def trace_step(
    config: ModuleType, knobs: CommonKnobs, about: About, machine: Machine
) -> tuple[Recipe, TrainState, PyTree, Any]:
    """The recipe of a config, the shapes of its training state and of a batch, and its training step, traced for a
    machine: `compile_for` takes that.

    Raises ValueError where the batch cannot be split over the devices.
    """
    recipe = recipe_of(config, knobs, about)
    check_batch(recipe.batch_size, machine)
    # A mesh of described devices serves jit and shard_map; pmap today is a form of the latter.
    placement = "shard_map" if knobs.placement == "pmap" else knobs.placement
    mesh = row(machine.devices)
    batch = abstract_batch(recipe, knobs, about)
    state = jax.eval_shape(
        lambda key, batch: init_state(key, recipe.method, recipe.optimizer, batch), keys.init_key(0), batch
    )
    whole, rows = NamedSharding(mesh, PartitionSpec()), NamedSharding(mesh, along(0))
    carry = layout(state, mesh, shard=knobs.shard_state)
    check_carry(carry, knobs.placement)
    arguments = (
        jax.tree.map(_placed, state, carry),
        _placed(jax.eval_shape(lambda: keys.run_key(0)), whole),
        _placed(batch, rows),
    )
    step = guarded(make_step(recipe.method, recipe.optimizer, axis_name=axis_name(placement)))
    placed: Any = place(step, placement, mesh, carry=carry)
    return recipe, state, batch, placed.trace(*arguments)


def waiting_batches(floor: float | None) -> int:
    """The most batches that are on the devices beside the one in use: those of the calls that `train` queues, where a
    step takes the floor or longer; those prefetched; one being made.

    >>> waiting_batches(0.033), waiting_batches(2.0), waiting_batches(None)
    (33, 3, 35)
    """
    return calls_ahead(floor or 0.0) + PREFETCHED + 1


def plan(config: ModuleType, knobs: CommonKnobs, about: About, machine: Machine, *, name: str = "") -> Plan:
    """Compiles the training step of a config for a machine and reads off what it needs. No pixel is opened, no number
    computed.

    Raises ValueError where the batch cannot be split over the devices.
    """
    start = time.perf_counter()
    recipe, state, batch, traced = trace_step(config, knobs, about, machine)
    notes: list[str] = []
    compiled, needed = compile_for(traced, machine, notes)
    seconds = time.perf_counter() - start

    n = len(machine.devices)
    costs = Costs.of(traced, compiled, machine)
    floor = costs.floor
    waiting = waiting_batches(floor) * sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(batch)) // n
    if knobs.input == "resident":
        waiting += about.count * int(np.prod(about.shape))
    found = programs.memory(compiled) if compiled else {"peak_bytes": needed}
    peak, capacity = found["peak_bytes"], machine.capacity
    if needed is not None:
        capacity = capacity if capacity is None else min(capacity, needed - 1)
        fits: bool | None = False
    else:
        fits = None if capacity is None or peak is None else peak + waiting <= capacity
    if costs.flops > 1.5 * costs.shared_out and n > 1:
        notes.append(
            f"Each device computes {costs.flops / costs.shared_out:.1f} times its share of the products (all of them"
            f" over {n}): something is not split over the devices (try --placement shard_map)."
        )
    if compiled is None:
        notes.append(
            "It did not compile, so bytes and collectives are not known: the floor is that of compute alone."
        )
    elif costs.counted:
        notes.append(
            "The compiler does not report the bytes accessed: they are counted from the program's text, as if nothing"
            " were cached."
        )
    elif costs.by_rounds > 1.01:
        notes.append(
            f"The compiler counts each loop once: its bytes are multiplied by {costs.by_rounds:.3g}, what all rounds"
            " move over what one of each does, by the program's text (an estimate)."
        )
    if knobs.placement == "pmap":
        notes.append("Planned as shard_map, of which pmap is a form.")
    hours = floor and floor * recipe.steps / 3600
    per_second = floor and recipe.batch_size / floor
    decoded = per_second if is_encoded(knobs) else None
    rate = DECODED_A_CORE["host" if knobs.input == "host" else "images"]
    return Plan(
        config=name or getattr(config, "__file__", "") or "",
        machine=machine.name,
        placement=knobs.placement,
        batch_size=recipe.batch_size,
        devices=n,
        hosts=machine.hosts,
        chips=machine.chips,
        parameters=sum(x.size for x in jax.tree.leaves(state.params)),
        flops_per_device=costs.flops,
        flops_shared_out=costs.shared_out,
        temporary_bytes=found.get("temporary_bytes"),
        argument_bytes=found.get("argument_bytes"),
        output_bytes=found.get("output_bytes"),
        input_bytes=waiting,
        peak_bytes=peak,
        capacity_bytes=capacity,
        bytes_accessed=costs.accessed,
        collectives=None if costs.collectives is None else programs.by_kind(costs.collectives),
        compute_seconds=costs.seconds.get("compute"),
        memory_seconds=costs.seconds.get("memory"),
        links_seconds=costs.seconds.get("links"),
        step_seconds_floor=floor,
        bound_by=costs.bound_by,
        images_per_second=per_second,
        fits=fits,
        steps=recipe.steps,
        hours=hours,
        chip_hours=hours and hours * machine.chips,
        decoded_images_per_second=decoded,
        decoding_cores_per_host=decoded and decoded / rate / machine.hosts,
        cpus_per_host=machine.host_cpus,
        compile_seconds=seconds,
        rates_from=machine.rates_from,
        notes=tuple(notes),
    )


def _placed(tree: PyTree, sharding: NamedSharding) -> PyTree:
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), tree)
