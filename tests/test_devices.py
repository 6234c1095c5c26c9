"""Arrays are laid out over a row of devices as they say, and come back as they were."""

import jax
import numpy as np
import pytest

from jaxcl import collectives, devices
from jaxcl.train.placement import place


def test_a_split_batch_has_equal_rows_on_every_device_and_comes_back_whole():
    mesh = devices.make_mesh(devices=8)
    batch = {"image": np.arange(48).reshape(16, 3), "index": np.arange(16)}
    there = devices.split(batch, mesh)
    jax.tree.map(np.testing.assert_array_equal, there, batch)
    assert {shard.data.shape for shard in there["image"].addressable_shards} == {(2, 3)}
    calls = devices.split({"image": np.zeros((2, 16, 3))}, mesh, axis=1)
    assert {shard.data.shape for shard in calls["image"].addressable_shards} == {(2, 2, 3)}


def test_what_is_replicated_is_whole_on_every_device_keys_among_it():
    mesh = devices.make_mesh(devices=8)
    tree = {"w": np.arange(6.0, dtype=np.float32), "key": jax.random.key(3)}
    there = devices.replicate(tree, mesh)
    assert all(leaf.is_fully_replicated for leaf in jax.tree.leaves(there))
    assert len(there["w"].addressable_shards) == 8
    np.testing.assert_array_equal(there["w"], tree["w"])
    np.testing.assert_array_equal(jax.random.key_data(there["key"]), jax.random.key_data(tree["key"]))


@pytest.mark.parametrize(("rows", "size"), [(None, 8), (24, 8), (12, 4), (7, 1)])
def test_a_local_mesh_has_as_many_devices_as_split_the_rows_evenly(rows, size):
    assert devices.local_mesh(divides=rows).size == size


def test_errors_say_what_to_do():
    with pytest.raises(ValueError, match="9 devices were asked for and 8 are there"):
        devices.make_mesh(devices=9)
    with pytest.raises(ValueError, match="placement must be one of jit, shard_map, pmap; got 'vmap'"):
        devices.axis_name("vmap")


@pytest.mark.parametrize("placement", devices.PLACEMENTS)
def test_what_is_placed_knows_while_it_is_traced_what_it_is_made_for(placement):
    seen, mesh = [], devices.make_mesh(devices=4)

    def step(carry, key, batch):
        seen.append(collectives.target())
        return carry

    everywhere = devices.replicate(np.zeros(()), mesh)
    place(step, placement, mesh)(everywhere, everywhere, devices.split(np.zeros((8, 2)), mesh))
    assert set(seen) == {("cpu", 4)}
    assert collectives.target() == (jax.default_backend(), jax.device_count())
