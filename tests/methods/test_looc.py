"""LooC: one space is MoCo, and every space keeps what the others forget."""

from functools import partial
from importlib import import_module

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcl import augment, losses, nets
from jaxcl.losses import keyless, queue_nce
from jaxcl.memory import by_age
from jaxcl.methods import looc, moco
from jaxcl.methods.looc import shuffled

N, D = 8, 6


def parts(**changes):
    norm = nets.batch_norm(groups=2)
    given = {
        "views": augment.two_views(augment.flip()),
        "encoder": nets.small_convnet(features=(4,), norm=norm),
        "head": nets.mlp_head(norm=nets.no_norm(), hidden=(), out=D),
        "queue_size": 20,
        "decay": 0.9,
    }
    return given | changes


@pytest.fixture(scope="module")
def batch():
    image = np.random.default_rng(0).integers(0, 256, (N, 8, 8, 3), np.uint8)
    return {"image": image, "index": np.arange(N, dtype=np.int32)}


@pytest.fixture(scope="module")
def turned():
    return augment.leave_one_out({"turn": augment.rotate90()}, before=augment.flip())


def branch():
    return nets.conv_stage(features=5, norm=nets.batch_norm(groups=2))


def test_one_space_is_moco_in_value_gradient_and_memory(batch, drawn):
    # Both draw their views with the first of their keys, which differ: looc splits in two, moco in three.
    key = jax.random.key(5)
    views_key = jax.random.split(key, 3)[0]
    flipped = augment.two_views(augment.flip())
    one = looc(
        **parts(views=lambda _, batch: flipped(views_key, batch)), spaces=1, temperature=0.3, shuffle=False
    )
    other = moco(
        **parts(views=flipped),
        loss=keyless(queue_nce, temperature=0.3),
        shuffle=False,
    )
    params, state = drawn(other.init, jax.random.key(0), batch)

    def as_looc(tree):
        return {"encoder": tree["encoder"], "heads": [tree["head"]]}

    mine = {name: as_looc(state[name]) for name in ("query", "key", "target")} | {"queues": [state["queue"]]}

    def run(method, params, state):
        @partial(jax.value_and_grad, has_aux=True)
        def loss(params):
            value, (new, _) = method.loss(params, state, key, batch)  # metrics would be compiled too
            return value, new

        return jax.jit(loss)(params)

    (want, memory), gradient = run(other, params, state)
    (got, new), mine_gradient = run(one, as_looc(params), mine)
    np.testing.assert_allclose(got, want, rtol=1e-6)
    chex.assert_trees_all_close(mine_gradient, as_looc(gradient), atol=1e-6)
    chex.assert_trees_all_close(new["queues"][0], memory["queue"], atol=1e-6)
    for name in ("query", "key", "target"):
        chex.assert_trees_all_close(new[name], as_looc(memory[name]), atol=1e-6)


def test_each_queue_takes_its_own_heads_view_of_its_own_key(batch, turned, drawn, monkeypatch):
    seen = {}

    def watched(q, k, queue, **options):
        seen.update(q=q, k=k, where=options["where"])
        return losses.queue_nce(q[0], k[0, 0], queue[0])

    monkeypatch.setattr(losses, "looc", watched)
    method = looc(**parts(views=turned.views), spaces=2, collisions=turned.collisions)
    params, state = drawn(method.init, jax.random.key(0), batch)

    @jax.jit
    def run(params, state, key):
        _, (new, metrics) = method.loss(params, state, key, batch)
        collided = turned.collisions(jax.random.split(key)[0], batch)
        return new, metrics["space1_same_image"], seen, collided

    new, same_image, seen, collided = jax.device_get(run(params, state, jax.random.key(1)))
    assert seen["q"].shape == (2, N, D)
    assert seen["k"].shape == (2, 2, N, D)
    for i in range(2):
        np.testing.assert_array_equal(by_age(new["queues"][i])[-N:], seen["k"][i, i])
    assert not np.allclose(new["queues"][0].keys[:N], new["queues"][1].keys[:N], atol=1e-2)
    same = float(np.mean(np.sum(np.multiply(seen["q"][1], seen["k"][1, 0]), axis=1)))
    assert float(same_image) == pytest.approx(same, rel=1e-5)
    np.testing.assert_array_equal(seen["where"], ~collided)


