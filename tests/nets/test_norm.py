"""Batch statistics mean what the config says, in every placement."""

from functools import partial

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcl import collectives, devices
from jaxcl.nets import batch_norm, from_linen, layer_norm, no_norm
from jaxcl.testing import EVERYWHERE, assert_same_everywhere
from jaxcl.train import placement as placing

EPSILON, MOMENTUM = 1e-5, 0.9


@pytest.fixture(scope="module")
def x():
    return np.asarray(3 * np.random.default_rng(0).normal(size=(16, 3, 3, 4)) + 2, np.float32)


def begun(norm, x):
    """A layer's first parameters and state, and the layer in training as one program."""
    layer = from_linen(norm())
    return *jax.jit(layer.init)(jax.random.key(0), x), jax.jit(partial(layer.apply, train=True))


def reference(x, groups=1):
    """Two loops in float64: the normalized rows, and the mean over groups of their statistics."""
    y = np.zeros(x.shape, np.float64)
    means, variances = np.zeros((groups, x.shape[-1])), np.zeros((groups, x.shape[-1]))
    n = len(x) // groups
    for g in range(groups):
        for c in range(x.shape[-1]):
            share = x[g * n : (g + 1) * n, ..., c].astype(np.float64)
            means[g, c], variances[g, c] = share.mean(), share.var()
            y[g * n : (g + 1) * n, ..., c] = (share - share.mean()) / np.sqrt(share.var() + EPSILON)
    return y, means.mean(0), variances.mean(0)


def run(norm, x, placement):
    """The layer's output [b, ...] and its new state where `placement` runs it over eight devices."""
    layer = from_linen(norm())
    zeros, ones = np.zeros(x.shape[-1], np.float32), np.ones(x.shape[-1], np.float32)
    params, state = {"scale": ones, "bias": zeros}, {"batch_stats": {"mean": zeros, "var": ones}}
    axis_name = None if placement in ("one", "jit") else devices.AXIS

    def step(carry, key, x):
        y, new = layer.apply(params, state, x, train=True)
        return carry, (everywhere(y, axis_name), new)

    if placement == "one":
        return jax.jit(step)(0, 0, x)[1]
    mesh = devices.make_mesh(devices=8)
    placed = placing.place(
        step, placement.removesuffix("_unchecked"), mesh, check_vma=placement == "shard_map"
    )
    return placed(np.zeros(()), np.zeros(()), x if placement == "pmap" else devices.split(x, mesh))[1]


def everywhere(y, axis_name):
    """All rows on every device, typed as the same everywhere."""
    if axis_name is None:
        return y
    d, i = collectives.size(axis_name), jax.lax.axis_index(axis_name)
    padded = jnp.zeros((d, *y.shape), y.dtype).at[i].set(y)
    return jax.lax.psum(padded, axis_name).reshape(-1, *y.shape[1:])


PLACES = ("one", "jit", "shard_map", "shard_map_unchecked", "pmap")


@pytest.mark.parametrize("groups", [1, 8])
@pytest.mark.parametrize("placement", PLACES)
def test_the_norm_is_that_of_the_global_batch_or_its_groups_in_every_placement(placement, groups, x):
    axis_name = None if placement in ("one", "jit") else devices.AXIS
    norm = batch_norm(axis_name=axis_name, groups=groups, momentum=MOMENTUM, epsilon=EPSILON)
    y, state = run(norm, x, placement)
    want, mean, variance = reference(x, groups)
    np.testing.assert_allclose(y, want, atol=2e-5)
    stats = state["batch_stats"]
    np.testing.assert_allclose(stats["mean"], (1 - MOMENTUM) * mean, rtol=1e-5)
    np.testing.assert_allclose(stats["var"], MOMENTUM + (1 - MOMENTUM) * variance, rtol=1e-5)


def test_the_gradient_is_the_same_on_one_device_and_on_eight(x):
    w = np.random.default_rng(1).normal(size=x.shape[1:]).astype(np.float32)

    def of(groups, params, x, axis_name):
        layer = from_linen(batch_norm(axis_name=axis_name, groups=groups)())
        state = {"batch_stats": {"mean": jnp.zeros(4), "var": jnp.ones(4)}}
        y, new = layer.apply(params["norm"], state, x * params["factor"], train=True)
        return collectives.mean(jnp.mean(jnp.tanh(y) * w) + jnp.sum(new["batch_stats"]["var"]), axis_name)

    def loss(params, batch, axis_name):
        """One program for all groups: each has parameters of its own."""
        return sum(of(int(groups), own, batch["x"], axis_name) for groups, own in params.items())

    params = {
        "norm": {"scale": np.arange(1, 5, dtype=np.float32), "bias": np.arange(4, dtype=np.float32)},
        "factor": np.linspace(0.5, 2, 4, dtype=np.float32),
    }
    params = {groups: params for groups in ("1", "8", "16")}
    assert_same_everywhere(loss, params, {"x": x}, placements=EVERYWHERE)


