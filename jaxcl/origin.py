"""Where a number that is not finite comes from: a function is made operation by operation, and the first is named.

    found = origin(step, state, key, batch)
    print(found)      div at jaxcl/losses/contrast.py:88 in nt_xent: [512, 512] of nan from finite numbers

An infinity may be intended: a masked score is -inf, and its exponential 0. So the search starts at the *results* that
are not finite and goes backwards through the operations that made them. It stops at the first operation that made a nan
from operands without one, or an infinity from finite operands.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

from jaxcl.typing import PyTree

# Operations that are functions of their own: where one is the origin, its own operations are looked at.
_BODIES = ("jaxpr", "call_jaxpr", "fun_jaxpr")
_CLOSED = ("shard_map", "pallas_call")  # whose bodies speak of a device's own rows, or of tiles
_LIBRARIES = ("jax", "jaxlib", "flax", "optax", "chex", "numpy")


class Origin(NamedTuple):
    """operation  jax's name of it, as "div"; "argument" where what the function was given is not finite
    made          "nan" or "infinity"
    where         the lines that asked for it, the innermost first: ("jaxcl/similarity.py:30 in normalize", ...); of an
                  argument its name
    backward      whether it is of the gradient: the line is then that of the operation it is the gradient of
    shapes        those of its operands
    result        that of its result
    given         where the infinities among its operands come from, if there are any
    """

    operation: str
    made: str
    where: tuple[str, ...]
    backward: bool
    shapes: tuple[tuple[int, ...], ...]
    result: tuple[int, ...]
    given: Origin | None = None

    def __str__(self) -> str:
        if self.operation == "argument":
            return f"{self.made} in what the step was given: {self.where[0]} {list(self.result)}"
        operands = " and ".join(str(list(shape)) for shape in self.shapes)
        where = "; asked for by ".join(self.where) or "a place that jax does not know"
        lines = [
            f"{self.made} first made by {self.operation} of {operands}, {'the gradient of' if self.backward else 'at'}"
            f" {where}"
        ]
        if self.given is not None:
            lines.append(f"    from {self.given}")
        return "\n".join(lines)


class _Step(NamedTuple):
    """One operation as it was made; its operands are kept where it makes what was not among them."""

    equation: Any
    operands: tuple[Any, ...] | None


def origin(function: Callable, *arguments: PyTree, names: Sequence[str] = ()) -> Origin | None:
    """The operation that made the first number which is not finite in what `function(*arguments)` returns; None where
    all of it is finite.

    names
        of the arguments, as ("state", "key", "batch"): "batch/image" is what an array within one is then called.

    It is made operation by operation, each compiled alone, so it takes minutes for a large network, and may round
    otherwise than the compiled whole.
    """
    program = jax.make_jaxpr(function)(*arguments)
    named = dict(zip(names, arguments, strict=True)) if names else dict(enumerate(arguments))
    ordered = [jax.tree_util.tree_leaves_with_path({name: x}) for name, x in named.items()]
    flat = [leaf for leaves in ordered for leaf in leaves]
    paths = [jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in flat]
    leaves = [jnp.asarray(x) if not isinstance(x, jax.Array) else x for _, x in flat]
    return _in(program.jaxpr, program.consts, leaves, paths)


def kinds(x: Any) -> frozenset[str]:
    """Which of "nan" and "infinity" are among the numbers of an array.

    >>> sorted(kinds(jnp.array([1.0, -jnp.inf]))), sorted(kinds(jnp.array([3])))
    (['infinity'], [])
    """
    if not jnp.issubdtype(jnp.asarray(x).dtype if np.isscalar(x) else x.dtype, jnp.inexact):
        return frozenset()
    if bool(jnp.all(jnp.isfinite(x))):
        return frozenset()
    there = {"nan": bool(jnp.any(jnp.isnan(x))), "infinity": bool(jnp.any(jnp.isinf(x)))}
    return frozenset(kind for kind, found in there.items() if found)


def _in(jaxpr: Any, consts: Sequence[Any], arguments: Sequence[Any], names: Sequence[str]) -> Origin | None:
    """`origin` of a program. Its operations are made one after the other; who made what is followed backwards."""
    values = dict(zip(jaxpr.constvars, consts, strict=True)) | dict(zip(jaxpr.invars, arguments, strict=True))
    made_by: dict[Any, int] = {}
    steps: list[_Step] = []
    found = {var: kinds(x) for var, x in values.items()}
    last = _last_uses(jaxpr)
    for number, equation in enumerate(jaxpr.eqns):
        operands = [x.val if isinstance(x, core.Literal) else values[x] for x in equation.invars]
        results = _make(equation, operands)
        had: set[str] = set()
        makes: set[str] = set()
        for v, x in zip(equation.invars, operands, strict=True):
            had |= kinds(x) if isinstance(v, core.Literal) else found[v]
        for var, x in zip(equation.outvars, results, strict=True):
            values[var], found[var], made_by[var] = x, kinds(x), number
            makes |= found[var]
        steps.append(_Step(equation, tuple(operands) if makes - had else None))
        for var in last.get(number, ()):
            values.pop(var, None)

    candidates = []
    argument = dict(zip(jaxpr.invars, names, strict=True))
    for var in jaxpr.outvars:
        if isinstance(var, core.Literal) or not found.get(var):
            continue
        kind = "nan" if "nan" in found[var] else "infinity"
        candidates.append(_back(var, kind, steps, found, made_by))
    if not candidates:
        return None
    # The earliest operation of all; an argument is before every operation.
    var, kind, number = min(candidates, key=lambda candidate: candidate[2])
    if number < 0:
        return Origin(
            "argument", kind, (argument.get(var, "a constant of the program"),), False, (), var.aval.shape
        )
    return _opened(steps[number], kind, steps, found, made_by, argument)


def _back(var: Any, kind: str, steps: list[_Step], found: dict, made_by: dict) -> tuple[Any, str, int]:
    """(variable, kind, number of the operation that made it): the first on the way back from `var`; -1: an argument."""
    while var in made_by:
        number = made_by[var]
        guilty = [
            v for v in steps[number].equation.invars if not isinstance(v, core.Literal) and kind in found[v]
        ]
        if not guilty:
            return var, kind, number
        var = min(guilty, key=lambda v: made_by.get(v, -1))
    return var, kind, -1


def _opened(step: _Step, kind: str, steps: list[_Step], found: dict, made_by: dict, argument: dict) -> Origin:
    """The `Origin` for an operation; of one that is a function, for the operation within it."""
    equation = step.equation
    infinite = [v for v in equation.invars if not isinstance(v, core.Literal) and "infinity" in found[v]]
    given = None
    if kind == "nan" and infinite:
        var, _, number = min(
            (_back(v, "infinity", steps, found, made_by) for v in infinite), key=lambda c: c[2]
        )
        if number >= 0:
            given = _opened(steps[number], "infinity", steps, found, made_by, argument)
        else:
            name = argument.get(var, "a constant of the program")
            given = Origin("argument", "infinity", (name,), False, (), var.aval.shape)
    within = _within(equation, step.operands) if step.operands is not None else None
    if within is not None and within.operation != "argument":
        return within if within.given is not None else within._replace(given=given)
    where, backward = _lines(equation)
    shapes = tuple(tuple(v.aval.shape) for v in equation.invars)
    result = next(v for v in equation.outvars if kind in found[v])
    return Origin(equation.primitive.name, kind, where, backward, shapes, tuple(result.aval.shape), given)


def _within(equation: Any, operands: Sequence[Any]) -> Origin | None:
    """`origin` of the function that an operation is; None of a plain operation, or where none within is the origin."""
    parameters, name = equation.params, equation.primitive.name
    if name == "scan":
        return _in_scan(equation, operands)
    if name == "while":
        return _in_while(equation, operands)
    if name == "cond":
        which, *rest = operands
        branches = parameters["branches"]
        return _closed(branches[int(np.clip(which, 0, len(branches) - 1))], rest)
    for body in _BODIES:
        if body in parameters and name not in _CLOSED:
            return _closed(parameters[body], operands)
    return None


def _closed(body: Any, operands: Sequence[Any]) -> Origin | None:
    jaxpr, consts = (body.jaxpr, body.consts) if hasattr(body, "consts") else (body, ())
    if len(jaxpr.invars) != len(operands):
        return None
    return _in(jaxpr, consts, list(operands), [f"operand {i}" for i in range(len(operands))])


def _in_scan(equation: Any, operands: Sequence[Any]) -> Origin | None:
    """`origin` of a loop: of its first round that has one."""
    p, body = equation.params, equation.params["jaxpr"]
    inner = getattr(body, "jaxpr", body)
    # What a turn is given whole, and what it hands on: the rest is cut into, or made of, as many rows as there are
    # turns. The parameters that say so have other names from one jax to the next.
    whole = sum(a.aval.ndim == b.aval.ndim for a, b in zip(equation.invars, inner.invars, strict=True))
    carried = sum(a.aval.ndim == b.aval.ndim for a, b in zip(equation.outvars, inner.outvars, strict=True))
    consts = whole - carried
    fixed, carry, over = list(operands[:consts]), list(operands[consts:whole]), operands[whole:]
    turns = range(p["length"])
    for turn in reversed(turns) if p["reverse"] else turns:
        given = [*fixed, *carry, *(x[turn] for x in over)]
        results = core.jaxpr_as_fun(body)(*given)
        if frozenset().union(*map(kinds, results)) - frozenset().union(*map(kinds, given)):
            return _closed(body, given)
        carry = list(results[:carried])
    return None


def _in_while(equation: Any, operands: Sequence[Any]) -> Origin | None:
    p = equation.params
    n, m = p["cond_nconsts"], p["body_nconsts"]
    asked, fixed, carry = list(operands[:n]), list(operands[n : n + m]), list(operands[n + m :])
    while bool(core.jaxpr_as_fun(p["cond_jaxpr"])(*asked, *carry)[0]):
        given = [*fixed, *carry]
        carry = core.jaxpr_as_fun(p["body_jaxpr"])(*given)
        if frozenset().union(*map(kinds, carry)) - frozenset().union(*map(kinds, given)):
            return _closed(p["body_jaxpr"], given)
    return None


def _make(equation: Any, operands: Sequence[Any]) -> list[Any]:
    with equation.ctx.manager:
        results = equation.primitive.bind(*operands, **equation.primitive.get_bind_params(equation.params))
    return list(results) if equation.primitive.multiple_results else [results]


def _last_uses(jaxpr: Any) -> dict[int, list[Any]]:
    """The number of an operation -> what is not needed after it."""
    kept = {v for v in jaxpr.outvars if not isinstance(v, core.Literal)}
    last: dict[Any, int] = {}
    for number, equation in enumerate(jaxpr.eqns):
        for v in equation.invars:
            if not isinstance(v, core.Literal) and v not in kept:
                last[v] = number
    uses: dict[int, list[Any]] = {}
    for v, number in last.items():
        uses.setdefault(number, []).append(v)
    return uses


def _lines(equation: Any, *, at_most: int = 3) -> tuple[tuple[str, ...], bool]:
    """The lines that asked for an operation, outside of the libraries, and whether it is a part of the gradient."""
    source = equation.source_info
    lines: list[str] = []
    for frame in source.traceback.frames if source.traceback is not None else ():
        parts = Path(frame.file_name).parts
        packages = [parts[i + 1] for i, part in enumerate(parts[:-1]) if part == "site-packages"]
        if (packages and packages[-1].removesuffix(".py") in _LIBRARIES) or not os.path.exists(
            frame.file_name
        ):
            continue
        if Path(frame.file_name) == Path(__file__) or (lines and parts[-2:] == ("train", "step.py")):
            break
        below = parts.index("jaxcl") if "jaxcl" in parts[:-1] and not packages else None
        name = (
            "/".join(parts[-2:])
            if below is None
            else "/".join(parts[len(parts) - 1 - parts[::-1].index("jaxcl") :])
        )
        lines.append(f"{name}:{frame.line_num} in {frame.function_name.rpartition('<locals>.')[2]}")
    return tuple(lines[:at_most]), "transpose(" in str(source.name_stack)
