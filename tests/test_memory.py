from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcl.memory import blend, by_age, ema, push, random_bank, random_queue
from jaxcl.testing import EVERYWHERE, assert_same_everywhere, value_and_grad


def numbered(first, n, d=2):
    return np.broadcast_to(np.arange(first, first + n, dtype=np.float32)[:, None], (n, d))


push_at_once = jax.jit(push)  # one program a shape, where op by op there are ten


@pytest.mark.parametrize("share", [1, 3, 4, 7])
def test_a_queue_holds_the_last_keys_in_the_order_they_came_whatever_the_batch(share):
    queue, pushed = random_queue(jax.random.key(0), 7, 2), 0
    while pushed < 30:
        queue = push_at_once(queue, numbered(pushed, share))
        pushed += share
    assert by_age(queue)[:, 0].tolist() == list(range(pushed - 7, pushed))


def test_of_more_keys_than_a_queue_is_long_the_last_are_kept():
    queue = push_at_once(random_queue(jax.random.key(0), 5, 2), numbered(0, 3))
    queue = push_at_once(queue, numbered(3, 12))
    assert by_age(queue)[:, 0].tolist() == [10, 11, 12, 13, 14]


def test_a_new_queue_is_of_unit_vectors_that_point_everywhere():
    keys = random_queue(jax.random.key(0), 2000, 8).keys
    np.testing.assert_allclose(np.linalg.norm(keys, axis=1), 1, atol=1e-6)
    assert np.linalg.norm(np.mean(keys, axis=0)) < 0.06


def test_nothing_is_learnt_through_a_queue_or_an_average():
    queue = random_queue(jax.random.key(0), 8, 2)

    def through(x):
        averaged = ema({"w": jnp.zeros((4, 2))}, {"w": x}, 0.5)
        return jnp.sum(push(queue, x).keys) + jnp.sum(averaged["w"])

    assert not np.any(jax.jit(jax.grad(through))(np.ones((4, 2), np.float32)))


def test_a_queue_is_the_same_on_one_device_and_on_eight():
    queue = random_queue(jax.random.key(0), 40, 4)

    def scored(w, batch, axis_name):
        pushed = push(queue, batch["x"], axis_name=axis_name)
        return jnp.sum(jnp.sin(pushed.keys @ w) * jnp.arange(40.0)[:, None]) + 0.0 * pushed.oldest

    batch = {"x": np.random.default_rng(1).normal(size=(16, 4)).astype(np.float32)}
    assert_same_everywhere(scored, np.ones((4, 4), np.float32), batch)


def test_a_permutation_of_the_global_batch_is_undone_in_every_placement():
    from jaxcl import collectives

    order = jax.random.permutation(jax.random.key(0), 16)

    def lost(w, batch, axis_name):
        x = batch["x"]
        there = collectives.take(x, order, axis_name)
        back = collectives.take(there, jnp.argsort(order), axis_name)
        place = collectives.take(collectives.rows(len(x), axis_name), order, axis_name)
        own = order[collectives.rows(len(x), axis_name)]
        wrong = jnp.sum(jnp.abs(back - x)) + jnp.sum(jnp.abs(place - own)) - jnp.sum(there * 0)
        return w * collectives.mean(wrong, axis_name)

    batch = {"x": np.random.default_rng(1).normal(size=(16, 4)).astype(np.float32)}
    for placement in EVERYWHERE:
        value, gradient = value_and_grad(lost, np.ones((), np.float32), batch, placement=placement)
        assert value == gradient == 0, placement


def test_dealt_rows_stay_split_so_that_devices_share_the_work():
    """The hazard: what is taken in another order may be whole on every device, and so may all that follows."""
    from jaxcl import collectives, devices

    mesh = devices.make_mesh(devices=8)
    x = devices.split({"x": np.ones((64, 32), np.float32)}, mesh)["x"]
    order = devices.replicate(jnp.arange(64)[::-1], mesh)
    w = devices.replicate(jnp.ones((32, 16)), mesh)
    program = jax.jit(lambda x, w, order: jnp.sum(jnp.tanh(collectives.take(x, order) @ w)))
    text = program.lower(x, w, order).compile().as_text()
    assert "f32[8,16]" in text
    assert "f32[64,16]" not in text


def test_keys_of_another_width_are_refused():
    with pytest.raises(ValueError, match="keys of width 2; got keys of shape"):
        push(random_queue(jax.random.key(0), 4, 2), jnp.ones((2, 3)))
    with pytest.raises(ValueError, match="at least one key"):
        random_queue(jax.random.key(0), 0, 2)


def test_a_bank_blends_rows_in_by_their_images_and_leaves_the_others():
    bank = random_bank(jax.random.key(0), 6, 4)
    new = np.random.default_rng(1).normal(size=(2, 4)).astype(np.float32)
    got = jax.jit(partial(blend, momentum=0.75))(bank, np.array([4, 1]), new).rows
    before = np.asarray(bank.rows, np.float64)
    for i in range(6):
        want = before[i]
        if i in (4, 1):
            want = 0.75 * want + 0.25 * np.asarray(new[(4, 1).index(i)], np.float64)
            want = want / np.sqrt(want @ want)
        np.testing.assert_allclose(np.asarray(got)[i], want, rtol=1e-5)


def test_a_banks_first_rows_are_of_length_1_in_the_mean():
    rows = random_bank(jax.random.key(0), 2000, 64).rows
    np.testing.assert_allclose(np.mean(np.sum(np.asarray(rows) ** 2, axis=1)), 1, atol=0.02)


def test_a_bank_refuses_rows_that_do_not_fit():
    with pytest.raises(ValueError, match="rows of width 4"):
        blend(random_bank(jax.random.key(0), 6, 4), jnp.arange(2), jnp.ones((2, 3)), momentum=0.5)
