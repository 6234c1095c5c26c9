"""A method in the five parts of Falcon and Cho (2020, arXiv:2009.00104), read off the functions that it was given.

Nothing is written down twice: names and settings are those of the functions, networks and ops in `Method.five_parts`,
and what a loss was not given are the defaults of its signature. Nothing is traced or computed. A setting that is None,
an array or the type float32 is left out.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import FunctionType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxcl.augment import Op
from jaxcl.losses.keyless import Keyless
from jaxcl.losses.similarities import SIMILARITIES
from jaxcl.typing import Images, Method, Net

# A part of `FiveParts` -> what it is called in print.
NAMES = {
    "views": "(a) data augmentation",
    "encoder": "(b) encoder",
    "extraction": "(c) representation extraction",
    "similarity": "(d) similarity",
    "loss": "(e) loss",
}

# (role, function with its settings)
Line = tuple[str, str]


def five_parts(method: Method) -> dict[str, list[Line]]:
    """The name of each of the five parts -> its lines.

    Raises ValueError where the method does not name its parts.
    """
    given = method.five_parts
    if given is None:
        raise ValueError(
            "This method does not name its five parts; give its Method a `five_parts` (jaxcl.typing.FiveParts)."
        )
    parts = {
        NAMES[part]: [
            (role, described_loss(thing) if role == "loss" else described(thing))
            for role, thing in roles.items()
            if thing is not None and thing != ()
        ]
        for part, roles in given._asdict().items()
    }
    if "loss" in given.loss:
        kinds = dict.fromkeys(compared_with(given.loss["loss"]))
        parts[NAMES["similarity"]] += [("of the loss", kind) for kind in kinds]
    return parts


def described_loss(loss: Any) -> str:
    """A loss with all its settings, given and default; what it compares with is another part.

    >>> from jaxcl import losses
    >>> described_loss(losses.keyless(losses.nt_xent, temperature=0.1))
    'nt_xent(temperature=0.1)'
    >>> described_loss(partial(losses.generalized, weight=5.0, distribution=losses.sliced_wasserstein))
    "generalized(distribution=sliced_wasserstein(prior=uniform_sphere, exact_quantiles=False), weight=5, per='entry',
    normalized=True)"
    """
    function, settings = settings_of(loss)
    words = {
        name: described_loss(value) if is_loss(value) else described(value)
        for name, value in settings.items()
        if name != "similarity" and is_shown(value)
    }
    return labelled(described(function), words)


def compared_with(loss: Any) -> Iterator[str]:
    """What a loss compares rows with: its `similarity`; or what `losses.similarities` says of it; or its own word, an
    attribute `compares_with` of a function from elsewhere. Terms that it was given are asked as well.

    >>> from jaxcl import losses
    >>> list(compared_with(losses.keyless(losses.queue_nce))), list(compared_with(losses.vicreg))
    (['dot'], ['squared differences of the pair'])
    """
    function, settings = settings_of(loss)
    if "similarity" in settings:
        yield described(settings["similarity"])
    elif function in SIMILARITIES:
        yield from filter(None, [SIMILARITIES[function]])
    else:
        yield getattr(
            function, "compares_with", f"none of jaxcl.similarity: {described(function)} compares by itself"
        )
    for value in settings.values():
        if is_loss(value):
            yield from compared_with(value)


def settings_of(loss: Any) -> tuple[Any, dict[str, Any]]:
    """The function within `keyless` and `partial`, and its settings by name: the given ones and its defaults."""
    given: dict[str, Any] = {}
    while isinstance(loss, partial | Keyless):
        if isinstance(loss, Keyless):
            loss, given = loss.function, {**loss.settings} | given
        else:
            names = list(inspect.signature(loss.func).parameters)
            first = dict(zip(names, loss.args, strict=False))
            loss, given = loss.func, first | loss.keywords | given
    try:
        parameters = inspect.signature(loss).parameters
    except (TypeError, ValueError):  # not written in Python
        return loss, given
    defaults = {
        name: p.default for name, p in parameters.items() if p.default is not p.empty and name != "axis_name"
    }
    settings = defaults | given
    known = [name for name in parameters if name in settings]
    return loss, {name: settings[name] for name in [*known, *(settings.keys() - parameters.keys())]}


def is_loss(value: Any) -> bool:
    """Whether a setting is a loss itself, as the distribution of `generalized` is."""
    while isinstance(value, partial | Keyless):
        value = value.func if isinstance(value, partial) else value.function
    return isinstance(value, FunctionType) and "axis_name" in inspect.signature(value).parameters


def described(thing: Any) -> str:
    """A function, network, op or value in words: its name, and in brackets what it was made with.

    >>> from jaxcl import augment, extract, losses, nets
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
        return signature(described(thing.func), thing.keywords, first=values)
    if isinstance(thing, Keyless):
        return signature(described(thing.function), thing.settings)
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
    """A function of ours by its maker and what it closes over; another by its name, a lambda by its place."""
    maker = function.__qualname__.partition(".<locals>")[0]
    if function.__module__.partition(".")[0] != "jaxcl":
        code = function.__code__
        place = f"lambda ({Path(code.co_filename).name}, line {code.co_firstlineno})"
        return place if function.__name__ == "<lambda>" else function.__name__
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


def signature(name: str, settings: Mapping[str, Any], *, first: Sequence[str] = ()) -> str:
    """A name with its settings in brackets, each value in words; values without a name come `first`."""
    shown = {key: described(value) for key, value in settings.items() if is_shown(value)}
    return labelled(name, shown, first=first)


def labelled(name: str, settings: Mapping[str, str], *, first: Sequence[str] = ()) -> str:
    """A name with its settings in brackets, whose values are words already; the name alone if there are none.

    >>> labelled("flip", {"probability": "0.5"}), labelled("lab", {}), labelled("f", {"x": "1"}, first=["2"])
    ('flip(probability=0.5)', 'lab', 'f(2, x=1)')
    """
    words = [*first, *(f"{key}={value}" for key, value in settings.items())]
    return f"{name}({', '.join(words)})" if words else name


def is_shown(value: Any) -> bool:
    """Whether a setting is printed: not None, not float32, which is the usual dtype, and not arrays alone."""
    if value is None or value is jnp.float32:
        return False
    leaves = jax.tree.leaves(value)
    return not leaves or not all(isinstance(x, jax.Array | np.ndarray) for x in leaves)
