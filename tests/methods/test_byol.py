"""BYOL and SimSiam: what happens in which order, and what has a gradient."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxcl import nets
from jaxcl.extract import pool
from jaxcl.losses import keyless, negative_cosine, regression
from jaxcl.methods import byol, cosine_decay, simsiam
from jaxcl.train import make_step
from jaxcl.train.state import TrainState

NORM = nets.batch_norm()
ENCODER = nets.small_convnet(features=(8,), norm=NORM)
PROJECTOR = nets.mlp_head(norm=NORM, hidden=(8,), out=6, bias=False)
PREDICTOR = nets.mlp_head(norm=NORM, hidden=(8,), out=6, bias=False)


def two(key, batch):
    """The image, and the image backwards."""
    x = jnp.asarray(batch["image"], jnp.float32) / 255
    return x, x[:, :, ::-1]


PARTS = {"views": two, "encoder": ENCODER, "projector": PROJECTOR, "predictor": PREDICTOR}


def method(decay=0.75):
    return byol(loss=keyless(regression), decay=decay, **PARTS)


@pytest.fixture(scope="module")
def batch():
    image = np.random.default_rng(0).integers(0, 256, (8, 8, 8, 3), np.uint8)
    return {"image": image, "index": np.arange(8, dtype=np.int32)}


@pytest.fixture(scope="module")
def begun(batch, drawn):
    # As numpy, so that what is only arithmetic compiles nothing.
    params, state = jax.device_get(drawn(method().init, jax.random.key(0), batch))
    return params, {**state, "step": np.int32(3)}


@pytest.fixture(scope="module")
def initial(batch):
    """What `init` makes itself."""
    return jax.device_get(jax.jit(method().init)(jax.random.key(0), batch))


@jax.jit
def one_loss(params, state, batch):
    """The loss and the new state; metrics would be compiled too."""
    value, (new, _) = method().loss(params, state, jax.random.key(1), batch)
    return value, new


@jax.jit
def projected(params, stats, x):
    maps, _ = ENCODER.apply(params["encoder"], stats["encoder"], x, train=True)
    return PROJECTOR.apply(params["projector"], stats["projector"], pool(maps), train=True)[0]


@jax.jit
def predicted(params, stats, x):
    z = projected(params, stats, x)
    return PREDICTOR.apply(params["predictor"], stats["predictor"], z, train=True)[0]


def test_a_step_is_the_papers_with_both_directions_added(batch, begun):
    params, state = begun
    value, new = one_loss(params, state, batch)
    online = {name: params[name] for name in ("encoder", "projector")}
    target = jax.tree.map(lambda a, b: 0.75 * a + 0.25 * b, state["target"], online)
    chex.assert_trees_all_close(new["target"], target, atol=1e-6)
    p = [np.asarray(predicted(params, state["online"], x), np.float64) for x in two(None, batch)]
    z = [np.asarray(projected(target, state["target_stats"], x), np.float64) for x in two(None, batch)]
    total = 0.0
    for a, b in ((p[0], z[1]), (p[1], z[0])):
        for i in range(len(a)):
            total += np.sum((a[i] / np.linalg.norm(a[i]) - b[i] / np.linalg.norm(b[i])) ** 2) / len(a)
    np.testing.assert_allclose(value, total, rtol=1e-4)
    assert int(new["step"]) == 4


def test_the_target_begins_with_weights_of_its_own_and_keeps_them_in_the_first_step(batch, initial):
    params, state = initial
    assert not np.allclose(
        params["projector"]["Dense_0"]["kernel"], state["target"]["projector"]["Dense_0"]["kernel"]
    )
    assert state["step"] == 0
    _, new = one_loss(params, state, batch)
    chex.assert_trees_all_equal(new["target"], state["target"])


def test_no_gradient_flows_through_the_target(batch, begun):
    params, state = begun

    def value(target):
        return method().loss(params, {**state, "target": target}, jax.random.key(1), batch)[0]

    assert not any(jnp.any(g) for g in jax.tree.leaves(jax.jit(jax.grad(value))(state["target"])))


def test_the_target_has_batch_statistics_of_its_own(batch, begun):
    params, state = begun
    _, new = one_loss(params, state, batch)
    online = {name: new["online"][name] for name in ("encoder", "projector")}
    for name in ("encoder", "projector"):
        for a, b in zip(
            jax.tree.leaves(online[name]), jax.tree.leaves(new["target_stats"][name]), strict=True
        ):
            assert not np.allclose(a, b)


def test_averaging_before_use_is_the_papers_averaging_after_each_step_with_that_steps_decay(batch, begun):
    decay = cosine_decay(0.5, steps=4)
    m, tx = method(decay), optax.sgd(0.05)
    params, state = begun
    train = TrainState(np.int32(0), params, tx.init(params), {**state, "step": np.int32(0)})
    step = jax.jit(lambda *given: make_step(m, tx)(*given)[0])
    target = train.state["target"]
    for k in range(3):
        before = target
        train = step(train, jax.random.key(1), batch)
        chex.assert_trees_all_close(train.state["target"], before, atol=1e-6)
        # The authors': after the optimizer, with the updated parameters and the step's own decay.
        online = {name: train.params[name] for name in target}
        kept = np.float32(decay(k))
        target = jax.tree.map(lambda a, b, kept=kept: kept * a + (1 - kept) * np.asarray(b), before, online)


def test_simsiam_is_the_mean_of_both_directions_without_any_memory(batch, initial):
    m = simsiam(loss=keyless(negative_cosine), **PARTS)
    # Not drawn: with such parameters the gradients are larger, and rounding comes near the tolerance.
    params, state = initial[0], {"online": initial[1]["online"]}
    chex.assert_trees_all_equal_shapes_and_dtypes(
        (params, state), jax.eval_shape(m.init, jax.random.key(0), batch)
    )
    value, grads = jax.jit(jax.value_and_grad(lambda w: m.loss(w, state, jax.random.key(1), batch)[0]))(
        params
    )
    x = two(None, batch)
    held = [projected(params, state["online"], x) for x in x]

    def by_hand(params):
        p = [predicted(params, state["online"], x) for x in x]
        return (negative_cosine(p[0], held[1]) + negative_cosine(p[1], held[0])) / 2

    want, want_grads = jax.jit(jax.value_and_grad(by_hand))(params)
    np.testing.assert_allclose(value, want, rtol=1e-5)
    chex.assert_trees_all_close(grads, want_grads, atol=1e-5)


def test_a_decay_that_is_no_decay_is_refused():
    with pytest.raises(ValueError, match="start in"):
        cosine_decay(1.5, steps=10)
