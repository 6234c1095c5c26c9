"""Features of a data set do not depend on how it was cut into batches or on how many devices there were."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType

from jaxcl.evaluate import embed, raw_pixels

IMAGES = np.random.default_rng(0).integers(0, 256, (21, 4, 4, 3), np.uint8)


def linear(w, x):
    return x.reshape(len(x), -1) @ w


@pytest.fixture(scope="module")
def w():
    return jax.random.normal(jax.random.key(0), (48, 5))


def test_embedding_is_the_function_of_the_images_over_255(w):
    want = (IMAGES.reshape(21, -1) / 255) @ np.asarray(w, np.float64)
    got = embed(functools.partial(linear, w), IMAGES, batch_size=8)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("batch_size", [1, 16, 24, 512])
def test_the_batch_size_changes_nothing(w, batch_size):
    f = functools.partial(linear, w)
    np.testing.assert_allclose(
        embed(f, IMAGES, batch_size=batch_size), embed(f, IMAGES, batch_size=8), rtol=1e-5, atol=1e-5
    )


def test_one_device_and_eight_agree(w, monkeypatch):
    f = functools.partial(linear, w)
    many = embed(f, IMAGES, batch_size=8)
    assert jax.local_device_count() == 8
    one = jax.local_devices()[:1]
    monkeypatch.setattr(jax, "local_devices", lambda: one)
    np.testing.assert_allclose(embed(f, IMAGES, batch_size=8), many, rtol=1e-5, atol=1e-5)


def test_new_parameters_and_a_shorter_data_set_compile_nothing_new(w):
    traces = []

    def counted(w, x):
        traces.append(None)
        return linear(w, x)

    embed(functools.partial(counted, w), IMAGES, batch_size=8)
    once = len(traces)
    again = embed(functools.partial(counted, 2 * w), IMAGES[:3], batch_size=8)
    assert len(traces) == once
    np.testing.assert_allclose(
        again, embed(functools.partial(linear, 2 * w), IMAGES[:3], batch_size=8), rtol=1e-5, atol=1e-5
    )


class Trained(NamedTuple):
    apply: Callable
    params: jax.Array
    state: jax.Array
    about: str


def test_an_encoder_that_is_a_value_is_embedded_as_its_function_and_never_compiled_again(w):
    traces = []

    def apply(w, mean, x):
        traces.append(None)
        return linear(w, x - mean)

    first = embed(Trained(apply, w, jnp.float32(0.5), "a run"), IMAGES, batch_size=8)
    embed(Trained(apply, 2 * w, jnp.float32(0.1), "another"), IMAGES, batch_size=8)
    assert len(traces) == 1
    want = embed(lambda x: linear(w, x - 0.5), IMAGES, batch_size=8)
    np.testing.assert_allclose(first, want, rtol=1e-5, atol=1e-5)


def test_parameters_that_live_on_another_mesh_are_brought_along(w):
    mesh = jax.make_mesh((2,), ("a",), axis_types=(AxisType.Auto,), devices=jax.devices()[2:4])
    there = jax.device_put(w, jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec()))
    want = embed(functools.partial(linear, w), IMAGES, batch_size=8)
    np.testing.assert_array_equal(embed(functools.partial(linear, there), IMAGES, batch_size=8), want)


def test_the_encoder_may_compute_in_bfloat16_and_features_come_in_float32():
    got = embed(lambda x: x.mean(axis=(1, 2)), IMAGES, batch_size=8, dtype=jnp.bfloat16)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, IMAGES.mean(axis=(1, 2)) / 255, rtol=0.02)


def test_raw_pixels_are_what_the_identity_embeds():
    identity = embed(lambda x: x.reshape(len(x), -1), IMAGES, batch_size=8)
    np.testing.assert_allclose(raw_pixels(IMAGES), identity, rtol=1e-5, atol=1e-5)


def test_feature_maps_and_float_images_are_refused(w):
    with pytest.raises(ValueError, match=r"one vector an image.*extract\.pool"):
        embed(lambda x: x, IMAGES, batch_size=8)
    with pytest.raises(ValueError, match=r"must be uint8.*float32"):
        embed(functools.partial(linear, w), IMAGES.astype(np.float32))
    with pytest.raises(ValueError, match="must be uint8"):
        raw_pixels(IMAGES[0])
