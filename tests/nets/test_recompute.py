"""What is computed again instead of kept: the same numbers of less memory."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcl import collectives, devices, nets, programs, testing
from jaxcl.train import placement
from jaxcl.typing import Net

TRANSFORMS = {
    "remat": nets.remat,
    "chunked": lambda net: nets.chunked(net, 2),
    "both": lambda net: nets.chunked(nets.remat(net), 2),
}


def rows(n=16):
    return np.random.default_rng(0).normal(size=(n, 5)).astype(np.float32)


def mlp(norm):
    """A network that compiles quickly."""
    return nets.mlp_head(norm=norm, hidden=(8,), out=6)


def begin(net):
    return jax.jit(net.init)(jax.random.key(0), rows())


def result_of(net, params, state, x):
    """The loss of all rows together, its gradient by parameters and inputs, and the new state."""

    def loss(params, x):
        out, new = net.apply(params, state, x, train=True)
        h = jax.tree.leaves(out)[-1].reshape(len(x), -1)
        return jnp.mean(jax.nn.logsumexp(h @ h.T, axis=1)), new

    return jax.jit(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True))(params, x)


@pytest.mark.parametrize("name", TRANSFORMS)
def test_without_batch_statistics_nothing_changes(name):
    net = mlp(nets.layer_norm())
    begun = begin(net)
    other = TRANSFORMS[name](net)
    chex.assert_trees_all_equal(begin(other), begun)
    got, want = result_of(other, *begun, rows()), result_of(net, *begun, rows())
    chex.assert_trees_all_close(got, want, rtol=1e-5, atol=1e-6)


def test_recomputed_batch_statistics_move_once():
    net = mlp(nets.batch_norm())
    begun = begin(net)
    got, want = (result_of(each, *begun, rows()) for each in (nets.remat(net), net))
    chex.assert_trees_all_close(got, want, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("views", "together"), [(1, 1), (2, 2)])
def test_chunks_are_the_groups_of_batch_norm(views, together):
    x, chunks = rows(), 2
    in_groups = mlp(nets.batch_norm(groups=chunks, views=views))
    begun = begin(in_groups)
    net = nets.chunked(mlp(nets.batch_norm(views=views)), chunks, together=together)
    # The rows of a chunk are dealt out, those of a group are neighbours.
    order = np.arange(len(x)).reshape(-1, chunks, together).swapaxes(0, 1).ravel()
    (got, state), (by_params, by_x) = result_of(net, *begun, x)
    (want, want_state), (want_by_params, want_by_x) = result_of(in_groups, *begun, x[order])
    chex.assert_trees_all_close(got, want, rtol=1e-5)
    chex.assert_trees_all_close(state, want_state, rtol=1e-5, atol=1e-6)
    chex.assert_trees_all_close(by_params, want_by_params, rtol=1e-4, atol=1e-6)
    chex.assert_trees_all_close(by_x[order], want_by_x, rtol=1e-4, atol=1e-6)


def means_of_groups(net, x):
    """What a net of one batch norm takes off each row: the mean of the row's group."""
    params, state = jax.jit(net.init)(jax.random.key(0), x)
    return x - net.apply(params, state, x, train=True)[0] * jnp.sqrt(1e-5)


