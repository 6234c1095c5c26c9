"""A flax NNX module as a `Net` computes what the module does, remembers what it does, and trains."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from jaxcl import augment, keys, losses, methods, nets, train
from jaxcl.config import Recipe
from jaxcl.encoder import Encoder, _only, _used
from jaxcl.typing import About, Images

X = np.random.default_rng(0).uniform(size=(8, 8, 8, 3)).astype(np.float32)


class Network(nnx.Module):
    def __init__(self, rngs, axis_name=None):
        self.layers = nnx.List([nnx.Conv(c, 4, (3, 3), rngs=rngs) for c in (3, 4)])
        self.norm = nnx.BatchNorm(4, axis_name=axis_name, rngs=rngs)
        self.drop = nnx.Dropout(0.5, rngs=rngs)

    def __call__(self, x):
        for layer in self.layers:
            x = nnx.relu(layer(x))
        return (self.drop(self.norm(x)),)


class WithFlag(nnx.Module):
    def __init__(self, rngs):
        self.scale = nnx.Param(jnp.ones(()))

    def __call__(self, x, *, train):
        return x * self.scale[...] * (2 if train else 1)


def test_it_computes_and_remembers_what_the_module_does():
    net, module = nets.from_nnx(Network), Network(nnx.Rngs(jax.random.key(1)))
    params, state = net.init(jax.random.key(1), X)
    module.eval()  # the same key was given to both
    np.testing.assert_array_equal(net.apply(params, state, X, train=False)[0][0], module(X)[0])
    module.train()
    for _ in range(3):  # each of which drops out other entries, and moves the statistics
        (out,), state = net.apply(params, state, X, train=True)
        (own,) = module(X)
        np.testing.assert_array_equal(out, own)
    np.testing.assert_array_equal(state["norm"]["mean"], module.norm.mean[...])
    np.testing.assert_array_equal(state["norm"]["var"], module.norm.var[...])
    assert int(state["drop"]["rngs"]["count"]) == 3
    assert 0.3 < float(jnp.mean(out == 0)) < 0.7
    module.eval()
    out, same = net.apply(params, state, X, train=False)
    np.testing.assert_array_equal(out[0], module(X)[0])
    assert same is state


def test_what_is_kept_are_dicts_of_plain_arrays_by_names():
    params, state = nets.from_nnx(Network).init(jax.random.key(0), X)
    assert set(params) == {"layers", "norm"}
    assert params["layers"]["1"]["kernel"].shape == (3, 3, 4, 4)
    for x in jax.tree.leaves((params, state)):
        assert x.dtype in (jnp.float32, jnp.uint32)


def test_a_call_that_takes_the_flag_is_given_it():
    net = nets.from_nnx(WithFlag)
    params, state = net.init(jax.random.key(0), X)
    np.testing.assert_array_equal(net.apply(params, state, X, train=True)[0], 2 * X)
    np.testing.assert_array_equal(net.apply(params, state, X, train=False)[0], X)


def test_gradients_are_the_module_s_own():
    net, module = nets.from_nnx(Network), Network(nnx.Rngs(jax.random.key(1)))
    params, state = net.init(jax.random.key(1), X)
    weight = np.random.default_rng(1).normal(size=(8, 8, 8, 4)).astype(np.float32)
    ours = jax.grad(lambda p: jnp.sum(net.apply(p, state, X, train=True)[0][0] * weight))(params)
    theirs = nnx.grad(lambda m: jnp.sum(m(X)[0] * weight))(module)
    np.testing.assert_allclose(
        ours["layers"]["0"]["kernel"], theirs["layers"][0]["kernel"][...], rtol=1e-4, atol=1e-5
    )


def recipe_of(axis_name=None, *, dropout=True):
    def make(rngs):
        module = Network(rngs, axis_name)
        if not dropout:
            module.drop.rate = 0.0
        return module

    views = augment.two_views(augment.compose(augment.flip(), augment.clip()))
    method = methods.simclr(
        views=views,
        encoder=nets.from_nnx(make, axis_name=axis_name),
        head=nets.from_nnx(lambda rngs: nnx.Linear(4, 8, rngs=rngs)),
        loss=losses.keyless(losses.nt_xent, temperature=0.5),
        axis_name=axis_name,
    )
    return Recipe(method, optax.adam(1e-2), optax.constant_schedule(1e-2), views, steps=3, batch_size=16)


IMAGES = Images("noise", np.random.default_rng(0).integers(0, 256, (32, 8, 8, 3), np.uint8))
TWO = {"image": IMAGES.images[:2], "index": np.arange(2)}


def test_simclr_trains_it_and_goes_on_where_it_was_saved(tmp_path):
    recipe = recipe_of()
    done = train.train(recipe, IMAGES, quiet=True, run_dir=tmp_path / "whole")
    first = train.init_state(
        keys.init_key(0), recipe.method, recipe.optimizer, {"image": IMAGES.images[:2], "index": np.arange(2)}
    )
    moved = jax.tree.map(lambda a, b: not np.array_equal(a, b), first.params, done.params)
    assert moved["encoder"]["layers"]["0"]["kernel"]
    assert int(done.state["encoder"]["drop"]["rngs"]["count"]) == 3
    assert not np.array_equal(done.state["encoder"]["norm"]["mean"], first.state["encoder"]["norm"]["mean"])
    train.train(recipe._replace(steps=2), IMAGES, quiet=True, run_dir=tmp_path / "cut")
    again = train.train(recipe, IMAGES, quiet=True, run_dir=tmp_path / "cut")
    for a, b in zip(jax.tree.leaves(done), jax.tree.leaves(again), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_loaded_encoder_leaves_out_what_it_does_not_read():
    recipe = recipe_of()
    params, state = recipe.method.init(keys.init_key(0), TWO)
    images = jnp.zeros((2, 8, 8, 3))
    used = _only((params, state), _used(recipe.method.embed, (params, state), images))
    assert used[1]["encoder"]["drop"]["rngs"]["count"] is None
    encoder = Encoder(recipe.method.embed, *used, About(32, (8, 8, 3), ()), 0)
    assert encoder(X[:2]).shape == (2, 4)


def test_each_device_sees_the_global_batch_s_statistics_and_drops_out_by_itself():
    one = train.train(recipe_of(dropout=False), IMAGES, quiet=True)
    other = train.train(recipe_of("devices", dropout=False), IMAGES, quiet=True, placement="shard_map")
    for a, b in zip(jax.tree.leaves(one.params), jax.tree.leaves(other.params), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)
    net = nets.from_nnx(lambda rngs: nnx.Dropout(0.5, rngs=rngs), axis_name="devices")
    params, state = net.init(jax.random.key(0), X)
    mesh, split = jax.sharding.Mesh(jax.devices(), ("devices",)), jax.sharding.PartitionSpec("devices")
    run = jax.shard_map(
        lambda x: net.apply(params, state, x, train=True)[0], mesh=mesh, in_specs=split, out_specs=split
    )
    out = np.asarray(jax.jit(run)(np.ones((len(jax.devices()), 64), np.float32)))
    assert len({row.tobytes() for row in out}) == len(out)
