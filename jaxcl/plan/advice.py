"""What would fit where a plan does not: smaller batches, less kept in memory, more chips; each compiled."""

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


def advise(
    config: ModuleType,
    knobs: CommonKnobs,
    about: About,
    machine: Machine,
    over: Plan,
    *,
    say: Callable[[str], None] = lambda _: None,
) -> tuple[str, ...]:
    """Sentences on what would fit in place of a plan that does not; each was compiled. `say` hears of each attempt."""
    found: list[str] = []
    for words, changed, other in _attempts(knobs, machine, over):
        if any(words.split()[0] == sentence.split()[0] for sentence in found):
            continue  # a milder change of the same kind fits
        try:
            tried = plan(config, changed, about, other() if callable(other) else other)
        except Exception as error:
            # Whatever a compiler may raise: what was compiled before it is not to be lost.
            say(f"{words}: {error}")
            continue
        say(f"{words}: {needs(tried)} ({tried.compile_seconds:.0f} s to compile)")
        if tried.fits:
            found.append(f"{words} fits ({needs(tried)})")
    return tuple(found) or ("nothing that was tried fits",)


def _changed(knobs: CommonKnobs, **values: Any) -> CommonKnobs:
    return dataclasses.replace(knobs, **values)


def _attempts(knobs: CommonKnobs, machine: Machine, over: Plan) -> Iterator[tuple[str, CommonKnobs, Any]]:
    if not knobs.remat:
        yield "--remat", _changed(knobs, remat=True), machine
    for many in (2 * knobs.chunks, 4 * knobs.chunks, 8 * knobs.chunks):
        yield f"--chunks {many}", _changed(knobs, chunks=many), machine
    n, batch = len(machine.devices), knobs.batch_size // 2
    # Worth compiling where what it splits is a tenth of the memory or more.
    if not knobs.shard_state and knobs.placement == "jit" and n > 1:
        if 80 * over.parameters > (over.capacity_bytes or 0):
            yield "--shard-state", _changed(knobs, shard_state=True), machine
    while batch >= n and batch % n == 0:
        # By proportion; what is over by half is not worth compiling.
        if (over.peak_bytes or 0) * batch / knobs.batch_size <= 1.5 * (over.capacity_bytes or 0):
            yield f"batch {batch}", _changed(knobs, batch_size=batch), machine
        batch //= 2
    if machine.name == "here":
        return
    kind, chips = machines.parse(machine.name)
    doubled = (2 * chips, 4 * chips, 8 * chips)
    for count in [count for count in machines.SHAPES.get(kind, doubled) if count > chips][:3]:
        if knobs.batch_size % (count * n // chips) == 0:
            other = f"{kind}-{count}"
            yield f"machine {other}", knobs, partial(machines.described, other)
