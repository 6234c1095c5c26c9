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


@pytest.mark.parametrize(("rows", "size"), [(24, 8), (12, 4), (7, 1)])
def test_an_even_mesh_has_as_many_devices_as_split_the_rows_evenly(rows, size):
    assert devices.even_mesh(rows).size == size


@pytest.mark.parametrize(("n", "processes", "numbers"), [(50, 4, 2**24), (50, 3, 36), (7, 7, 1), (3, 4, 8)])
def test_rows_that_processes_share_come_together_in_their_order(monkeypatch, n, processes, numbers):
    rows = np.arange(3.0 * n).reshape(n, 3)
    sent: list = [[] for _ in range(processes)]

    def share(i, all_gather):
        monkeypatch.setattr(jax, "process_count", lambda: processes)
        monkeypatch.setattr(jax, "process_index", lambda: i)
        monkeypatch.setattr(devices.multihost_utils, "process_allgather", all_gather)
        return devices.gather_rows(rows[devices.own_rows(n)], n, numbers=numbers)

    # Twice: what the others send is known once each has sent.
    for i in range(processes):
        share(i, lambda x, i=i: sent[i].append(x) or np.stack([x] * processes))
    assert all(len(x) <= max(1, numbers // (3 * processes)) for x in sent[0])
    for i in range(processes):
        blocks = iter(range(len(sent[i])))
        whole = share(i, lambda x, blocks=blocks: np.stack([one[k] for k in [next(blocks)] for one in sent]))
        np.testing.assert_array_equal(whole, rows)


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
