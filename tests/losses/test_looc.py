from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcl import losses
from jaxcl.losses import info_nce, queue_nce

looc = jax.jit(losses.looc)  # one program a call, where op by op there are dozens
S, B, M, D = 3, 5, 7, 4


@pytest.fixture(scope="module")
def parts():
    rng = np.random.default_rng(0)
    drawn = [rng.normal(size=shape) for shape in ((S, B, D), (S, S, B, D), (S, M, D))]
    q, k, queue = (np.float32(x / np.linalg.norm(x, axis=-1, keepdims=True)) for x in drawn)
    return q, k, queue, rng.random((S, S, B)) < 0.5


@jax.jit
def gradient_of_keys(q, k, queue):
    return jax.grad(lambda k: looc(q, k, queue))(k)


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
    gradient = np.asarray(gradient_of_keys(q, k, queue))
    assert np.any(gradient[0, 0])
    assert not np.any(gradient[0, 1:])
    assert np.all(np.abs(gradient[1:]).max(axis=(2, 3)) > 0)


def test_a_key_of_the_same_image_is_pulled_in_its_own_space_and_pushed_in_the_others(parts):
    q, k, queue, _ = parts
    # Along q, the gradient with respect to a key is negative for a positive and positive for a negative.
    along = np.sum(np.asarray(gradient_of_keys(q, k, queue)) * q[:, None], axis=(2, 3))
    assert (np.sign(along).tolist()) == [[-1, 0, 0], [1, -1, 1], [1, 1, -1]]


def test_one_space_is_moco(parts):
    q, k, queue, _ = parts
    got = jax.jit(jax.value_and_grad(lambda q: looc(q, k[:1, :1], queue[:1], temperature=0.3)))(q[:1])
    moco = jax.value_and_grad(lambda q: queue_nce(q[0], k[0, 0], queue[0], temperature=0.3))
    want = jax.jit(moco)(q[:1])
    np.testing.assert_allclose(got[0], want[0], rtol=1e-6)
    np.testing.assert_allclose(got[1], want[1], atol=1e-6)


def test_a_single_key_view_is_the_mean_of_mocos(parts):
    q, k, queue, _ = parts
    moco = jax.jit(partial(queue_nce, temperature=0.3))
    mocos = [moco(q[i], k[i, 0], queue[i]) for i in range(S)]
    np.testing.assert_allclose(looc(q, k[:, :1], queue, temperature=0.3), np.mean(mocos), rtol=1e-6)


def test_info_nce_leaves_out_what_is_no_negative(parts):
    scores = np.float32([[0.1, -0.3, 0.2], [0.0, 0.5, 0.4]])
    positive, loss = np.float32([0.3, 0.1]), jax.jit(info_nce)
    without = np.where([True, False, True], scores, -np.inf).astype(np.float32)
    np.testing.assert_allclose(loss(positive, without), loss(positive, scores[:, ::2]), rtol=1e-6)
    assert loss(positive, np.full((2, 3), -np.inf, np.float32)) == 0
    assert np.all(np.isfinite(jax.jit(jax.grad(info_nce))(positive, without)))


def test_shapes_that_do_not_fit_are_refused(parts):
    q, k, queue, _ = parts
    with pytest.raises(ValueError, match=r"looc takes q \[s, b, d\]"):
        looc(q, k[:, :2], queue)
    with pytest.raises(ValueError, match="one positive score a row"):
        info_nce(jnp.ones(3), jnp.ones((2, 4)))
