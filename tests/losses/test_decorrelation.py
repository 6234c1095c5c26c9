"""The losses of moments against loops in float64, and what they are blind to."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcl.losses import (
    barlow_twins,
    covariance_term,
    normal,
    orthogonal_directions,
    variance_term,
    vicreg,
    visreg,
)

N, D = 12, 6
KEY = jax.random.key(2)


@pytest.fixture(scope="module")
def views():
    rng = np.random.default_rng(0)
    z1 = 0.6 * rng.normal(size=(N, D))
    return z1, z1 + 0.4 * rng.normal(size=(N, D))


def loop_variance(z, target=1.0):
    return np.mean([max(target - np.sqrt(np.var(column, ddof=1) + 1e-4), 0) for column in z.T])


def loop_covariance(z):
    c = np.cov(z.T)
    return sum(c[i, j] ** 2 for i in range(D) for j in range(D) if i != j) / D


def loop_vicreg(a, b):
    moments = (loop_variance(a) + loop_variance(b)) / 2, loop_covariance(a) + loop_covariance(b)
    return 25 * np.mean((a - b) ** 2) + 25 * moments[0] + moments[1]


def loop_barlow(a, b):
    a, b = ((z - z.mean(axis=0)) / np.sqrt(z.var(axis=0) + 1e-5) for z in (a, b))
    total = 0.0
    for i in range(D):
        for j in range(D):
            c = np.mean(a[:, i] * b[:, j])
            total += (1 - c) ** 2 if i == j else 5e-3 * c**2
    return total


def loop_visreg(a, b):
    z = np.concatenate([a, b])
    mean, std = z.mean(axis=0), np.sqrt(z.var(axis=0) + 1e-6)
    directions_key, prior_key = jax.random.split(KEY)
    w = np.asarray(orthogonal_directions(directions_key, D, D), np.float64)
    sample = np.asarray(normal(prior_key, z.shape), np.float64)
    shape = np.mean([(np.sort((z - mean) / std @ c) - np.sort(sample @ c)) ** 2 for c in w.T])
    return np.mean((a - b) ** 2) / 2 + np.mean((1 - std) ** 2) + shape + np.mean(mean**2)


def test_each_is_that_of_loops_in_float64(views):
    @jax.jit
    def values(a, b):
        return variance_term(a), covariance_term(a), vicreg(a, b), barlow_twins(a, b), visreg(KEY, a, b)

    want = (
        loop_variance(views[0]),
        loop_covariance(views[0]),
        loop_vicreg(*views),
        loop_barlow(*views),
        loop_visreg(*views),
    )
    np.testing.assert_allclose(values(*(z.astype(np.float32) for z in views)), want, rtol=2e-5)


@pytest.mark.parametrize(("loss", "truth"), [(vicreg, loop_vicreg), (barlow_twins, loop_barlow)])
def test_gradients_are_those_of_loops(loss, truth, views):
    gradient = jax.jit(jax.grad(loss, (0, 1)))(*(z.astype(np.float32) for z in views))
    along, h = np.random.default_rng(1).normal(size=(2, N, D)), 1e-5
    slope = (truth(*(views + h * along)) - truth(*(views - h * along))) / (2 * h)
    np.testing.assert_allclose(
        sum(np.sum(g * u) for g, u in zip(gradient, along, strict=True)), slope, rtol=1e-4
    )


def test_moving_all_rows_changes_neither_vicreg_nor_barlow_twins(views):
    a, b = (z.astype(np.float32) for z in views)

    @jax.jit
    def values(shift):
        return vicreg(a + shift, b + shift), barlow_twins(a + shift, b + 2 * shift)

    np.testing.assert_allclose(values(3.0), values(0.0), rtol=1e-4)


def test_collapsed_rows_are_pulled_apart_by_visreg_and_cost_vicreg_its_variance():
    z = jnp.ones((N, D))
    value = jax.jit(vicreg)(z, z)
    np.testing.assert_allclose(value, 25 * (1 - np.sqrt(1e-4)), rtol=1e-5)
    nearly = z + 1e-4 * jax.random.normal(KEY, (N, D))
    scale = jax.jit(jax.grad(lambda s: visreg(KEY, s * nearly, s * nearly, centre=0.0, shape=0.0)))(1.0)
    assert jnp.isfinite(scale)
    assert scale < 0
