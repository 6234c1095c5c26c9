"""Queries beside rows of a bank, without copies of all of them at once."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcl import collectives, similarity
from jaxcl.similarity import cosine, cosine_by_row, dot_with_own, dot_with_rows, normalize
from jaxcl.testing import assert_same_everywhere


def draw(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


NUMBERS = np.random.default_rng(3).integers(0, 11, (8, 5))


@pytest.fixture
def little(monkeypatch):
    """Two queries' rows at a time."""
    monkeypatch.setattr(similarity, "COPIED_BYTES", 2 * 5 * 4 * 4)


def test_some_rows_at_a_time_give_the_scores_and_gradients_of_all_at_once(little):
    q, bank, weights = draw(0, 8, 4), draw(1, 11, 4), draw(2, 8, 5)

    def at_once(q, bank):
        return jnp.sum(weights * dot_with_own(q, bank[NUMBERS]))

    def some(q, bank):
        return jnp.sum(weights * dot_with_rows(q, bank, NUMBERS))

    for got, want in zip(*(jax.jit(jax.grad(f, (0, 1)))(q, bank) for f in (some, at_once)), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(
        dot_with_rows(q, bank, NUMBERS),
        np.einsum("nd,nkd->nk", q, np.asarray(bank)[NUMBERS]),
        rtol=1e-5,
        atol=1e-6,
    )


def test_the_copies_are_never_all_there(monkeypatch):
    q, bank = draw(0, 64, 32), jax.ShapeDtypeStruct((100, 32), jnp.float32)
    numbers = jax.ShapeDtypeStruct((64, 4096), jnp.int32)  # copied whole: 32 MiB

    def temporaries(function):
        step = jax.jit(
            jax.value_and_grad(lambda q, bank, numbers: jnp.sum(jnp.tanh(function(q, bank, numbers))))
        )
        return step.lower(q, bank, numbers).compile().memory_analysis().temp_size_in_bytes

    most = temporaries(lambda q, bank, numbers: dot_with_own(q, bank[numbers]))
    assert most > 2**25
    monkeypatch.setattr(similarity, "COPIED_BYTES", 2**21)
    assert temporaries(dot_with_rows) < most / 3


def test_scores_are_the_same_on_one_device_and_on_eight(little):
    batch = {"x": draw(4, 32, 4), "numbers": np.random.default_rng(5).integers(0, 4, (32, 5))}

    def loss(w, b, axis_name):
        scores = dot_with_rows(b["x"] @ w, jnp.sin(3 * w), b["numbers"], axis_name=axis_name)
        return collectives.mean(jnp.mean(jnp.tanh(scores)), axis_name)

    assert_same_everywhere(loss, draw(6, 4, 4), batch, placements=["jit", "shard_map"])


def test_zero_rows_of_float16_stay_zero_with_a_finite_gradient():
    z = jnp.array([[3.0, 4.0], [0.0, 0.0], [6e4, 0.0]], jnp.float16)
    other = jnp.array([[1.0, 2.0], [2.0, 1.0], [0.0, 0.0]], jnp.float16)
    unit = normalize(z)
    assert unit.dtype == jnp.float16
    np.testing.assert_allclose(unit, [[0.6, 0.8], [0.0, 0.0], [1.0, 0.0]], rtol=1e-3)
    for f in (normalize, lambda z: cosine(z, other), lambda z: cosine_by_row(z, other)):
        gradient = jax.grad(lambda z, f=f: jnp.sum(f(z).astype(jnp.float32)))(z)
        assert gradient.dtype == jnp.float16
        assert np.all(np.isfinite(gradient))
