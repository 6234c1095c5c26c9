"""A run whose numbers are finite and mean nothing is warned of, once."""

import jax
import jax.numpy as jnp
import optax

from jaxcl.config import Recipe
from jaxcl.memory import push, random_queue
from jaxcl.train.health import Health, seen, seen_of_members


def health(*, steps=1000, images=5000):
    return Health(Recipe(None, optax.sgd(0.1), lambda step: 0.1, None, steps, 16), images, 0)


def said(watch, records, memory=()):
    return [watch.warnings(step, record, seen(memory)) for step, record in records]


def test_a_loss_of_zero_for_a_hundred_steps_is_told_once():
    watch = health()
    told = said(watch, [(40 * i, {"loss": 0.0}) for i in range(1, 6)])
    assert [len(sentences) for sentences in told] == [0, 0, 1, 0, 0]
    assert "the loss has been 0 for 120 steps" in told[2][0]


def test_a_loss_that_is_zero_now_and_then_is_not():
    assert not any(said(health(), [(60 * i, {"loss": float(i % 2)}) for i in range(1, 8)]))


def test_features_that_are_all_alike_are_told_of():
    assert not any(said(health(), [(10, {"loss": 1.0, "effective_rank": 3.0})]))
    (told,) = said(health(), [(10, {"loss": 1.0, "effective_rank": 1.01})])
    assert "the representation has collapsed" in told[0]


def test_a_queue_into_which_nothing_is_pushed_is_stale():
    key, record = jax.random.key(0), {"loss": 1.0}
    queue = random_queue(key, 32, 4)
    watch, pushed = health(), []
    for step in (10, 20, 30):
        # As many keys as it is long: its ring stands where it stood.
        queue = push(queue, jax.random.normal(jax.random.fold_in(key, step), (32, 4)))
        pushed += watch.warnings(step, record, seen({"queue": queue}))
    assert pushed == []
    (told,) = watch.warnings(40, record, seen({"queue": queue}))
    assert "the same as 10 steps ago" in told


def test_a_queue_longer_than_the_run_or_the_data_set_is_told_of():
    memory = {"queue": random_queue(jax.random.key(0), 64, 4)}
    (told,) = health(steps=3).warnings(1, {"loss": 1.0}, seen(memory))
    assert "random vectors it began with" in told
    (told,) = health(images=40).warnings(1, {"loss": 1.0}, seen(memory))
    assert "its own older keys" in told
    assert health().warnings(1, {"loss": 1.0}, seen({"bank": jnp.zeros((3, 3))})) == []


def test_the_queues_of_members_are_seen_as_those_of_runs_alone():
    alone = [{"queue": random_queue(jax.random.key(i), 32, 4)} for i in range(3)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *alone)
    found = seen_of_members(stacked, 3)
    assert len({queues[0].digest for queues in found}) == 3
    for queues, memory in zip(found, alone, strict=True):
        assert [queue.length for queue in queues] == [32]
        assert jnp.allclose(queues[0].digest, seen(memory)[0].digest, rtol=1e-6)
