"""Regression of directions, by loops."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcl.losses import negative_cosine, regression


def rows(seed, n=5, d=4):
    return np.random.default_rng(seed).normal(size=(n, d))


def test_regression_is_the_squared_distance_of_unit_vectors():
    p, z = rows(0), rows(1)
    total = 0.0
    for a, b in zip(p, z, strict=True):
        total += sum((x / np.sqrt(a @ a) - y / np.sqrt(b @ b)) ** 2 for x, y in zip(a, b, strict=True))
    with jax.enable_x64(True):
        got = jax.jit(regression)(p, z)
    assert got.dtype == jnp.float64
    np.testing.assert_allclose(got, total / len(p), rtol=1e-12)


def test_only_directions_matter_and_the_ends_are_0_and_4():
    p, z = np.float32(rows(0)), np.float32(rows(1))
    distance, cosine = jax.jit(regression), jax.jit(negative_cosine)
    np.testing.assert_allclose(distance(3 * p, np.float32(0.2) * z), distance(p, z), rtol=1e-5)
    np.testing.assert_allclose(distance(p, 7 * p), 0, atol=1e-6)
    np.testing.assert_allclose(distance(p, -p), 4, rtol=1e-6)
    np.testing.assert_allclose(cosine(p, z), distance(p, z) / 2 - 1, rtol=1e-5)


def test_half_precision_is_computed_in_float32_and_a_zero_row_has_a_finite_gradient():
    p = np.float32(rows(0))
    p[0] = 0
    half = p.astype(jnp.bfloat16)
    assert jax.eval_shape(regression, half, half).dtype == jnp.float32
    assert np.all(np.isfinite(jax.jit(jax.grad(regression))(p, p + 1)))


def test_rows_that_do_not_pair_are_refused():
    with pytest.raises(ValueError, match="pairs row i"):
        regression(jnp.ones((2, 3)), jnp.ones((3, 3)))
