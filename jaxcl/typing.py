"""The vocabulary of the house: what flows between the rooms.

Shapes are written `[n, d]`; `b` is the batch, `n` the rows of an embedding, `d` its width, `h, w, c` an image.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np

Array = jax.Array
PyTree = Any

# "image" uint8 [b, h, w, c]; "index" int32 [b], the sample's number in the data set (all randomness hangs on it);
# "views" float [b, v, h, w, c] when the host made them; "label" int32 [b] only for evaluation.
Batch = Mapping[str, Array | np.ndarray]


class Views(Protocol):
    """(key, batch) -> one float array [b, h, w, c] a view, in [0, 1]."""

    def __call__(self, key: Array, batch: Batch, /) -> tuple[Array, ...]: ...


class Similarity(Protocol):
    """(q [n, d], k [m, d]) -> [n, m]."""

    def __call__(self, q: Array, k: Array, /) -> Array: ...


class Loss(Protocol):
    """(key, a, b, axis_name=None) -> scalar: the mean over the global batch, the same number on every device.

    a and b are what a method compares: two views' projections [n, d] (SimCLR), predictions and targets [n, d] (BYOL),
    vectors [n, d] and maps [n, positions, d] (AMDIM), scores [n, 1 + m] and a partition (CMC). `key` is for losses that
    draw. `axis_name` names the axis over which the batch is split under `shard_map` or `pmap`; None where one program
    sees the whole batch. It comes from the method, which hands its own to all that it calls, so nobody who chooses a
    loss has to think of it: `keyless(nt_xent, temperature=0.1)`, `partial(generalized, ...)`.
    """

    def __call__(self, key: Array, a: Array, b: Array, /, *, axis_name: str | None = None) -> Array: ...


class QueueLoss(Protocol):
    """(key, q [n, d], k [n, d], queue [m, d], axis_name=None) -> scalar: MoCo's. Otherwise as `Loss`."""

    def __call__(
        self, key: Array, q: Array, k: Array, queue: Array, /, *, axis_name: str | None = None
    ) -> Array: ...


class GridLoss(Protocol):
    """(key, predictions, targets, below={rows below: weight}, axis_name=None) -> scalar, of grids [n, h, w, d]: CPC's.
    Otherwise as `Loss`."""

    def __call__(
        self,
        key: Array,
        predictions: Array,
        targets: Array,
        /,
        *,
        below: Mapping[int, float],
        axis_name: str | None = None,
    ) -> Array: ...


class Scores(Protocol):
    """(q [n, d], k [n, d], negatives [m, d], own=None, axis_name=None) -> metrics by name (`monitor.score_monitor`).

    `own` int [n, s] names the rows of `negatives` that belong to the query's own image. The axis comes from the method.
    """

    def __call__(
        self,
        q: Array,
        k: Array,
        negatives: Array,
        /,
        *,
        own: Array | None = None,
        axis_name: str | None = None,
    ) -> dict[str, Array]: ...


class Layer(Protocol):
    """A layer that a norm made: [b, ..., c] -> [b, ..., c]. `train` says whether it takes the batch's statistics."""

    def __call__(self, x: Array, /, *, train: bool) -> Array: ...


class Norm(Protocol):
    """A maker of layers, as `nets.batch_norm(...)` returns it: a network calls it wherever such a layer stands."""

    def __call__(
        self,
        *,
        use_scale: bool = True,
        use_bias: bool = True,
        scale_init: Callable[..., Array] = ...,
        name: str | None = None,
    ) -> Layer: ...


class NetInit(Protocol):
    """(key, x) -> params, state."""

    def __call__(self, key: Array, x: Array, /) -> tuple[PyTree, PyTree]: ...


class NetApply(Protocol):
    """(params, state, x, train) -> output, new state."""

    def __call__(self, params: PyTree, state: PyTree, x: Array, /, *, train: bool) -> tuple[Any, PyTree]: ...


class Made(NamedTuple):
    """What a network was made of: its module, and by what its images are standardized first, () where they are not."""

    module: Any
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()


class Net(NamedTuple):
    """A network as two pure functions, whatever library it was written in.

    `init(key, x) -> params, state` and `apply(params, state, x, *, train) -> out, new_state`; `state` holds the
    batch statistics (`{}` if there are none), and comes back unchanged when `train` is False.
    """

    init: NetInit
    apply: NetApply
    # Of a head: (params, state, x) -> x and the output of each of its layers, the last of them what `apply` returns
    # with train=False. None where a network does not show its layers.
    layers: Callable[[PyTree, PyTree, Array], tuple[Array, ...]] | None = None
    # What it was made of, for those who exchange its weights; None where that is not known.
    made: Made | None = None


class FiveParts(NamedTuple):
    """What a method was made of, by the parts of Falcon and Cho (2020, arXiv:2009.00104): role -> the very function,
    network or number that its training step uses. `jaxcl.five_parts` reads their names and settings.

    `similarity` holds what the method compares with on its own page; what its loss compares with is read off the loss.
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
        what `jaxcl parts` prints; None where a method does not name its parts.
    `layers(params, state, images) -> (h, ..., z)`
        what `embed` gives and each layer of the head makes of it, [b, d] each; None where there is no such head.
    """

    init: Callable[[Array, Batch], tuple[PyTree, PyTree]]
    loss: Callable[[PyTree, PyTree, Array, Batch], tuple[Array, tuple[PyTree, dict[str, Array]]]]
    embed: Callable[[PyTree, PyTree, Array], Array]
    five_parts: FiveParts | None = None
    layers: Callable[[PyTree, PyTree, Array], tuple[Array, ...]] | None = None


class Images(NamedTuple):
    """A data set in memory, or memory-mapped.

    `images` uint8 [n, h, w, c]; `labels` int [n] or None; `classes` their names; `skipped` the files that could not be
    read, each with the reason; `files` the path of each image below the folder that was named, () where images are no
    files; `notes` sentences that say how the data was read; `value_range` the values that became 0 and 255, of pixels
    of other than 8 bits.
    """

    name: str
    images: np.ndarray
    labels: np.ndarray | None = None
    classes: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    value_range: tuple[float, float] | None = None


class About(NamedTuple):
    """What a recipe may know of its data: all of it can be written down, and none of it needs the pixels.

    `count` training images; `shape` of one, (height, width, channels); `classes`, their names, or their numbers as
    words where they have none; () where there are no labels.
    """

    count: int  # type: ignore[assignment]  # tuples have a method of this name, which nobody needs here
    shape: tuple[int, int, int]
    classes: tuple[str, ...]
