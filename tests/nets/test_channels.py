"""Selective kernels, squeeze-and-excitation and ResNet-D: as large as published, and computing what is written down."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcl import nets
from jaxcl.nets.channels import Excitation, SelectiveKernel
from jaxcl.nets.resnet import LECUN, Conv, averaged

norm = nets.batch_norm()


def count(tree):
    return sum(int(np.prod(x.shape)) for x in jax.tree.leaves(tree))


def shapes_of(net, *shape):
    """Of parameters, state and maps, all traced at once."""
    x = jax.ShapeDtypeStruct(shape, jnp.float32)
    module = partial(net.made.module.init_with_output, train=False)
    maps, variables = jax.eval_shape(module, jax.random.key(0), x)
    return variables["params"], {"batch_stats": variables["batch_stats"]}, maps


# Table 1 of SimCLRv2 (arXiv:2006.10029), which counts the moving averages of batch norm as well.
@pytest.mark.parametrize(
    ("depth", "width", "selective", "millions"),
    [
        (50, 1, 0, 24),
        (50, 1, 0.0625, 35),
        *(
            pytest.param(*row, marks=pytest.mark.slow)
            for row in [
                (50, 2, 0, 94),
                (50, 2, 0.0625, 140),
                (101, 1, 0, 43),
                (101, 1, 0.0625, 65),
                (101, 2, 0, 170),
                (101, 2, 0.0625, 257),
                (152, 1, 0, 58),
                (152, 1, 0.0625, 89),
                (152, 2, 0, 233),
                (152, 2, 0.0625, 354),
            ]
        ),
        (152, 3, 0.0625, 795),
    ],
)
def test_networks_have_the_size_in_simclr_v2_s_table(depth, width, selective, millions):
    net = nets.resnet(depth, stem="imagenet", norm=norm, width=width, selective=selective)
    params, state, maps = shapes_of(net, 1, 64, 64, 3)
    assert round((count(params) + count(state)) / 1e6) == millions
    assert [m.shape[1] for m in maps] == [16, 8, 4, 2]
    assert maps[-1].shape[-1] == 2048 * width


def test_resnet_d_has_a_stem_of_three_convolutions_and_no_other_parameters_more():
    plain, d = (nets.resnet(50, stem="imagenet", norm=norm, variant=v) for v in ("plain", "d"))
    stem = 27 * 32 + 2 * 32 + 9 * 32 * 32 + 2 * 32 + 9 * 32 * 64
    assert count(shapes_of(d, 1, 64, 64, 3)[0]) - count(shapes_of(plain, 1, 64, 64, 3)[0]) == stem - 147 * 64
    # At an odd size the maps of both are equally large.
    sizes = [[m.shape for m in shapes_of(net, 1, 75, 75, 3)[2]] for net in (plain, d)]
    assert sizes[0] == sizes[1]


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [4, 5])
def test_a_shortcut_of_resnet_d_averages_two_by_two(stride, size):
    x = np.random.default_rng(0).normal(size=(2, size, size, 3)).astype(np.float32)
    got = np.asarray(jax.jit(averaged, static_argnums=1)(x, stride))
    assert got.shape == (2, -(-size // stride), -(-size // stride), 3)
    for i in range(got.shape[1]):
        for j in range(got.shape[2]):
            seen = x[:, stride * i : stride * i + 2, stride * j : stride * j + 2].astype(np.float64)
            # TensorFlow's pooling: zeros that were padded by hand count, those of "SAME" do not.
            of = 4 if stride == 2 else seen.shape[1] * seen.shape[2]
            np.testing.assert_allclose(got[:, i, j], seen.sum(axis=(1, 2)) / of, atol=1e-6)


def test_a_selective_kernel_mixes_two_convolutions_channel_by_channel():
    rng, features, ratio = np.random.default_rng(1), 80, 0.5
    layer = SelectiveKernel(lambda f, k, s, name: Conv(f, k, s, name=name), norm, features, 1, ratio)
    x = rng.normal(size=(2, 3, 3, 2)).astype(np.float32)
    variables = jax.jit(partial(layer.init, train=False))(jax.random.key(0), x)
    p, stats = variables["params"], variables["batch_stats"]
    assert p["squeeze"]["kernel"].shape == (1, 1, features, 40)  # half of 80; never fewer than 32
    # Scales and offsets that are not the initial ones, so that a norm left out would show.
    p = jax.tree.map(lambda w: np.asarray(w) + np.float32(0.1 * rng.normal(size=w.shape)), p)
    got = jax.jit(partial(layer.apply, train=False))({"params": p, "batch_stats": stats}, x)

    w = jax.tree.map(lambda w: np.asarray(w, np.float64), p)

    def normed(y, name):
        return np.maximum(y / np.sqrt(1 + 1e-5) * w[name]["scale"] + w[name]["bias"], 0)

    padded, both = np.pad(x.astype(np.float64), ((0, 0), (1, 1), (1, 1), (0, 0))), np.zeros((2, 3, 3, 160))
    for i in range(3):
        for j in range(3):
            both[:, i, j] = np.einsum("bhwc,hwcd->bd", padded[:, i : i + 3, j : j + 3], w["both"]["kernel"])
    both = normed(both, "norm")
    one, two = both[..., :features], both[..., features:]
    s = normed((one + two).mean(axis=(1, 2)) @ w["squeeze"]["kernel"][0, 0], "squeeze_norm")
    scores = s @ w["select"]["kernel"][0, 0]
    share = 1 / (1 + np.exp(scores[:, features:] - scores[:, :features]))[:, None, None]
    np.testing.assert_allclose(got, one * share + two * (1 - share), atol=1e-5)


def test_excitation_weighs_channels_by_a_sigmoid_of_their_means():
    rng = np.random.default_rng(2)
    x = rng.normal(size=(2, 3, 3, 4)).astype(np.float32)
    layer = Excitation(2, jnp.float32, LECUN)
    shapes = jax.eval_shape(layer.init, jax.random.key(0), x)["params"]
    p = jax.tree.map(lambda w: rng.normal(size=w.shape).astype(np.float32), shapes)
    squeezed = np.maximum(x.mean(axis=(1, 2)) @ p["squeeze"]["kernel"] + p["squeeze"]["bias"], 0)
    weight = 1 / (1 + np.exp(-(squeezed @ p["excite"]["kernel"] + p["excite"]["bias"])))
    np.testing.assert_allclose(jax.jit(layer.apply)({"params": p}, x), x * weight[:, None, None], atol=1e-5)


def test_a_branch_ends_with_excitation_of_inner_channels():
    net = nets.resnet(50, stem="cifar", norm=norm, features=16, excite=0.25)
    params = shapes_of(net, 1, 16, 16, 3)[0]
    assert params["stage1_block1"]["excitation"]["squeeze"]["kernel"].shape == (
        64,
        4,
    )  # 16 inner channels / 4
    plain = shapes_of(nets.resnet(50, stem="cifar", norm=norm, features=16), 1, 16, 16, 3)[0]
    more = sum(
        blocks * (2 * 4 * n * (n // 4) + n // 4 + 4 * n)
        for n, blocks in zip((16, 32, 64, 128), (3, 4, 6, 3), strict=True)
    )
    assert count(params) - count(plain) == more


def test_a_stage_of_its_own_has_the_layers_of_the_fourth_of_a_selective_network():
    settings = {"norm": norm, "features": 4, "selective": 0.0625, "excite": 0.25}
    params, _, maps = shapes_of(nets.resnet(50, stem="cifar", **settings), 2, 8, 8, 3)
    own, _, (last,) = shapes_of(nets.resnet_stage(50, **settings), *maps[2].shape)
    assert own == {name: p for name, p in params.items() if name.startswith("stage4")}
    assert last.shape == maps[3].shape


@pytest.mark.parametrize(
    ("depth", "settings", "said"),
    [
        (50, {"variant": "c"}, '"plain" or "d"'),
        (18, {"selective": 0.0625}, "ResNet-18 does not have"),
        (50, {"excite": -1}, "excite is a fraction"),
        (50, {"selective": 0.0625, "inner": 2, "groups": 32}, "need groups=1"),
    ],
)
def test_what_cannot_be_built_is_refused(depth, settings, said):
    with pytest.raises(ValueError, match=said):
        nets.resnet(depth, stem="cifar", norm=norm, **settings)
