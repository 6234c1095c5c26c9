"""ResNets go to timm and come from it, and from SimCLRv2's converted checkpoints, and the networks then agree."""

import jax
import numpy as np
import pytest

from jaxcl import nets
from jaxcl.nets.simclr_v2 import simclr_v2_names
from jaxcl.nets.timm import check_file, check_timm, in_timm, name_in_timm, squeezed, squeezed_by_timm
from jaxcl.nets.torchvision import from_torchvision, names, to_torchvision, without_prefix

KINDS = {
    "d": (18, {"variant": "d"}),
    "se": (18, {"variant": "d", "excite": 0.25}),
    "d50": (50, {"variant": "d", "inner": 2, "groups": 4}),
    "se50": (50, {"variant": "d", "excite": 0.25}),
    "sk50": (50, {"selective": 0.0625, "excite": 0.25}),
}


def net_of(depth, *, whole=True, **settings):
    """A network of that depth, or of all its kinds of blocks alone."""
    settings = {"stem": "imagenet", "pool": "torch", "features": 8, "norm": nets.batch_norm()} | settings
    net = nets.resnet(depth, **settings)
    return net if whole else nets.from_linen(net.made.module.clone(blocks=(1, 2, 1, 1)))


def drawn_net(drawn, net, channels=3):
    """The network with numbers that are those of no other channel."""
    params, state = drawn(net.init, jax.random.key(0), np.zeros((1, 32, 32, channels), np.float32))
    rng = np.random.default_rng(2)
    numbers = jax.tree.map(np.asarray, (params, state))
    return jax.tree.map(
        lambda x: x if x.ndim == 4 else x + rng.uniform(0, 0.2, x.shape).astype(np.float32), numbers
    )


def features(net, params, state, images):
    maps, _ = jax.jit(lambda p, s, x: net.apply(p, s, x, train=False))(params, state, images)
    return np.asarray(maps[-1].mean((1, 2)))


def images_of(size, channels=3):
    return np.random.default_rng(3).uniform(size=(2, size, size, channels)).astype(np.float32)


def in_torch_layout(torch, images):
    return torch.from_numpy(images.transpose(0, 3, 1, 2).copy())


# --- names ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_every_array_has_names_of_its_own_and_comes_back_by_them(drawn, kind):
    depth, settings = KINDS[kind]
    net = net_of(depth, whole=False, **settings)
    params, state = drawn_net(drawn, net)
    listed = list(names(net.made.module, params))
    theirs = [name for array in listed for name in array.theirs]
    assert len(set(theirs)) == len(theirs)
    assert len(listed) == len(jax.tree.leaves((params, state)))
    there = to_torchvision(net.made.module, params, state)
    assert without_prefix({f"model.{name}": x for name, x in there.items()})[0] == "model."
    back = from_torchvision(net.made.module, params, state, there)
    for own, found in zip(jax.tree.leaves((params, state)), jax.tree.leaves(back), strict=True):
        np.testing.assert_array_equal(own, found)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"width": 2}, "no 16 channels in its first stage behind a stem of one convolution"),
        ({"variant": "d", "stages": 3}, "stages=3"),
        ({"variant": "d", "norm": nets.layer_norm()}, "the norm LayerNorm"),
        ({"variant": "d", "excite": 0.2}, "excite=0.2, whose channels"),
        ({"features": 96, "selective": 0.5}, "selective=0.5, whose channels"),
    ],
)
def test_what_timm_lacks_is_refused_by_name(settings, message):
    with pytest.raises(ValueError, match=message):
        check_timm(net_of(50, **settings).made.module)


@pytest.mark.parametrize(
    ("depth", "settings", "name"),
    [
        (18, {}, "resnet18"),
        (200, {"variant": "d"}, "resnet200d"),
        (50, {"excite": 0.25}, "seresnet50"),
        (50, {"inner": 2}, "wide_resnet50_2"),
        (50, {"inner": 2, "groups": 32}, "resnext50_32x4d"),
        (18, {"excite": 0.25}, None),
        (50, {"selective": 0.0625}, None),
        (18, {"features": 32, "variant": "d"}, None),
        (18, {"stem": "cifar", "variant": "d"}, None),
    ],
)
def test_a_network_has_the_name_that_timm_has_for_it_or_none(depth, settings, name):
    assert name_in_timm(net_of(depth, **({"features": 64} | settings)).made.module) == name


