import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcl.losses import info_nce, looc, queue_nce
from jaxcl.similarity import normalize

S, B, M, D = 3, 5, 7, 4


@pytest.fixture(scope="module")
def parts():
    keys = jax.random.split(jax.random.key(0), 4)
    shapes = (S, B, D), (S, S, B, D), (S, M, D)
    q, k, queue = (normalize(jax.random.normal(key, shape)) for key, shape in zip(keys, shapes, strict=False))
    return q, k, queue, jax.random.bernoulli(keys[3], 0.5, (S, S, B))


def by_loops(q, k, queue, where, t):
    """Eq. 2 of arXiv:2008.05659 in float64, one exponential at a time."""
    q, k, queue = (np.asarray(x, np.float64) for x in (q, k, queue))
    total = 0.0
    for b in range(B):
        for i in range(S):
            top = np.exp(q[i, b] @ k[i, i, b] / t)
            bottom = top + sum(np.exp(q[i, b] @ queue[i, m] / t) for m in range(M))
            if i > 0:
                bottom += sum(np.exp(q[i, b] @ k[i, j, b] / t) for j in range(S) if j != i and where[i, j, b])
            total -= np.log(top / bottom) / S
    return total / B


def test_looc_is_equation_2_written_as_loops(parts):
    q, k, queue, where = parts
    np.testing.assert_allclose(
        looc(q, k, queue, temperature=0.3), by_loops(q, k, queue, np.ones((S, S, B)), 0.3), rtol=1e-5
    )
    np.testing.assert_allclose(
        looc(q, k, list(queue), where=where, temperature=0.3), by_loops(q, k, queue, where, 0.3), rtol=1e-5
    )


def test_in_the_invariant_space_only_key_0_plays_a_part(parts):
    q, k, queue, _ = parts
    gradient = jax.grad(lambda k: looc(q, k, queue))(k)
    assert jnp.any(gradient[0, 0])
    assert not jnp.any(gradient[0, 1:])
    assert jnp.all(jnp.abs(gradient[1:]).max(axis=(2, 3)) > 0)


def test_a_key_of_the_same_image_is_pulled_in_its_own_space_and_pushed_in_the_others(parts):
    q, k, queue, _ = parts
    # Along q, the gradient with respect to a key is negative for a positive and positive for a negative.
    along = jnp.sum(jax.grad(lambda k: looc(q, k, queue))(k) * q[:, None], axis=(2, 3))
    assert (jnp.sign(along).tolist()) == [[-1, 0, 0], [1, -1, 1], [1, 1, -1]]


def test_one_space_is_moco(parts):
    q, k, queue, _ = parts
    got = jax.value_and_grad(lambda q: looc(q, k[:1, :1], queue[:1], temperature=0.3))(q[:1])
    want = jax.value_and_grad(lambda q: queue_nce(q[0], k[0, 0], queue[0], temperature=0.3))(q[:1])
    np.testing.assert_allclose(got[0], want[0], rtol=1e-6)
    np.testing.assert_allclose(got[1], want[1], atol=1e-6)


def test_a_single_key_view_is_the_mean_of_mocos(parts):
    q, k, queue, _ = parts
    mocos = [queue_nce(q[i], k[i, 0], queue[i], temperature=0.3) for i in range(S)]
    np.testing.assert_allclose(looc(q, k[:, :1], queue, temperature=0.3), np.mean(mocos), rtol=1e-6)


def test_info_nce_leaves_out_what_is_no_negative(parts):
    scores = jnp.array([[0.1, -0.3, 0.2], [0.0, 0.5, 0.4]])
    positive = jnp.array([0.3, 0.1])
    some = info_nce(positive, scores.at[:, 1].set(-jnp.inf))
    np.testing.assert_allclose(some, info_nce(positive, scores[:, ::2]), rtol=1e-6)
    assert info_nce(positive, jnp.full((2, 3), -jnp.inf)) == 0
    assert jnp.all(jnp.isfinite(jax.grad(info_nce)(positive, scores.at[:, 1].set(-jnp.inf))))


def test_shapes_that_do_not_fit_are_refused(parts):
    q, k, queue, _ = parts
    with pytest.raises(ValueError, match=r"looc takes q \[s, b, d\]"):
        looc(q, k[:, :2], queue)
    with pytest.raises(ValueError, match="one positive score a row"):
        info_nce(jnp.ones(3), jnp.ones((2, 4)))
