"""Alignment, log-sum-exp, uniformity and the sliced Wasserstein distance against loops in float64."""

import functools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcl.losses import (
    alignment,
    alignment_uniformity,
    decoupled_nt_xent,
    generalized,
    keyless,
    log_sum_exp,
    normal,
    nt_xent,
    orthogonal_directions,
    sliced_wasserstein,
    uniform_cube,
    uniform_sphere,
    uniformity,
)
from jaxcl.similarity import normalize

N, D = 12, 6
KEY = jax.random.key(11)


def unit(z):
    return z / np.linalg.norm(z, axis=1, keepdims=True)


@pytest.fixture(scope="module")
def views():
    rng = np.random.default_rng(0)
    z1 = rng.normal(size=(N, D)).astype(np.float32)
    return z1, z1 + 0.7 * rng.normal(size=(N, D)).astype(np.float32)


def loop_log_sum_exp(z, temperature, mask_self):
    rows = range(len(z))
    return np.mean(
        [
            np.log(sum(np.exp(z[i] @ z[k] / temperature) for k in rows if k != i or not mask_self))
            for i in rows
        ]
    )


def loop_uniformity(z):
    rows = range(len(z))
    return np.log(np.mean([np.exp(-2 * np.sum((z[i] - z[j]) ** 2)) for i in rows for j in rows if i != j]))


@functools.cache
def drawn_of(prior, projections):
    """key -> directions [D, projections] and a sample of the prior [N, D]."""

    @jax.jit
    def draw(key):
        directions_key, prior_key = jax.random.split(key)
        return orthogonal_directions(directions_key, D, projections), prior(prior_key, (N, D))

    return draw


def loop_swd(key, z, prior, projections=None):
    """The notebook's steps, one direction at a time; the draws are the function's own."""
    w, sample = (np.asarray(x, np.float64) for x in drawn_of(prior, projections or D)(key))
    return np.mean([(np.sort(z @ column) - np.sort(sample @ column)) ** 2 for column in w.T])


@pytest.mark.parametrize("block_size", [0, 5])
def test_each_term_is_that_of_loops_in_float64(block_size, views):
    z1, z2 = views
    a, b = (unit(z.astype(np.float64)) for z in views)
    both = np.concatenate([a, b])

    @jax.jit
    def terms(z1, z2):
        z, block = jnp.concatenate([z1, z2]), {"block_size": block_size}
        return (
            alignment(z1, z2),
            alignment(z1, z2, per="entry"),
            log_sum_exp(z, temperature=0.3, **block),
            log_sum_exp(z, temperature=0.3, mask_self=False, **block),
            decoupled_nt_xent(z1, z2, temperature=0.3, weight=0.1, **block),
            decoupled_nt_xent(z1, z2, temperature=0.3, weight=0.1, convention="notebook", **block),
            uniformity(z, **block),
            alignment_uniformity(z1, z2, weight=0.5, alpha=1.0, **block),
        )

    kept, masked = (loop_log_sum_exp(both, 0.3, mask) for mask in (False, True))
    cosines = np.sum(a * b, axis=1)
    want = (
        -np.mean(cosines),
        np.mean((z1.astype(float) - z2) ** 2) / 2,
        masked,
        kept,
        -np.mean(cosines) + 0.1 * masked,
        (1 - np.mean(cosines)) / D + 0.1 * (kept - np.log(D)),
        loop_uniformity(both),
        np.mean(np.linalg.norm(a - b, axis=1)) + 0.5 * (loop_uniformity(a) + loop_uniformity(b)) / 2,
    )
    np.testing.assert_allclose(terms(z1, z2), want, rtol=1e-5)


def test_at_weight_temperature_the_paper_s_form_is_temperature_times_nt_xent(views):
    @jax.jit
    def both(z1, z2):
        per_sample = partial(generalized, KEY, z1, z2, per="sample", weight=0.2)
        return per_sample(distribution=keyless(log_sum_exp, temperature=0.2)), 0.2 * nt_xent(
            z1, z2, temperature=0.2
        )

    np.testing.assert_allclose(*both(*views), rtol=1e-5)


PRIORS = {
    "sphere": uniform_sphere,
    "cube": uniform_cube,
    "normal": normal,
    "own": lambda k, s: 3 * uniform_cube(k, s),
}


