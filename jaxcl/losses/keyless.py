"""A loss that draws nothing, as a loss that is given a key; and a loss times a factor."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from jaxcl.typing import Array, Loss


@dataclass(frozen=True, eq=False)
class Keyless:
    """What `keyless` returns: (key, *arrays, axis_name=None, **more) -> function(*arrays, axis_name=..., **settings,
    **more). It is a value, so that its name and settings can be read (`jaxcl parts`)."""

    function: Callable[..., Array]
    settings: Mapping[str, Any]

    def __call__(self, key: Array, *arrays: Any, axis_name: str | None = None, **more: Any) -> Array:
        del key
        return self.function(*arrays, axis_name=axis_name, **self.settings, **more)


def keyless(function: Callable[..., Array], **settings: Any) -> Keyless:
    """A loss (*arrays, axis_name=None) -> scalar with its settings, as methods call it: with a key, which is ignored.

        simclr(loss=keyless(nt_xent, temperature=0.1), ...)
        moco(loss=keyless(queue_nce, temperature=0.2), ...)
        generalized(key, z1, z2, distribution=keyless(log_sum_exp, temperature=0.2), weight=0.2)

    The settings may be traced numbers. The axis is no setting: the method hands it over. For a loss that takes a key
    first (`generalized`, `visreg`) use `functools.partial`.

    Raises TypeError where the function takes no `axis_name`, or a setting that it does not know, or the axis is given.

    >>> import jax, jax.numpy as jnp
    >>> from jaxcl.losses import nt_xent
    >>> loss, z = keyless(nt_xent, temperature=0.2), jnp.eye(3)
    >>> bool(loss(jax.random.key(0), z, z) == nt_xent(z, z, temperature=0.2))
    True
    """
    name = getattr(function, "__name__", repr(function))
    parameters = inspect.signature(function).parameters
    open_ended = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    if "axis_name" not in parameters and not open_ended:
        raise TypeError(
            f"keyless makes a loss of (*arrays, axis_name=None) -> scalar, and {name} takes no axis_name. Give it one"
            " (`*, axis_name=None`) and return collectives.mean(value, axis_name), the mean over all devices."
        )
    if "axis_name" in settings:
        raise TypeError(
            f"keyless takes the settings of {name}, and axis_name is not a setting: the method gives it. Leave it out."
        )
    unknown = [setting for setting in settings if setting not in parameters]
    if unknown and not open_ended:
        known = [p.name for p in parameters.values() if p.kind is p.KEYWORD_ONLY and p.name != "axis_name"]
        raise TypeError(
            f"{name} has the settings {', '.join(known) or '(none)'}; got {', '.join(unknown)}. Is that a setting"
            " of another loss?"
        )
    return Keyless(function, settings)


def scaled(
    key: Array, *arrays: Any, loss: Loss, factor: float | Array, axis_name: str | None = None, **more: Any
) -> Array:
    """`factor` times a loss: for recipes whose learning rate and weight decay belong to another scale of the loss.

        partial(scaled, loss=keyless(nt_xent, temperature=0.1), factor=2.0)

    is the loss of SimCLR's code, which adds the means of the two views (objective.py) where the paper's equation 1
    averages them. The scale of a loss is no matter of taste where something stands beside its gradient: weight decay,
    and under LARS the parameters that are not adapted.

    axis_name
        the axis over which rows are split under `shard_map` or `pmap`; None where one program sees the global batch.

    >>> import jax, jax.numpy as jnp
    >>> from functools import partial
    >>> from jaxcl.losses import nt_xent
    >>> double, z = partial(scaled, loss=keyless(nt_xent), factor=2.0), jnp.eye(3)
    >>> bool(double(jax.random.key(0), z, z) == 2 * nt_xent(z, z))
    True
    """
    return factor * loss(key, *arrays, axis_name=axis_name, **more)


def temperature_of(loss: Any) -> Any | None:
    """The temperature of a loss as a method is given it: its setting, or its function's default, or that of a loss
    among its settings (the `distribution` of `generalized`). None where it has none, or it cannot be read (a lambda).

    >>> from functools import partial
    >>> from jaxcl.losses import generalized, log_sum_exp, nt_xent, regression
    >>> temperature_of(keyless(nt_xent, temperature=0.2)), temperature_of(keyless(nt_xent))
    (0.2, 0.5)
    >>> temperature_of(partial(generalized, distribution=keyless(log_sum_exp, temperature=0.3), weight=0.3))
    0.3
    >>> temperature_of(keyless(regression)) is None
    True
    """
    function: Any = loss
    settings: dict[str, Any] = {}
    while not inspect.isroutine(function):
        if isinstance(function, Keyless):
            function, settings = function.function, {**function.settings, **settings}
        elif isinstance(function, partial):
            function, settings = function.func, {**function.keywords, **settings}
        else:
            break
    if "temperature" in settings:
        return settings["temperature"]
    if inspect.isroutine(function):
        parameter = inspect.signature(function).parameters.get("temperature")
        if parameter is not None and parameter.default is not parameter.empty:
            return parameter.default
    found = (temperature_of(value) for value in settings.values() if callable(value))
    return next((temperature for temperature in found if temperature is not None), None)
