"""AMDIM's encoder: its maps, its size, and what each place sees."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcl import nets

NORM = nets.batch_norm()


def shapes(size, **settings):
    net = nets.amdim(norm=NORM, **settings)
    x = jnp.zeros((2, size, size, 3))
    params, state = jax.eval_shape(net.init, jax.random.key(0), x)
    maps, _ = jax.eval_shape(lambda p, s, x: net.apply(p, s, x, train=True), params, state, x)
    return params, [m.shape[1:] for m in maps]


def count(params):
    return sum(int(np.prod(p.shape)) for p in jax.tree.leaves(params))


@pytest.mark.parametrize(
    ("size", "widths", "channels"),
    [
        (32, [30, 30, 14, 7, 5, 3, 1], [8, 8, 16, 32, 32, 32, 64]),
        (64, [62, 30, 14, 7, 5, 3, 1], [8, 16, 32, 64, 64, 64, 64]),
        (128, [64, 62, 30, 14, 7, 5, 3, 1], [8, 8, 16, 32, 64, 64, 64, 64]),
    ],
)
def test_maps_shrink_as_published(size, widths, channels):
    _, maps = shapes(size, features=8, out=64, depth=2)
    assert maps == [(w, w, c) for w, c in zip(widths, channels, strict=True)]


def test_parameters_are_those_of_its_layers():
    n, out, depth = 8, 64, 3
    params, _ = shapes(32, features=n, out=out, depth=depth)

    def layer(c, d, kernel):
        return kernel**2 * c * d + d * d

    def block(c, d, kernel):
        return layer(c, d, kernel) + (depth - 1) * layer(d, d, 1)

    blocks = block(n, 2 * n, 4) + block(2 * n, 4 * n, 2) + 2 * block(4 * n, 4 * n, 3)
    assert count(params) == (27 * n + n) + layer(n, n, 1) + blocks + layer(4 * n, out, 3) + 2 * out


def test_the_large_network_has_the_626_million_parameters_that_are_published():
    params, maps = shapes(128, features=320, out=2560, depth=10)
    assert maps[-1] == (1, 1, 2560)
    assert round(count(params) / 1e6) == 626


@pytest.fixture(scope="module")
def begun():
    """The maps of an image, and where it is seen by place (2, 5) of the map of 7."""
    net = nets.amdim(norm=NORM, features=2, out=8, depth=1)
    x = jax.random.normal(jax.random.key(0), (1, 32, 32, 3))

    @jax.jit
    def run(x):
        params, state = net.init(jax.random.key(1), x)

        def place(x):
            maps, _ = net.apply(params, state, x, train=False)
            return jnp.sum(maps[3][0, 2, 5]), maps

        gradient, maps = jax.grad(place, has_aux=True)(x)
        return maps, gradient

    return jax.device_get(run(x))


def test_a_place_of_the_map_of_7_sees_eight_pixels_and_begins_at_every_fourth(begun):
    rows, columns = np.nonzero(np.any(begun[1][0] != 0, axis=-1))
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (8, 15, 20, 27)


def test_the_network_starts_as_average_pools(begun):
    first, fourteen = begun[0][0][0], begun[0][2][0]
    np.testing.assert_allclose(fourteen[3, 5, :2], first[6:10, 10:14].mean(axis=(0, 1)), rtol=1e-5, atol=1e-6)
    assert not fourteen[..., 2:].any()


def test_a_head_starts_near_the_identity():
    head = nets.amdim_head(norm=NORM, out=6)
    x = jax.random.normal(jax.random.key(0), (2, 3, 3, 4))
    params, state = head.init(jax.random.key(1), x)
    y, _ = head.apply(params, state, x, train=False)
    assert y.shape == (2, 3, 3, 6)
    np.testing.assert_allclose(y[..., :4], x, atol=0.1)
    assert np.abs(y[..., 4:]).max() < 0.1


def test_a_bias_starts_at_zero_or_as_pytorch_has_it():
    """nn.Conv2d: uniform within 1 / sqrt(fan in), here of a shortcut from 8 to 4 channels that sees 3x3 positions, of
    the stem of 3x3 positions of 3 channels, and of the head's shortcut from 4 channels."""
    x = jnp.zeros((1, 32, 32, 3))
    for biases, width in (("zeros", 0), ("torch", 1)):
        net = nets.amdim(norm=NORM, features=2, out=4, depth=1, biases=biases)
        params = jax.jit(net.init)(jax.random.key(1), x)[0]
        head = nets.amdim_head(norm=NORM, out=4096, biases=biases)
        of_head = jax.jit(head.init)(jax.random.key(1), jnp.zeros((1, 3, 3, 4)))[0]
        begun = {27: params["Conv_0"]["bias"], 4: of_head["shortcut"]["bias"]}
        begun[72] = next(layer["Conv_1"]["bias"] for layer in params.values() if "Conv_1" in layer)
        for fan_in, bias in begun.items():
            assert np.any(bias) == width
            assert np.abs(bias).max() <= width * fan_in**-0.5 + 1e-6
    np.testing.assert_allclose(np.std(begun[4]), 0.5 / 3**0.5, rtol=0.05)
    for maker in (nets.amdim, nets.amdim_head):
        with pytest.raises(ValueError, match='"zeros" or "torch"'):
            maker(norm=NORM, biases="ones")


def test_other_sizes_are_refused():
    with pytest.raises(ValueError, match="32, 64 or 128 pixels; got 28x28"):
        shapes(28)