def test_channels_are_squeezed_as_published_and_rounded_as_in_timm():
    # SimCLRv2's widths 1, 2 and 3: max(channels / 16, 32), and timm's make_divisible(channels / 16, 32).
    for width in (1, 2):
        for stage in range(4):
            assert squeezed(64 * width * 2**stage, 1 / 16) == squeezed_by_timm(64 * width * 2**stage, 1 / 16)
    assert squeezed(192 * 4, 1 / 16) == 48
    assert squeezed_by_timm(192 * 4, 1 / 16) == 64  # so width 3 is refused


@pytest.mark.parametrize(
    ("settings", "name", "message"),
    [
        (
            {},
            "conv1.0.weight",
            r'Only the network of the file has the stem of .* ResNet-D \(variant="d"\)',
        ),
        ({"variant": "d"}, "conv1.weight", "Only the network of this config has the stem"),
        ({}, "layer1.0.se.fc1.weight", "squeeze-and-excitation"),
        ({}, "layer1.0.conv2.attn.fc_reduce.weight", "selective kernels"),
    ],
)
def test_a_file_of_another_kind_is_told_by_what_differs(settings, name, message):
    with pytest.raises(ValueError, match=message):
        check_file(net_of(50, **settings).made.module, {name: 0}, {})


def test_what_weights_do_not_show_is_refused_where_the_file_says_it_and_where_it_should():
    module = net_of(50).made.module
    check_file(module, {}, {"architecture": "resnet50"})
    for name in ("resnetaa50", "resnetblur50"):
        with pytest.raises(ValueError, match=f"{name} has anti-aliasing before its strides"):
            check_file(module, {}, {"architecture": name})
    found = {"conv1.0.weight": 0, "layer1.0.conv2.attn.fc_reduce.weight": 0}
    selective = net_of(50, selective=0.0625).made.module
    with pytest.raises(ValueError, match="is dilated"):
        check_file(selective, found, {})
    check_file(selective, found, {"selective": "3x3 3x3"})


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("layer0.conv1.weight", r'legacy_se\*, .* stride on the first convolution \("v1"\)'),
        ("stages.0.blocks.0.conv1.weight", "resnetv2"),
    ],
)
def test_relatives_that_are_no_resnet_here_are_named(name, message):
    with pytest.raises(ValueError, match=message):
        without_prefix({name: 0})


# --- parity --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("depth", "settings", "size"),
    [
        pytest.param(18, {"features": 64}, 32, id="plain"),
        pytest.param(18, {"features": 64, "whole": True}, 32, id="resnet18", marks=pytest.mark.slow),
        pytest.param(18, {"features": 64, "pool": "same"}, 32, id="resnet18 padded as SimCLR"),
        pytest.param(18, {"features": 64, "stem": "cifar"}, 16, id="small images"),
        pytest.param(18, {"variant": "d", "pool": "same"}, 64, id="d"),
        *(pytest.param(depth, kind, 50, id=f"{name} of odd maps") for name, (depth, kind) in KINDS.items()),
        pytest.param(
            50, {"features": 64, "variant": "d", "whole": True}, 64, id="resnet50d", marks=pytest.mark.slow
        ),
        pytest.param(
            50, {"features": 64, "excite": 0.25, "whole": True}, 64, id="seresnet50", marks=pytest.mark.slow
        ),
    ],
)
def test_timm_makes_the_same_of_images(drawn, depth, settings, size):
    """Forward parity at random weights, by the very lines that an export prints."""
    torch = pytest.importorskip("torch")
    pytest.importorskip("timm")
    net = net_of(depth, **({"whole": False} | settings))
    params, state = drawn_net(drawn, net)
    scope: dict = {}
    exec("\n".join(in_timm(check_timm(net.made.module))), scope)
    arrays = to_torchvision(net.made.module, params, state)
    scope["model"].load_state_dict({name: torch.from_numpy(x) for name, x in arrays.items()})
    images = images_of(size)
    ours = features(net, params, state, images)
    with torch.no_grad():
        theirs = scope["model"](in_torch_layout(torch, images)).numpy()
    assert np.abs(ours).max() > 0.1
    assert np.abs(theirs - ours).max() < 1e-4 * np.abs(ours).max()


