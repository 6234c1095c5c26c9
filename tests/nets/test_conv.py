"""nets.conv: XLA's convolution, with another way to its kernel's gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from jaxcl import devices
from jaxcl.nets.conv import convolve


def xla(x, kernel, strides, padding):
    return lax.conv_general_dilated(x, kernel, strides, padding, dimension_numbers=("NHWC", "HWIO", "NHWC"))


CASES = [
    # images, size, channels, features, kernel, strides, padding
    (6, (8, 8), 3, 5, (3, 3), (1, 1), "SAME"),
    (4, (9, 7), 2, 3, (3, 3), (2, 2), "VALID"),
    (5, (8, 6), 4, 2, (2, 4), (2, 1), "SAME"),
    (1, (3, 3), 1, 1, (3, 3), (1, 1), "VALID"),
    (3, (10, 11), 2, 2, (3, 3), (3, 2), "VALID"),
    (6, (32, 32), 16, 8, (3, 3), (1, 1), "SAME"),  # more than is taken at a time
]


@pytest.mark.parametrize(("n", "size", "c", "d", "window", "strides", "padding"), CASES)
def test_value_and_gradients_are_those_of_xla(n, size, c, d, window, strides, padding):
    rng = np.random.default_rng(0)  # in numpy: each shape that jax draws is a program
    x = rng.normal(size=(n, *size, c)).astype(np.float32)
    kernel = rng.normal(size=(*window, c, d)).astype(np.float32)
    out = jax.eval_shape(lambda x, k: xla(x, k, strides, padding), x, kernel)
    g = rng.normal(size=out.shape).astype(np.float32)

    def pulled(f):
        def both(x, kernel, g):
            y, pull = jax.vjp(f, x, kernel)
            return y, *pull(g)

        return jax.jit(both)(x, kernel, g)

    with jax.sharding.use_abstract_mesh(
        devices.make_mesh(devices=1).abstract_mesh
    ):  # where a CPU has a way of its own
        ours = pulled(lambda x, k: convolve(x, k, strides=strides, padding=padding))
    theirs = pulled(lambda x, k: xla(x, k, strides, padding))
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5 * np.abs(b).max())


def test_bfloat16_stays_bfloat16():
    x, kernel = (jax.ShapeDtypeStruct(shape, jnp.bfloat16) for shape in ((2, 4, 4, 3), (3, 3, 3, 2)))
    loss = jax.grad(lambda k, x: convolve(x, k, strides=(1, 1), padding="SAME").sum().astype(float))
    gradient = jax.eval_shape(loss, kernel, x)
    assert gradient.dtype == jnp.bfloat16


@pytest.mark.parametrize("check_vma", [True, False])
def test_a_shared_kernel_gets_the_gradient_of_all_devices_images(check_vma):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(16, 6, 6, 2)).astype(np.float32)
    kernel = rng.normal(size=(3, 3, 2, 4)).astype(np.float32)

    def loss(kernel, x):
        return jnp.mean(convolve(x, kernel, strides=(1, 1), padding="SAME") ** 2)

    mesh = Mesh(np.array(jax.devices()), "i")

    def local(kernel, x):
        g = jax.grad(lambda kernel: lax.pmean(loss(kernel, x), "i"))(kernel)
        return g if check_vma else lax.pmean(g, "i")

    everywhere = jax.jit(
        jax.shard_map(local, mesh=mesh, in_specs=(P(), P("i")), out_specs=P(), check_vma=check_vma)
    )
    np.testing.assert_allclose(
        everywhere(kernel, x), jax.jit(jax.grad(loss))(kernel, x), rtol=1e-4, atol=1e-6
    )
