"""SimCLR with more than two views, of several sizes; and what it says of its entropy."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcl import augment, keys, nets
from jaxcl.losses import dcl, keyless, nt_xent
from jaxcl.methods import simclr

KEY = jax.random.key(3)


@pytest.fixture(scope="module")
def batch():
    image = np.random.default_rng(0).integers(0, 256, (6, 24, 24, 3), np.uint8)
    return {"image": image, "index": np.arange(6, dtype=np.int32)}


def entropy(z1, z2, temperature):
    z1, z2 = (np.asarray(z, np.float64) / np.linalg.norm(z, axis=1, keepdims=True) for z in (z1, z2))
    p = np.exp(z1 @ z2.T / temperature)
    p /= p.sum(axis=1, keepdims=True)
    return -(p * np.log(p)).sum(axis=1).mean()


def crops(*sizes):
    """Views that compile in no time: a corner of the image, with noise of its own."""

    def views(key, batch):
        x = jnp.asarray(batch["image"], jnp.float32) / 255
        noise = [jax.random.normal(jax.random.fold_in(key, i), x.shape) for i in range(len(sizes))]
        return tuple((x + 0.3 * n)[:, :size, :size] for n, size in zip(noise, sizes, strict=True))

    return views


def method(views, loss, norm=None):
    norm = norm or nets.no_norm()
    encoder, head = nets.small_convnet(features=(4, 8), norm=norm), nets.mlp_head(norm=norm, hidden=(), out=4)
    return simclr(views=views, encoder=encoder, head=head, loss=loss), encoder, head


def projections(parts, params, made):
    """z of each view, encoded by itself: without a norm an image does not see the others."""
    encoder, head = parts

    @jax.jit
    def z(x):
        maps, _ = encoder.apply(params["encoder"], {}, x, train=False)
        return head.apply(params["head"], {}, jnp.mean(maps[-1], axis=(1, 2)), train=False)[0]

    return [z(x) for x in made]


@pytest.mark.parametrize("loss", [nt_xent, dcl])
def test_crops_of_two_sizes_are_all_compared(batch, loss, drawn):
    views = crops(16, 16, 8, 8, 8)
    page, *parts = method(views, keyless(loss, temperature=0.3))
    params, state = drawn(page.init, KEY, batch)
    value, (_, metrics) = jax.jit(page.loss)(params, state, KEY, batch)
    z = projections(parts, params, jax.jit(views)(keys.of_step(KEY, 1)[0], batch))
    np.testing.assert_allclose(value, jax.jit(partial(loss, temperature=0.3))(*z), rtol=1e-4)
    np.testing.assert_allclose(metrics["contrast_entropy"], entropy(*z[:2], 0.3), rtol=1e-4)


@pytest.mark.parametrize("temperature", [0.05, 1.0])
def test_the_entropy_is_that_of_the_losss_own_softmax(batch, temperature, drawn):
    views = crops(8, 8)
    page, *parts = method(views, keyless(nt_xent, temperature=temperature))
    params, state = drawn(page.init, KEY, batch)
    _, (_, metrics) = jax.jit(page.loss)(params, state, KEY, batch)
    z = projections(parts, params, jax.jit(views)(keys.of_step(KEY, 1)[0], batch))
    np.testing.assert_allclose(metrics["contrast_entropy"], entropy(*z, temperature), rtol=1e-4)


def test_a_single_view_is_refused(batch):
    page, *_ = method(crops(8), keyless(nt_xent))
    params, state = jax.eval_shape(page.init, KEY, batch)
    with pytest.raises(ValueError, match="simclr needs 2 views"):
        jax.eval_shape(page.loss, params, state, KEY, batch)


def test_multi_crop_makes_views_that_simclr_takes(batch):
    views = augment.each_view(augment.multi_crop(16, 8, counts=(2, 3), strength=0.5))
    page, *_ = method(views, keyless(nt_xent))
    value = jax.eval_shape(lambda: page.loss(*page.init(KEY, batch), KEY, batch)[0])
    assert value.shape == ()
