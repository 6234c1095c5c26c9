"""Progress callbacks: how a long evaluation says how far it is."""

from __future__ import annotations

import functools
from collections.abc import Callable

# (what is being done, the fraction of it that is done, in [0, 1]): for a progress bar.
Progress = Callable[[str, float], None]


def stage(progress: Progress | None, what: str) -> Callable[[float], None]:
    """The callback of one part of the work, which knows the fraction alone.

    >>> stage(lambda what, fraction: print(what, fraction), "fitting")(0.5)
    fitting 0.5
    >>> stage(None, "fitting")(0.5)
    """
    return (lambda fraction: None) if progress is None else functools.partial(progress, what)
