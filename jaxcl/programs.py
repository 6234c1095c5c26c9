"""What a program costs, read off it: the arithmetic of a traced one; memory, the bytes that go through it, and
collectives of a compiled one, and how to get it compiled."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
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


# --- bytes through memory -----------------------------------------------------------------------------------------

# Name nothing, or are counted where their results are read.
FREE = frozenset(
    """parameter constant tuple get-tuple-element bitcast while conditional call async-start after-all opt-barrier
    partition-id replica-id""".split()
)
# Of their first operand they read what they take, or change it where it lies.
TAKE, PUT = ("dynamic-slice", "slice", "gather"), ("dynamic-update-slice", "scatter")


class Moved(NamedTuple):
    """An operation of a compiled program that is run on its own; how often; and the bytes that it reads and writes in a
    call of the program: those through memory, and those that stay in the chip's own (a layout with S(1))."""

    instruction: hlo.Instruction
    times: int
    through: float
    inside: float


def traffic(text: str) -> float:
    """Bytes a device that a compiled program (`compiled.as_text()`) reads and writes, as if nothing were cached.

    Every operation reads its operands and writes its result, once; of what is sliced only the slice, and of what is
    changed where it lies only the change. A loop counts as often as it runs, where the text says that; of a
    condition all branches. What a library takes for scratch is left out.

    >>> import jax, jax.numpy as jnp
    >>> traffic(jax.jit(lambda x: x + 1).lower(jnp.zeros((1024, 1024))).compile().as_text()) / 2**20
    8.0
    """
    return sum(one.through for one in moved(text))


def by_rounds(text: str) -> float:
    """How many times the bytes of a compiled program, through memory and within the chip, are those that it would move
    if every loop ran once, as compilers count them.

    >>> import jax, jax.numpy as jnp
    >>> by_rounds(jax.jit(lambda x: x + 1).lower(jnp.zeros(8)).compile().as_text())
    1.0
    """
    every, once = 0.0, 0.0
    for one in moved(text):
        every += one.through + one.inside
        once += (one.through + one.inside) / max(one.times, 1)
    return every / once if once else 1.0


def moved(text: str) -> Iterator[Moved]:
    """What each operation of a compiled program reads and writes; of `traffic` the parts."""
    computations, entry = hlo.read(text)

    def visit(name: str, times: int) -> Iterator[Moved]:
        types = {each.name: each.type for each in computations.get(name, ())}
        for each in computations.get(name, ()):
            if hlo.started(each).operation in ("while", "conditional", "call", "async-start"):
                for how, called in hlo.called(each):
                    yield from visit(called, times * (hlo.trips(each, computations) if how == "body" else 1))
            elif each.operation not in FREE and not each.operation.endswith(("-done", "-update")):
                sizes = {True: 0.0, False: 0.0}
                for piece, size in _touched(each, types, computations):
                    sizes["S(1)" in piece] += size
                yield Moved(each, times, times * sizes[False], times * sizes[True])

    yield from visit(entry, 1)


def _touched(
    each: hlo.Instruction, types: Mapping[str, str], computations: hlo.Computations
) -> Iterator[tuple[str, float]]:
    """(type, bytes) of each array that an operation reads or writes."""
    each = hlo.started(each)
    made = _pieces(each.type)
    operands = list(dict.fromkeys(each.operands))
    if 'custom_call_target="AllocateBuffer"' in each.rest:
        return  # a place, and nothing put there
    if each.operation in ("copy-start", "slice-start"):
        # What is brought, and as much of where it comes from; the type names both.
        brought, source = made[:2] if each.operation == "copy-start" else sorted(made[:2], key=_size)
        yield from ((piece, _size(brought)) for piece in (source, brought))
        return
    if each.operation == "fusion":
        yield from zip(made, _written(each, computations), strict=True)
        for number, operand in enumerate(each.operands):
            whole = _size(types.get(operand, ""))
            yield types.get(operand, ""), min(whole, _read(each, number, computations))
        return
    if each.operation in TAKE:
        yield from ((piece, _size(each.type)) for piece in (types.get(operands[0], ""), each.type))
        operands = operands[1:]
    elif each.operation in PUT and len(operands) > 1:
        yield each.type, _size(types.get(_change(each), ""))
        operands = operands[1:]
    else:
        if each.operation == "custom-call" and len(made) > 1 and made[-1].startswith(("u8[", "s8[")):
            made = made[:-1]
        yield from ((piece, _size(piece)) for piece in made)
    if each.operation.endswith("-start") and not each.operation.startswith("all-reduce"):
        return  # the type names what comes in as well
    for operand in operands:
        yield from ((piece, _size(piece)) for piece in _pieces(types.get(operand, "")))


