"""The vocabulary of the house: what flows between the rooms.

Shapes are written `[n, d]`; `b` is the batch, `n` the rows of an embedding, `d` its width, `h, w, c` an image.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

Array = jax.Array
PyTree = Any

# "image" uint8 [b, h, w, c]; "index" int32 [b], the sample's number in the data set (all randomness hangs on it);
# "views" float [b, v, h, w, c] when the host made them; "label" int32 [b] only for evaluation.
Batch = Mapping[str, Array | np.ndarray]

# (key, batch) -> one float array [b, h, w, c] a view, in [0, 1].
Views = Callable[[Array, Batch], tuple[Array, ...]]

# (q [n, d], k [m, d]) -> [n, m].
Similarity = Callable[[Array, Array], Array]

# (key, *projections, each [n, d]) -> scalar: the mean over the global batch.
Loss = Callable[..., Array]


class Net(NamedTuple):
    """A network as two pure functions, whatever library it was written in.

    `init(key, x) -> params, state` and `apply(params, state, x, *, train) -> out, new_state`; `state` holds the
    batch statistics (`{}` if there are none), and comes back unchanged when `train` is False.
    """

    init: Callable[..., tuple[PyTree, PyTree]]
    apply: Callable[..., tuple[Any, PyTree]]


class FiveParts(NamedTuple):
    """What a method was made of, by the parts of Falcon and Cho (2020, arXiv:2009.00104): role -> the very function,
    network or number that its step uses. `jaxcl.five_parts` reads their names and settings off them.

    `similarity` holds what the method compares with on its own page; what its loss compares with is found there.
    """

    views: Mapping[str, Any]
    encoder: Mapping[str, Any]
    extraction: Mapping[str, Any]
    similarity: Mapping[str, Any]
    loss: Mapping[str, Any]


class Method(NamedTuple):
    """A self-supervised method: three pure functions, and what they were made of.

    `init(key, batch) -> params, state`
        what is learnt, and what is only remembered (batch statistics, a target network, a queue).
    `loss(params, state, key, batch) -> loss, (state, metrics)`
        the mean over the *global* batch, the same number on every device; `key` already differs from step to step.
    `embed(params, state, images) -> features [b, d]`
        what is evaluated: float images in [0, 1], no augmentation, batch statistics as learnt.
    `five_parts`
        to be read, by `jaxcl parts`; None where a method does not tell.
    """

    init: Callable[[Array, Batch], tuple[PyTree, PyTree]]
    loss: Callable[[PyTree, PyTree, Array, Batch], tuple[Array, tuple[PyTree, dict[str, Array]]]]
    embed: Callable[[PyTree, PyTree, Array], Array]
    five_parts: FiveParts | None = None


class Images(NamedTuple):
    """A data set in memory, or memory-mapped.

    `images` uint8 [n, h, w, c] (c is 1 or 3); `labels` int [n] or None; `classes` their names; `skipped` the files
    that could not be read, each with the reason.
    """

    name: str
    images: np.ndarray
    labels: np.ndarray | None = None
    classes: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()


class About(NamedTuple):
    """What a recipe may know of its data: all of it can be written down, and none of it needs the pixels.

    `count` training images; `shape` of one, (height, width, channels); `classes`, their names, or their numbers as
    words where they have none; () where there are no labels.
    """

    count: int  # type: ignore[assignment]  # tuples have a method of this name, which nobody needs here
    shape: tuple[int, int, int]
    classes: tuple[str, ...]
