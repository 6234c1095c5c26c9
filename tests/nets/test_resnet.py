"""ResNets have the published sizes and shapes, and compute what another library computes."""

from functools import partial

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcl import collectives, nets
from jaxcl.nets.resnet import POOLS, SHORTCUTS, Block, ResNet
from jaxcl.nets.resnet import Conv as ResNetConv

norm = nets.batch_norm()


def sizes(net, *shape):
    """Parameters, state and maps as shapes only: nothing is allocated."""
    x = jax.ShapeDtypeStruct(shape, jnp.float32)
    module = partial(net.made.module.init_with_output, train=True)  # both at once
    maps, variables = jax.eval_shape(module, jax.random.key(0), x)
    return variables["params"], {"batch_stats": variables["batch_stats"]}, maps


def of_init(net, *shape):
    return jax.eval_shape(net.init, jax.random.key(0), jax.ShapeDtypeStruct(shape, jnp.float32))[0]


def count(params):
    return sum(int(np.prod(p.shape)) for p in jax.tree.leaves(params))


# torchvision's counts without the classifier: 11,689,512 - 513,000 for ResNet-18, and so on.
PUBLISHED = {18: 11_176_512, 34: 21_284_672, 50: 23_508_032, 101: 42_500_160, 152: 58_143_808}


@pytest.mark.parametrize("depth", PUBLISHED)
def test_parameters_are_as_many_as_published(depth):
    assert count(of_init(nets.resnet(depth, stem="imagenet", norm=norm), 2, 224, 224, 3)) == PUBLISHED[depth]


# One of basic blocks and one of bottlenecks; deeper ones take seconds to trace.
@pytest.mark.parametrize(
    "depth", [18, 50, *(pytest.param(depth, marks=pytest.mark.slow) for depth in (34, 101, 152))]
)
def test_maps_and_the_small_stem_are_as_published(depth):
    m = 4 if depth >= 50 else 1
    _, _, maps = sizes(nets.resnet(depth, stem="imagenet", norm=norm), 2, 224, 224, 3)
    assert [x.shape for x in maps] == [
        (2, s, s, c * m) for s, c in ((56, 64), (28, 128), (14, 256), (7, 512))
    ]
    # The small stem has 3 x 3 x 3 x 64 weights where the large one has 7 x 7 x 3 x 64.
    params, _, maps = sizes(nets.resnet(depth, stem="cifar", norm=norm), 2, 32, 32, 3)
    assert count(params) == PUBLISHED[depth] - (49 - 9) * 3 * 64
    assert [x.shape for x in maps] == [(2, s, s, c * m) for s, c in ((32, 64), (16, 128), (8, 256), (4, 512))]


@pytest.mark.parametrize(("width", "millions"), [(2, 94), (4, 375)])
def test_wide_networks_have_the_size_in_simclr_s_table(width, millions):
    params, _, maps = sizes(nets.resnet(50, stem="imagenet", norm=norm, width=width), 1, 224, 224, 3)
    assert round(count(params) / 1e6) == millions
    assert maps[-1].shape == (1, 7, 7, 2048 * width)


@pytest.mark.parametrize(
    ("depth", "settings", "published"),
    [
        (50, {"inner": 2}, 68_883_240 - 2_049_000),  # wide_resnet50_2
        pytest.param(101, {"inner": 2}, 126_886_696 - 2_049_000, marks=pytest.mark.slow),  # wide_resnet101_2
        (50, {"inner": 2, "groups": 32}, 25_028_904 - 2_049_000),  # resnext50_32x4d
        pytest.param(
            101, {"inner": 4, "groups": 32}, 88_791_336 - 2_049_000, marks=pytest.mark.slow
        ),  # resnext101_32x8d
    ],
)
def test_wide_and_grouped_bottlenecks_are_as_large_as_torchvision_s(depth, settings, published):
    net = nets.resnet(depth, stem="imagenet", norm=norm, **settings)
    params, _, maps = sizes(net, 1, 224, 224, 3)
    assert count(params) == published
    assert maps[-1].shape == (1, 7, 7, 2048)


