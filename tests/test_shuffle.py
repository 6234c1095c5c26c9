"""An order of the global batch that devices exchange in equal parts: what is drawn, and what is sent."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcl import collectives, devices
from jaxcl.programs import collectives as collectives_of
from jaxcl.shuffle import Order, block_count, draw, inverse
from jaxcl.testing import assert_same_everywhere
from jaxcl.train.placement import place

KEY = jax.random.key(3)
SIZES = (16, 24, 30, 48, 64, 96)


@pytest.fixture(scope="module")
def drawn():
    """n -> the numbers of its rows as they come, and Order; twice, by two keys."""

    @jax.jit
    def all_of(key):
        orders = {n: draw(key, n) for n in SIZES}
        return {n: (collectives.order_of(*order), order) for n, order in orders.items()}

    return [jax.device_get(all_of(key)) for key in jax.random.split(KEY)]


@pytest.mark.parametrize("n", SIZES)
def test_every_block_receives_as_many_rows_of_every_block(n, drawn):
    blocks = block_count(n)
    for order in (drawn[0][n][0], drawn[1][n][0]):
        assert sorted(order) == list(range(n))
        of_block, counts = order // (n // blocks), np.zeros((blocks, blocks), int)
        np.add.at(counts, (np.arange(n) // (n // blocks), of_block), 1)
        assert np.all(counts == n // blocks**2)
    assert np.any(drawn[0][n][0] != drawn[1][n][0])


def test_an_order_is_what_its_equation_says(drawn):
    order, (before, after) = drawn[0][48]  # 4 blocks, of which each gives 3 rows to each
    for j, p in itertools.product(range(4), range(12)):
        i, r = after[j, p] // 3, after[j, p] % 3
        assert order[12 * j + p] == 12 * i + before[i, 3 * j + r]


def test_over_all_draws_every_row_goes_to_every_place_equally_often():
    """Of 4 rows in 2 blocks there are 16, which are equally likely."""
    swaps = np.array(list(itertools.product(([0, 1], [1, 0]), repeat=4)))
    orders = jax.vmap(collectives.order_of)(swaps[:, :2], swaps[:, 2:])
    counts = [[int(np.sum(orders[:, place] == row)) for row in range(4)] for place in range(4)]
    assert counts == [[4] * 4] * 4


def test_blocks_are_as_many_as_any_number_of_devices_can_exchange():
    for n in range(1, 400):
        able = [d for d in range(1, n + 1) if n % d**2 == 0]
        assert block_count(n) == max(able)
        assert all(block_count(n) % d == 0 for d in able)


def test_blocks_that_cannot_exchange_equal_parts_are_refused():
    with pytest.raises(ValueError, match="got 4 blocks and 24 rows. Leave blocks out for 2, or give 1"):
        draw(KEY, 24, blocks=4)
    assert draw(KEY, 24, blocks=1).before.shape == (1, 24)


# 8 devices exchange 64 rows among themselves; of 16 rows four pairs do, of 24 two times four; uniform: all rows.
CASES = [(64, None), (16, None), (24, None), (16, 1)]


@pytest.fixture(scope="module")
def there_and_back():
    """Drawn beforehand, as six placements of a draw would take long to compile."""
    orders = jax.jit(lambda: [draw(KEY, n, blocks=blocks) for n, blocks in CASES])()
    return [(n, order, inverse(order)) for (n, _), order in zip(CASES, jax.device_get(orders), strict=True)]


SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in ("shard_map_unchecked", "pmap", "vmap")]


@pytest.mark.parametrize("placement", ["jit", "shard_map", *SLOW])
def test_rows_lie_alike_on_one_device_and_on_eight_and_come_back_with_their_gradients(
    placement, there_and_back
):
    def weighed(w, batch, axis_name):
        total = jnp.zeros(())
        for n, order, back_again in there_and_back:
            x = batch[n] @ w
            there = collectives.exchange(x, *order, axis_name)
            back = collectives.exchange(there, *back_again, axis_name)
            place = collectives.rows(len(x), axis_name)[:, None]  # it tells where a row has come to
            each = jnp.sin(there + place) + 100 * jnp.square(back - x)
            total += collectives.mean(jnp.mean(each), axis_name)
        return total

    keys = jax.random.split(KEY, 4)
    batch = {n: jax.random.normal(key, (n, 4)) for key, n in zip(keys, (64, 16, 24), strict=False)}
    w = jax.random.normal(keys[3], (4, 4))
    assert_same_everywhere(weighed, w, batch, placements=[placement])


def through(axis_name, n):
    """Rows that go through a layer in another order, with what is sent between devices."""

    order = Order(*np.tile(np.arange(n // block_count(n)), (2, block_count(n), 1)))

    def step(carry, w, x):
        there = jnp.tanh(collectives.exchange(x, *order, axis_name) @ w)
        back = collectives.exchange(there, *inverse(order), axis_name)
        return carry, collectives.mean(jnp.mean(back * x[:, :16]), axis_name)

    return step


@pytest.mark.parametrize("placement", devices.PLACEMENTS)
def test_devices_exchange_their_rows_and_gather_none(placement):
    of, n = jax.ShapeDtypeStruct, 64
    run = place(through(devices.axis_name(placement), n), placement, devices.make_mesh(devices=8))
    rows = of((n, 32), jnp.float32)
    text = jax.jit(run).lower(of((), jnp.float32), of((32, 16), jnp.float32), rows).compile().as_text()
    found = collectives_of(text, devices=8)
    # Images there, keys back: eight rows on each device, of 32 and of 16 numbers.
    exchanged = sorted(one.bytes for one in found if one.kind == "all-to-all")
    assert exchanged == [8 * 16 * 4, 8 * 32 * 4]
    assert all(one.bytes == 4 for one in found if one.kind != "all-to-all")  # the mean
    assert "f32[64," not in text


def test_devices_that_share_a_block_gather_its_rows_and_no_more():
    of, n = jax.ShapeDtypeStruct, 16
    run = place(through(devices.AXIS, n), "shard_map", devices.make_mesh(devices=8))
    rows = of((n, 32), jnp.float32)
    text = run.lower(of((), jnp.float32), of((32, 16), jnp.float32), rows).compile().as_text()
    found = {(one.kind, one.devices): one.bytes for one in collectives_of(text, devices=8) if one.bytes > 256}
    assert found == {("all-gather", 2): 4 * 32 * 4, ("all-to-all", 4): 4 * 32 * 4}


def test_rows_that_a_mesh_is_known_of_alone_stay_split():
    """What is laid out in another order may be whole on every device, and so may all that follows."""
    mesh = devices.make_mesh(devices=8)
    x = devices.split({"x": np.ones((64, 32), np.float32)}, mesh)["x"]
    order = devices.replicate(Order(*np.tile(np.arange(8), (2, 8, 1))), mesh)
    w = devices.replicate(jnp.ones((32, 16)), mesh)
    program = jax.jit(lambda x, w, order: jnp.sum(jnp.tanh(collectives.exchange(x, *order) @ w)))
    text = program.lower(x, w, order).compile().as_text()
    assert "f32[8,16]" in text
    assert "f32[64,16]" not in text
