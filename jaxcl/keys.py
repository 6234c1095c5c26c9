"""The randomness law: which key is drawn from which, from a run's seed down to the views of one training step.

    seed ── init_key                 parameters, queues and banks, before the first step (`of_init`)
         ├─ run_key                  the same for the whole run
         │    └─ step_key(step)      what `Method.loss` is given
         │         ├─ views_key      augmentation; an image's own draws then fold its number in the data set into it
         │         ├─ further keys   what else the method draws: order of the keys, mixing, the loss
         │         └─ probe_key      an online classifier (`methods.with_probe`)
         └─ evaluation_key           what each protocol is given, so that it answers the same alone and beside others
              └─ of_protocol         which images, their order, their views, what is drawn for a classifier
                   └─ step_key(step) the views of one of its training steps

So a draw is a function of (seed, step, index of the image in the data set): the same on any number of devices, in a
resumed run, and on host and device. The training loop, the host's input pipeline and every method page take their keys
from here, and so does every protocol of evaluation.

    >>> key = step_key(run_key(0), 7)
    >>> bool(views_key(key) == of_step(key, 2)[0])
    True
"""

from __future__ import annotations

import jax

from jaxcl.typing import Array

# Far from the numbers that a page's own splits reach.
PROBE = 2**31 - 1


def init_key(seed: int | Array) -> Array:
    """What a method's `init` is given: the first half of the seed's key."""
    return jax.random.split(jax.random.key(seed))[0]


def run_key(seed: int | Array) -> Array:
    """The key of the whole run, to be folded with each step's number: the second half of the seed's key."""
    return jax.random.split(jax.random.key(seed))[1]


def step_key(run_key: Array, step: int | Array) -> Array:
    """What `Method.loss` is given at a training step (the first is step 0).

    >>> key = run_key(0)
    >>> bool(step_key(key, 0) == step_key(key, 1))
    False
    """
    return jax.random.fold_in(run_key, step)


def of_step(key: Array, n: int) -> tuple[Array, ...]:
    """A step's key -> its views' key and n further keys, for whatever else the method draws.

    The first does not depend on n, so whoever makes the views need not know the method (`views_key`). This holds for
    the generator that jax is configured with, threefry in its partitionable form (its default), and not for any.

    >>> key = step_key(run_key(0), 0)
    >>> [len(of_step(key, n)) for n in (1, 3)], bool(of_step(key, 1)[0] == of_step(key, 3)[0])
    ([2, 4], True)
    """
    return tuple(jax.random.split(key, n + 1))


def views_key(key: Array) -> Array:
    """The key of a step's views, given the step's: `of_step(key, n)[0]`, whatever n is."""
    return of_step(key, 1)[0]


def evaluation_key(seed: int | Array) -> Array:
    """What a protocol is given: the seed's own key, of which init and the run have the halves."""
    return jax.random.key(seed)


def of_protocol(key: Array, n: int) -> tuple[Array, ...]:
    """What a protocol was given -> n keys, for whatever it draws.

    >>> len(of_protocol(evaluation_key(0), 3))
    3
    """
    return tuple(jax.random.split(key, n))


def probe_key(key: Array) -> Array:
    """The key of an online classifier of a method, given the step's key or that of `init`.

    The method is given its own key as it came, so that it draws what it draws alone.
    """
    return jax.random.fold_in(key, PROBE)


def of_init(key: Array, n: int) -> tuple[Array, ...]:
    """What `init` was given -> the key of the views whose shapes it looks at, and n keys for what it initialises.

    >>> len(of_init(init_key(0), 2))
    3
    """
    return tuple(jax.random.split(key, n + 1))