def test_other_channels_go_along(drawn):
    channels = 4
    torch = pytest.importorskip("torch")
    pytest.importorskip("timm")
    net = net_of(18, whole=False, variant="d")
    params, state = drawn_net(drawn, net, channels)
    scope: dict = {}
    exec("\n".join(in_timm(net.made.module, channels=channels)), scope)
    arrays = to_torchvision(net.made.module, params, state)
    scope["model"].load_state_dict({name: torch.from_numpy(x) for name, x in arrays.items()})
    images = images_of(32, channels)
    with torch.no_grad():
        theirs = scope["model"](in_torch_layout(torch, images)).numpy()
    ours = features(net, params, state, images)
    assert np.abs(theirs - ours).max() < 1e-4 * np.abs(ours).max()


@pytest.mark.parametrize(
    ("name", "depth", "settings"),
    [
        pytest.param("resnet18", 18, {}, marks=pytest.mark.slow),
        ("resnet18d", 18, {"variant": "d"}),
        pytest.param("seresnet50", 50, {"excite": 0.25}, marks=pytest.mark.slow),
        pytest.param("wide_resnet50_2", 50, {"inner": 2}, marks=pytest.mark.slow),
    ],
)
def test_what_timm_saves_makes_the_same_of_images_here(drawn, name, depth, settings):
    torch = pytest.importorskip("torch")
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    model = timm.create_model(name, zero_init_last=False).eval()
    found = {key: x.numpy() for key, x in model.state_dict().items()}
    net = net_of(depth, features=64, **settings)
    check_file(net.made.module, found, {"architecture": name})
    params, state = drawn_net(drawn, net)
    images = images_of(64)
    ours = features(net, *from_torchvision(net.made.module, params, state, found), images)
    with torch.no_grad():
        theirs = model.forward_head(
            model.forward_features(in_torch_layout(torch, images)), pre_logits=True
        ).numpy()
    assert np.abs(theirs - ours).max() < 1e-4 * np.abs(ours).max()


# --- SimCLRv2's ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ratio", [0, 0.0625])
def test_a_converted_simclr_v2_network_comes_in_whole(drawn, ratio):
    net = net_of(50, whole=False, pool="same", selective=ratio)
    module = net.made.module
    params, state = drawn_net(drawn, net)
    listed = list(simclr_v2_names(module, params))
    theirs = [name for array in listed for name in array.theirs]
    assert len(set(theirs)) == len(theirs) == len(jax.tree.leaves((params, state)))
    by_ours = {array.ours: array.theirs[0] for array in listed if array.learnt}
    # As that code counts the children of its nn.Sequentials, with norm and ReLU as one of them.
    block = ("stage2_block1",)
    if ratio:
        assert by_ours["stem", "kernel"] == "net.0.4.weight"
        assert by_ours[*block, "selective", "select", "kernel"] == "net.2.blocks.0.net.2.mixing_conv.2.weight"
        assert by_ours[*block, "BatchNorm_1", "scale"] == "net.2.blocks.0.net.4.0.weight"
        assert by_ours[*block, "shortcut", "kernel"] == "net.2.blocks.0.projection.shortcut.2.weight"
    else:
        assert by_ours["stem", "kernel"] == "net.0.0.weight"
        assert by_ours[*block, "BatchNorm_2", "scale"] == "net.2.blocks.0.net.5.0.weight"
        assert by_ours[*block, "shortcut", "kernel"] == "net.2.blocks.0.projection.shortcut.weight"
    with pytest.raises(ValueError, match="depth 50 and more"):
        list(simclr_v2_names(net_of(18).made.module, {}))
