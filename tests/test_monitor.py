from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcl import collectives, monitor
from jaxcl.monitor import contrast_monitor, effective_rank, score_monitor
from jaxcl.testing import value_and_grad


@pytest.fixture(scope="module")
def projections():
    rng = np.random.default_rng(0)
    z1 = rng.normal(size=(24, 6))
    return z1, z1 + 0.7 * rng.normal(size=(24, 6)), rng.normal(size=(48, 5))


def by_loops(z1, z2, temperature):
    z1, z2 = (z / np.linalg.norm(z, axis=1, keepdims=True) for z in (z1, z2))
    n, correct, entropy, spread = len(z1), 0, 0.0, 0.0
    for i in range(n):
        logits = np.array([z1[i] @ z2[j] for j in range(n)]) / temperature
        p = np.exp(logits) / np.exp(logits).sum()
        correct += np.argmax(logits) == i
        entropy -= (p * np.log(p)).sum()
        spread += sum(np.exp(-2 * ((z1[i] - z1[j]) ** 2).sum()) for j in range(n) if j != i)
    return {
        "contrast_accuracy": correct / n,
        "contrast_entropy": entropy / n,
        "alignment": np.mean(((z1 - z2) ** 2).sum(axis=1)),
        "uniformity": np.log(spread / (n * (n - 1))),
    }


@pytest.mark.parametrize("block", [1024, 8, 7])
def test_monitors_equal_their_definitions_written_as_loops(projections, block):
    z1, z2, h = projections
    truth = by_loops(z1, z2, 0.1)
    assert 0 < truth["contrast_accuracy"] < 1
    got = jax.jit(partial(contrast_monitor, block=block))(z1, z2, h)
    for name, value in truth.items():
        np.testing.assert_allclose(got[name], value, rtol=2e-5, err_msg=name)


def test_monitors_describe_the_global_batch(projections):
    z1, z2, h = (jnp.asarray(x, jnp.float32) for x in projections)
    batch = {"z1": z1, "z2": z2, "h1": h[0::2], "h2": h[1::2]}
    names = ["contrast_accuracy", "contrast_entropy", "alignment", "uniformity", "effective_rank"]

    def watched(factors, batch, axis_name):
        h = jnp.concatenate([batch["h1"], batch["h2"]])
        values = contrast_monitor(batch["z1"], batch["z2"], h, axis_name=axis_name)
        return sum(factors[name] * values[name] for name in names)  # the gradient by a factor is the value

    factors = {name: jnp.ones(()) for name in names}
    _, one = value_and_grad(watched, factors, batch, placement="one")
    _, eight = value_and_grad(watched, factors, batch, placement="shard_map")
    for name in names:
        assert one[name] != 0
        np.testing.assert_allclose(one[name], eight[name], rtol=1e-5, err_msg=name)


def test_a_collapsed_representation_is_not_accurate():
    same = jnp.ones((8, 4))
    watched = jax.jit(contrast_monitor)(same, same, same)
    assert watched["contrast_accuracy"] == 0
    assert float(watched["contrast_entropy"]) == pytest.approx(np.log(8), rel=1e-5)
    assert watched["effective_rank"] == 0


def test_watching_has_no_gradient(projections):
    z1, z2, h = (jnp.asarray(x, jnp.float32) for x in projections)
    grads = jax.jit(jax.grad(lambda z: sum(contrast_monitor(z, z2, h).values())))(z1)
    assert not jnp.any(grads)


def test_effective_rank_counts_equally_strong_directions():
    h = np.random.default_rng(0).normal(size=(4000, 8)) @ np.diag([1, 1, 1, 0, 0, 0, 0, 0])
    assert float(effective_rank(jnp.asarray(h))) == pytest.approx(3, abs=0.02)
    values = np.linalg.eigvalsh(np.cov((uneven := h * np.arange(1, 9)).T))
    assert float(effective_rank(jnp.asarray(uneven))) == pytest.approx(
        values.sum() ** 2 / (values**2).sum(), rel=1e-4
    )


def test_rows_number_the_gathered_rows():
    def lost(params, batch, axis_name):
        x = batch["x"]
        rows = collectives.rows(len(x), axis_name)
        return params * collectives.mean(jnp.abs(collectives.gather(x, axis_name)[rows] - x).sum(), axis_name)

    value, _ = value_and_grad(lost, jnp.ones(()), {"x": jnp.arange(16.0)}, placement="shard_map")
    assert value == 0


# --- scores


def scores_by_loops(q, k, negatives, own, t):
    positive = [q[i] @ k[i] for i in range(len(q))]
    found = [[q[i] @ x for j, x in enumerate(negatives) if j not in own[i]] for i in range(len(q))]
    edges = np.linspace(-1, 1, 9)

    def shares(values):
        return np.histogram(np.clip(values, -0.999, 0.999), edges)[0] / len(values)

    return {
        "positive_mean": np.mean(positive),
        "positive_variance": np.var(positive),
        "positive_exp": np.mean(np.exp(np.array(positive) / t)),
        "negative_mean": np.mean([np.mean(s) for s in found]),
        "negative_variance": np.mean([np.var(s, ddof=1) for s in found]),
        "negative_exp": np.mean([np.mean(np.exp(np.array(s) / t)) for s in found]),
        "score_accuracy": np.mean([p > max(s) for p, s in zip(positive, found, strict=True)]),
        "positive_histogram": shares(positive),
        "negative_histogram": shares(np.concatenate(found)),
    }


