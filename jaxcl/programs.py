"""What a program costs, read off it: the arithmetic of a traced one; memory and collectives of a compiled one, and how
to get it compiled."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax

from jaxcl import hlo


def arithmetic(function: Callable, *arguments: Any) -> int:
    """FLOPs of the convolutions and matrix products in a traced function; loops count as often as they run, and what
    `shard_map` gives to each device as often as there are devices. Arguments may be `jax.ShapeDtypeStruct`s.

    Zeros between the rows of a dilated image (the gradients of strided convolutions) are not counted, those of its
    border are.

    >>> import jax.numpy as jnp
    >>> arithmetic(jnp.matmul, jnp.zeros((2, 3)), jnp.zeros((3, 5)))  # 2 m n k
    60
    """
    return arithmetic_of(jax.make_jaxpr(function)(*arguments).jaxpr)


def arithmetic_of(jaxpr: Any) -> int:
    """`arithmetic` of what is traced already."""
    total = 0
    for equation in jaxpr.eqns:
        name, parameters = equation.primitive.name, equation.params
        if name == "dot_general":
            (contract, _), (batch, _) = parameters["dimension_numbers"]
            left, right = (v.aval.shape for v in equation.invars)
            inner = math.prod(left[i] for i in contract)
            shared = math.prod(left[i] for i in batch)
            rows, columns = math.prod(left) // inner // shared, math.prod(right) // inner // shared
            total += 2 * shared * rows * columns * inner
        elif name == "conv_general_dilated":
            kernel = equation.invars[1].aval.shape
            out_features = parameters["dimension_numbers"].rhs_spec[0]
            each = math.prod(kernel) // kernel[out_features]
            zeros = math.prod(parameters["lhs_dilation"])
            total += 2 * math.prod(equation.outvars[0].aval.shape) * each // zeros
        repeats = 1
        if name == "scan":
            repeats = parameters["length"]
        elif name == "shard_map":
            repeats = parameters["mesh"].size
        total += repeats * sum(arithmetic_of(inner) for inner in _within(parameters))
    return total


def _within(parameters: Mapping[str, Any]) -> Iterator[Any]:
    """The jaxprs among an equation's parameters; of the branches of a condition, all."""
    for value in parameters.values():
        for one in value if isinstance(value, tuple | list) else (value,):
            inner = getattr(one, "jaxpr", one)
            if hasattr(inner, "eqns"):
                yield inner


WITHOUT_TRITON = "Products by cuBLAS alone, as XLA found no way to write one of them in Triton."


def compiled(
    lowered: Any, *, options: Mapping[str, Any] | None = None, notes: list[str] | None = None
) -> Any:
    """What `jax.jit(...).lower(...)` returned, compiled, with XLA's options where there are any.

    Where XLA for a GPU finds no form for one of the products, all go to cuBLAS, and `notes` gets a sentence. Any other
    error of the compiler is raised as it is.
    """
    options = dict(options or {})
    try:
        return lowered.compile(compiler_options=options)
    except Exception as error:
        if "No supported config" not in str(error):
            raise
    if notes is not None:
        notes.append(WITHOUT_TRITON)
    return lowered.compile(compiler_options=options | {"xla_gpu_enable_triton_gemm": False})


def memory(compiled: Any) -> dict[str, int]:
    """Bytes a device that a compiled program plans: temporaries, arguments, results, and all of them at once."""
    planned = compiled.memory_analysis()
    parts = {
        "temporary_bytes": planned.temp_size_in_bytes,
        "argument_bytes": planned.argument_size_in_bytes,
        "output_bytes": planned.output_size_in_bytes,
    }
    return parts | {"peak_bytes": sum(parts.values()) - planned.alias_size_in_bytes}


# --- collectives -------------------------------------------------------------------------------------------------


class Collective(NamedTuple):
    """A collective in a compiled program. `bytes` a device, of the whole of what is reduced, gathered or dealt out;
    `devices` that take part together; `times` that it runs a call of the program."""

    kind: str
    bytes: int
    devices: int
    times: int

    @property
    def sent(self) -> float:
        """Bytes that a device must send for it each time, at the least: (g - 1) / g of all there are, for g devices
        together; twice that for a sum that all get."""
        if self.kind == "collective-permute":
            return self.bytes
        rounds = 2 if self.kind == "all-reduce" else 1
        return rounds * self.bytes * (self.devices - 1) / self.devices


KINDS = (
    "all-reduce",
    "all-gather",
    "reduce-scatter",
    "all-to-all",
    "collective-permute",
    "collective-broadcast",
)


def collectives(text: str, *, devices: int) -> list[Collective]:
    """The collectives in the text of a compiled program (`compiled.as_text()`) for so many devices.

    What is in a loop counts as often as the loop runs, where the text says that (its trip count, or the bound that its
    condition compares with); else once. An asynchronous one counts at its start.
    """
    computations, entry = hlo.read(text)
    found: list[Collective] = []

    def visit(name: str, times: int) -> None:
        for each in computations.get(name, ()):
            kind = _kind(each)
            if kind and not each.operation.endswith("-done"):
                together = _together(each.rest, devices)
                found.append(Collective(kind, _bytes(each, kind, together), together, times))
            for how, called in hlo.called(each):
                visit(called, times * (hlo.trips(each, computations) if how == "body" else 1))

    visit(entry, 1)
    return found


def _kind(each: hlo.Instruction) -> str | None:
    """Which of `KINDS` an instruction is; also "ragged-all-to-all", and what has an end of its own ("-start")."""
    name = each.operation.removeprefix("ragged-").removesuffix("-start").removesuffix("-done")
    return name if name in KINDS else None


def by_kind(found: list[Collective]) -> dict[str, dict[str, int]]:
    """How often each kind of collective runs, and the bytes of all of them.

    >>> by_kind([Collective("all-reduce", 100, 8, 2), Collective("all-reduce", 50, 8, 1)])
    {'all-reduce': {'count': 3, 'bytes': 250}}
    """
    sums: dict[str, dict[str, int]] = {}
    for one in found:
        row = sums.setdefault(one.kind, {"count": 0, "bytes": 0})
        row["count"] += one.times
        row["bytes"] += one.times * one.bytes
    return sums


def _bytes(each: hlo.Instruction, kind: str, together: int) -> int:
    sizes = hlo.sizes(each.type)
    starts = each.operation.endswith("-start")
    if starts and kind == "collective-permute":
        return int(max(sizes, default=0))  # what comes in, what goes out, and counters
    total = sum(sizes)
    if starts and kind in ("all-reduce", "all-to-all", "collective-broadcast") and each.type.startswith("(("):
        return int(total / 2)  # ((what goes in), what comes out), which are as large
    if starts and kind in ("all-gather", "reduce-scatter"):
        return int(
            total * together / (together + 1)
        )  # both what comes in and what goes out, an n-th of the other
    return int(total * together if kind == "reduce-scatter" else total)


def _together(rest: str, devices: int) -> int:
    """How many devices take part together: the size of a replica group; all, where the text does not tell."""
    if listed := re.search(r"replica_groups=\{\{([\d,]+)\}", rest):
        return listed[1].count(",") + 1
    if dealt := re.search(r"replica_groups=\[\d+,(\d+)\]", rest):
        return int(dealt[1])
    return devices
