from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcl import nets

norm = nets.batch_norm()


@pytest.fixture(scope="module")
def h():
    return np.random.default_rng(0).normal(size=(16, 6)).astype(np.float32)


def begun(head, x):
    return jax.jit(head.init)(jax.random.key(1), x)


def shapes_of(head, x):
    """Those of its parameters."""
    return shapes(jax.eval_shape(head.init, jax.random.key(1), x)[0])


def trained(head, params, state, x):
    return jax.jit(partial(head.apply, train=True))(params, state, x)


def shapes(tree):
    return jax.tree.map(jnp.shape, tree)


@pytest.mark.parametrize("layers", [1, 2, 3, 4])
def test_hidden_layers_have_scale_and_offset_and_the_last_only_a_scale(layers, h):
    head = nets.projection_head(norm=norm, layers=layers, out=5)
    params, state = begun(head, h)
    want = {}
    for i in range(layers):
        out = 5 if i == layers - 1 else 6
        want[f"Dense_{i}"] = {"kernel": (6, out)}
        want[f"BatchNorm_{i}"] = {"scale": (out,)} if i == layers - 1 else {"scale": (out,), "bias": (out,)}
    assert shapes(params) == want
    z, new = trained(head, params, state, h)
    # Each column of the last norm has mean 0 and variance 1: in particular no ReLU follows it.
    np.testing.assert_allclose(np.mean(z, axis=0), 0, atol=1e-5)
    assert shapes(new) == shapes(state)


def test_two_layers_are_dense_norm_relu_dense_norm(h):
    head = nets.projection_head(norm=norm, width=7, out=5)
    params, state = begun(head, h)
    z, _ = trained(head, params, state, h)

    def standard(x):
        return (x - x.mean(0)) / np.sqrt(x.var(0) + 1e-5)

    w0, w1 = (np.asarray(params[name]["kernel"], np.float64) for name in ("Dense_0", "Dense_1"))
    want = standard(np.maximum(standard(np.asarray(h, np.float64) @ w0), 0) @ w1)
    np.testing.assert_allclose(z, want, atol=1e-4)


def test_kernels_are_drawn_with_standard_deviation_one_hundredth():
    head = nets.projection_head(norm=norm)
    params, _ = begun(head, np.ones((2, 256), np.float32))
    np.testing.assert_allclose(np.std(params["Dense_0"]["kernel"]), 0.01, rtol=0.02)


def test_the_linear_head_is_one_layer_and_the_empty_one_is_the_identity(h):
    linear = nets.projection_head(norm=norm, mode="linear", layers=3)
    assert shapes_of(linear, h) == {
        "Dense_0": {"kernel": (6, 128)},
        "BatchNorm_0": {"scale": (128,)},
    }
    none = nets.projection_head(norm=norm, mode="none")
    assert none.init(jax.random.key(1), h) == ({}, {})
    assert none.apply({}, {}, h, train=True) == (h, {})


def test_mlp_heads_of_moco_and_byol_have_the_biases_of_their_papers(h):
    linear = nets.mlp_head(norm=nets.no_norm(), hidden=(), out=5)
    assert shapes_of(linear, h) == {"Dense_0": {"kernel": (6, 5), "bias": (5,)}}
    moco = nets.mlp_head(norm=nets.no_norm(), hidden=(6,), out=5)
    params, state = begun(moco, h)
    params = jax.tree.map(lambda p: np.asarray(p) + np.float32(0.1), params)
    k0, k1 = params["Dense_0"]["kernel"], params["Dense_1"]["kernel"]
    want = np.maximum(h @ k0 + params["Bias_0"]["bias"], 0) @ k1 + params["Dense_1"]["bias"]
    np.testing.assert_allclose(trained(moco, params, state, h)[0], want, atol=1e-5)
    byol = nets.mlp_head(norm=norm, hidden=(8,), out=5, bias=False)
    assert shapes_of(byol, h) == {
        "Dense_0": {"kernel": (6, 8)},
        "BatchNorm_0": {"scale": (8,), "bias": (8,)},
        "Dense_1": {"kernel": (8, 5)},
    }


