"""Wide ResNets have the published sizes, and their blocks start with norm and ReLU."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcl import nets

NORM = nets.batch_norm()


def sizes(net, *shape):
    x = jax.ShapeDtypeStruct(shape, jnp.float32)
    params, state = jax.eval_shape(net.init, jax.random.key(0), x)
    maps, _ = jax.eval_shape(partial(net.apply, train=True), params, state, x)
    return sum(int(np.prod(p.shape)) for p in jax.tree.leaves(params)), [m.shape[1:] for m in maps]


# arXiv:1605.07146, table 4: parameters in millions, with a classifier of ten classes.
@pytest.mark.parametrize(
    ("depth", "width", "millions"),
    [(40, 4, 8.9), (16, 8, 11.0), (22, 8, 17.2), (16, 10, 17.1), (28, 10, 36.5)],
)
def test_parameters_are_as_many_as_published(depth, width, millions):
    count, maps = sizes(nets.wide_resnet(depth, norm=NORM, width=width), 2, 32, 32, 3)
    assert maps == [(32, 32, 16 * width), (16, 16, 32 * width), (8, 8, 64 * width)]
    assert round((count + 640 * width + 10) / 1e6, 1) == millions


def test_a_wide_resnet_34_has_the_parameters_of_its_layers():
    count, maps = sizes(nets.wide_resnet(34, norm=NORM, width=10), 1, 32, 32, 3)
    total, before = 27 * 16, 16
    for channels in (160, 320, 640):
        for _ in range(5):
            total += 2 * before + 9 * before * channels + 2 * channels + 9 * channels**2
            total += before * channels if before != channels else 0
            before = channels
    assert count == total + 2 * 640
    assert maps[-1] == (8, 8, 640)


def test_the_last_map_is_normed_and_the_others_are_sums(drawn):
    net = nets.wide_resnet(10, norm=NORM)
    x = jax.random.normal(jax.random.key(0), (4, 8, 8, 3))
    params, state = drawn(net.init, jax.random.key(1), x)
    maps, _ = jax.jit(partial(net.apply, train=True))(params, state, x)
    assert float(maps[0].min()) < 0
    assert float(maps[-1].min()) == 0


def test_what_cannot_be_built_is_refused():
    with pytest.raises(ValueError, match="depths 10, 16, 22, 28, 34"):
        nets.wide_resnet(18, norm=NORM)
    with pytest.raises(ValueError, match="at least 1"):
        nets.wide_resnet(16, norm=NORM, width=0)
