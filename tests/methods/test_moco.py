"""MoCo: what happens in which order, and what is remembered."""

from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxcl import nets
from jaxcl.extract import pool
from jaxcl.feature_transform import mixing
from jaxcl.losses import keyless, queue_nce
from jaxcl.memory import by_age
from jaxcl.methods import moco
from jaxcl.monitor import score_monitor
from jaxcl.similarity import normalize

N, K, D, DECAY = 8, 20, 6, 0.75


def two(key, batch):
    """The image, and the image backwards."""
    x = jnp.asarray(batch["image"], jnp.float32) / 255
    return x, x[:, :, ::-1]


def method(**changes):
    norm = nets.batch_norm(groups=changes.pop("groups", 1))
    parts = {
        "views": two,
        "encoder": nets.small_convnet(features=(4,), norm=norm),
        "head": nets.mlp_head(norm=nets.no_norm(), hidden=(), out=D),
        "loss": keyless(queue_nce, temperature=0.3),
        "queue_size": K,
        "decay": DECAY,
    }
    return moco(**(parts | changes))


@pytest.fixture(scope="module")
def batch():
    image = np.random.default_rng(0).integers(0, 256, (N, 8, 8, 3), np.uint8)
    return {"image": image, "index": np.arange(N, dtype=np.int32)}


@pytest.fixture(scope="module")
def begun(batch):
    """After a step, so that query and key encoder differ."""
    m = method()
    # As numpy, so that what is only arithmetic compiles nothing.
    params, state = jax.device_get(jax.jit(m.init)(jax.random.key(0), batch))
    moved = jax.tree.map(lambda w: np.float32(1.3 * w + 0.1), params)
    return params, moved, state


def without_metrics(method, params, state, key, batch):
    """The loss and the new state; metrics would be compiled too."""
    value, (new, _) = method.loss(params, state, key, batch)
    return value, new


@pytest.fixture(scope="module")
def one_loss(batch):
    return jax.jit(lambda params, state: without_metrics(method(), params, state, jax.random.key(1), batch))


@partial(jax.jit, static_argnums=0)
def network(norm_groups, params, stats, x):
    """The query or key network, put together by hand."""
    encoder = nets.small_convnet(features=(4,), norm=nets.batch_norm(groups=norm_groups))
    head = nets.mlp_head(norm=nets.no_norm(), hidden=(), out=D)
    maps, _ = encoder.apply(params["encoder"], stats["encoder"], x, train=True)
    return normalize(head.apply(params["head"], stats["head"], pool(maps), train=True)[0])


def test_a_step_is_the_papers_in_its_order(batch, begun, one_loss):
    old, params, state = begun
    loss, new = one_loss(params, state)
    x1, x2 = two(None, batch)
    # First the moving average, of parameters alone; then the keys by it; then the loss, with the queue as it was.
    target = jax.tree.map(lambda a, b: DECAY * a + (1 - DECAY) * b, old, params)
    q = np.asarray(network(1, params, state["query"], x1), np.float64)
    k = np.asarray(network(1, target, state["key"], x2), np.float64)
    queue = np.asarray(state["queue"].keys, np.float64)
    total = 0.0
    for i in range(N):
        others = sum(np.exp(q[i] @ queue[j] / 0.3) for j in range(K))
        total -= np.log(np.exp(q[i] @ k[i] / 0.3) / (np.exp(q[i] @ k[i] / 0.3) + others)) / N
    np.testing.assert_allclose(loss, total, rtol=1e-5)
    chex.assert_trees_all_close(new["target"], target, atol=1e-6)
    # Last the queue: the newest keys are this step's, the others one step older.
    np.testing.assert_allclose(by_age(new["queue"])[-N:], k, atol=1e-5)
    np.testing.assert_array_equal(by_age(new["queue"])[:-N], by_age(state["queue"])[N:])
    assert int(new["step"]) == 1


def test_each_network_keeps_batch_statistics_of_its_own_and_of_its_own_view(begun, one_loss):
    _, params, state = begun
    _, new = one_loss(params, state)
    query, key = (jax.tree.leaves(new[name]) for name in ("query", "key"))
    assert all(not jnp.allclose(a, b) for a, b in zip(query, key, strict=True))


def test_the_first_average_is_no_change_as_the_key_encoder_starts_as_a_copy(begun, one_loss):
    params, _, state = begun
    _, new = one_loss(params, state)
    chex.assert_trees_all_close(new["target"], params, atol=1e-6)


