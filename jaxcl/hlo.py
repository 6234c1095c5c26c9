"""The text of a compiled program (`compiled.as_text()`), taken apart: the only file that reads it.

    computations, entry = read(compiled.as_text())
    for each in computations[entry]:
        each.name, each.operation, each.operands, shapes(each.type)

What the program does is counted by those who ask: `cost` its arithmetic, `programs` its collectives.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple


class Instruction(NamedTuple):
    """name = type operation(inner), rest."""

    name: str
    type: str
    operation: str
    inner: str  # operands, or the value of a constant
    rest: str

    @property
    def operands(self) -> tuple[str, ...]:
        """The names of the instructions whose results this one takes."""
        return tuple(re.findall(r"%([\w.\-]+)", self.inner))


# What each computation does, by its name.
Computations = Mapping[str, Sequence[Instruction]]


def read(text: str) -> tuple[dict[str, list[Instruction]], str]:
    """The computations of a module by name, and the name of the one where it begins."""
    computations: dict[str, list[Instruction]] = {}
    entry, current = "", []
    for line in text.splitlines():
        if begun := re.match(r"(ENTRY )?%?([\w.\-]+) \(.*\{\s*$", line):
            current = computations.setdefault(begun[2], [])
            entry = begun[2] if begun[1] else entry
        elif given := re.match(r"\s+(?:ROOT )?%?([\w.\-]+) = (.*)", line):
            current.append(instruction(given[1], given[2]))
    return computations, entry


def instruction(name: str, definition: str) -> Instruction:
    """`f32[2]{0} add(%a, %b), metadata=...`, taken apart; a tuple's type is in brackets.

    >>> instruction("c", "f32[2]{0} add(%a, %b), metadata={}").operands
    ('a', 'b')
    """
    end = closing(definition, 0) if definition[0] == "(" else definition.index(" ")
    kind, rest = definition[:end], definition[end:].lstrip()
    operation, start = rest.partition("(")[0], rest.index("(")
    end = closing(rest, start)
    return Instruction(name, kind, operation, rest[start + 1 : end - 1], rest[end:])


def closing(text: str, start: int) -> int:
    """Where the bracket that is opened at `start` has been closed."""
    depth = 0
    for bracket in re.compile(r"[()]").finditer(text, start):
        depth += 1 if bracket[0] == "(" else -1
        if depth == 0:
            return bracket.end()
    raise ValueError(f"expected a closing bracket in {text!r}; found none.")


def shapes(kind: str) -> list[tuple[str, tuple[int, ...]]]:
    """(number type, shape) of the array that a type is, or of those in a tuple. Of a dimension whose size is bounded,
    the bound.

    >>> shapes("f32[2,3]{1,0}"), shapes("(s32[<=4]{0}, f32[])")
    ([('f32', (2, 3))], [('s32', (4,)), ('f32', ())])
    """
    found = re.findall(r"\b([a-z]+\d*[a-z0-9]*)\[([\d,<=]*)\]", kind)
    return [(number, tuple(int(n.lstrip("<=")) for n in sizes.split(",") if n)) for number, sizes in found]


def shape(kind: str) -> tuple[int, ...]:
    """Of an array's type; of a tuple's, that of its first entry.

    >>> shape("f32[2,3]{1,0}"), shape("(s32[4]{0}, f32[])")
    ((2, 3), (4,))
    """
    found = shapes(kind)
    return found[0][1] if found else ()


def sizes(kind: str) -> list[float]:
    """Bytes of the array that a type is, or of each of those in a tuple, without what padding a layout asks for.

    >>> sizes("(bf16[3]{0}, pred[8]{0}, s4[6]{0})")
    [6.0, 8.0, 3.0]
    """
    return [math.prod(dimensions) * width(number) for number, dimensions in shapes(kind)]


def width(number: str) -> float:
    """Bytes of a number: of "bf16" 2, of "s4" a half, of "pred" 1."""
    bits = re.search(r"\d+", number)
    return int(bits[0]) / 8 if bits else 1.0


def started(each: Instruction) -> Instruction:
    """What an asynchronous instruction starts, where its type is ((what goes in), what comes out, ...): of
    `fusion-start` the fusion. Any other instruction as it is.

    >>> one = started(instruction("f", "((f32[8]{0}, s32[]), f32[2]{0}, u32[]) fusion-start(%a, %i), calls=%part"))
    >>> one.operation, one.type, one.operands
    ('fusion', 'f32[2]{0}', ('a', 'i'))
    """
    if each.operation == "async-start" or not (
        each.operation.endswith("-start") and each.type.startswith("((")
    ):
        return each
    rest = each.type[closing(each.type, 1) :].lstrip(", ")
    if rest.startswith("("):
        made = rest[: closing(rest, 0)]
    else:
        found = re.match(r"\w+\[[^\]]*\](?:\{[^}]*\})?", rest)
        made = found[0] if found else "()"
    return each._replace(operation=each.operation.removesuffix("-start"), type=made)


def called(each: Instruction) -> list[tuple[str, str]]:
    """(how, computation) for those that an instruction runs; not those that say how two numbers are reduced or
    compared. how: "body" and "condition" of a loop, "calls", "to_apply", or "branch"."""
    if started(each).operation not in ("while", "conditional", "call", "fusion", "async-start"):
        return []
    found = re.findall(r"\b(body|condition|to_apply|calls)=%?([\w.\-]+)", each.rest)
    branches = re.findall(r"\b(?:true|false)_computation=%?([\w.\-]+)", each.rest)
    for several in re.findall(r"branch_computations=\{([^}]*)\}", each.rest):
        branches += re.findall(r"%?([\w.\-]+)", several)
    return found + [("branch", name) for name in branches]


def trips(each: Instruction, computations: Computations) -> int:
    """How often a loop runs: what the text says, or the bound that the loop's condition compares with; else 1."""
    if known := re.search(r'known_trip_count"?:\{"n":"(\d+)"', each.rest):
        return int(known[1])
    asked = dict(called(each)).get("condition")
    condition = computations.get(asked, ()) if asked else ()
    bounds = [
        one.inner for one in condition if one.operation == "constant" and re.match(r"[su]32\[\]", one.type)
    ]
    # jax counts loops from 0 up to a bound, which is then the only constant of the condition.
    below = any("direction=LT" in one.rest for one in condition)
    return int(bounds[0]) if below and len(bounds) == 1 else 1
