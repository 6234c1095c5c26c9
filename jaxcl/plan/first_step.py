"""Before the first step of a run: its training step is compiled, and refused where it does not fit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jaxcl import machines, programs
from jaxcl.machines import GIB, Machine
from jaxcl.plan import advice
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
    lighter: Sequence[str] | None = None,
    chunks: int = 1,
    members: int = 1,
    steps: int = 1,
    refuse: bool = True,
    say: Callable[[str], None] = print,
) -> Callable:
    """Compiles a placed training step for the arguments of its first call, says in a line what it needs of
    this machine, and returns it compiled: nothing is compiled twice.

    config
        as `jaxcl plan` is given it, with the options that make it this very step.
    lighter
        of a run that goes on, which keeps its batch: the options that need less and leave it the same run. None: it
        is new.
    chunks
        in which the encoder takes a batch; a smaller batch that is named can be dealt out into them.
    members
        so many runs are trained by it together (`train_together`).
    steps
        it makes so many in a call; what is said is of one.

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
        needs, there = f"needs {more / GIB:.3g} GiB a device", f"{free / GIB:.3g} are free"
        if members > 1:
            raise DoesNotFit(
                f"A training step {needs} for {members} runs together, and {there}. Fewer at once need less"
                " (--together M)."
            )
        given = advice.gpu_room(machine)
        if given is not None and capacity is not None and more <= given - (capacity - free):
            would = f" With {advice.VARIABLE} in the environment it fits;"
        else:
            batch = smaller_batch(batch_size, len(machine.devices), free / more, chunks=chunks)
            would = _would_fit(batch, lighter)
        raise DoesNotFit(
            f"A training step {needs}, and {there}.{would} `jaxcl plan {config}` tries out what does."
            " --anyway trains all the same."
        )
    if compiled is None:
        return step
    if jax.process_index() == 0:
        costs = Costs.of(traced, compiled, machine)
        say(_short(costs, needed, machine, members=members, steps=steps))
    shapes = jax.tree.map(jnp.shape, arguments)

    prepared = step.prepared if isinstance(step, ByDevice) else lambda *arguments: arguments

    def first_or_other(*arguments: Any) -> Any:
        same = jax.tree.map(jnp.shape, arguments) == shapes
        return compiled(*prepared(*arguments)) if same else step(*arguments)

    return first_or_other


def _would_fit(batch: int | None, lighter: Sequence[str] | None) -> str:
    """A sentence about a smaller batch, or, of a run that goes on, about what leaves it the same run."""
    if lighter is None:
        return "" if batch is None else f" By proportion a batch of {batch} would fit;"
    *others, last = *lighter, "more devices"
    options = f"{', '.join(others)} or {last}" if others else last
    return f" A run that goes on keeps its batch; it needs less with {options}."


def smaller_batch(batch_size: int, devices: int, fraction: float, *, chunks: int = 1) -> int | None:
    """The largest of 1/2, 1/4, ... of a batch that is at most this fraction of it and that the devices divide, or None.
    In chunks, one whose rows these can be made of: two neighbouring rows of each device at a time. Never one image.

    >>> smaller_batch(512, 8, 0.3), smaller_batch(24, 8, 0.7), smaller_batch(512, 8, 0.01), smaller_batch(2, 1, 0.5)
    (128, None, None, None)
    >>> smaller_batch(512, 8, 0.3, chunks=8), smaller_batch(512, 8, 0.2, chunks=8)
    (128, None)
    """
    lower, whole = batch_size, devices if chunks == 1 else 2 * chunks * devices
    while lower / batch_size > fraction:
        if lower % (2 * whole):
            return None
        lower //= 2
    return lower if lower > 1 else None


def _short(costs: Costs, needed: int, machine: Machine, *, members: int, steps: int) -> str:
    """Memory is a call's, as it is there at once; work and time are a step's."""
    room = f" of {machine.capacity / GIB:.3g}" if machine.capacity else ""
    of = f" of {members} runs together" if members > 1 else ""
    floor = ""
    if costs.floor is not None:
        floor = f"; at least {duration(costs.floor / steps)}, bound by {costs.bound_in_words}"
    return f"A step{of} needs {needed / GIB:.2g}{room} GiB and {size(costs.flops / steps)}FLOP of each device{floor}."