def test_nothing_is_learnt_through_the_key_encoder(batch, begun):
    _, params, state = begun

    @jax.jit
    def gradients(params, target, key_stats, queue):
        def value(params, target, key_stats, queue):
            remembered = {**state, "target": target, "key": key_stats}
            remembered["queue"] = state["queue"]._replace(keys=queue)
            return without_metrics(method(), params, remembered, jax.random.key(1), batch)

        return jax.grad(value, argnums=(0, 1, 2, 3), has_aux=True)(params, target, key_stats, queue)

    given = params, state["target"], state["key"], state["queue"].keys
    (got, target, key_stats, _), new = gradients(*given)
    assert not any(jnp.any(g) for g in jax.tree.leaves((target, key_stats)))
    k = by_age(new["queue"])[-N:]

    @jax.jit
    def by_hand(params):
        q = network(1, params, state["query"], two(None, batch)[0])
        return queue_nce(q, k, state["queue"].keys, temperature=0.3)

    # With the keys held constant: the gradient is that of the query alone.
    chex.assert_trees_all_close(got, jax.grad(by_hand)(params), atol=1e-5)


def test_symmetric_adds_both_directions_and_pushes_both_views(batch, begun):
    def swapped(key, batch):
        return two(key, batch)[::-1]

    @jax.jit
    def run(params, state):
        """All in one program, that shares what they have in common."""
        methods = [method(views=views, shuffle=False) for views in (two, swapped)]
        methods += [method(views=two, shuffle=False, symmetric=True)]
        return [without_metrics(m, params, state, jax.random.key(1), batch) for m in methods]

    (there, after), (back, before), (both, new) = run(*begun[1:])
    np.testing.assert_allclose(both, there + back, rtol=1e-5)
    pushed = by_age(new["queue"])[-2 * N :]
    np.testing.assert_allclose(pushed[N:], by_age(after["queue"])[-N:], atol=1e-5)
    np.testing.assert_allclose(pushed[:N], by_age(before["queue"])[-N:], atol=1e-5)


def test_shuffling_changes_nothing_where_statistics_are_global_and_who_shares_them_where_they_are_not(
    batch, begun
):
    @jax.jit
    def keys(params, state, seed):
        def pushed(shuffle, groups):
            m = method(shuffle=shuffle, groups=groups)
            _, new = without_metrics(m, params, state, jax.random.key(seed), batch)
            return by_age(new["queue"])[-N:]

        ways = {"none": False, "exchange": True, "uniform": "uniform"}
        return {
            (name, groups): pushed(shuffle, groups) for name, shuffle in ways.items() for groups in (1, 4)
        }

    made, others = (keys(*begun[1:], seed) for seed in (1, 2))
    for way in ("exchange", "uniform"):
        np.testing.assert_allclose(made[way, 1], made["none", 1], atol=1e-5)
        assert not np.allclose(made[way, 4], made["none", 4], atol=1e-2)
        assert not np.allclose(made[way, 4], others[way, 4], atol=1e-2)
    assert not np.allclose(made["uniform", 4], made["exchange", 4], atol=1e-2)


def test_the_queue_keeps_unmixed_keys_and_scores_tell_before_from_after(batch, begun):
    scores = partial(score_monitor, temperature=0.3)

    @jax.jit
    def run(params, state):
        methods = [method(scores=scores), method(scores=scores, transform=mixing())]
        return [m.loss(params, state, jax.random.key(1), batch) for m in methods]

    (plain, (kept, alone)), (mixed, (new, metrics)) = run(*begun[1:])
    np.testing.assert_array_equal(new["queue"].keys, kept["queue"].keys)
    assert mixed > plain
    names = [name.removeprefix("unmixed_") for name in metrics if name.startswith("unmixed_")]
    assert len(names) == 9
    for name in names:
        np.testing.assert_allclose(metrics[f"unmixed_{name}"], alone[name], rtol=1e-6)
    assert metrics["positive_mean"] < metrics["unmixed_positive_mean"]
    assert metrics["negative_variance"] < metrics["unmixed_negative_variance"]


def test_a_transform_waits_for_its_step(batch, begun, one_loss):
    _, params, state = begun
    plain, _ = one_loss(params, state)
    waiting = jax.jit(partial(without_metrics, method(transform=mixing(start=3))))
    at = [waiting(params, {**state, "step": jnp.int32(s)}, jax.random.key(1), batch)[0] for s in (2, 3)]
    np.testing.assert_allclose(at[0], plain, rtol=1e-5)
    assert not np.isclose(at[1], plain, rtol=1e-3)


def test_the_average_follows_the_queries_encoder_over_steps(batch, begun):
    from jaxcl.train import make_step
    from jaxcl.train.state import TrainState

    m, tx = method(), optax.sgd(0.05)
    params, _, state = begun
    train = TrainState(jnp.int32(0), params, tx.init(params), state)
    step = jax.jit(lambda *given: make_step(m, tx)(*given)[0])
    average = jax.tree.map(np.asarray, train.params)
    for _ in range(3):
        average = jax.tree.map(lambda a, w: DECAY * a + (1 - DECAY) * np.asarray(w), average, train.params)
        train = step(train, jax.random.key(1), batch)
    chex.assert_trees_all_close(train.state["target"], average, atol=1e-6)
