"""A run that costs next to nothing and has all that a run has: drawn views, statistics, a queue, an optimizer's memory.

Its method is SimCLR's loss on a linear encoder, beside a queue and running means that are only carried along: what a
resumed run gets wrong shows in them.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import optax

from jaxcl import About, CommonKnobs, Method, Recipe, augment, basics, losses


@dataclass(frozen=True)
class Knobs(CommonKnobs):
    batch_size: int = 16
    log_every: int = 3  # not a divisor of the next: what is not logged when a run stops is a case
    save_every: int = 4
    out: int = 4


def recipe(knobs: Knobs, about: About) -> Recipe:
    size, steps, axis, _, _ = basics(knobs, about)
    channels = about.shape[2]
    views = augment.two_views(augment.flip())

    def init(key, batch):
        weights = jax.random.normal(key, (size * size * channels, knobs.out)) * 0.1
        queue = jnp.zeros((2 * knobs.batch_size, knobs.out))
        return {"w": weights}, {"mean": jnp.zeros(knobs.out), "queue": queue}

    def embed(params, state, images):
        return images.reshape(len(images), -1) @ params["w"]

    def loss(params, state, key, batch):
        z1, z2 = (embed(params, state, view) for view in views(key, batch))
        value = losses.nt_xent(z1, z2, temperature=0.5, axis_name=axis)
        mean = 0.9 * state["mean"] + 0.1 * jax.lax.stop_gradient(z1.mean(0))
        queue = jnp.roll(state["queue"], len(z1), axis=0).at[: len(z1)].set(jax.lax.stop_gradient(z1))
        return value, ({"mean": mean, "queue": queue}, {"mean_norm": jnp.linalg.norm(mean)})

    rate = optax.constant_schedule(knobs.learning_rate)
    return Recipe(
        Method(init, loss, embed), optax.adam(knobs.learning_rate), rate, views, steps, knobs.batch_size
    )
