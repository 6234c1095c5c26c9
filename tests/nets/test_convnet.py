import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcl import nets
from jaxcl.extract import pool
from jaxcl.nets.convnet import cells, halved


def test_conv_n_ends_in_a_vector_that_pool_hands_on():
    net = nets.conv_n(norm=nets.batch_norm(momentum=0.99, epsilon=1e-3))
    x = jnp.ones((2, 28, 28, 11))
    params, state = jax.eval_shape(net.init, jax.random.key(0), x)
    maps, _ = jax.eval_shape(lambda p, s, x: net.apply(p, s, x, train=True), params, state, x)
    assert [m.shape for m in maps] == [(2, 13, 13, 32), (2, 6, 6, 64), (2, 2, 2, 64), (2, 128)]
    assert pool(maps) is maps[-1]
    weights = 9 * 11 * 32 + 9 * 32 * 64 + 9 * 64 * 64 + 4 * 64 * 128
    norms = 2 * (32 + 64 + 64 + 128)
    assert sum(int(np.prod(p.shape)) for p in jax.tree.leaves(params)) == weights + norms


def test_conv_n_says_how_large_an_image_must_be():
    net = nets.conv_n(norm=nets.batch_norm())
    jax.eval_shape(net.init, jax.random.key(0), jnp.ones((2, 15, 15, 1)))
    with pytest.raises(ValueError, match="at least 15x15 pixels; got 14x14"):
        jax.eval_shape(net.init, jax.random.key(0), jnp.ones((2, 14, 14, 1)))


def test_small_convnet_does_most_of_its_work_on_small_maps():
    net = nets.small_convnet(norm=nets.batch_norm())
    x = jnp.ones((2, 32, 32, 3))
    params, state = jax.eval_shape(net.init, jax.random.key(0), x)
    maps, _ = jax.eval_shape(lambda p, s, x: net.apply(p, s, x, train=True), params, state, x)
    assert [m.shape for m in maps] == [(2, 8, 8, 32), (2, 4, 4, 64), (2, 4, 4, 128), (2, 4, 4, 256)]
    with pytest.raises(ValueError, match="multiples of 8; got 28x28"):
        jax.eval_shape(net.init, jax.random.key(0), jnp.ones((2, 28, 28, 3)))


def test_cells_keep_every_pixel_with_its_neighbours():
    x = np.arange(2 * 4 * 6 * 3).reshape(2, 4, 6, 3)
    y = np.asarray(jax.jit(cells)(x))
    assert y.shape == (2, 2, 3, 12)
    np.testing.assert_array_equal(y[1, 1, 2], x[1, 2:4, 4:6].reshape(-1))


def test_halved_is_a_max_pool():
    x = np.random.default_rng(0).normal(size=(2, 4, 6, 3)).astype(np.float32)
    np.testing.assert_array_equal(jax.jit(halved)(x), nn.max_pool(x, (2, 2), (2, 2)))


def test_a_stage_on_top_of_three_maps_gives_the_fourth():
    norm, key = nets.batch_norm(), jax.random.key(0)
    trunk, stage = nets.small_convnet(features=(4, 4, 4), norm=norm), nets.conv_stage(features=6, norm=norm)

    def made(x):
        below, _ = trunk.apply(*trunk.init(key, x), x, train=False)
        params, state = stage.init(key, below[-1])
        return below, state, *stage.apply(params, state, below[-1], train=True)

    x = jax.ShapeDtypeStruct((2, 8, 8, 3), jnp.float32)
    below, state, (above,), new = jax.eval_shape(made, x)
    assert above.shape == (*below[-1].shape[:3], 6)
    assert jax.tree.structure(new) == jax.tree.structure(state)