@pytest.mark.parametrize(("groups", "chunks"), [(8, 4), (8, 8), (8, 1), (2, 2)])
def test_groups_keep_their_size_in_chunks(groups, chunks):
    """MoCo's 8 groups are 8 GPUs with a batch's eighth each; chunks of a batch are normalized by as many rows."""
    # Each row is a number of its own, and a tiny variance makes the norm a subtraction of the group's mean.
    x = 1e-6 * jnp.asarray(np.random.default_rng(0).permutation(256)[:, None], jnp.float32)
    norm = nets.from_linen(nets.batch_norm(groups=groups)())
    order = np.arange(256).reshape(-1, chunks, 2).swapaxes(0, 1).ravel()
    want = np.zeros(256)
    for group in order.reshape(groups, 256 // groups):
        want[group] = np.mean(np.asarray(x)[group])
    got = means_of_groups(nets.chunked(norm, chunks), x)[:, 0]
    np.testing.assert_allclose(got, want, rtol=1e-3)


@pytest.mark.parametrize("transform", [nets.chunked, lambda net, n: nets.chunked(nets.remat(net), n)])
@pytest.mark.parametrize("views", [1, 2])
def test_groups_of_a_chunk_are_those_of_the_dealt_batch(views, transform):
    x, chunks, groups = rows(32), 2, 4
    in_groups = mlp(nets.batch_norm(groups=groups, views=views))
    begun = begin(in_groups)
    order = np.arange(len(x)).reshape(-1, chunks, 2).swapaxes(0, 1).ravel()
    (got, state), (by_params, by_x) = result_of(transform(in_groups, chunks), *begun, x)
    (want, want_state), (want_by_params, want_by_x) = result_of(in_groups, *begun, x[order])
    chex.assert_trees_all_close((got, state), (want, want_state), rtol=1e-5, atol=1e-6)
    chex.assert_trees_all_close(by_params, want_by_params, rtol=1e-4, atol=1e-6)
    chex.assert_trees_all_close(by_x[order], want_by_x, rtol=1e-4, atol=1e-6)


def test_groups_that_chunks_cannot_share_are_refused():
    net = mlp(nets.batch_norm(groups=8))
    begun = begin(net)
    for chunks in (3, 16):
        x = rows(96)
        with pytest.raises(ValueError, match=f"split over {chunks} chunks.* Choose 1, 2, 4, 8 chunks"):
            nets.chunked(net, chunks).apply(*begun, x, train=True)


def test_evaluation_is_the_nets_own():
    net = mlp(nets.batch_norm())
    params, state = begin(net)
    want = net.apply(params, state, rows(3), train=False)  # three rows are no two chunks
    for transform in TRANSFORMS.values():
        got = transform(net).apply(params, state, rows(3), train=False)
        chex.assert_trees_all_equal(got, want)


def test_rows_come_back_in_their_order_and_integers_in_the_state_survive():
    def apply(params, state, x, *, train):
        return {"twice": 2 * x, "sum": x.sum(1)}, {"seen": state["seen"] + 1, "mean": jnp.mean(x)}

    net = nets.chunked(Net(lambda key, x: ({}, {}), apply), 3)
    x = jnp.arange(24.0).reshape(12, 2)
    out, state = net.apply({}, {"seen": jnp.int32(4), "mean": jnp.zeros(())}, x, train=True)
    chex.assert_trees_all_equal(out, {"twice": 2 * x, "sum": x.sum(1)})
    chex.assert_trees_all_close(state, {"seen": jnp.int32(5), "mean": jnp.mean(x)})


def recomputed(net, x):
    """How many parts of a net's forward pass are computed again."""
    params, state = jax.eval_shape(net.init, jax.random.key(0), x)
    traced = jax.make_jaxpr(lambda params, state: net.apply(params, state, x, train=True))(params, state)
    return sum(eqn.primitive.name in ("checkpoint", "remat2") for eqn in traced.jaxpr.eqns)


def test_a_block_is_what_the_network_calls():
    norm, x = nets.batch_norm(), jnp.zeros((2, 32, 32, 3))
    assert recomputed(nets.resnet(18, stem="cifar", norm=norm, features=2), x) == 0
    # Eight blocks, a convolution and a norm before them.
    assert recomputed(nets.remat(nets.resnet(18, stem="cifar", norm=norm, features=2)), x) == 10
    inside = nets.standardized(nets.resnet(50, stem="imagenet", norm=norm, features=2), mean=[0.5], std=[1])
    assert recomputed(nets.remat(inside), x) == 18
    assert recomputed(nets.chunked(nets.remat(inside), 1), x) == 1  # a chunk, with all within
    plain = Net(lambda key, x: ({}, {}), lambda params, state, x, *, train: (jnp.sin(x), state))
    assert recomputed(nets.remat(plain), x) == 1


def compiled(net, x, *, count=1):
    """The training pass of a net over `count` devices."""
    mesh = devices.make_mesh(devices=count)
    params, state = jax.eval_shape(net.init, jax.random.key(0), x)

    def step(carry, begun, x):
        return carry, result_of(net, *begun, x)[1][0]

    return placement.place(step, "jit", mesh).lower(np.zeros(()), (params, state), x).compile()


def temporaries(program):
    return program.memory_analysis().temp_size_in_bytes


@pytest.mark.skipif(
    jax.__version_info__ < (0, 12), reason="on a CPU, jax 0.10 merges both computations again"
)
def test_recomputing_needs_less_memory():
    # Without batch norm, so that it compiles quickly.
    net = nets.resnet(18, stem="cifar", norm=nets.no_norm(), features=8, stages=1)
    x = jax.ShapeDtypeStruct((64, 16, 16, 3), jnp.float32)
    plain, by_block, in_chunks = (
        temporaries(compiled(each, x)) for each in (net, nets.remat(net), nets.chunked(net, 4))
    )
    assert by_block < 0.8 * plain
    assert in_chunks < 0.4 * plain


def test_each_of_eight_devices_does_an_eighth_of_each_chunk():
    net = nets.chunked(mlp(nets.batch_norm()), 2)
    x = jax.ShapeDtypeStruct((1024, 64), jnp.float32)
    one, eight = (compiled(net, x, count=count) for count in (1, 8))
    # Each also has the loss's products with all rows, and sums.
    assert eight.cost_analysis()["flops"] < one.cost_analysis()["flops"] / 8 * 1.2
    assert temporaries(eight) < temporaries(one) / 4


def test_under_shard_map_gradients_of_all_chunks_go_to_other_devices_once():
    """Read from the compiled program."""
    place, axis_name = "shard_map", devices.AXIS
    net = nets.remat(nets.mlp_head(norm=nets.batch_norm(axis_name=axis_name), hidden=(32,), out=64))
    x = jax.ShapeDtypeStruct((512, 64), jnp.float32)
    begun = jax.eval_shape(net.init, jax.random.key(0), x)
    in_four = nets.chunked(net, 4)

    def step(carry, begun, x):
        def loss(params):
            h = in_four.apply(params, begun[1], x, train=True)[0]
            return collectives.mean(jnp.mean(jnp.sin(h)), axis_name)

        return carry, collectives.mean(jax.grad(loss)(begun[0]), axis_name)

    placed = placement.place(step, place, devices.make_mesh(devices=8))
    program = placed.lower(np.zeros(()), begun, x).compile()
    found = programs.by_kind(programs.collectives(program.as_text(), devices=8))
    parameters = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(begun[0]))
    # Beside them the moments of each norm, once a chunk and pass, which are small.
    assert parameters <= found["all-reduce"]["bytes"] < 1.5 * parameters


