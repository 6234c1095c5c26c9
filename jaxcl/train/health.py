"""What is wrong with a run whose numbers are all finite: warnings in plain words, each once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxcl.config import Recipe
from jaxcl.memory import Queue
from jaxcl.typing import PyTree

ZERO_STEPS = 100  # with a loss of exactly 0
ONE_DIRECTION = 1.1  # effective rank of features that are all alike, or lie on a line


class Seen(NamedTuple):
    """A queue of keys: its length, and a number that changes where its keys do."""

    length: int
    digest: float


class Health:
    """Looks at the records of the log, one after the other; says what it has not said yet."""

    def __init__(self, recipe: Recipe, images: int, start: int):
        self._recipe, self._images = recipe, images
        self._last = start
        self._zero_since: int | None = None
        self._queues: list[float] | None = None
        self._said: set[str] = set()

    def warnings(self, step: int, record: Mapping[str, Any], queues: Sequence[Seen]) -> list[str]:
        """The new warnings after the record of a step; `queues` are those of the method's memory, as `seen`."""
        before, self._last = self._last, step
        found = {}
        if record["loss"] == 0:
            self._zero_since = before if self._zero_since is None else self._zero_since
        else:
            self._zero_since = None
        if self._zero_since is not None and step - self._zero_since >= ZERO_STEPS:
            found["zero"] = (
                f"the loss has been 0 for {step - self._zero_since} steps, so nothing is learnt. Its gradient is 0"
                " where the loss compares an image with nothing: look at the batch size, the temperature and the loss."
            )
        rank = record.get("effective_rank")
        if rank is not None and rank < ONE_DIRECTION:
            found["rank"] = (
                f"the features of all images are alike or lie on a line (effective rank {rank:.3g}): the"
                " representation has collapsed. A lower learning rate or temperature, or a method with negatives, may"
                " help."
            )
        found |= self._queue(step - before, queues)
        new = [sentence for kind, sentence in found.items() if kind not in self._said]
        self._said |= found.keys()
        return new

    def _queue(self, steps: int, queues: Sequence[Seen]) -> dict[str, str]:
        found = {}
        batch_size = self._recipe.batch_size
        for size, _ in queues:
            if size > self._recipe.steps * batch_size:
                found["long queue"] = (
                    f"the queue of {size} keys is longer than all images of the run ({self._recipe.steps} steps of"
                    f" {batch_size}), so some of its negatives stay the random vectors it began with. Take a shorter"
                    " queue or more steps."
                )
            elif size > self._images:
                found["own keys"] = (
                    f"the queue of {size} keys is longer than the data set ({self._images} images), so an image meets"
                    " its own older keys among its negatives. Take a shorter queue."
                )
        now = [digest for _, digest in queues]
        if self._queues is not None and any(a == b for a, b in zip(self._queues, now, strict=True)):
            found["stale queue"] = (
                f"a queue of keys is the same as {steps} steps ago: nothing is pushed into it, so its negatives are"
                " stale."
            )
        self._queues = now
        return found


def seen(memory: PyTree) -> list[Seen]:
    """What `Health` looks at in a method's memory: of every queue its length and the digest of its keys."""
    queues = _queues(memory)
    digests = jax.device_get([_digest(queue.keys) for queue in queues])
    return [Seen(len(queue.keys), float(x)) for queue, x in zip(queues, digests, strict=True)]


def seen_of_members(memory: PyTree, members: int) -> list[list[Seen]]:
    """The same of each member of a population, whose memory has an axis of members in front."""
    queues = _queues(memory)
    digests = jax.device_get([_digest_of_members(queue.keys) for queue in queues])
    return [
        [Seen(queue.keys.shape[1], float(x[i])) for queue, x in zip(queues, digests, strict=True)]
        for i in range(members)
    ]


def _queues(memory: PyTree) -> list[Queue]:
    return [x for x in jax.tree.leaves(memory, is_leaf=_is_queue) if _is_queue(x)]


def _is_queue(x: Any) -> bool:
    return isinstance(x, Queue)


@jax.jit
def _digest(keys: jax.Array) -> jax.Array:
    """A number that changes where the keys do, or their order."""
    rows = jnp.sum(keys, axis=tuple(range(1, keys.ndim)))
    return jnp.sum(rows * jnp.arange(1, len(rows) + 1) / len(rows))


_digest_of_members = jax.jit(jax.vmap(_digest))
