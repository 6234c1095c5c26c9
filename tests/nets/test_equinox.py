"""An equinox module as a `Net` computes what the module does, image by image, and remembers what it does."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcl import nets
from jaxcl.encoder import _only, _used

eqx = pytest.importorskip("equinox", reason="the adapter is for those who have it")

X = np.random.default_rng(0).uniform(size=(8, 8, 8, 3)).astype(np.float32)
ROWS = X.transpose(0, 3, 1, 2)  # as equinox sees them
KEY = jax.random.key(1)


class Remembers(eqx.Module):
    convs: list
    norm: eqx.nn.BatchNorm
    drop: eqx.nn.Dropout

    def __init__(self, key):
        self.convs = [eqx.nn.Conv2d(c, 4, 3, key=key) for c in (3, 4)]
        self.norm = eqx.nn.BatchNorm(4, axis_name="batch", mode="batch")
        self.drop = eqx.nn.Dropout(0.5)

    def __call__(self, x, state, *, key):
        for conv in self.convs:
            x = jax.nn.relu(conv(x))
        x, state = self.norm(x, state)
        return (x, self.drop(x, key=key)), state


class Plain(eqx.Module):
    linear: eqx.nn.Linear
    scale: np.ndarray  # whole numbers: nothing to be learnt

    def __init__(self, key):
        self.linear, self.scale = eqx.nn.Linear(192, 5, key=key), np.array([2])

    def __call__(self, x):
        return self.linear(x.reshape(-1)) * self.scale


def test_it_computes_and_remembers_what_the_module_does():
    net = nets.from_equinox(Remembers)
    params, state = net.init(KEY, X)
    module, kept = eqx.nn.make_with_state(Remembers)(KEY)

    def theirs(module, kept, keys):
        return jax.vmap(
            lambda x, key: module(x, kept, key=key),
            (0, 0 if keys is not None else None),
            (0, None),
            axis_name="batch",
        )(ROWS, keys)

    for _ in range(2):  # each of which moves the statistics and drops out other entries
        own = jax.random.split(jax.random.wrap_key_data(state["key"]))[1]
        (maps, dropped), state = net.apply(params, state, X, train=True)
        want, kept = theirs(module, kept, jax.random.split(own, len(X)))
        np.testing.assert_allclose(maps, want[0].transpose(0, 2, 3, 1), atol=1e-6)
        np.testing.assert_allclose(dropped, want[1].transpose(0, 2, 3, 1), atol=1e-6)
    for ours, own in zip(jax.tree.leaves(state["module"]), jax.tree.leaves(kept), strict=True):
        np.testing.assert_allclose(ours, own, atol=1e-6)
    (maps, dropped), same = net.apply(params, state, X, train=False)
    want, _ = theirs(eqx.nn.inference_mode(module), kept, None)
    np.testing.assert_allclose(dropped, want[1].transpose(0, 2, 3, 1), atol=1e-6)
    np.testing.assert_array_equal(maps, dropped)
    assert same is state


def test_parameters_have_the_names_of_the_module_s_fields():
    params, state = nets.from_equinox(Remembers).init(KEY, X)
    assert {name: sorted(inner) for name, inner in params.items()} == {
        "convs": ["0", "1"],
        "norm": ["bias", "weight"],
    }
    assert params["convs"]["1"]["weight"].shape == (4, 4, 3, 3)
    assert all(
        x.dtype in (jnp.float32, jnp.uint32, jnp.int32, bool) for x in jax.tree.leaves((params, state))
    )


def test_a_module_without_state_and_key_and_a_call_of_one_s_own():
    net, module = nets.from_equinox(Plain), Plain(KEY)
    params, state = net.init(KEY, X)
    assert sorted(params) == ["linear"]
    (out,), moved = net.apply(params, state, X, train=True)
    np.testing.assert_allclose(out, jax.vmap(module)(ROWS), rtol=1e-5)
    assert not np.array_equal(moved["key"], state["key"])
    twice = nets.from_equinox(Plain, call=lambda module, x, key: 2 * module(x))
    np.testing.assert_allclose(twice.apply(params, state, X, train=False)[0][0], 2 * out, rtol=1e-5)


def test_a_loaded_encoder_leaves_out_what_it_does_not_read():
    net = nets.from_equinox(Remembers)
    params, state = net.init(KEY, X)

    def embed(params, state, images):
        return net.apply(params, state, images, train=False)[0][0]

    used = _only((params, state), _used(embed, (params, state), X))
    assert used[1]["key"] is None
    np.testing.assert_array_equal(embed(*used, X), embed(params, state, X))


def test_under_shard_map_devices_drop_out_by_themselves():
    mesh, split = jax.sharding.Mesh(jax.devices(), ("devices",)), jax.sharding.PartitionSpec("devices")
    net = nets.from_equinox(lambda key: eqx.nn.Dropout(0.5), axis_name="devices")
    params, state = net.init(KEY, X)

    def run(x):
        return net.apply(params, state, x, train=True)[0][0]

    x = np.ones((len(jax.devices()), 4, 4, 4), np.float32)
    out = np.asarray(jax.jit(jax.shard_map(run, mesh=mesh, in_specs=split, out_specs=split))(x))
    assert len({row.tobytes() for row in out}) == len(out)
