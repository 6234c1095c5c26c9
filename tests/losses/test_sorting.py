"""The fast sort is the sort: values, origins, ties, outliers, nan."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxcl.losses.sorting import sort_rows, sort_values

ROWS = {
    "normal": lambda rng: rng.normal(size=(3, 500)),
    "one value": lambda rng: np.ones((3, 500)),
    "few values": lambda rng: rng.integers(-3, 3, size=(3, 500)),
    "near ties about an outlier": lambda rng: np.where(np.arange(500) == 7, 1e6, rng.normal(size=(3, 500))),
    "tiny and huge": lambda rng: rng.normal(size=(3, 500)) * 10.0 ** rng.integers(-30, 30, size=(3, 500)),
    "signed zeros": lambda rng: rng.choice([0.0, -0.0, 1.0], size=(3, 500)),
    "infinite": lambda rng: np.where(rng.random((3, 500)) < 0.1, np.inf, rng.normal(size=(3, 500))),
    "nan": lambda rng: np.where(rng.random((3, 500)) < 0.1, np.nan, rng.normal(size=(3, 500))),
}


@pytest.fixture(scope="module")
def sorted_and_origin():
    @jax.jit
    def run(x, g):
        values, pull = jax.vjp(sort_rows, x)
        return values, pull(g)[0], sort_values(x)

    return run


@pytest.mark.parametrize("kind", ROWS)
def test_values_are_exactly_sorted_and_gradients_go_to_where_they_came_from(kind, sorted_and_origin):
    x = ROWS[kind](np.random.default_rng(0)).astype(np.float32)
    places = np.tile(np.arange(500, dtype=np.float32), (3, 1))
    values, rank, plain = sorted_and_origin(x, places)
    want = np.sort(x, axis=1)
    np.testing.assert_array_equal(values, want)
    np.testing.assert_array_equal(plain, want)
    # The gradient of the k-th sorted value, k, arrives at the element that is k-th: each rank once.
    np.testing.assert_array_equal(np.sort(rank, axis=1), places)
    np.testing.assert_array_equal(np.take_along_axis(want, np.asarray(rank, int), axis=1), x)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**31), power=st.integers(1, 9))
def test_near_ties_are_put_in_order(sorted_and_origin, seed, power):
    rng = np.random.default_rng(seed)
    x = (
        1 + rng.integers(0, 50, size=(3, 500)) * 2.0**-23 + (rng.random((3, 500)) < 0.01) * 10.0**-power
    ).astype(np.float32)
    np.testing.assert_array_equal(sorted_and_origin(x, x)[0], np.sort(x, axis=1))


def test_short_rows_and_float64():
    for m in (1, 2, 3):
        np.testing.assert_array_equal(
            jax.jit(sort_rows)(jnp.arange(m, 0.0, -1)[None])[0], np.arange(1, m + 1)
        )
    with jax.enable_x64(True):
        x = jnp.asarray(1 + np.random.default_rng(0).permutation(64)[None] * 2.0**-52)
        for sort in (sort_rows, sort_values):
            got = jax.jit(sort)(x)
            assert got.dtype == jnp.float64
            np.testing.assert_array_equal(got, np.sort(x, axis=1))
