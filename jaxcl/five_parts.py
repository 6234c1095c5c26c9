"""A method in the five parts of Falcon and Cho (2020, arXiv:2009.00104), read off the functions that it was given.

Nothing is written down twice. Names and settings are those of the functions, networks and ops in `Method.five_parts`;
with which settings a loss is called, and what it compares with, is seen while a step is traced (nothing is computed).
A setting that is None, an array or the type float32 is not told.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import CodeType, FrameType, FunctionType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxcl import losses, similarity
from jaxcl.augment import Op
from jaxcl.typing import Batch, Images, Method, Net

NAMES = {
    "views": "(a) data augmentation",
    "encoder": "(b) encoder",
    "extraction": "(c) representation extraction",
    "similarity": "(d) similarity",
    "loss": "(e) loss",
}

# (role, function with its settings)
Line = tuple[str, str]


def five_parts(method: Method, batch: Batch) -> dict[str, list[Line]]:
    """The name of each of the five parts -> its lines; a step on `batch`, of which shapes matter only, is traced.

    Raises ValueError where the method does not tell its parts.
    """
    given = method.five_parts
    if given is None:
        raise ValueError(
            "This method does not tell its five parts; give its Method a `five_parts` (jaxcl.typing.FiveParts)."
        )
    # Functions from elsewhere that call a loss of ours, or compare by themselves.
    outside = {f.__code__ for f in map(innermost, given.loss.values()) if isinstance(f, FunctionType)}
    with watching(outside) as (called, compared):
        # A function of its own: what jax has traced before it would not trace again.
        def step(key, batch):
            return method.loss(*method.init(key, batch), key, batch)

        jax.eval_shape(step, jax.random.key(0), dict(batch))

    parts = {
        NAMES[part]: [
            (role, described(thing)) for role, thing in roles.items() if thing is not None and thing != ()
        ]
        for part, roles in given._asdict().items()
    }
    for settings in called.values():
        compared |= dict.fromkeys(settings.pop("similarity", ()))
    cosine = any(name.startswith("cosine") for name in compared)  # which normalizes
    kinds = [name for name in compared if not (cosine and name.startswith("normalize"))]
    if not kinds and not given.similarity:
        kinds = [f"none of jaxcl.similarity: {next(iter(called), 'the loss')} compares by itself"]
    parts[NAMES["similarity"]] += [("of the loss", name) for name in kinds]
    for name, settings in called.items():
        words = ", ".join(f"{key}={' / '.join(values)}" for key, values in settings.items())
        parts[NAMES["loss"]].append(("calls", f"{name}({words})" if words else name))
    return parts


def described(thing: Any) -> str:
    """A function, network, op or value in words: its name, and in brackets what it was made with.

    >>> from jaxcl import augment, extract, nets
    >>> described(augment.compose(augment.translate(4), augment.flip(probability=1.0)))
    "translate(pixels=4, probability=1, border='edge') > flip(probability=1)"
    >>> described(extract.of_widths(1, 5)), described(partial(losses.nt_xent, temperature=0.2))
    ('of_widths(widths=(1, 5))', 'nt_xent(temperature=0.2)')
    >>> described(nets.small_convnet(norm=nets.layer_norm(), features=(4, 8)))
    'SmallConvNet(norm=LayerNorm(epsilon=1e-06), features=(4, 8))'
    """
    if isinstance(thing, Op):
        settings = dict(thing.settings)
        if "steps" in settings:
            return " > ".join(map(described, settings["steps"]))
        return signature(thing.name.replace(" ", "_"), settings)
    if isinstance(thing, Net):
        return described(thing.apply)
    if isinstance(thing, Images):
        return thing.name
    if isinstance(thing, partial):
        values = [described(value) for value in thing.args]
        return signature(described(thing.func), thing.keywords, values)
    if isinstance(thing, type):
        return thing.__name__
    if isinstance(thing, FunctionType):
        return described_function(thing)
    if dataclasses.is_dataclass(thing):
        fields = {field.name: getattr(thing, field.name) for field in dataclasses.fields(thing) if field.init}
        if "make" in fields:  # RecipeViews: the function that it calls knows all
            return described(fields["make"])
        return signature(
            type(thing).__name__, {k: v for k, v in fields.items() if k not in ("parent", "name")}
        )
    if isinstance(thing, Mapping):
        return "{" + ", ".join(f"{key}: {described(value)}" for key, value in thing.items()) + "}"
    if isinstance(thing, Sequence) and not isinstance(thing, str):
        values = [described(value) for value in thing]
        if len(values) > 1 and len(set(values)) == 1 and "(" in values[0]:
            return f"{len(values)} x {values[0]}"
        return f"({', '.join(values)}{',' if len(values) == 1 else ''})"
    if callable(thing):
        return getattr(thing, "__name__", type(thing).__name__)
    return f"{thing:.6g}" if isinstance(thing, float) else repr(thing)


def described_function(function: FunctionType) -> str:
    """A function of ours by its maker and what it closes over; a lambda from elsewhere by its text."""
    maker = function.__qualname__.partition(".<locals>")[0]
    if function.__module__.partition(".")[0] != "jaxcl":
        return source(function) if function.__name__ == "<lambda>" else function.__name__
    settings = closed_over(function, maker)
    module = settings.get("module")
    if dataclasses.is_dataclass(module):  # a network
        return described(module)
    return signature(maker, settings)


def closed_over(function: FunctionType, maker: str) -> dict[str, Any]:
    """Name -> value of what a function closes over; of functions by the same maker, what they close over."""
    settings: dict[str, Any] = {}
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            value = cell.cell_contents
        except ValueError:  # not there yet, or no more
            continue
        if isinstance(value, FunctionType) and value.__qualname__.startswith(f"{maker}.<locals>"):
            if value is not function:
                settings |= closed_over(value, maker)
        else:
            settings[name] = value
    return settings


def signature(name: str, settings: Mapping[str, Any], first: Sequence[str] = ()) -> str:
    words = [*first, *(f"{key}={described(value)}" for key, value in settings.items() if told(value))]
    return f"{name}({', '.join(words)})" if words else name


def told(value: Any) -> bool:
    if value is None or value is jnp.float32:
        return False
    leaves = jax.tree.leaves(value)
    return not leaves or not all(isinstance(x, jax.Array | np.ndarray) for x in leaves)


def source(function: FunctionType) -> str:
    """A lambda as it is written; where that is not to be found, the place of it."""
    code = function.__code__
    try:
        nodes = ast.walk(ast.parse("".join(inspect.findsource(function)[0])))
    except (OSError, SyntaxError):
        nodes = iter(())
    at = [node for node in nodes if isinstance(node, ast.Lambda) and node.lineno == code.co_firstlineno]
    return (
        ast.unparse(at[0])
        if len(at) == 1
        else f"lambda ({Path(code.co_filename).name}, {code.co_firstlineno})"
    )


def innermost(function: Any) -> Any:
    """What is called in the end: the function within partials, and within functions of ours that wrap one `loss`."""
    while True:
        if isinstance(function, partial):
            function = function.func
        elif isinstance(function, FunctionType) and "loss" in function.__code__.co_freevars:
            function = inspect.getclosurevars(function).nonlocals["loss"]
        else:
            return function


@contextmanager
def watching(
    outside: set[CodeType],
) -> Iterator[tuple[dict[str, dict[str, dict[str, None]]], dict[str, None]]]:
    """What is called while this lasts, in words: loss -> argument -> the values that it had (arrays left out), and the
    similarities that are called within losses, ours and those `outside`."""
    called: dict[str, dict[str, dict[str, None]]] = {}
    compared: dict[str, None] = {}
    ours, kinds = codes(losses, losses.__all__), codes(similarity, vars(similarity))
    within: list[FrameType] = []  # the losses that are being called
    before = sys.getprofile()

    def look(frame: FrameType, event: str, _: Any) -> None:
        code = frame.f_code
        if event == "return" and within and frame is within[-1]:
            within.pop()
        if event != "call":
            return
        if within and code in kinds:
            compared[signature(kinds[code], arguments(frame))] = None
        if code in ours and not any(outer.f_code in ours for outer in within):
            seen = called.setdefault(ours[code], {})
            for name, value in arguments(frame).items():
                seen.setdefault(name, {})[described(value)] = None
        if code in ours or code in outside:
            within.append(frame)

    sys.setprofile(look)
    try:
        yield called, compared
    finally:
        sys.setprofile(before)


def codes(module: Any, names: Any) -> dict[CodeType, str]:
    functions = {name: getattr(module, name) for name in names}
    return {f.__code__: name for name, f in functions.items() if isinstance(f, FunctionType)}


def arguments(frame: FrameType) -> dict[str, Any]:
    """What a function was called with, as the call begins."""
    code = frame.f_code
    names = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
    return {name: frame.f_locals[name] for name in names if told(frame.f_locals[name])}
