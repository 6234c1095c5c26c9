"""What a function reads of its first argument, told from its text."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Collection
from typing import Any

# Knobs that say how the images of --data are read.
IMAGES = ("train_on", "labels", "layout", "value_range", "encoded")


def attributes(function: Any) -> set[str] | None:
    """The names behind a dot of the first argument; None if it may read others too: it hands the argument on, say.

    >>> attributes(lambda knobs: knobs.data)
    {'data'}
    >>> attributes(lambda knobs: print(knobs)) is None
    True
    """
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(function)).strip().rstrip(","))
        name = next(iter(inspect.signature(function).parameters))
    except (OSError, TypeError, ValueError, SyntaxError, StopIteration):
        return None
    nodes = list(ast.walk(tree))
    behind = [node for node in nodes if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)]
    behind = [node for node in behind if node.value.id == name]  # type: ignore[attr-defined]
    named = [node for node in nodes if isinstance(node, ast.Name) and node.id == name]
    return {node.attr for node in behind} if len(behind) == len(named) else None


def check_read(function: Any, knobs: Any, names: Collection[str] = IMAGES) -> Any:
    """The knobs. Raises ValueError where one of these has another value than by default and the function ignores it."""
    read = attributes(function)
    default = type(knobs)
    ignored = [name for name in names if read is not None and name not in read]
    given = [name for name in ignored if getattr(knobs, name) != getattr(default, name)]
    if given:
        said = ", ".join(f"--{name.replace('_', '-')}" for name in given)
        raise ValueError(
            f"The config makes its images itself, in data(knobs), which does not read {said}. Leave it out, or let the"
            " config's data(knobs) hand it on."
        )
    return knobs
