"""A traced training step compiled for a machine: the bytes that it needs, and what it costs there."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from jaxcl import programs
from jaxcl.machines import Machine


def compile_for(traced: Any, machine: Machine, notes: list[str]) -> tuple[Any, int | None]:
    """A traced program compiled for a machine, and None; or None and the bytes that it would need, where its compiler
    says that they are more than a device has. `notes` gets what was out of the ordinary."""
    # On a described GPU there is nothing to time algorithms on.
    described_gpu = machine.platform == "gpu" and machine.name != "here"
    options = {"xla_gpu_autotune_level": 0} if described_gpu else None
    try:
        return programs.compiled(traced.lower(), options=options, notes=notes), None
    except Exception as error:
        if (needed := bytes_in_error(str(error))) is None:
            raise
        return None, needed


def bytes_in_error(message: str) -> int | None:
    """The bytes a device that a program would need, by the compiler's complaint that there are fewer; else None.

    >>> bytes_in_error("Ran out of memory on HBM, ... for HLO temporaries (21.25G) exceeds available HBM (15.75G).")
    22817013760
    >>> bytes_in_error("Ran out of memory in memory space hbm. Used 21.25G of 15.75G hbm.")
    22817013760
    """
    if "out of memory" not in message.lower() and "RESOURCE_EXHAUSTED" not in message:
        return None
    found = re.search(r"\(([\d.]+)([KMGT])\) exceeds|Used ([\d.]+)([KMGT]) of", message)
    if found is None:
        return None
    number, unit = found[1] or found[3], found[2] or found[4]
    return int(float(number) * 1024 ** (1 + "KMGT".index(unit)))


class Costs(NamedTuple):
    """What a device does in a call of a program, and the least seconds for each part of it."""

    flops: float
    shared_out: float
    accessed: float | None
    collectives: list[programs.Collective] | None
    seconds: dict[str, float]
    counted: bool = False  # `accessed`, by us from the program's text
    by_rounds: float = 1.0  # `accessed` is so many times what the compiler says, as loops have rounds

    @classmethod
    def of(cls, traced: Any, compiled: Any, machine: Machine) -> Costs:
        """Of a traced program and the compiled one, or None where it would not compile."""
        n = len(machine.devices)
        shared_out = programs.arithmetic_of(traced.jaxpr.jaxpr) / n
        told = (compiled.cost_analysis() if compiled else None) or {}
        # What is compiled says what each device really does, but of a loop a TPU's counts one round; what is traced
        # knows the rounds, but not what every device repeats; the text knows them too, and has each round's bytes.
        flops = max(shared_out, float(told.get("flops", 0)))
        accessed = float(told["bytes accessed"]) if told.get("bytes accessed", 0) > 0 else None
        text = compiled.as_text() if compiled else None
        found = None if text is None else programs.collectives(text, devices=n)
        by_rounds = 1.0
        if counted := accessed is None and text is not None:
            accessed = programs.traffic(text) or None
        elif accessed is not None and text is not None:
            by_rounds = programs.by_rounds(text)
            accessed *= by_rounds
        seconds = {}
        if machine.flops:
            seconds["compute"] = flops / machine.flops
        if machine.memory_rate and accessed:
            seconds["memory"] = accessed / machine.memory_rate
        if found is not None and machine.link_rate and n > 1:
            seconds["links"] = link_seconds(found, machine)
        return cls(flops, shared_out, accessed, found, seconds, counted, by_rounds)

    @property
    def floor(self) -> float | None:
        """Seconds: the longest part, as if all overlapped."""
        return max(self.seconds.values()) if "compute" in self.seconds else None

    @property
    def bound_by(self) -> str | None:
        return max(self.seconds, key=lambda part: self.seconds[part]) if "compute" in self.seconds else None

    @property
    def bound_in_words(self) -> str:
        return bound_in_words(self.bound_by, self.seconds.get("memory"))


def bound_in_words(bound_by: str | None, memory_seconds: float | None) -> str:
    """
    >>> bound_in_words("compute", 0.1), bound_in_words("compute", None)
    ('compute', 'compute (memory not known)')
    """
    return f"{bound_by} (memory not known)" if memory_seconds is None else f"{bound_by}"


def link_seconds(found: Sequence[programs.Collective], machine: Machine) -> float:
    """The least seconds that collectives take: what a device sends over all its links at once; and where these end at
    the host, what a host must send to others over its network."""
    if machine.link_rate is None:
        return 0.0
    within = sum(one.times * one.sent for one in found) / machine.link_rate
    rate, hosts = machine.chip and machine.chip.network_rate, machine.hosts
    if rate is None or hosts == 1:
        return within
    each = machine.chips // hosts
    between = 0.0
    for one in found:
        if one.devices > each:
            # In an all-to-all every device of a host deals out rows of its own; of the others a host sends one copy.
            copies = each if one.kind == "all-to-all" else 1
            between += copies * one.times * one._replace(devices=hosts).sent
    return max(within, between / (rate * machine.chips / hosts))
