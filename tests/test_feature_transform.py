from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcl import feature_transform as ft
from jaxcl.feature_transform import batch_scores, extrapolate_positives, interpolate_negatives, mixing
from jaxcl.losses import info_nce, nt_xent, queue_nce
from jaxcl.similarity import normalize
from jaxcl.testing import assert_same_everywhere

KEY = jax.random.key(3)
# Each call one program: op by op there would be dozens to compile.
extrapolated = jax.jit(extrapolate_positives, static_argnames="dimension_wise")
interpolated = jax.jit(interpolate_negatives, static_argnames="dimension_wise")


@pytest.fixture(scope="module")
def rows():
    rng = np.random.default_rng(0)
    drawn = [rng.normal(size=(n, 6)) for n in (16, 16, 40)]
    return [(x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32) for x in drawn]


def test_an_extrapolated_score_is_the_papers_formula(rows):
    q, k, _ = rows
    a, b = map(np.asarray, extrapolated(KEY, q, k))
    s = np.sum(q * k, axis=1)
    # The factor from the first entry alone, then every score from it.
    factor = (a[0, 0] - k[0, 0]) / (q[0, 0] - k[0, 0])
    assert 1 < factor < 2
    np.testing.assert_allclose(np.sum(a * b, axis=1), s + 2 * factor * (1 - factor) * (1 - s), atol=1e-5)
    assert np.all(np.sum(a * b, axis=1) <= s + 1e-6)
    assert np.all(np.sum(a * b, axis=1) >= 5 * s - 4 - 1e-5)


@pytest.mark.parametrize("dimension_wise", [False, True])
def test_extrapolation_keeps_the_sum_of_a_pair(rows, dimension_wise):
    q, k, _ = rows
    a, b = map(np.asarray, extrapolated(KEY, q, k, dimension_wise=dimension_wise))
    np.testing.assert_allclose(a + b, q + k, atol=1e-6)
    assert not np.allclose(a, q)


@pytest.mark.parametrize("dimension_wise", [False, True])
def test_an_interpolated_negative_lies_between_two_of_the_queue(rows, dimension_wise):
    queue = rows[2]
    mixed = np.asarray(interpolated(KEY, queue, dimension_wise=dimension_wise))
    others = queue[np.asarray(jax.random.permutation(jax.random.split(KEY)[0], len(queue)))]
    assert np.all(mixed >= np.minimum(queue, others) - 1e-6)
    assert np.all(mixed <= np.maximum(queue, others) + 1e-6)
    np.testing.assert_allclose(
        np.mean(mixed, axis=0), np.mean(queue, axis=0), atol=0.15 * dimension_wise + 1e-6
    )


def test_a_factor_of_one_is_no_transform(rows, monkeypatch):
    monkeypatch.setattr(ft, "beta", lambda key, alpha, shape, dtype: jnp.zeros(shape, dtype))
    q, k, queue = rows
    # A function of its own to compile: what was traced with another beta is not found again.
    np.testing.assert_array_equal(jax.jit(lambda q, k: extrapolate_positives(KEY, q, k))(q, k), (q, k))
    monkeypatch.setattr(ft, "beta", lambda key, alpha, shape, dtype: jnp.ones(shape, dtype))

    @jax.jit
    def made(q, k, queue):
        mixed = info_nce(*batch_scores(KEY, q, k, positives=None), temperature=0.3)
        return interpolate_negatives(KEY, queue), mixed, nt_xent(q, k, temperature=0.3)

    same, mixed, plain = made(q, k, queue)
    np.testing.assert_array_equal(same, queue)
    np.testing.assert_allclose(mixed, plain, rtol=1e-6)


def test_the_factors_are_beta_distributed_and_drawn_once_a_step_or_once_an_entry():
    ones, zeros = np.ones((100, 30), np.float32), np.zeros((100, 30), np.float32)
    entries = np.asarray(extrapolated(KEY, ones, zeros, dimension_wise=True)[0])
    # Beta(2, 2) has mean 1/2 and variance 1/20.
    assert float(np.mean(entries)) == pytest.approx(1.5, abs=0.02)
    assert float(np.var(entries)) == pytest.approx(0.05, abs=0.005)
    one, other = (np.unique(extrapolated(key, ones, zeros)[0]) for key in (KEY, jax.random.key(4)))
    assert len(one) == len(other) == 1
    assert one != other


@pytest.mark.parametrize("alpha", [0.4, 0.6, 1.6, 2.0, 7.0])
def test_beta_is_the_beta_distribution(alpha):
    from scipy import stats

    drawn = np.asarray(ft.beta(KEY, alpha, (4000,), jnp.float32), np.float64)
    assert stats.kstest(drawn, stats.beta(alpha, alpha).cdf).pvalue > 0.01


def test_the_gradient_reaches_the_query_through_both_of_the_pair(rows):
    q, k, _ = rows
    sides = jax.jit(jax.jacrev(lambda q: [jnp.sum(side * k) for side in extrapolate_positives(KEY, q, k)]))
    a_only, b_only = sides(q)
    assert jnp.all(jnp.abs(a_only).max(axis=1) > 0)
    assert jnp.all(jnp.abs(b_only).max(axis=1) > 0)


def test_renormalized_positives_are_unit_vectors_and_others_are_not(rows):
    q, k, queue = rows
    for a in jax.jit(partial(extrapolate_positives, renormalize=True))(KEY, q, k):
        np.testing.assert_allclose(np.linalg.norm(a, axis=1), 1, atol=1e-6)
    assert np.all(np.linalg.norm(extrapolated(KEY, q, k)[0], axis=1) > 1)
    assert np.all(np.linalg.norm(interpolated(KEY, queue), axis=1) < 1 + 1e-6)


