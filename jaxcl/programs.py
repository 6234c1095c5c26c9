"""What a program costs, read off it: the arithmetic of a traced one; memory and collectives of a compiled one."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax


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
_OPERATION = re.compile(rf"^\s*(?:ROOT )?%?[\w.\-]+ = (.*?) (?:ragged-)?({'|'.join(KINDS)})(-start|-done)?\(")
_ARRAY = re.compile(r"\b([a-z]+\d*[a-z0-9]*)\[([\d,<=]*)\]")
_HEADER = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{\s*$")
_CALL = re.compile(r"\b(body|condition|calls|to_apply|true_computation|false_computation)=%?([\w.\-]+)")
_BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")


def collectives(text: str, *, devices: int) -> list[Collective]:
    """The collectives in the text of a compiled program (`compiled.as_text()`) for so many devices.

    What is in a loop counts as often as the loop runs, where the text says that (its trip count, or the bound that its
    condition compares with); else once. An asynchronous one counts at its start.
    """
    bodies, entry = _computations(text)
    found: list[Collective] = []

    def visit(name: str, times: int) -> None:
        for line in bodies.get(name, ()):
            operation = _OPERATION.match(line)
            if operation and operation[3] != "-done":
                kind, together = operation[2], _together(line, devices)
                bytes_ = _bytes(operation[1], kind, operation[3], together)
                found.append(Collective(kind, bytes_, together, times))
                continue  # what it calls adds two numbers
            for how, called in _CALL.findall(line):
                visit(called, times * (_trips(line, bodies) if how == "body" else 1))
            for branches in _BRANCHES.findall(line):
                for called in branches.split(","):
                    visit(called.strip().lstrip("%"), times)

    visit(entry, 1)
    return found


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


def _computations(text: str) -> tuple[dict[str, list[str]], str]:
    """The lines of each computation by its name, and the name of that which the program begins with."""
    bodies: dict[str, list[str]] = {}
    entry, lines = "", []
    for line in text.splitlines():
        header = _HEADER.match(line)
        if header:
            lines = bodies[header[2]] = []
            entry = header[2] if header[1] else entry
        else:
            lines.append(line)
    return bodies, entry


def _bytes(shape: str, kind: str, how: str | None, together: int) -> int:
    sizes = [
        math.prod(int(n.lstrip("<=")) for n in dims.split(",") if n) * _width(dtype)
        for dtype, dims in _ARRAY.findall(shape)
    ]
    if how == "-start" and kind == "collective-permute":
        return int(max(sizes, default=0))  # what comes in, what goes out, and counters
    total = sum(sizes)
    if how == "-start" and kind == "all-gather":
        total = total * together / (together + 1)  # what comes in is among them
    return int(total * together if kind == "reduce-scatter" else total)


def _width(dtype: str) -> float:
    """Bytes of a number: of "bf16" 2, of "s4" a half, of "pred" 1."""
    bits = re.search(r"\d+", dtype)
    return int(bits[0]) / 8 if bits else 1


def _together(line: str, devices: int) -> int:
    """How many devices take part together: the size of a replica group; all, where the line does not tell."""
    if listed := re.search(r"replica_groups=\{\{([\d,]+)\}", line):
        return listed[1].count(",") + 1
    if dealt := re.search(r"replica_groups=\[\d+,(\d+)\]", line):
        return int(dealt[1])
    return devices


def _trips(line: str, bodies: Mapping[str, list[str]]) -> int:
    if known := re.search(r'known_trip_count"?:\{"n":"(\d+)"', line):
        return int(known[1])
    condition = re.search(r"condition=%?([\w.\-]+)", line)
    text = "\n".join(bodies.get(condition[1], ())) if condition else ""
    bounds = re.findall(r"= [su]32\[\]\S* constant\((\d+)\)", text)
    # jax counts loops from 0 up to a bound, which is then the only constant of the condition.
    return int(bounds[0]) if len(bounds) == 1 and "direction=LT" in text else 1