@pytest.mark.parametrize(
    ("prior", "projections"), [("sphere", None), ("cube", 4), ("normal", 9), ("own", None)]
)
def test_the_sliced_distance_and_its_gradient_are_those_of_loops(prior, projections, views):
    z, prior = views[0], PRIORS[prior]
    step = jax.jit(
        jax.value_and_grad(partial(sliced_wasserstein, prior=prior, projections=projections), argnums=1)
    )
    value, gradient = step(KEY, z)
    truth = partial(loop_swd, KEY, prior=prior, projections=projections)
    np.testing.assert_allclose(value, truth(z.astype(float)), rtol=2e-5)
    along, h = np.random.default_rng(1).normal(size=(N, D)), 1e-6
    slope = (truth(z + h * along) - truth(z - h * along)) / (2 * h)
    np.testing.assert_allclose(np.sum(gradient * along), slope, rtol=1e-3)


def test_a_sample_of_the_prior_in_any_order_is_at_distance_zero():
    order = np.random.default_rng(0).permutation(64)

    @jax.jit
    def distance(key):
        return sliced_wasserstein(key, uniform_sphere(jax.random.split(key)[1], (64, 8))[order])

    assert distance(KEY) < 1e-12


def test_the_directions_are_orthogonal_fresh_and_cover_both_signs():
    w = np.asarray(jax.jit(lambda: orthogonal_directions(KEY, 8, 12))())
    np.testing.assert_allclose(w[:, :8].T @ w[:, :8], np.eye(8), atol=1e-5)
    np.testing.assert_allclose(w[:, 8:].T @ w[:, 8:], np.eye(4), atol=1e-5)
    several = jax.jit(jax.vmap(lambda key: orthogonal_directions(key, 3, 3)))
    many = np.asarray(several(jax.random.split(KEY, 2000)))
    # Uniform over the orthogonal matrices: entries of mean 0 and variance 1/3, determinants of both signs.
    np.testing.assert_allclose(many.mean(axis=0), 0, atol=0.06)
    np.testing.assert_allclose((many**2).mean(axis=0), 1 / 3, atol=0.05)
    assert 0.4 < np.mean(np.linalg.det(many) > 0) < 0.6


def test_rotating_rows_of_a_rotation_invariant_prior_changes_the_distance_little():
    rng = np.random.default_rng(0)
    z = unit(rng.normal(size=(256, 8)) + np.eye(8)[0])
    rotation = np.linalg.qr(rng.normal(size=(8, 8)))[0]
    keys = jax.random.split(jax.random.key(4), 64)
    average = jax.jit(lambda z: jnp.mean(jax.vmap(lambda key: sliced_wasserstein(key, z))(keys)))
    np.testing.assert_allclose(average(np.float32(z @ rotation)), average(np.float32(z)), rtol=0.05)


@pytest.mark.parametrize("prior", [normal, uniform_sphere])
def test_quantiles_are_what_a_large_sample_sorts_to(prior):
    wrong = uniform_sphere if prior is normal else normal

    @jax.jit
    def distances(key):
        sample = prior(key, (4096, 8))
        distance = partial(sliced_wasserstein, jax.random.key(1), sample, exact_quantiles=True)
        return distance(prior=prior), distance(prior=wrong), jnp.mean(jnp.square(sample))

    exact, off, spread = distances(KEY)
    assert exact < 0.01 * spread
    assert off > 0.1


def test_matching_the_sphere_spreads_a_crowd_of_rows():
    z = np.float32(unit(1 + 0.1 * np.random.default_rng(0).normal(size=(64, 4))))

    @jax.jit
    def run(z):
        def step(z, key):
            gradient = jax.grad(lambda z: sliced_wasserstein(key, normalize(z)))(z)
            return z - 60.0 * gradient, None

        moved = jax.lax.scan(step, z, jax.random.split(KEY, 100))[0]
        return uniformity(z), uniformity(moved), uniformity(uniform_sphere(jax.random.key(2), z.shape))

    before, after, ideal = run(z)
    assert before > -0.5
    assert after < 0.9 * ideal


def test_bad_input_is_refused_in_words(views):
    z1, z2 = views
    with pytest.raises(ValueError, match='per="sample"'):
        alignment(z1, z2, per="row")
    with pytest.raises(ValueError, match='convention="paper"'):
        decoupled_nt_xent(z1, z2, convention="book")
    with pytest.raises(ValueError, match="one projection or more"):
        sliced_wasserstein(KEY, z1, projections=0)
    with pytest.raises(ValueError, match="exact_quantiles are known for"):
        sliced_wasserstein(KEY, z1, prior=uniform_cube, exact_quantiles=True)
    with pytest.raises(ValueError, match="returned"):
        sliced_wasserstein(KEY, z1, prior=lambda key, shape: jnp.ones((3, D)))
    with pytest.raises(ValueError, match="two images or more"):
        uniformity(z1[:1])