def test_one_side_is_mixed_without_the_other_and_nothing_before_the_start(rows):
    step = jnp.int32(5)
    q, k, queue = mixing(negatives=None)(KEY, step, *rows)
    np.testing.assert_array_equal(queue, rows[2])
    assert not jnp.allclose(q, rows[0])
    q, k, queue = mixing(positives=None)(KEY, step, *rows)
    np.testing.assert_array_equal(q, rows[0])
    assert not jnp.allclose(queue, rows[2])
    for given, kept in zip(mixing(start=6)(KEY, step, *rows), rows, strict=True):
        np.testing.assert_array_equal(given, kept)
    for given, now in zip(mixing(start=5)(KEY, step, *rows), mixing()(KEY, step, *rows), strict=True):
        np.testing.assert_array_equal(given, now)


def test_both_sides_off_in_the_batch_is_nt_xent_with_its_gradient(rows):
    q, k, _ = rows

    def mixed(q):
        return info_nce(*batch_scores(KEY, q, k, positives=None, negatives=None), temperature=0.3)

    got = jax.jit(jax.value_and_grad(mixed))(q)
    want = jax.jit(jax.value_and_grad(lambda q: nt_xent(q, k, temperature=0.3)))(q)
    np.testing.assert_allclose(got[0], want[0], rtol=1e-6)
    np.testing.assert_allclose(got[1], want[1], atol=1e-6)


@pytest.mark.parametrize("each", [False, True, "positives", "negatives"])
def test_in_batch_scores_are_those_of_the_loops_that_define_them(rows, each):
    q, k, _ = (np.asarray(x, np.float64) for x in rows)
    score = jax.jit(partial(batch_scores, dimension_wise=each))
    positive, scores = map(np.asarray, score(KEY, *rows[:2]))
    positives_key, permutation_key, factor_key = jax.random.split(KEY, 3)
    shapes = [(16, 6) if each in (True, "positives") else (), (32, 6) if each in (True, "negatives") else ()]
    up = 1 + np.broadcast_to(ft.beta(positives_key, 2.0, shapes[0], jnp.float32), (16, 6))
    between = np.broadcast_to(ft.beta(factor_key, 1.6, shapes[1], jnp.float32), (32, 6))
    order = np.asarray(jax.random.permutation(permutation_key, 32))
    plain, mixed = np.empty((32, 6)), np.empty((32, 6))
    for i in range(16):
        plain[2 * i], plain[2 * i + 1] = q[i], k[i]
        mixed[2 * i] = up[i] * q[i] + (1 - up[i]) * k[i]
        mixed[2 * i + 1] = up[i] * k[i] + (1 - up[i]) * q[i]
    for a in range(32):
        np.testing.assert_allclose(positive[a], mixed[a] @ mixed[a ^ 1], atol=1e-5)
        for j in range(32):
            if j // 2 == a // 2:
                assert scores[a, j] == -np.inf
                continue
            other = plain[order[j]] if order[j] // 2 != a // 2 else plain[j]
            negative = between[j] * plain[j] + (1 - between[j]) * other
            np.testing.assert_allclose(scores[a, j], mixed[a] @ negative, atol=1e-5)
    scored = partial(ft.mixed_nt_xent, temperature=0.3, dimension_wise=each)
    want = jax.jit(partial(info_nce, temperature=0.3))(positive, scores)
    np.testing.assert_allclose(jax.jit(scored)(KEY, *rows[:2]), want, rtol=1e-6)


def test_transforms_are_the_same_on_one_device_and_on_eight(rows, monkeypatch):
    # Which key and shape a device draws with is looked at here, and Beta takes XLA long to compile.
    monkeypatch.setattr(ft, "beta", lambda key, alpha, shape, dtype: jax.random.uniform(key, shape, dtype))

    queue = jnp.asarray(rows[2])

    def loss(w, batch, axis_name):
        q, k = normalize(batch["x"] @ w), normalize(batch["y"] @ w)
        mix = mixing(dimension_wise=True, renormalize=True)
        in_batch = ft.mixed_nt_xent(KEY, q, k, axis_name=axis_name)
        in_batch = in_batch + ft.mixed_nt_xent(KEY, q, k, dimension_wise=True, axis_name=axis_name)
        return in_batch + queue_nce(
            *mix(KEY, jnp.int32(0), q, k, queue, axis_name=axis_name), axis_name=axis_name
        )

    batch = {"x": rows[0], "y": rows[1]}
    w = (np.eye(6) + 0.1 * np.random.default_rng(1).normal(size=(6, 6))).astype(np.float32)
    assert_same_everywhere(loss, w, batch, placements=["jit", "shard_map"])


def test_odd_settings_are_refused(rows):
    with pytest.raises(ValueError, match="alpha above 0; got 0"):
        extrapolate_positives(KEY, *rows[:2], alpha=0)
    with pytest.raises(ValueError, match='"positives" or "negatives"; got \'both\''):
        mixing(dimension_wise="both")
    with pytest.raises(ValueError, match='"positives" or "negatives"; got \'both\''):
        ft.mixed_nt_xent(KEY, *rows[:2], dimension_wise="both")
    for settings in ft.MIXES.values():
        assert mixing(**settings)(KEY, jnp.int32(0), *rows)[2].shape == rows[2].shape
        assert jnp.isfinite(ft.mixed_nt_xent(KEY, *rows[:2], **settings))
