"""What would fit where a plan does not: more of a GPU's memory, less kept in memory, smaller batches, more chips; all
but the first compiled."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from functools import partial
from types import ModuleType
from typing import Any

from jaxcl import machines
from jaxcl.config import CommonKnobs
from jaxcl.machines import Machine
from jaxcl.plan.step import Plan, plan
from jaxcl.plan.words import needs
from jaxcl.typing import About

# Of a GPU's memory so much can be given to jax; the rest is the driver's and its libraries'.
FRACTION = 0.92
VARIABLE = f"XLA_PYTHON_CLIENT_MEM_FRACTION={FRACTION}"

SAME = "the same training, slower"
OF_A_CHUNK = "batch norm, if there is any, takes statistics of a chunk or of --groups"
OTHER_BATCH = "another training, to which the learning rate may have to be fitted"


def advise(
    config: ModuleType,
    knobs: CommonKnobs,
    about: About,
    machine: Machine,
    over: Plan,
    *,
    say: Callable[[str], None] = lambda _: None,
) -> tuple[str, ...]:
    """Sentences on what would fit in place of a plan that does not, what costs least first. `say` hears of each try.

    A try compiles for minutes, so there are few. Of a GPU a variable of the environment may do, which costs nothing:
    then nothing is compiled. Else what trains the same is tried (--remat, --shard-state). Only where that does not do:
    --chunks, from the number that does by proportion, and with --remat where they alone do not do; smaller batches
    where nothing did so far; more chips.
    """
    room = gpu_room(machine)
    if _fits_into(room, over):
        return (f"it fits with {VARIABLE} in the environment ({_of(room, over)})",)
    found: list[str] = []
    plans: dict[str, Plan] = {}

    def attempt(
        words: str, means: str = "", *, other: Callable[[], Machine] = lambda: machine, **values: Any
    ) -> bool:
        """Whether it fits with these knobs, or on this machine."""
        try:
            where = other()
            tried = plan(config, dataclasses.replace(knobs, **values), about, where)
        except Exception as error:
            # Whatever a compiler may raise: what was compiled before it is not to be lost.
            say(f"{words}: {error}")
            return False
        say(f"{words}: {needs(tried)} ({tried.compile_seconds:.0f} s to compile)")
        plans[words] = tried
        means = f": {means}" if means else ""
        if tried.fits:
            found.append(f"{words} fits ({needs(tried)}{means})")
        elif _fits_into(gpu_room(where), tried):
            found.append(f"{words} fits with {VARIABLE} ({_of(gpu_room(where), tried)}{means})")
        else:
            return False
        return True

    def in_chunks(words: str, before: Plan, most: int, **values: Any) -> bool:
        """Whether it fits in as many chunks as do by proportion; or in more, as not all that is needed shrinks."""
        least = chunks_by_proportion(before, knobs.chunks, room or over.capacity_bytes or 0)
        several = [least * 2**i for i in range(most)] if least else []
        return any(
            attempt(f"{words}--chunks {many}", OF_A_CHUNK, chunks=many, **values)
            for many in several
            if many * n <= knobs.batch_size
        )

    n = len(machine.devices)
    if not knobs.remat:
        attempt("--remat", SAME, remat=True)
    # Worth compiling where what it splits is a tenth of the memory or more.
    if not knobs.shard_state and knobs.placement == "jit" and n > 1:
        if 80 * over.parameters > (over.capacity_bytes or 0):
            attempt("--shard-state", SAME, shard_state=True)
    if found:
        return tuple(found)
    if not in_chunks("", over, 3) and "--remat" in plans:
        in_chunks("--remat ", plans["--remat"], 2, remat=True)
    if not found:
        any(attempt(f"batch {batch}", OTHER_BATCH, batch_size=batch) for batch in _batches(knobs, n, over))
    any(
        attempt(f"machine {name}", other=partial(machines.described, name))
        for name in _more_chips(knobs, machine)
    )
    return tuple(found) or ("nothing that was tried fits",)


def chunks_by_proportion(over: Plan, chunks: int, room: int) -> int | None:
    """The least of 2, 4, 8, ... times as many chunks in which a plan's temporaries leave room for the rest; None where
    the rest alone is too much."""
    needed = over.peak_bytes or 0
    temporary = needed if over.temporary_bytes is None else over.temporary_bytes
    free = room - (needed - temporary) - over.input_bytes
    if free <= 0:
        return None
    more = 2
    while temporary / more > free:
        more *= 2
    return more * chunks


def gpu_room(machine: Machine) -> int | None:
    """Bytes of a GPU's memory that jax can be given by `VARIABLE`, where these are more than it has."""
    if machine.chip is None or machine.platform != "gpu":
        return None
    room = int(FRACTION * machine.chip.memory / machine.chip.cores)
    return room if machine.capacity is not None and room > machine.capacity else None


def _fits_into(room: int | None, one: Plan) -> bool:
    return room is not None and one.peak_bytes is not None and one.peak_bytes + one.input_bytes <= room


def _of(room: int | None, one: Plan) -> str:
    return needs(one._replace(capacity_bytes=room))


def _batches(knobs: CommonKnobs, n: int, over: Plan) -> Iterator[int]:
    batch, whole = knobs.batch_size // 2, n * knobs.chunks
    while batch >= max(2, whole) and batch % whole == 0:
        # By proportion; what is over by half is not worth compiling.
        if (over.peak_bytes or 0) * batch / knobs.batch_size <= 1.5 * (over.capacity_bytes or 0):
            yield batch
        batch //= 2


def _more_chips(knobs: CommonKnobs, machine: Machine) -> Iterator[str]:
    if machine.name == "here":
        return
    kind, chips = machines.parse(machine.name)
    doubled = (2 * chips, 4 * chips, 8 * chips)
    for count in [count for count in machines.SHAPES.get(kind, doubled) if count > chips][:3]:
        if knobs.batch_size % (count * len(machine.devices) // chips) == 0:
            yield f"{kind}-{count}"