def test_features_are_mixed_in_every_space_by_itself_and_the_queues_keep_them_as_they_were(
    batch, turned, drawn, monkeypatch
):
    seen = {}
    plain = losses.looc

    def watched(q, k, queue, **options):
        seen.update(q=q, k=k, queue=jnp.stack(queue))
        return plain(q, k, queue, **options)

    monkeypatch.setattr(losses, "looc", watched)

    def doubled(key, step, q, k, queue, *, axis_name=None):
        return q + 1 + step, 2 * k, -queue

    @jax.jit
    def run(params, state, key):
        out = [
            looc(**parts(views=turned.views), spaces=2, transform=transform).loss(params, state, key, batch)[
                1
            ][0]
            for transform in (None, doubled)
        ]
        return out, dict(seen)

    method = looc(**parts(views=turned.views), spaces=2, transform=doubled)
    params, state = drawn(method.init, jax.random.key(0), batch)
    given = params, state | {"step": np.int32(3)}, jax.random.key(1)
    (unmixed, mixed), used = jax.device_get(run(*given))
    assert int(mixed["step"]) == 4
    chex.assert_trees_all_equal(mixed["queues"], unmixed["queues"])
    for i in range(2):
        np.testing.assert_array_equal(used["queue"][i], -state["queues"][i].keys)
        np.testing.assert_allclose(used["k"][i, i], 2 * by_age(mixed["queues"][i])[-N:], rtol=1e-6)
        assert np.max(np.linalg.norm(used["k"][i, 1 - i], axis=1)) == pytest.approx(1, rel=1e-5)
        assert np.max(np.linalg.norm(used["q"][i] - 4, axis=1)) == pytest.approx(1, rel=1e-5)


def test_the_shared_rotation_is_in_the_view_that_space_1_takes_for_its_positive(batch, turned):
    query, key0, key1 = jax.device_get(jax.jit(turned.views)(jax.random.key(1), batch))
    flips = [query, query[:, :, ::-1]]
    # Up to flips before it, an image turned as the query is the query; at least one key 0 is not.
    agree = [min(float(np.abs(key1[i] - x[i]).max()) for x in unflipped(query)) for i in range(N)]
    assert max(agree) == 0
    assert any(min(float(np.abs(key0[i] - x[i]).max()) for x in unflipped(query)) > 0 for i in range(N))
    assert len(flips) == 2


def unflipped(x):
    """A flip before the turn is a flip of either axis after it."""
    return x, x[:, :, ::-1], x[:, ::-1]


def test_looc_shows_what_its_spaces_share_and_looc_plus_plus_what_each_has_of_its_own(batch, turned, drawn):
    x = jnp.asarray(batch["image"], jnp.float32) / 255
    shared = looc(**parts(views=turned.views), spaces=2)
    begun = jax.eval_shape(shared.init, jax.random.key(0), batch)
    assert jax.eval_shape(shared.embed, *begun, x).shape == (N, 4)
    own = looc(**parts(views=turned.views), spaces=2, branch=branch())
    params, state = drawn(own.init, jax.random.key(0), batch)
    both = jax.jit(own.embed)(params, state, x)
    assert both.shape == (N, 10)
    second = looc(**parts(views=turned.views), spaces=2, branch=branch(), embedded=[1])
    np.testing.assert_array_equal(jax.jit(second.embed)(params, state, x), both[:, 5:])
    assert not np.allclose(both[:, :5], both[:, 5:])


def test_moco_plus_plus_is_looc_plus_plus_with_one_key_view_and_learns_no_space_apart(batch, drawn):
    control = looc(**parts(), spaces=2, branch=branch())
    params, state = drawn(control.init, jax.random.key(0), batch)
    given = params, state, jax.random.key(1), batch
    assert np.isfinite(jax.jit(lambda *given: control.loss(*given)[0])(*given))
    _, (new, metrics) = jax.eval_shape(control.loss, *given)
    assert "space1_same_image" not in metrics
    assert len(new["queues"]) == 2


def test_a_number_of_views_that_fits_no_form_is_refused(batch, turned):
    method = looc(**parts(views=turned.views), spaces=3)
    begun = jax.eval_shape(method.init, jax.random.key(0), batch)
    with pytest.raises(ValueError, match="3 key views, or one key view for all; got 2 key views"):
        jax.eval_shape(method.loss, *begun, jax.random.key(1), batch)


def test_what_is_mixed_is_drawn_by_no_key_that_orders_the_rows(batch, turned, drawn, monkeypatch):
    seen = {"orders": [], "mixes": []}

    def ordering(key, *rest, **settings):
        children = [jax.random.fold_in(key, i) for i in range(3)]
        seen["orders"] += map(jax.random.key_data, [key, *children])
        return shuffled(key, *rest, **settings)

    def transform(key, step, q, k, queue, *, axis_name=None):
        seen["mixes"].append(jax.random.key_data(key))
        return q, k, queue

    monkeypatch.setattr(import_module("jaxcl.methods.looc"), "shuffled", ordering)
    method = looc(**parts(views=turned.views), spaces=2, transform=transform)
    params, state = drawn(method.init, jax.random.key(0), batch)

    @jax.jit
    def keys(params, state, batch):
        method.loss(params, state, jax.random.key(1), batch)
        return seen

    found = {
        name: {tuple(map(int, key)) for key in keys_} for name, keys_ in keys(params, state, batch).items()
    }
    assert len(found["mixes"]) == 2
    assert not found["mixes"] & found["orders"]
