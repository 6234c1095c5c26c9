"""A state that the devices share is trained as one that each has whole."""

import signal
from functools import partial

import chex
import jax
import numpy as np
import optax
import pytest

from jaxcl import devices, keys, nets
from jaxcl.config import Recipe
from jaxcl.losses import keyless, queue_nce
from jaxcl.methods import moco
from jaxcl.train import Callback, checkpoint, init_state, loop, make_step, placement
from jaxcl.typing import Images


def views(key, batch):
    noise = 0.1 * jax.random.normal(key, (2, *batch["image"].shape))
    x = batch["image"].astype(np.float32) / 255
    return x + noise[0], x + noise[1]


METHOD = moco(  # a target network and a queue
    views=views,
    encoder=nets.conv_n(features=(8,), dense=32, norm=nets.batch_norm()),
    head=nets.mlp_head(norm=nets.no_norm(), hidden=(16,), out=8),
    loss=keyless(queue_nce, temperature=0.2),
    queue_size=64,
    decay=0.9,
)
OPTIMIZER = optax.sgd(0.1, momentum=0.9)
MESH = devices.make_mesh(devices=8)


@pytest.fixture(scope="module")
def batch():
    rng = np.random.default_rng(0)
    return {
        "image": rng.integers(0, 256, (32, 8, 8, 3), dtype=np.uint8),
        "index": np.arange(32, dtype=np.int32),
    }


def start(batch):
    return init_state(keys.init_key(0), METHOD, OPTIMIZER, batch)


def trained(batch, *, shard):
    state = start(batch)
    carry = placement.layout(state, MESH, shard=shard, small=64)
    step = placement.place(make_step(METHOD, OPTIMIZER), "jit", MESH, carry=carry)
    state, key = devices.lay_out(state, carry), devices.replicate(keys.run_key(0), MESH)
    for _ in range(3):
        state, metrics = step(state, key, devices.split(batch, MESH))
    return state, metrics


@pytest.fixture(scope="module")
def both(batch):
    return trained(batch, shard=False), trained(batch, shard=True)


def bytes_of_one(tree):
    return sum(x.addressable_shards[0].data.nbytes for x in jax.tree.leaves(tree))


def test_it_is_trained_as_one_that_is_whole(both):
    (whole, metrics), (shared, others) = both
    chex.assert_trees_all_close(jax.device_get(shared), jax.device_get(whole), rtol=1e-5, atol=1e-6)
    chex.assert_trees_all_close(jax.device_get(others), jax.device_get(metrics), rtol=1e-5, atol=1e-6)


def test_a_device_keeps_about_an_eighth_of_optimizer_teacher_and_queue_and_all_parameters(both):
    (whole, _), (shared, _) = both
    assert bytes_of_one(shared.params) == bytes_of_one(whole.params)
    assert bytes_of_one(shared.opt_state) < 0.2 * bytes_of_one(whole.opt_state)
    assert bytes_of_one(shared.state) < 0.25 * bytes_of_one(whole.state)
    queue = next(x for x in jax.tree.leaves(shared.state) if x.shape == (64, 8))
    assert queue.addressable_shards[0].data.shape == (8, 8)


def test_a_checkpoint_of_either_is_read_as_the_other(both, tmp_path):
    (whole, _), (shared, _) = both
    for name, saved, like in (("parts", shared, whole), ("whole", whole, shared)):
        checkpoint.save(tmp_path / name, 3, saved)
        found, _ = checkpoint.restore(tmp_path / name, like)
        chex.assert_trees_all_equal(jax.device_get(found), jax.device_get(saved))
        chex.assert_trees_all_equal(*([x.sharding for x in jax.tree.leaves(t)] for t in (found, like)))


def test_what_is_in_parts_is_made_whole_again(both):
    (_, _), (shared, _) = both
    again = devices.whole(shared, MESH)
    assert all(x.sharding.is_fully_replicated for x in jax.tree.leaves(again))
    chex.assert_trees_all_equal(jax.device_get(again), jax.device_get(shared))


def test_an_array_is_split_along_its_longest_axis_that_the_devices_divide():
    shapes = [(24, 40), (24, 41), (7, 9), (), (8,)]
    tree = [jax.ShapeDtypeStruct(shape, np.float32) for shape in shapes]
    specs = [tuple(x.spec) for x in devices.spread(tree, MESH, small=9)]
    assert specs == [(None, "devices"), ("devices",), (), (), ()]


@pytest.mark.parametrize("where", ["shard_map", "pmap"])
def test_where_each_device_runs_its_own_program_it_is_refused(batch, where):
    carry = placement.layout(start(batch), MESH, shard=True, small=64)
    with pytest.raises(ValueError, match="--placement jit"):
        placement.place(make_step(METHOD, OPTIMIZER), where, MESH, carry=carry)
    whole = placement.layout(start(batch), MESH)
    placement.place(make_step(METHOD, OPTIMIZER), where, MESH, carry=whole)


def test_a_run_with_it_is_the_run_without_also_where_it_was_saved_and_gone_on_with(
    batch, monkeypatch, tmp_path
):
    monkeypatch.setattr(loop, "layout", partial(placement.layout, small=64))
    whole_in_callback = []

    def stop(step, params, state):
        if step == 1:
            signal.raise_signal(signal.SIGTERM)
        return {}

    def look(step, params, state):
        whole_in_callback.extend(x.sharding.is_fully_replicated for x in jax.tree.leaves(state))
        return {"step": step}

    views_object = type("Views", (), {"__call__": staticmethod(views), "recipes": (), "channels": None})()
    recipe = Recipe(METHOD, OPTIMIZER, optax.constant_schedule(1e-2), views_object, 2, 32)
    images = Images("noise", batch["image"], np.zeros(32, np.int64))
    ends = [
        loop.train(recipe, images, shard_state=shard, quiet=True, callbacks=[Callback(2, look)])
        for shard in (False, True)
    ]
    chex.assert_trees_all_close(*map(jax.device_get, ends), rtol=1e-5, atol=1e-6)
    assert all(whole_in_callback)
    # What is saved is a copy, of parts from all devices.
    again = {"shard_state": True, "quiet": True, "run_dir": tmp_path}
    with pytest.raises(loop.Preempted):
        loop.train(recipe, images, callbacks=[Callback(1, stop)], **again)
    chex.assert_trees_all_equal(*map(jax.device_get, (loop.train(recipe, images, **again), ends[1])))
