"""Before the first step of a run: its training step is compiled, and refused where it does not fit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxcl import machines, programs
from jaxcl.machines import GIB, Machine
from jaxcl.plan.costs import Costs, compile_for
from jaxcl.plan.words import duration, size
from jaxcl.train.placement import ByDevice


class DoesNotFit(ValueError):
    """A training step needs more memory than the machine has."""


def ahead(
    step: Any,
    *arguments: Any,
    batch_size: int,
    config: str,
    refuse: bool = True,
    say: Callable[[str], None] = print,
) -> Callable:
    """Compiles a placed training step for the arguments of its first call, says in a line what it needs of
    this machine, and returns it compiled: nothing is compiled twice.

    Raises DoesNotFit (a ValueError), with what to do; not if `refuse` is False. Arguments of other shapes than
    those of the first call go to `step` itself.
    """
    machine = machines.at_hand(
        devices=list(jax.tree.leaves(arguments)[0].sharding.mesh.devices.flat), measure=False
    )
    traced = step.trace(*arguments)
    compiled, refused = compile_for(traced, machine, [])
    capacity = free = machine.capacity
    if refused is not None:
        needed = more = refused
    else:
        planned = programs.memory(compiled)
        needed = planned["peak_bytes"]
        more = needed - planned["argument_bytes"]  # these are there already
        if machine.platform == "cpu":
            needed = more  # and are no longer among what is available
        elif capacity is not None:
            free = max(0, capacity - machines.in_use(machine.devices))
    if refuse and free is not None and (more > free or compiled is None):
        lower = smaller_batch(batch_size, len(machine.devices), free / more)
        would = "" if lower is None else f" By proportion a batch of {lower} would fit;"
        raise DoesNotFit(
            f"A training step needs {more / GIB:.3g} GiB a device, and {free / GIB:.3g} are free.{would}"
            f" `jaxcl plan {config}` tries out what does. --anyway trains all the same."
        )
    if compiled is None:
        return step
    if jax.process_index() == 0:
        costs = Costs.of(traced, compiled, machine)
        say(_short(costs, needed, machine))
    shapes = jax.tree.map(jnp.shape, arguments)

    prepared = step.prepared if isinstance(step, ByDevice) else lambda *arguments: arguments

    def first_or_other(*arguments: Any) -> Any:
        same = jax.tree.map(jnp.shape, arguments) == shapes
        return compiled(*prepared(*arguments)) if same else step(*arguments)

    return first_or_other


def smaller_batch(batch_size: int, devices: int, fraction: float) -> int | None:
    """The largest of 1/2, 1/4, ... of a batch that is at most this fraction of it and that the devices divide, or None.

    >>> smaller_batch(512, 8, 0.3), smaller_batch(24, 8, 0.7), smaller_batch(512, 8, 0.01)
    (128, None, None)
    """
    lower = batch_size
    while lower / batch_size > fraction:
        if lower % (2 * devices):
            return None
        lower //= 2
    return lower


def _short(costs: Costs, needed: int, machine: Machine) -> str:
    room = f" of {machine.capacity / GIB:.3g}" if machine.capacity else ""
    floor = ""
    if costs.floor is not None:
        floor = f"; at least {duration(costs.floor)}, bound by {costs.bound_by}"
    return f"A step needs {needed / GIB:.2g}{room} GiB and {size(costs.flops)}FLOP of each device{floor}."