@pytest.mark.parametrize(("width", "features"), [(2, 64), (1, 16)])
def test_a_resnet_34_of_other_widths_has_its_shapes_and_the_parameters_of_its_layers(width, features):
    net = nets.resnet(34, stem="cifar", norm=norm, width=width, features=features)
    params, _, maps = sizes(net, 2, 32, 32, 3)
    n = width * features
    assert [x.shape for x in maps] == [(2, 32 // m, 32 // m, n * m) for m in (1, 2, 4, 8)]
    total, before = 27 * n + 2 * n, n
    for blocks, channels in zip((3, 4, 6, 3), (n, 2 * n, 4 * n, 8 * n), strict=True):
        total += 9 * before * channels + (2 * blocks - 1) * 9 * channels**2 + 4 * blocks * channels
        total += before * channels + 2 * channels if before != channels else 0
        before = channels
    assert count(params) == total


def test_groups_do_not_see_each_other():
    x = np.random.default_rng(0).normal(size=(1, 4, 4, 8)).astype(np.float32)
    conv = ResNetConv(8, 3, groups=4)
    variables = jax.jit(conv.init)(jax.random.key(1), x)
    apply, other = jax.jit(conv.apply), x + np.float32([0, 0, 1, 1, 0, 0, 0, 0])
    changed = np.asarray(apply(variables, other)) - np.asarray(apply(variables, x))
    seen = np.abs(changed).max(axis=(0, 1, 2)) > 0
    assert seen.tolist() == [False, False, True, True, False, False, False, False]


def test_bfloat16_is_for_computing_and_parameters_stay_float32():
    params, state, maps = sizes(nets.resnet(50, stem="cifar", norm=norm, dtype=jnp.bfloat16), 2, 32, 32, 3)
    assert {p.dtype for p in jax.tree.leaves((params, state))} == {jnp.dtype(jnp.float32)}
    assert {m.dtype for m in maps} == {jnp.dtype(jnp.bfloat16)}


@pytest.fixture(scope="module")
def small():
    """A ResNet-18 with random scales and statistics, and images."""
    net = nets.resnet(18, stem="imagenet", norm=norm, zero_init_last_gamma=False)
    x = np.random.default_rng(1).normal(size=(2, 32, 32, 3)).astype(np.float32)
    shapes = jax.eval_shape(net.init, jax.random.key(0), x)
    leaves, tree = jax.tree.flatten(shapes)
    rng = np.random.default_rng(0)

    def draw(s):
        scale = np.sqrt(2 / np.prod(s.shape[:-1])) if len(s.shape) == 4 else 0.1
        return np.asarray(rng.normal(size=s.shape) * scale + (len(s.shape) == 1), np.float32)

    params, state = jax.tree.unflatten(tree, [draw(s) for s in leaves])
    return net, params, jax.tree.map(np.abs, state), x


def test_resnet_18_computes_what_torch_computes(small):
    torch = pytest.importorskip("torch", reason="compares with a network written in torch")
    F = torch.nn.functional
    net, params, state, x = small
    maps, _ = jax.jit(partial(net.apply, train=False))(params, state, x)

    def conv(x, p, stride=1):
        kernel = torch.tensor(p["kernel"]).permute(3, 2, 0, 1)
        return F.conv2d(x, kernel, stride=stride, padding=kernel.shape[-1] // 2)

    def bn(x, p, s):
        mean, var, scale, bias = (torch.tensor(v) for v in (s["mean"], s["var"], p["scale"], p["bias"]))
        return F.batch_norm(x, mean, var, scale, bias, training=False, eps=1e-5)

    stats = state["batch_stats"]
    y = torch.tensor(np.asarray(x)).permute(0, 3, 1, 2)
    y = torch.relu(bn(conv(y, params["stem"], 2), params["stem_norm"], stats["stem_norm"]))
    # SAME with stride 2 pads an even side at its end only.
    y = F.max_pool2d(F.pad(y, (0, 1, 0, 1), value=-torch.inf), 3, 2)
    for stage, got in enumerate(maps, start=1):
        for i in (1, 2):
            name, stride = f"stage{stage}_block{i}", 2 if i == 1 and stage > 1 else 1
            p, s = params[name], stats[name]
            branch = torch.relu(bn(conv(y, p["Conv_0"], stride), p["BatchNorm_0"], s["BatchNorm_0"]))
            branch = bn(conv(branch, p["Conv_1"]), p["BatchNorm_1"], s["BatchNorm_1"])
            if "shortcut" in p:
                y = bn(conv(y, p["shortcut"], stride), p["shortcut_norm"], s["shortcut_norm"])
            y = torch.relu(y + branch)
        want = y.permute(0, 2, 3, 1).numpy()
        np.testing.assert_allclose(got, want, atol=1e-4 * np.abs(want).max())


def test_with_zero_gammas_every_block_without_a_shortcut_convolution_is_the_identity():
    net = nets.from_linen(ResNet((2,), False, "cifar", norm))
    x = np.random.default_rng(1).normal(size=(2, 8, 8, 3)).astype(np.float32)
    params, state = jax.jit(net.init)(jax.random.key(0), x)
    cut = dict(params, stage1_block2=jax.tree.map(jnp.zeros_like, params["stage1_block2"]))
    apply = jax.jit(partial(net.apply, train=False))
    one, other = (apply(p, state, x)[0] for p in (params, cut))
    jax.tree.map(np.testing.assert_array_equal, one, other)


def test_what_cannot_be_built_is_refused():
    with pytest.raises(ValueError, match="comes in depths 18, 34, 50"):
        nets.resnet(19, stem="cifar", norm=norm)
    with pytest.raises(ValueError, match="stem is"):
        nets.resnet(18, stem="stl", norm=norm)
    with pytest.raises(ValueError, match="at least 1"):
        nets.resnet(18, stem="cifar", norm=norm, width=0)
    with pytest.raises(ValueError, match="which a ResNet-34 does not have"):
        nets.resnet(34, stem="cifar", norm=norm, inner=2)
    with pytest.raises(ValueError, match="must divide the 128 inner channels"):
        nets.resnet_stage(50, norm=norm, inner=2, groups=3)


def test_three_stages_with_the_fourth_on_top_are_the_whole_network(drawn):
    norm, key = nets.batch_norm(), jax.random.key(0)
    x = np.random.default_rng(0).uniform(size=(2, 8, 8, 3)).astype(np.float32)
    whole = nets.resnet(18, stem="cifar", norm=norm)
    trunk, stage = (
        nets.resnet(18, stem="cifar", norm=norm, stages=3),
        nets.resnet_stage(18, norm=norm),
    )
    params, state = drawn(whole.init, key, x)

    def part(tree, last):
        return {
            name: {k: v for k, v in leaves.items() if k.startswith("stage4") == last}
            for name, leaves in tree.items()
        }

    @jax.jit  # in one program, which takes half as long to compile
    def all_maps(params, state, x):
        maps, _ = whole.apply(params, state, x, train=True)
        params = {"params": params}
        below, _ = trunk.apply(part(params, False)["params"], part(state, False), x, train=True)
        (above,), _ = stage.apply(part(params, True)["params"], part(state, True), below[-1], train=True)
        return (*below, above), maps

    in_two, maps = all_maps(params, state, x)
    chex.assert_trees_all_close(in_two, maps, atol=1e-5)
    made = jax.tree.map(jnp.shape, jax.eval_shape(stage.init, key, in_two[-2])[0])
    assert made == jax.tree.map(jnp.shape, part({"params": params}, True)["params"])


def test_kernels_can_start_as_in_pytorch_code():
    x = jnp.ones((1, 8, 8, 3))
    net = nets.resnet(18, stem="cifar", norm=norm, features=16, initialization="torch")
    # Of a wide stem, as few numbers have an inexact deviation; one stage is enough for it.
    wide = nets.resnet(18, stem="imagenet", norm=norm, stages=1, initialization="torch")

    @jax.jit  # what is not asked for is not drawn
    def kernels(key):
        params = net.init(key, x)[0]
        large = wide.init(key, jnp.ones((1, 32, 32, 3)))[0]["stem"]["kernel"]
        return params["stem"]["kernel"], params["stage4_block1"], large

    stem, block, large = kernels(jax.random.key(0))
    assert float(jnp.max(jnp.abs(stem))) <= 27**-0.5  # uniform within 1 / sqrt(fan in)
    np.testing.assert_allclose(jnp.std(stem), 81**-0.5, rtol=0.1)
    for name, fan_out in (("Conv_0", 9 * 128), ("Conv_1", 9 * 128), ("shortcut", 128)):
        kernel = block[name]["kernel"]
        np.testing.assert_allclose(jnp.std(kernel), (2 / fan_out) ** 0.5, rtol=0.03)
    np.testing.assert_allclose(jnp.std(large), (2 / (49 * 64)) ** 0.5, rtol=0.05)
    with pytest.raises(ValueError, match="initialization"):
        nets.resnet(18, stem="cifar", norm=norm, initialization="keras")


@pytest.mark.parametrize(("pool", "first"), [("same", 0), ("torch", -1)])
def test_a_max_pool_looks_at_three_rows_from_its_first_on(pool, first):
    x = np.random.default_rng(0).normal(size=(1, 6, 8, 2)).astype(np.float32)
    got = nn.max_pool(x, (3, 3), (2, 2), POOLS[pool])
    assert got.shape == (1, 3, 4, 2)
    for i in range(3):
        for j in range(4):
            rows = slice(max(2 * i + first, 0), 2 * i + first + 3)
            columns = slice(max(2 * j + first, 0), 2 * j + first + 3)
            np.testing.assert_array_equal(got[0, i, j], x[0, rows, columns].max((0, 1)))


def test_another_padding_is_refused():
    with pytest.raises(ValueError, match='padded as "same" or "torch"; got \'valid\''):
        nets.resnet(18, stem="imagenet", norm=nets.batch_norm(), pool="valid")


def test_on_a_tpu_a_bottleneck_is_as_near_to_float32_as_elsewhere(monkeypatch):
    """There the last norm of a block is told the kernel before it; what is rounded is not the same."""
    x = np.random.default_rng(0).normal(size=(32, 8, 8, 4)).astype(np.float32)

    def block(dtype):
        return nets.from_linen(Block(8, 1, True, norm, dtype, zero_init_last_gamma=False))

    params, state = jax.jit(block(jnp.float32).init)(jax.random.key(0), x)  # which stay float32

    def of(dtype, platform):
        monkeypatch.setattr(collectives, "target", lambda: collectives.Target(platform, 1))
        net = block(dtype)

        def loss(params):
            out, new = net.apply(params, state, x, train=True)
            return jnp.mean(jnp.sin(out.astype(jnp.float32))), (out.astype(jnp.float32), new)

        (_, (out, new)), gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))(params)
        return jax.device_get((out, new, gradient))

    def error(got, want):
        ones, others = (np.concatenate([x.ravel() for x in jax.tree.leaves(tree)]) for tree in (got, want))
        return np.linalg.norm(ones - others) / np.linalg.norm(others)

    exact = of(jnp.float32, "cpu")
    here, there = of(jnp.bfloat16, "cpu"), of(jnp.bfloat16, "tpu")
    assert error(there[0], here[0]) > 0  # it is another program
    for part in range(3):
        assert error(there[part], exact[part]) < 1.2 * error(here[part], exact[part]) + 1e-4


def test_the_first_block_of_every_stage_can_have_a_convolution_on_its_shortcut():
    """SimCLR's resnet.py, block_group: use_projection=True. Of ResNet-18 one more 1x1 convolution and its norm, of as
    many channels as the first stage; of bottlenecks the same network."""
    given = {"stem": "cifar", "norm": norm, "features": 4}
    plain, every = (of_init(nets.resnet(18, **given, shortcuts=s), 2, 8, 8, 3) for s in SHORTCUTS)
    more = count(every) - count(plain)
    assert more == 4 * 4 + 2 * 4
    assert set(every["stage1_block1"]) - set(plain["stage1_block1"]) == {"shortcut", "shortcut_norm"}
    assert every["stage1_block2"].keys() == plain["stage1_block2"].keys()
    same = [of_init(nets.resnet(50, **given, stages=1, shortcuts=s), 2, 8, 8, 3) for s in SHORTCUTS]
    assert jax.tree.structure(same[0]) == jax.tree.structure(same[1])
    with pytest.raises(ValueError, match="shortcuts are"):
        nets.resnet(18, **given, shortcuts="all")
