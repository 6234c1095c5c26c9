import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcl import collectives
from jaxcl.monitor import contrast_monitor, effective_rank
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
    got = contrast_monitor(*map(jnp.asarray, (z1, z2, h)), block=block)
    for name, value in truth.items():
        np.testing.assert_allclose(got[name], value, rtol=2e-5, err_msg=name)


@pytest.mark.parametrize(
    "name", ["contrast_accuracy", "contrast_entropy", "alignment", "uniformity", "effective_rank"]
)
def test_monitors_describe_the_global_batch(projections, name):
    z1, z2, h = (jnp.asarray(x, jnp.float32) for x in projections)
    batch = {"z1": z1, "z2": z2, "h1": h[0::2], "h2": h[1::2]}

    def watched(params, batch, axis_name):
        h = jnp.concatenate([batch["h1"], batch["h2"]])
        value = contrast_monitor(batch["z1"], batch["z2"], h, axis_name=axis_name)[name]
        return value + 0 * params

    one, _ = value_and_grad(watched, jnp.ones(()), batch, placement="one")
    eight, _ = value_and_grad(watched, jnp.ones(()), batch, placement="shard_map")
    np.testing.assert_allclose(one, eight, rtol=1e-5)


def test_a_collapsed_representation_is_not_accurate():
    same = jnp.ones((8, 4))
    watched = contrast_monitor(same, same, same)
    assert watched["contrast_accuracy"] == 0
    assert float(watched["contrast_entropy"]) == pytest.approx(np.log(8), rel=1e-5)
    assert watched["effective_rank"] == 0


def test_watching_has_no_gradient(projections):
    z1, z2, h = (jnp.asarray(x, jnp.float32) for x in projections)
    grads = jax.grad(lambda z: sum(contrast_monitor(z, z2, h).values()))(z1)
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