def _body(fusion: hlo.Instruction, computations: hlo.Computations) -> Sequence[hlo.Instruction]:
    return computations.get(dict(hlo.called(fusion)).get("calls", ""), ())


def _read(
    fusion: hlo.Instruction, number: int, computations: hlo.Computations, *, last: bool = True
) -> float:
    """Bytes of an operand that a fusion reads; infinite, where that is all of it. A fusion within another reads what
    its own parts read, and what its result is read of where that is the operand itself.

    last: what the fusion makes is written, and not read by others within a fusion around it."""
    body = _body(fusion, computations)
    ends = _ends(body) if last else []

    def of(name: str) -> float:
        total = 0.0
        for user in (each for each in body if name in each.operands):
            first = user.operands[0] == name and name not in user.operands[1:]
            if user.operation == "bitcast":
                total += of(user.name)
            elif user.operation == "fusion":
                for place in (i for i, operand in enumerate(user.operands) if operand == name):
                    total += _read(user, place, computations, last=user in ends)
                    total += of(user.name) if _passes(user, place, computations) else 0.0
            elif user.operation in TAKE and first:
                total += _size(user.type)
            elif not (user.operation in PUT and first and user in ends) and user.operation != "tuple":
                return math.inf
        return total

    name = _parameter(body, number)
    return math.inf if name is None else of(name)


def _passes(fusion: hlo.Instruction, number: int, computations: hlo.Computations) -> bool:
    """Whether an operand is among what a fusion returns, unchanged."""
    body = _body(fusion, computations)
    return _parameter(body, number) in {end.name for end in _ends(body)}


def _parameter(body: Sequence[hlo.Instruction], number: int) -> str | None:
    """What a computation calls its operand of this number."""
    of_number = (
        each.name for each in body if each.operation == "parameter" and each.inner.strip() == str(number)
    )
    return next(of_number, None)


def _written(fusion: hlo.Instruction, computations: hlo.Computations) -> list[float]:
    """Bytes of each result that a fusion writes."""
    made, body = _pieces(fusion.type), _body(fusion, computations)
    types, ends = {each.name: each.type for each in body}, _ends(body)
    if len(ends) != len(made):
        return [_size(piece) for piece in made]
    return [
        _size(types.get(_change(end), ""))
        if end.operation in PUT
        else sum(_written(end, computations))
        if end.operation == "fusion"
        else _size(piece)
        for end, piece in zip(ends, made, strict=True)
    ]


def _ends(body: Sequence[hlo.Instruction]) -> list[hlo.Instruction]:
    """The operations whose results a computation returns."""
    by_name = {each.name: each for each in body}
    roots = list(body[-1:])
    if roots and roots[0].operation == "tuple":
        roots = [by_name[name] for name in roots[0].operands if name in by_name]
    for i, root in enumerate(roots):
        while root.operation == "bitcast" and root.operands[0] in by_name:
            root = by_name[root.operands[0]]
        roots[i] = root
    return roots


def _change(each: hlo.Instruction) -> str:
    """The operand that is put into the first one."""
    return each.operands[1] if each.operation == "dynamic-update-slice" else each.operands[-1]


def _pieces(kind: str) -> list[str]:
    """The types within a tuple's type; an array's type alone."""
    return re.findall(r"[a-z]+\d*[a-z0-9]*\[[\d,<=]*\](?:\{[^}]*\})?", kind)


def _size(kind: str) -> float:
    return sum(hlo.sizes(kind))


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
