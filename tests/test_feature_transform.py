from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import logsumexp

from jaxcl import feature_transform as ft
from jaxcl.feature_transform import (
    batch_scores,
    extrapolate_positives,
    interpolate_negatives,
    mixed_nt_xent,
    mixing,
    mixing_scores,
)
from jaxcl.losses import info_nce, nt_xent, queue_nce
from jaxcl.similarity import normalize
from jaxcl.testing import assert_same_everywhere

KEY = jax.random.key(3)


@pytest.fixture(scope="module")
def rows():
    rng = np.random.default_rng(0)
    drawn = [rng.normal(size=(n, 6)) for n in (16, 16, 40)]
    return [np.float32(x / np.linalg.norm(x, axis=1, keepdims=True)) for x in drawn]


@pytest.fixture
def quick_factors(monkeypatch):
    """Factors that are uniform, where their distribution plays no part: Beta's takes XLA a second to compile."""
    monkeypatch.setattr(ft, "beta", lambda key, alpha, shape, dtype: jax.random.uniform(key, shape, dtype))


def pair(q, k, key=KEY, **settings):
    return map(np.asarray, jax.jit(partial(extrapolate_positives, **settings))(key, q, k))


def mixed_queue(queue, **settings):
    return np.asarray(jax.jit(partial(interpolate_negatives, **settings))(KEY, queue))


def test_an_extrapolated_score_is_the_papers_formula(rows):
    q, k, _ = rows
    a, b = pair(q, k)
    s = np.sum(q * k, axis=1)
    # The factor from the first entry alone, then every score from it.
    factor = (a[0, 0] - k[0, 0]) / (q[0, 0] - k[0, 0])
    assert 1 < factor < 2
    score = np.sum(a * b, axis=1)
    np.testing.assert_allclose(score, s + 2 * factor * (1 - factor) * (1 - s), atol=1e-5)
    assert np.all(score <= s + 1e-6)
    assert np.all(score >= 5 * s - 4 - 1e-5)


@pytest.mark.parametrize("dimension_wise", [False, True])
def test_extrapolation_keeps_the_sum_of_a_pair(rows, dimension_wise):
    q, k, _ = rows
    a, b = pair(q, k, dimension_wise=dimension_wise)
    np.testing.assert_allclose(a + b, q + k, atol=1e-6)
    assert not np.allclose(a, q)


@pytest.mark.parametrize("dimension_wise", [False, True])
def test_an_interpolated_negative_lies_between_two_of_the_queue(rows, dimension_wise):
    queue = rows[2]
    mixed = mixed_queue(queue, dimension_wise=dimension_wise)
    others = queue[np.asarray(jax.random.permutation(jax.random.split(KEY)[0], len(queue)))]
    assert np.all(mixed >= np.minimum(queue, others) - 1e-6)
    assert np.all(mixed <= np.maximum(queue, others) + 1e-6)
    np.testing.assert_allclose(mixed.mean(axis=0), queue.mean(axis=0), atol=0.15 * dimension_wise + 1e-6)


def test_a_factor_of_one_is_no_transform(rows, monkeypatch):
    monkeypatch.setattr(ft, "beta", lambda key, alpha, shape, dtype: jnp.zeros(shape, dtype))
    q, k, queue = rows
    np.testing.assert_array_equal(list(pair(q, k)), [q, k])
    monkeypatch.setattr(ft, "beta", lambda key, alpha, shape, dtype: jnp.ones(shape, dtype))
    np.testing.assert_array_equal(mixed_queue(queue), queue)

    @jax.jit
    def losses(q, k):
        mixed = info_nce(*batch_scores(KEY, q, k, positives=None), temperature=0.3)
        return mixed, nt_xent(q, k, temperature=0.3)

    np.testing.assert_allclose(*losses(q, k), rtol=1e-6)


def test_the_factors_are_beta_distributed_and_drawn_once_a_step_or_once_an_entry():
    ones, zeros = np.ones((100, 30), np.float32), np.zeros((100, 30), np.float32)
    entries, _ = pair(ones, zeros, dimension_wise=True)
    # Beta(2, 2) has mean 1/2 and variance 1/20.
    assert entries.mean() == pytest.approx(1.5, abs=0.02)
    assert entries.var() == pytest.approx(0.05, abs=0.005)
    of_step = jax.jit(lambda key: extrapolate_positives(key, ones, zeros)[0])
    once, other = of_step(KEY), of_step(jax.random.key(4))
    assert len(np.unique(once)) == 1
    assert np.asarray(other)[0, 0] != np.asarray(once)[0, 0]


@pytest.mark.parametrize("alpha", [0.4, 0.6, 1.6, 2.0, 7.0])
def test_beta_is_the_beta_distribution(alpha):
    from scipy import stats

    drawn = np.asarray(ft.beta(KEY, alpha, (4000,), jnp.float32), np.float64)
    assert stats.kstest(drawn, stats.beta(alpha, alpha).cdf).pvalue > 0.01


