"""What a loop calls between training steps: online kNN, probes, pictures."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from jaxcl.typing import PyTree


class Callback(NamedTuple):
    """`call(step, params, state) -> metrics`, to be logged, after every `every` training steps and after the last.

    With several processes every process calls it, on arrays that all of them share.
    """

    every: int
    call: Callable[[int, PyTree, PyTree], Mapping[str, Any]]
