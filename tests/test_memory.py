import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcl.memory import blend, by_age, ema, push, random_bank, random_queue
from jaxcl.testing import assert_same_everywhere


def numbered(first, n, d=2):
    return np.broadcast_to(np.arange(first, first + n, dtype=np.float32)[:, None], (n, d))


@pytest.mark.parametrize("share", [1, 3, 4, 7])
def test_a_queue_holds_the_last_keys_in_the_order_they_came_whatever_the_batch(share):
    queue, pushed, add = random_queue(jax.random.key(0), 7, 2), 0, jax.jit(push)
    while pushed < 30:
        queue = add(queue, numbered(pushed, share))
        pushed += share
    assert np.asarray(by_age(queue))[:, 0].tolist() == list(range(pushed - 7, pushed))


def test_of_more_keys_than_a_queue_is_long_the_last_are_kept():
    queue = push(push(random_queue(jax.random.key(0), 5, 2), numbered(0, 3)), numbered(3, 12))
    assert by_age(queue)[:, 0].tolist() == [10, 11, 12, 13, 14]


def test_a_new_queue_is_of_unit_vectors_that_point_everywhere():
    keys = random_queue(jax.random.key(0), 2000, 8).keys
    np.testing.assert_allclose(jnp.linalg.norm(keys, axis=1), 1, atol=1e-6)
    assert jnp.linalg.norm(jnp.mean(keys, axis=0)) < 0.06


def test_nothing_is_learnt_through_a_queue_or_an_average():
    queue = random_queue(jax.random.key(0), 8, 2)

    def through(x):
        averaged = ema({"w": jnp.zeros((4, 2))}, {"w": x}, 0.5)
        return jnp.sum(push(queue, x).keys) + jnp.sum(averaged["w"])

    assert not jnp.any(jax.grad(through)(jnp.ones((4, 2))))


def test_a_queue_is_the_same_on_one_device_and_on_eight():
    queue = random_queue(jax.random.key(0), 40, 4)

    def scored(w, batch, axis_name):
        pushed = push(queue, batch["x"], axis_name=axis_name)
        return jnp.sum(jnp.sin(pushed.keys @ w) * jnp.arange(40.0)[:, None]) + 0.0 * pushed.oldest

    batch = {"x": jax.random.normal(jax.random.key(1), (16, 4))}
    assert_same_everywhere(scored, jnp.ones((4, 4)), batch)


def test_keys_of_another_width_are_refused():
    with pytest.raises(ValueError, match="keys of width 2; got keys of shape"):
        push(random_queue(jax.random.key(0), 4, 2), jnp.ones((2, 3)))
    with pytest.raises(ValueError, match="at least one key"):
        random_queue(jax.random.key(0), 0, 2)


def test_a_bank_blends_rows_in_by_their_images_and_leaves_the_others():
    bank = random_bank(jax.random.key(0), 6, 4)
    new = jax.random.normal(jax.random.key(1), (2, 4))
    got = blend(bank, jnp.array([4, 1]), new, momentum=0.75).rows
    for i in range(6):
        want = np.asarray(bank.rows[i], np.float64)
        if i in (4, 1):
            want = 0.75 * want + 0.25 * np.asarray(new[(4, 1).index(i)], np.float64)
            want = want / np.sqrt(want @ want)
        np.testing.assert_allclose(got[i], want, rtol=1e-5)


def test_a_banks_first_rows_are_of_length_1_in_the_mean():
    rows = random_bank(jax.random.key(0), 2000, 64).rows
    np.testing.assert_allclose(jnp.mean(jnp.sum(rows**2, axis=1)), 1, atol=0.02)


def test_a_bank_refuses_rows_that_do_not_fit():
    with pytest.raises(ValueError, match="rows of width 4"):
        blend(random_bank(jax.random.key(0), 6, 4), jnp.arange(2), jnp.ones((2, 3)), momentum=0.5)