def test_the_gradient_reaches_the_query_through_both_of_the_pair(rows):
    q, k, _ = rows
    sides = jax.jit(jax.jacrev(lambda q: [jnp.sum(side * k) for side in extrapolate_positives(KEY, q, k)]))
    a_only, b_only = sides(q)
    assert np.all(np.abs(a_only).max(axis=1) > 0)
    assert np.all(np.abs(b_only).max(axis=1) > 0)


def test_renormalized_positives_are_unit_vectors_and_others_are_not(rows):
    q, k, queue = rows
    for a in pair(q, k, renormalize=True):
        np.testing.assert_allclose(np.linalg.norm(a, axis=1), 1, atol=1e-6)
    longer, _ = pair(q, k)
    assert np.all(np.linalg.norm(longer, axis=1) > 1)
    assert np.all(np.linalg.norm(mixed_queue(queue), axis=1) < 1 + 1e-6)


def test_one_side_is_mixed_without_the_other_and_nothing_before_the_start(rows):
    settings = [{"negatives": None}, {"positives": None}, {"start": 6}, {"start": 5}, {}]
    both = jax.jit(lambda step: [mixing(**one)(KEY, step, *map(jnp.asarray, rows)) for one in settings])
    one, other, before, since, always = both(np.int32(5))
    np.testing.assert_array_equal(one[2], rows[2])
    assert not np.allclose(one[0], rows[0])
    np.testing.assert_array_equal(other[0], rows[0])
    assert not np.allclose(other[2], rows[2])
    for given, kept in zip(before, rows, strict=True):
        np.testing.assert_array_equal(given, kept)
    for given, now in zip(since, always, strict=True):
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
def test_in_batch_scores_are_those_of_the_loops_that_define_them(rows, each, quick_factors):
    q, k, _ = (np.asarray(x, np.float64) for x in rows)
    shapes = [(16, 6) if each in (True, "positives") else (), (32, 6) if each in (True, "negatives") else ()]

    @jax.jit
    def found(z1, z2):
        scores = batch_scores(KEY, z1, z2, dimension_wise=each, queue=jnp.asarray(rows[2]))
        return *scores, ft.mixed_nt_xent(KEY, z1, z2, temperature=0.3, dimension_wise=each)

    @jax.jit
    def drawn():
        positives_key, permutation_key, factor_key, queue_key = jax.random.split(KEY, 4)
        factors = (
            ft.beta(positives_key, 2.0, shapes[0], jnp.float32),
            ft.beta(factor_key, 1.6, shapes[1], jnp.float32),
        )
        of_queue = {"dimension_wise": each in (True, "negatives")}
        queue = interpolate_negatives(queue_key, jnp.asarray(rows[2]), **of_queue)
        return *factors, jax.random.permutation(permutation_key, 32), queue

    positive, scores, loss = map(np.asarray, found(*rows[:2]))
    extra, share, order, queue = map(np.asarray, drawn())
    up, between = 1 + np.broadcast_to(extra, (16, 6)), np.broadcast_to(share, (32, 6))
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
    np.testing.assert_allclose(scores[:, 32:], mixed @ queue.T, atol=1e-5)
    scores = scores[:, :32]  # the loss has no queue
    scores = np.column_stack([positive, scores]) / 0.3
    np.testing.assert_allclose(loss, np.mean(logsumexp(scores, axis=1) - scores[:, 0]), rtol=1e-5)


def test_what_orders_the_batch_does_not_draw_the_queues_factor(rows, monkeypatch):
    real, drawn = jax.random.permutation, {"orders": [], "queues": []}

    def permutation(key, n):
        drawn["orders"].append(jax.random.key_data(key))
        return real(key, n)

    def interpolate(key, queue, **settings):
        drawn["queues"].append(jax.random.key_data(key))
        return queue

    monkeypatch.setattr(jax.random, "permutation", permutation)
    monkeypatch.setattr(ft, "interpolate_negatives", interpolate)

    @jax.jit
    def keys(z1, z2, queue):
        batch_scores(KEY, z1, z2, queue=queue)
        return drawn

    seen = keys(*map(jnp.asarray, rows))
    (order,), (queue,) = seen["orders"], seen["queues"]
    assert not np.array_equal(order, queue)


def test_transforms_are_the_same_on_one_device_and_on_eight(rows, quick_factors):
    def loss(w, batch, axis_name):
        q, k = normalize(batch["x"] @ w), normalize(batch["y"] @ w)
        mix = mixing(dimension_wise=True, renormalize=True)
        in_batch = ft.mixed_nt_xent(KEY, q, k, axis_name=axis_name)
        in_batch = in_batch + ft.mixed_nt_xent(KEY, q, k, dimension_wise=True, axis_name=axis_name)
        return in_batch + queue_nce(
            *mix(KEY, jnp.int32(0), q, k, jnp.asarray(rows[2]), axis_name=axis_name), axis_name=axis_name
        )

    batch = {"x": rows[0], "y": rows[1]}
    w = np.float32(np.eye(6) + 0.1 * np.random.default_rng(1).normal(size=(6, 6)))
    # Under jit it is the program of one device, without an axis.
    assert_same_everywhere(loss, w, batch, placements=["shard_map"])


