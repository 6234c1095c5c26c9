"""The contract of every method: pure, the same on any number of devices, and better with training."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxcl import augment, nets
from jaxcl.losses import nt_xent
from jaxcl.methods import simclr
from jaxcl.train import init_state, make_step, placement


def tiny_simclr(axis_name):
    norm = nets.batch_norm(axis_name=axis_name)
    return simclr(
        views=augment.two_views(augment.simclr(16, strength=0.5, blur=False)),
        encoder=nets.conv_n(features=(8, 8), dense=16, norm=norm),
        head=nets.projection_head(layers=2, out=8, norm=norm),
        loss=lambda key, z1, z2: nt_xent(z1, z2, temperature=0.2, axis_name=axis_name),
        axis_name=axis_name,
    )


# name -> (axis_name) -> Method
METHODS = {"simclr": tiny_simclr}


def batch_of(n=16, size=16):
    images = np.random.default_rng(0).integers(0, 256, (n, size, size, 3), dtype=np.uint8)
    return {"image": images, "index": np.arange(n, dtype=np.int32)}


def two_steps(make_method, place, devices):
    method = make_method(placement.axis_name(place))
    tx = optax.sgd(0.1, momentum=0.9)
    mesh = placement.make_mesh(devices)
    state = init_state(jax.random.key(0), method, tx, batch_of())
    state = placement.replicate(state, mesh)
    step = placement.place(make_step(method, tx, axis_name=placement.axis_name(place)), place, mesh)
    key = placement.replicate(jax.random.key(1), mesh)
    batch = batch_of() if place == "pmap" else placement.split(batch_of(), mesh)
    for _ in range(2):
        state, metrics = step(state, key, batch)
    return jax.device_get((state.params, state.state, metrics))


@pytest.fixture(scope="module", params=METHODS)
def on_one_device(request):
    return METHODS[request.param], two_steps(METHODS[request.param], "jit", 1)


@pytest.mark.parametrize("place", placement.PLACEMENTS)
def test_two_steps_on_eight_devices_are_two_steps_on_one(on_one_device, place):
    make_method, truth = on_one_device
    here = two_steps(make_method, place, 8)
    # ReLUs and batch statistics of 32 rows magnify rounding; a wrong gradient is off by whole factors.
    chex.assert_trees_all_close(here, truth, atol=2e-4, rtol=2e-3)


@pytest.mark.parametrize("name", METHODS)
def test_loss_does_not_change_what_it_was_given_and_repeats_itself(name):
    method = METHODS[name](None)
    params, state = method.init(jax.random.key(0), batch_of())
    loss = jax.jit(method.loss)
    one, (new_state, metrics) = loss(params, state, jax.random.key(1), batch_of())
    two, _ = loss(params, state, jax.random.key(1), batch_of())
    other, _ = loss(params, state, jax.random.key(2), batch_of())
    assert one == two != other
    assert jax.tree.structure(new_state) == jax.tree.structure(state)
    assert all(jnp.isfinite(value) and value.shape == () for value in metrics.values())


@pytest.mark.parametrize("name", METHODS)
def test_embed_gives_a_row_an_image_whatever_else_is_in_the_batch(name):
    method = METHODS[name](None)
    params, state = method.init(jax.random.key(0), batch_of())
    images = jnp.asarray(batch_of()["image"] / 255.0, jnp.float32)
    whole = method.embed(params, state, images)
    assert whole.shape[0] == len(images)
    assert whole.ndim == 2
    chex.assert_trees_all_close(method.embed(params, state, images[3:5]), whole[3:5], atol=1e-5)


@pytest.mark.parametrize("name", METHODS)
def test_thirty_steps_on_one_batch_lower_the_loss(name):
    method, tx = METHODS[name](None), optax.adam(1e-2)
    state = init_state(jax.random.key(0), method, tx, batch_of())
    step = jax.jit(make_step(method, tx))
    losses = []
    for _ in range(30):
        state, metrics = step(state, jax.random.key(1), batch_of())
        losses.append(float(metrics["loss"]))
    assert np.mean(losses[-5:]) < np.mean(losses[:5]) - 0.2
