"""Work is shared: the law that finds what every device computes in full, and the means that mend it."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jaxcl import collectives, devices
from jaxcl.losses import blockwise
from jaxcl.nets.conv import convolve
from jaxcl.similarity import normalize
from jaxcl.testing import assert_same_everywhere, assert_shared, shares, step_of


@pytest.fixture(scope="module", autouse=True)
def compile_quickly():
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", before)


S = jax.ShapeDtypeStruct
NOTHING = S((), jnp.float32)


def rows_in_a_loop(w, batch, axis_name):
    """Some rows at a time, which XLA cannot share."""

    def some(x, w, axis_name):
        return lax.map(lambda x: jnp.tanh(x @ w), x.reshape(-1, 8, 16)).reshape(-1, 16)

    return collectives.mean(jnp.mean(some(batch["x"], w, axis_name)), axis_name)


def own_rows_in_a_loop(w, batch, axis_name):
    def some(x, w, axis_name):
        return lax.map(lambda x: jnp.tanh(x @ w), x.reshape(-1, 8, 16)).reshape(-1, 16)

    y = collectives.by_rows(some, batch["x"], whole=(w,), axis_name=axis_name)
    return collectives.mean(jnp.mean(y), axis_name)


ROWS = {"x": S((4096, 16), jnp.float32)}
W = S((16, 16), jnp.float32)


def test_the_law_catches_a_loop_over_rows_that_every_device_walks():
    with pytest.raises(
        AssertionError, match=r"jit: each of 8 devices has 8\.\d\d times its share of the products"
    ):
        assert_shared(step_of(rows_in_a_loop), NOTHING, W, ROWS, placements=["jit"])


def test_by_rows_gives_each_device_its_own_rows_in_every_placement():
    # Arguments of a loop are copied, and so small a loss has no other temporaries.
    assert_shared(step_of(own_rows_in_a_loop), NOTHING, W, ROWS, temporaries=2)


def test_by_rows_changes_neither_values_nor_gradients_also_of_what_is_whole():
    keys = jax.random.split(jax.random.key(0))
    w, x = jax.random.normal(keys[0], (16, 16)), jax.random.normal(keys[1], (64, 16))
    assert_same_everywhere(own_rows_in_a_loop, w, {"x": x}, placements=["jit", "vmap"])


def test_rows_that_cannot_be_split_evenly_are_computed_as_before():
    x = jnp.ones((24, 16))
    mesh = devices.make_mesh(devices=8)
    called = []

    def seen(x, axis_name):
        called.append((len(x), axis_name))
        return x

    with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
        jax.make_jaxpr(lambda x: collectives.by_rows(seen, x))(x)
        jax.make_jaxpr(lambda x: collectives.by_rows(seen, x, together=2))(x)  # 3 rows a device
        jax.make_jaxpr(lambda x: collectives.by_rows(seen, x))(x[:12])
    jax.make_jaxpr(lambda x: collectives.by_rows(seen, x))(x)
    assert called == [(3, "devices"), (24, None), (12, None), (24, None)]


def test_what_is_split_by_xla_is_known_from_the_mesh():
    many, one = (devices.make_mesh(devices=n).abstract_mesh for n in (8, 1))
    for mesh, split in ((many, True), (one, False)):
        with jax.sharding.use_abstract_mesh(mesh):
            assert collectives.is_split_by_xla() is split
            assert (collectives.shared_mesh() is not None) is split
    assert collectives.is_split_by_xla()  # eight devices, and nothing known
    inside = []

    def own(x):
        inside.append((collectives.is_split_by_xla(), collectives.shared_mesh()))
        return x

    rows = jax.sharding.PartitionSpec("devices")
    jax.make_jaxpr(jax.shard_map(own, mesh=devices.make_mesh(devices=8), in_specs=rows, out_specs=rows))(
        jnp.ones(8)
    )
    assert inside == [(False, None)]


def test_the_gradient_of_a_convolution_is_shared_where_a_cpu_has_a_loop():
    def loss(kernel, batch, axis_name):
        y = convolve(batch["x"], kernel, strides=(2, 2), padding="SAME")
        return collectives.mean(jnp.mean(y * y), axis_name)

    step, kernel = step_of(loss), S((3, 3, 8, 8), jnp.float32)
    images = {"x": S((256, 16, 16, 8), jnp.float32)}
    # One device needs little memory for its few images at a time.
    assert_shared(step, NOTHING, kernel, images, placements=["jit"], temporaries=8)


# rows, of a tile, of a group, what bounds the products
TILES = [(64, 2, 2, 9.01), (48, 4, 1, None), (16, 8, 2, None), (112, 5, 0, 9.01), (64, 64, 1, 9.01)]


def test_tiles_dealt_out_over_devices_sum_what_one_device_sums():
    """Filled up or not, one or several a device; the parameters are those of each case, and its loss as a gradient."""

    def loss(params, batch, axis_name):
        total = jnp.zeros(())
        for (n, block, group, bound), (w, factor) in zip(TILES, params, strict=True):
            z = normalize(batch[str(n)] @ w) * 3
            settings = {"group": group, "views": 2 * (group == 2), "bound": bound, "block_size": block}
            log_z, positive = blockwise.log_partition(z, axis_name=axis_name, **settings)
            total += factor * collectives.mean(jnp.mean(jnp.sin(log_z) - positive), axis_name)
        return total

    batch = {str(n): jax.random.normal(jax.random.key(n), (n, 4)) for n, *_ in TILES}
    params = [
        (jax.random.normal(key, (4, 4)), 1.0) for key in jax.random.split(jax.random.key(0), len(TILES))
    ]
    assert_same_everywhere(loss, params, batch, placements=["jit"])


def test_an_odd_number_of_tiles_is_dealt_out_as_well():
    def loss(w, batch, axis_name):
        log_z, _ = blockwise.log_partition(batch["x"] @ w, block_size=3, axis_name=axis_name)
        return collectives.mean(jnp.mean(log_z), axis_name)

    keys = jax.random.split(jax.random.key(1))
    w, x = jax.random.normal(keys[0], (4, 4)), jax.random.normal(keys[1], (27, 4))
    assert_same_everywhere(loss, w, {"x": x}, devices=3, placements=["shard_map"])


def test_memory_that_each_device_must_have_is_left_out():
    def gathered(w, batch, axis_name):
        everyone = collectives.gather(batch["x"], axis_name)
        return collectives.mean(jnp.mean(jnp.cos(batch["x"] @ w) @ jnp.sin(everyone).T), axis_name)

    step = partial(shares, step_of(gathered), NOTHING, W, ROWS, placements=["shard_map"])
    assert step()["shard_map"].temporaries > step(whole=2 * 4096 * 16 * 4)["shard_map"].temporaries
    assert np.isclose(step()["shard_map"].products, 1)