def test_odd_settings_are_refused(rows):
    with pytest.raises(ValueError, match="alpha above 0; got 0"):
        extrapolate_positives(KEY, *rows[:2], alpha=0)
    with pytest.raises(ValueError, match='"positives" or "negatives"; got \'both\''):
        mixing(dimension_wise="both")
    with pytest.raises(ValueError, match='"positives" or "negatives"; got \'both\''):
        ft.mixed_nt_xent(KEY, *rows[:2], dimension_wise="both")


def test_every_mix_that_has_a_name_is_a_setting_of_both(rows, quick_factors):
    @jax.jit
    def named(step):
        mixed = [mixing(**settings)(KEY, step, *map(jnp.asarray, rows)) for settings in ft.MIXES.values()]
        return mixed, [ft.mixed_nt_xent(KEY, *rows[:2], **settings) for settings in ft.MIXES.values()]

    mixed, losses = named(np.int32(0))
    assert {queue.shape for _, _, queue in mixed} == {rows[2].shape}
    assert np.isfinite(losses).all()


def test_mixed_scores_are_those_of_mixed_vectors():
    """Vectors mixed in float64 by the factors that the scores tell of: the same scores, however they were made."""
    rng = np.random.default_rng(0)
    q, k, n = (rng.normal(size=shape) for shape in ((3, 4), (3, 4), (3, 6, 4)))

    def scored(x):
        return jnp.einsum("bd,bmd->bm", x, jnp.concatenate([k[:, None], n], axis=1))

    key = jax.random.key(0)
    pair = mixing_scores(negatives=None)(key, jnp.asarray(q), jnp.asarray(k), scored)
    # q'.k' = s + l (1 - l) |q - k|^2 of vectors of any length: the same l for all rows, in (1, 2).
    s, gap = (q * k).sum(1), ((q - k) ** 2).sum(1)
    product = (np.asarray(pair)[:, 0] - s) / gap
    np.testing.assert_allclose(product, product[0], rtol=1e-4)
    factor = (1 + np.sqrt(1 - 4 * product[0])) / 2
    assert 1 < factor < 2
    ahead = factor * q + (1 - factor) * k
    np.testing.assert_allclose(pair[:, 1:], np.einsum("bd,bmd->bm", ahead, n), rtol=1e-3, atol=1e-4)
    mixed = np.asarray(mixing_scores(positives=None)(key, jnp.asarray(q), jnp.asarray(k), scored))
    plain = np.einsum("bd,bmd->bm", q, n)
    np.testing.assert_allclose(mixed[:, 0], s, rtol=1e-5)
    np.testing.assert_allclose(mixed[:, 1:].sum(1), plain.sum(1), rtol=1e-4)  # a permutation keeps the sum
    assert np.abs(mixed[:, 1:] - plain).max() > 0.01


# Variance between images and between the views of one; how fast a direction then grows, with l^2 + (1 - l)^2 = c:
# lB - (c - l)W with MoCo's keys, which are constants, and 2(B - (c - 1)W) in the batch; E l = 1.5, E c = 2.6.
NEAR = [(1.0, 0.0, 1.5, 2.0), (1.0, 1.0, 0.4, -1.2), (0.5, 1.0, -0.35, -2.2), (1.0, 0.5, 0.95, 0.4)]
SPREAD, TEMPERATURE = 0.05, 0.2


@pytest.mark.parametrize(("between", "within", "growth", "in_batch"), NEAR)
def test_near_one_point_what_differs_more_by_view_than_by_image_shrinks(between, within, growth, in_batch):
    # Features are (1, s u) of unit length. Image, its two views and the queue in all combinations of signs: no chance.
    image, *views = np.array(np.meshgrid(*[[-1.0, 1.0]] * 3)).reshape(3, -1)
    first, second = (np.tile(between**0.5 * image + within**0.5 * view, 8) for view in views)

    def near(u, s=SPREAD):
        return normalize(jnp.stack([jnp.ones(len(u)), s * jnp.asarray(u, jnp.float32)], axis=1))

    def moco(s, key, sides):
        q, k, negatives = mixing(**sides)(key, np.int32(0), near(first, s), near(second), near(first))
        return info_nce(jnp.sum(q * k, axis=1), q @ negatives.T, temperature=TEMPERATURE)

    def batch(s, key, sides):
        return mixed_nt_xent(key, near(first, s), near(second, s), temperature=TEMPERATURE, **sides)

    def growth_of(loss, keys, **sides):
        with jax.default_matmul_precision("highest"):
            slopes = jax.jit(jax.vmap(jax.grad(partial(loss, sides=sides)), (None, 0)))(SPREAD, keys)
        return -float(jnp.mean(slopes)) * TEMPERATURE / SPREAD

    keys, off = jax.random.split(KEY, 500), {"positives": None, "negatives": None}
    np.testing.assert_allclose(growth_of(moco, keys), growth, atol=0.15)
    np.testing.assert_allclose(growth_of(moco, keys[:1], **off), between, atol=0.15)
    np.testing.assert_allclose(growth_of(batch, keys), in_batch, atol=0.3)
    np.testing.assert_allclose(growth_of(batch, keys[:1], **off), 2 * between, atol=0.3)
