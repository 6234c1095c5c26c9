"""SimCLR with a memory: its loss and what it remembers (the device law is a row of test_methods)."""

from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcl import nets
from jaxcl.feature_transform import batch_scores
from jaxcl.losses import keyless, nt_xent
from jaxcl.memory import by_age
from jaxcl.methods import simclr, simclr_v2
from jaxcl.monitor import score_monitor

N, K, D = 16, 40, 6


def two(key, batch):
    x = jnp.asarray(batch["image"], jnp.float32) / 255
    return x, x[:, :, ::-1]


def parts(axis_name=None):
    norm = nets.batch_norm(axis_name=axis_name)
    return {
        "views": two,
        "encoder": nets.small_convnet(features=(4,), norm=norm),
        "head": nets.projection_head(norm=norm, layers=2, out=D),
        "axis_name": axis_name,
    }


@pytest.fixture(scope="module")
def batch():
    image = np.random.default_rng(0).integers(0, 256, (N, 8, 8, 3), np.uint8)
    return {"image": image, "index": np.arange(N, dtype=np.int32)}


FACTORS = (1.0, 2.0)


@pytest.fixture(scope="module")
def by_factor(batch):
    """The state before a step, and of every factor, and of features mixed, the loss and the state after it."""
    settings = {factor: {"factor": factor} for factor in FACTORS}
    nothing = partial(batch_scores, positives=None, negatives=None)
    settings |= {"nothing mixed": {"transform": nothing}, "mixed": {"transform": batch_scores}}
    methods = [simclr_v2(**parts(), temperature=0.3, queue_size=K, **one) for one in settings.values()]
    params, state = jax.jit(methods[0].init)(jax.random.key(0), batch)

    @jax.jit
    def losses(params, state):
        made = [method.loss(params, state, jax.random.key(1), batch) for method in methods]
        return [(value, new) for value, (new, _) in made]  # metrics would be compiled too

    return state, dict(zip(settings, losses(params, state), strict=True))


def test_features_are_mixed_in_the_loss_and_the_queue_keeps_them_as_they_were(by_factor):
    by_setting = by_factor[1]
    (plain, state), (nothing, _), (mixed, other) = (
        by_setting[one] for one in (1.0, "nothing mixed", "mixed")
    )
    np.testing.assert_allclose(nothing, plain, rtol=1e-6)
    # A pair pushed apart scores less, and the negatives are no nearer to the anchor than before.
    assert mixed > plain
    chex.assert_trees_all_equal(other["queue"], state["queue"])


@pytest.mark.parametrize("factor", FACTORS)
def test_the_denominator_is_that_of_nt_xent_and_the_queue(by_factor, factor):
    state, (value, new) = by_factor[0], by_factor[1][factor]
    # The first moving average changes nothing, so the keys are the projections themselves.
    z = np.asarray(by_age(new["queue"])[-2 * N :], np.float64)
    queue = np.asarray(state["queue"].keys, np.float64)
    total = 0.0
    for i in range(2 * N):
        batch_sum = sum(np.exp(z[i] @ z[j] / 0.3) for j in range(2 * N) if j != i)
        queue_sum = sum(np.exp(z[i] @ queue[m] / 0.3) for m in range(K))
        total -= np.log(np.exp(z[i] @ z[i ^ 1] / 0.3) / (batch_sum + queue_sum)) / (2 * N)
    np.testing.assert_allclose(value, factor * total, rtol=1e-5)
    assert value > factor * jax.jit(partial(nt_xent, temperature=0.3))(z[0::2], z[1::2])


def test_the_scores_of_simclr_are_those_of_its_batch_without_an_images_own(batch, drawn):
    def twice(key, batch):
        return (two(key, batch)[0],) * 2

    method = simclr(
        **(parts() | {"views": twice}),
        loss=keyless(nt_xent, temperature=0.3),
        scores=partial(score_monitor, temperature=0.25),
    )
    params, state = drawn(method.init, jax.random.key(0), batch)
    _, (_, metrics) = jax.jit(method.loss)(params, state, jax.random.key(1), batch)
    np.testing.assert_allclose(metrics["positive_mean"], 1, atol=1e-5)
    # |a - b|^2 = 2 - 2 a.b, so the mean of exp(-2 |a - b|^2) is that of exp(4 a.b) over e^4.
    np.testing.assert_allclose(np.log(metrics["negative_exp"]) - 4, metrics["uniformity"], atol=1e-4)