@pytest.fixture(scope="module")
def scored():
    rng = np.random.default_rng(1)
    q, k, negatives = (0.4 * rng.normal(size=(n, 5)) for n in (16, 16, 37))
    return q, q + 0.2 * k, negatives, rng.integers(-1, 37, (16, 2))


@pytest.mark.parametrize("block", [4096, 10])
def test_score_statistics_equal_their_definitions_written_as_loops(scored, block):
    truth = scores_by_loops(*scored, 0.3)
    assert 0 < truth["score_accuracy"] < 1
    *scores, own = scored
    got = jax.jit(partial(score_monitor, temperature=0.3, bins=8, block=block))(*scores, own=own)
    assert set(got) == set(truth)
    for name, value in truth.items():
        np.testing.assert_allclose(got[name], value, rtol=1e-4, atol=1e-6, err_msg=name)


def test_scores_describe_the_global_batch_and_have_no_gradient(scored):
    q, k, negatives, own = (jnp.asarray(x, jnp.float32) for x in scored)
    batch = {"q": q, "k": k, "own": own.astype(int)}

    def watched(w, batch, axis_name):
        metrics = score_monitor(
            w * batch["q"], batch["k"], negatives, own=batch["own"], temperature=0.3, axis_name=axis_name
        )
        # The factors keep one statistic from making up for another.
        return sum(jnp.sum(x * jnp.arange(1, 1 + x.size)) for x in metrics.values())

    one, gradient = value_and_grad(watched, jnp.ones(()), batch, placement="one")
    eight, _ = value_and_grad(watched, jnp.ones(()), batch, placement="shard_map")
    np.testing.assert_allclose(one, eight, rtol=1e-5)
    assert gradient == 0


# --- products that are rounded, as on accelerators ----------------------------------------------------------------


def bfloat16_products(q, k):
    """A matrix product as a TPU computes it by default."""
    q, k = (x.astype(jnp.bfloat16).astype(jnp.float32) for x in (q, k))
    return q @ k.T


def nearly_collapsed(spread, n=256, d=64, seed=0):
    """Two views of n rows that all lie within about `spread` of one unit vector."""
    rng = np.random.default_rng(seed)
    point = rng.normal(size=d) / np.sqrt(d)
    image = rng.normal(size=(n, d))
    views = [point + spread * (image + 1.2 * rng.normal(size=(n, d))) / np.sqrt(d) for _ in range(2)]
    return [np.float32(view) for view in views]


@pytest.mark.parametrize("spread", [1.0, 1e-1, 1e-2, 1e-3])
def test_the_order_of_nearly_collapsed_rows_survives_products_in_bfloat16(monkeypatch, spread):
    z1, z2 = nearly_collapsed(spread)
    truth = by_loops(np.float64(z1), np.float64(z2), 0.1)
    assert 0.1 < truth["contrast_accuracy"] < 0.9
    monkeypatch.setattr(monitor, "products", bfloat16_products)
    got = jax.jit(partial(contrast_monitor))(z1, z2, z1)  # a function of its own, so that it is traced anew
    # A row whose two best columns differ by less than rounding may go either way.
    np.testing.assert_allclose(got["contrast_accuracy"], truth["contrast_accuracy"], atol=0.02)
    np.testing.assert_allclose(got["contrast_entropy"], truth["contrast_entropy"], rtol=1e-3)
    np.testing.assert_allclose(got["alignment"], truth["alignment"], rtol=1e-3)
    np.testing.assert_allclose(got["uniformity"], truth["uniformity"], rtol=1e-2)


@pytest.mark.parametrize("products", [monitor.products, bfloat16_products])
def test_rows_that_are_all_alike_have_no_accuracy(monkeypatch, products):
    monkeypatch.setattr(monitor, "products", products)
    z = np.broadcast_to(nearly_collapsed(1.0)[0][:1], (32, 64))
    assert float(jax.jit(partial(contrast_monitor))(z, z, z)["contrast_accuracy"]) == 0.0
    scores = jax.jit(partial(score_monitor, temperature=0.2))(z, z, z[:16])
    assert float(scores["score_accuracy"]) == 0.0


@pytest.mark.parametrize("spread", [1e-1, 1e-2])
def test_scores_of_nearly_collapsed_rows_survive_products_in_bfloat16(monkeypatch, spread):
    q, k = (z / np.linalg.norm(z, axis=1, keepdims=True) for z in map(np.float64, nearly_collapsed(spread)))
    q, k, queue = q[:128], k[:128], k[128:]
    truth = np.mean(np.sum(q * k, axis=1) > np.max(q @ queue.T, axis=1))
    assert 0.1 < truth < 0.9
    monkeypatch.setattr(monitor, "products", bfloat16_products)
    got = jax.jit(partial(score_monitor, temperature=0.2))(*(np.float32(x) for x in (q, k, queue)))
    np.testing.assert_allclose(got["score_accuracy"], truth, atol=0.03)