@pytest.mark.parametrize(("platform", "placements"), [("cpu", ("jit", "shard_map")), ("gpu", ("jit",))])
def test_chunks_meet_the_same_rows_on_any_number_of_devices(platform, placements, monkeypatch):
    """Written out as for a CPU, and in the loop that other platforms are given."""
    monkeypatch.setattr(collectives, "target", lambda: collectives.Target(platform, 8))
    x = rows(32)
    params, state = begin(mlp(nets.batch_norm()))

    def loss(params, x, axis_name):
        net = nets.chunked(nets.remat(mlp(nets.batch_norm(axis_name=axis_name))), 2)
        h = net.apply(params, state, x, train=True)[0]
        everyone = collectives.gather(h, axis_name)
        return collectives.mean(jnp.mean(jax.nn.logsumexp(h @ everyone.T, axis=1)), axis_name)

    testing.assert_same_everywhere(loss, params, x, placements=placements, tolerance=1e-4)


def test_a_batch_that_cannot_be_dealt_out_is_an_error_with_numbers():
    net = mlp(nets.layer_norm())
    params, state = begin(net)
    with pytest.raises(ValueError, match="14 rows .* into 4 equal chunks .* 2 neighbouring .* multiple of 8"):
        nets.chunked(net, 4).apply(params, state, rows(14), train=True)
    with pytest.raises(ValueError, match="16 rows .* over 8 devices into 2 equal chunks .* multiple of 32"):
        compiled(nets.chunked(net, 2), rows(16), count=8)
    with pytest.raises(ValueError, match="one chunk or more"):
        nets.chunked(net, 0)