def test_linear_layers_can_start_as_pytorch_has_them():
    head = nets.mlp_head(norm=nets.no_norm(), hidden=(400,), out=300, initialization="torch")
    params, _ = begun(head, np.ones((2, 100), np.float32))
    of_layers = (
        (params["Dense_0"]["kernel"], params["Bias_0"]["bias"], 0.1),
        (*params["Dense_1"].values(), 0.05),
    )
    for one, other, limit in of_layers:
        for parameter in (one, other):
            assert float(np.max(np.abs(parameter))) <= limit
            np.testing.assert_allclose(np.std(parameter), limit / 3**0.5, rtol=0.06)
    with_norm = nets.mlp_head(norm=norm, hidden=(400,), out=300, initialization="torch")
    assert not begun(with_norm, np.ones((2, 100), np.float32))[0]["BatchNorm_0"]["bias"].any()
    with pytest.raises(ValueError, match="initialization"):
        nets.mlp_head(norm=norm, initialization="keras")


def test_a_mode_or_depth_that_does_not_exist_is_refused():
    with pytest.raises(ValueError, match="mode is"):
        nets.projection_head(norm=norm, mode="mlp")
    with pytest.raises(ValueError, match="at least one layer"):
        nets.projection_head(norm=norm, layers=0)


@pytest.mark.parametrize(
    "head",
    [
        nets.projection_head(layers=3, width=6, out=4, norm=nets.batch_norm()),
        nets.projection_head(layers=1, out=4, norm=nets.batch_norm()),
        nets.projection_head(mode="linear", out=4, norm=nets.batch_norm()),
        nets.projection_head(mode="none", norm=nets.batch_norm()),
        nets.mlp_head(hidden=(6, 5), out=4, norm=nets.no_norm()),
        nets.mlp_head(hidden=(), out=4, norm=nets.batch_norm()),
    ],
)
def test_the_layers_of_a_head_begin_with_its_input_and_end_with_its_output(head, drawn):
    x = np.random.default_rng(1).normal(size=(3, 8)).astype(np.float32)
    params, state = drawn(head.init, jax.random.key(0), x)

    @jax.jit
    def both(x):
        return head.layers(params, state, x), head.apply(params, state, x, train=False)[0]

    seen, out = both(x)
    np.testing.assert_array_equal(seen[0], x)
    np.testing.assert_array_equal(seen[-1], out)
    assert all((layer >= 0).all() for layer in seen[1:-1])  # after its ReLU
    dense = [p["kernel"] for p in params.values() if "kernel" in p]
    assert [layer.shape[1] for layer in seen[1:]] == [kernel.shape[1] for kernel in dense]


def test_a_head_until_a_layer_is_that_layer_of_the_whole_with_the_same_parameters(drawn):
    settings = {"layers": 3, "width": 6, "out": 4, "norm": nets.batch_norm()}
    x = np.random.default_rng(1).normal(size=(3, 8)).astype(np.float32)
    whole = nets.projection_head(**settings)
    params, state = drawn(whole.init, jax.random.key(0), x)
    layers = jax.jit(whole.layers)(params, state, x)
    for until in (0, 1, 2):
        part = nets.projection_head(**settings, until=until)
        own, _ = jax.eval_shape(part.init, jax.random.key(0), x)
        assert all(name in params for name in own)
        kept = {name: params[name] for name in own}
        stats = {"batch_stats": {name: state["batch_stats"][name] for name in own if "Norm" in name}}
        got, _ = jax.jit(partial(part.apply, train=False))(kept, stats if until else {}, x)
        np.testing.assert_allclose(got, layers[until], rtol=1e-6)
    with pytest.raises(ValueError, match="must be 0 to 2 for 3 layers; got 3"):
        nets.projection_head(**settings, until=3)