@pytest.mark.parametrize("placement", PLACES)
@pytest.mark.parametrize("groups", [1, 8])
def test_alternating_views_are_normalized_as_if_the_network_was_called_once_a_view(placement, groups, x):
    axis_name = None if placement in ("one", "jit") else placing.AXIS
    norm = batch_norm(axis_name=axis_name, groups=groups, views=2, momentum=MOMENTUM, epsilon=EPSILON)
    y, new = run(norm, x, placement)
    (first, *of_first), (second, *of_second) = reference(x[0::2], groups), reference(x[1::2], groups)
    np.testing.assert_allclose(y, np.stack([first, second], 1).reshape(x.shape), atol=2e-5)
    for running, start, one, two in zip(
        (new["batch_stats"]["mean"], new["batch_stats"]["var"]), (0, 1), of_first, of_second, strict=True
    ):
        once = MOMENTUM * start + (1 - MOMENTUM) * one
        np.testing.assert_allclose(running, MOMENTUM * once + (1 - MOMENTUM) * two, rtol=1e-5)


def test_views_that_do_not_divide_the_rows_are_refused(x):
    with pytest.raises(ValueError, match="2 views"):
        run(batch_norm(views=2), x[:5], "one")
    with pytest.raises(ValueError, match="at least one view"):
        batch_norm(views=0)


def test_views_are_told_apart_of_vectors_too_and_not_when_evaluated(x):
    layer, rows = from_linen(batch_norm(views=2)()), x.reshape(16, -1)
    params, state, train = begun(batch_norm(views=2), rows)
    y, _ = train(params, state, rows)
    np.testing.assert_allclose(y[0::2], reference(rows[0::2])[0], atol=2e-5)
    odd, _ = jax.jit(partial(layer.apply, train=False))(params, state, rows[:3])
    np.testing.assert_allclose(odd, rows[:3], rtol=1e-4)


def test_without_an_axis_every_device_under_shard_map_keeps_to_its_own_rows(x):
    mesh = devices.make_mesh(devices=8)
    P = jax.sharding.PartitionSpec
    params, state, train = begun(batch_norm(), x)

    def alone(x):
        y, new = train(params, state, x)
        return y, collectives.mean(new, devices.AXIS)

    rows = P(devices.AXIS)
    y, new = jax.jit(jax.shard_map(alone, mesh=mesh, in_specs=rows, out_specs=(rows, P())))(x)
    y8, new8 = begun(batch_norm(groups=8), x)[2](params, state, x)
    np.testing.assert_allclose(y, y8, atol=1e-6)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), new, new8)


def test_running_averages_converge_to_the_batch_and_are_used_when_not_training(x):
    params, state, train = begun(batch_norm(momentum=0.5), x)
    for _ in range(30):
        y, state = train(params, state, x)
    still, same = from_linen(batch_norm(momentum=0.5)()).apply(params, state, x, train=False)
    np.testing.assert_allclose(still, y, atol=1e-5)
    assert same is state
    np.testing.assert_allclose(state["batch_stats"]["var"], x.var(axis=(0, 1, 2)), rtol=1e-5)


def test_statistics_of_bfloat16_rows_are_taken_in_float32():
    # In bfloat16 the sum of 4096 ones stops growing at 256.
    x = np.repeat([[0.5], [1.5]], 2048, axis=0).astype(jnp.bfloat16)
    params, state, train = begun(batch_norm(momentum=0.0), x)
    y, state = train(params, state, x)
    assert y.dtype == jnp.bfloat16
    assert state["batch_stats"]["mean"].dtype == jnp.float32
    np.testing.assert_allclose(state["batch_stats"]["mean"], 1.0, rtol=1e-6)
    np.testing.assert_allclose(state["batch_stats"]["var"], 0.25, rtol=1e-6)


def test_float64_is_kept():
    with jax.enable_x64(True):
        x = jnp.asarray(np.random.default_rng(0).normal(size=(8, 4)) + 1e3)
        params, state, train = begun(batch_norm(), x)
        y, _ = train(params, state, x)
        assert y.dtype == jnp.float64
        np.testing.assert_allclose(y, reference(np.asarray(x))[0], atol=1e-8)


@pytest.mark.parametrize("groups", [5, 32])
def test_groups_that_do_not_divide_the_rows_are_refused(groups, x):
    params, state, train = begun(batch_norm(groups=groups), x)
    with pytest.raises(ValueError, match="choose groups that divide the batch"):
        train(params, state, x)


