"""Methods whose encoder keeps less: the same step, on one device or on eight."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxcl import devices, nets
from jaxcl.losses import keyless, nt_xent, queue_nce, regression
from jaxcl.methods import byol, moco, simclr
from jaxcl.train import init_state, make_step, placement
from jaxcl.typing import Net


def lean(net):
    return nets.chunked(nets.remat(net), 2)


def as_it_is(net):
    return net


def two_views(key, batch):
    x = jnp.asarray(batch["image"], jnp.float32) / 255
    return x, x[:, :, ::-1]


def encoder(norm):
    """A perceptron, which compiles quickly; its only map is a vector."""
    mlp = nets.mlp_head(norm=norm, hidden=(8,), out=6)

    def apply(params, state, x, *, train):
        h, state = mlp.apply(params, state, x.reshape(len(x), -1), train=train)
        return (h,), state

    return Net(lambda key, x: mlp.init(key, x.reshape(len(x), -1)), apply)


def parts(transform, norm):
    head = nets.mlp_head(norm=nets.no_norm(), hidden=(), out=4)
    return {"views": two_views, "encoder": transform(encoder(norm))}, head


def tiny_simclr(transform, norm, axis_name=None):
    given, head = parts(transform, norm)
    return simclr(**given, head=head, loss=keyless(nt_xent), axis_name=axis_name)


def tiny_moco(transform, norm, axis_name=None):
    given, head = parts(transform, norm)
    return moco(**given, head=head, loss=keyless(queue_nce), queue_size=40, axis_name=axis_name)


def tiny_byol(transform, norm, axis_name=None):
    given, head = parts(transform, norm)
    return byol(**given, projector=head, predictor=head, loss=keyless(regression), axis_name=axis_name)


METHODS = {"simclr": tiny_simclr, "moco": tiny_moco, "byol": tiny_byol}


IMAGES = np.random.default_rng(0).integers(0, 256, (32, 6, 6, 3), dtype=np.uint8)
BATCH = {"image": IMAGES, "index": np.arange(32, dtype=np.int32)}


@pytest.mark.parametrize("name", METHODS)
def test_a_lean_encoder_gives_the_loss_gradient_and_state_of_the_encoder(name, drawn):
    plain, leaner = (METHODS[name](transform, nets.layer_norm()) for transform in (as_it_is, lean))
    params, state = drawn(plain.init, jax.random.key(0), BATCH)

    def result(method):
        both = jax.value_and_grad(method.loss, has_aux=True)
        return jax.jit(both)(params, state, jax.random.key(1), BATCH)

    chex.assert_trees_all_close(result(leaner), result(plain), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("groups", [1, 2, 16])
def test_a_lean_step_on_eight_devices_is_that_of_one(groups):
    """With batch statistics, those of a chunk over all devices, or of its groups (one, or one a device); the keys of a
    shuffled batch among them."""
    tx = optax.sgd(0.1)
    begun = jax.device_get(
        init_state(jax.random.key(0), tiny_moco(lean, nets.batch_norm(groups=groups)), tx, BATCH)
    )

    def after_a_step(place, count):
        axis_name, mesh = devices.axis_name(place), devices.make_mesh(devices=count)
        method = tiny_moco(lean, nets.batch_norm(axis_name=axis_name, groups=groups), axis_name)
        step = placement.place(make_step(method, tx, axis_name=axis_name), place, mesh)
        given = devices.replicate((begun, jax.random.key(1)), mesh)
        state, metrics = step(*given, devices.split(BATCH, mesh))
        return jax.device_get((state.params, state.state, metrics["loss"]))

    one = after_a_step("jit", 1)
    for place in ("jit", "shard_map"):
        chex.assert_trees_all_close(after_a_step(place, 8), one, rtol=1e-3, atol=1e-5)


def test_groups_of_a_chunk_that_straddle_devices_are_refused():
    """Four groups in two chunks are two a chunk, which eight devices cannot hold whole."""
    axis_name, mesh = devices.axis_name("shard_map"), devices.make_mesh(devices=8)
    tx = optax.sgd(0.1)
    method = tiny_moco(lean, nets.batch_norm(axis_name=axis_name, groups=4), axis_name)
    begun = init_state(jax.random.key(0), tiny_moco(lean, nets.batch_norm()), tx, BATCH)
    step = placement.place(make_step(method, tx, axis_name=axis_name), "shard_map", mesh)
    given = devices.replicate((begun, jax.random.key(1)), mesh)
    with pytest.raises(ValueError, match="got 2 groups .*on 8 devices"):
        step(*given, devices.split(BATCH, mesh))