def test_groups_that_straddle_devices_are_refused(x):
    with pytest.raises(ValueError, match="each lie on one device"):
        run(batch_norm(axis_name=devices.AXIS, groups=4), x, "shard_map")
    with pytest.raises(ValueError, match="at least one group"):
        batch_norm(groups=0)


def test_layer_norm_makes_every_row_standard_whatever_else_is_in_the_batch(x):
    params, state, train = begun(layer_norm(), x)
    y, _ = train(params, state, x)
    assert state == {}
    np.testing.assert_allclose(np.mean(y, axis=-1), 0, atol=1e-6)
    np.testing.assert_allclose(np.std(y, axis=-1), 1, atol=1e-3)
    np.testing.assert_allclose(train(params, state, x[:1])[0], y[:1], atol=1e-6)


def test_no_norm_adds_a_bias_where_one_is_wanted(x):
    layer = from_linen(no_norm()())
    params, state = layer.init(jax.random.key(0), x)
    assert jax.tree.map(jnp.shape, params) == {"bias": (4,)}
    np.testing.assert_array_equal(layer.apply({"bias": jnp.ones(4)}, state, x, train=True)[0], x + 1)
    assert from_linen(no_norm()(use_bias=False)).init(jax.random.key(0), x) == ({}, {})


# --- what the norm makes less of --------------------------------------------------------------------------------------


def pooled(x):
    return nn.max_pool(x, (3, 3), (2, 2), "SAME")


def convolved(x, kernel):
    return jnp.einsum("bhwc,cd->bhwd", x, kernel[0, 0])


def both(norm, x, kernel, alone, inside):
    """The layer's output, state, and gradients by everything, with what stands beside it outside of it and inside."""
    layer, rng = norm(), np.random.default_rng(1)
    made = jax.jit(partial(layer.init, train=False))(jax.random.key(0), alone(x, kernel))
    params = jax.tree.map(lambda w: w - 2 * rng.uniform(size=w.shape).astype(w.dtype), made["params"])

    def loss(params, x, kernel, apply):
        y, state = apply({**made, "params": params}, x, kernel)
        return jnp.mean(jnp.sin(3 * y) * jnp.arange(y.shape[-1])), (y, state)

    def outside(variables, x, kernel):
        y, state = layer.apply(variables, alone(x, kernel), train=True, mutable=["batch_stats"])
        return pooled(y) if inside == {"pool"} else y, state

    def within(variables, x, kernel):
        given = {"pool": pooled} if inside == {"pool"} else {"kernel": kernel}
        return layer.apply(variables, x, train=True, mutable=["batch_stats"], **given)

    of = jax.value_and_grad(loss, argnums=(0, 1, 2), has_aux=True)
    return (jax.jit(partial(of, apply=apply))(params, x, kernel) for apply in (within, outside))


@pytest.mark.parametrize("settings", [{}, {"views": 2}, {"groups": 2}])
def test_a_norm_that_pools_does_what_pooling_behind_it_does_for_scales_of_either_sign(settings, x):
    kernel = np.zeros((1, 1, 4, 4), np.float32)
    got, want = both(batch_norm(**settings), x, kernel, lambda x, kernel: x, {"pool"})
    chex.assert_trees_all_close(got, want, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("settings", [{}, {"views": 2}, {"groups": 2}])
def test_a_norm_that_is_told_a_kernel_does_what_it_does_behind_the_convolution(settings, x):
    with jax.enable_x64(True):
        kernel = np.random.default_rng(2).normal(size=(1, 1, 4, 16))
        got, want = both(batch_norm(**settings), x.astype(np.float64), kernel, convolved, {"kernel"})
        chex.assert_trees_all_close(got, want, rtol=1e-6, atol=1e-8)  # parameters and averages are float32


def test_a_norm_that_pools_or_is_told_a_kernel_sees_the_global_batch_everywhere(x):
    def loss(params, batch, axis_name):
        kernel, variables = params
        total = 0
        for groups, factor in ((1, 1), (8, 2)):
            layer = batch_norm(axis_name=axis_name, groups=groups)()
            y, _ = layer.apply(variables, factor * batch, train=True, kernel=kernel, mutable=["batch_stats"])
            y, _ = layer.apply(variables, y, train=True, pool=pooled, mutable=["batch_stats"])
            total += factor * collectives.mean(jnp.mean(jnp.sin(y)), axis_name)
        return total

    kernel = np.random.default_rng(2).normal(size=(1, 1, 4, 16)).astype(np.float32)
    rows = np.einsum("bhwc,cd->bhwd", x, kernel[0, 0])
    variables = jax.jit(partial(batch_norm()().init, train=False))(jax.random.key(0), rows)
    assert_same_everywhere(loss, (kernel, variables), x, placements=["jit", "shard_map"])
