"""Weights of ResNets go to torchvision and come from it, and the networks then agree."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcl import nets
from jaxcl.nets.torchvision import (
    check_torchvision,
    from_torchvision,
    in_torch,
    names,
    to_torchvision,
    without_prefix,
)

X = np.random.default_rng(1).uniform(size=(2, 32, 32, 3)).astype(np.float32)


def drawn_net(drawn, depth, **settings):
    net = nets.resnet(depth, norm=nets.batch_norm(), **({"stem": "imagenet"} | settings))
    params, state = drawn(net.init, jax.random.key(0), X)
    rng = np.random.default_rng(2)

    def moved(path, x):  # scales, biases and statistics that are those of no other channel
        return x if x.ndim == 4 else x + jnp.asarray(rng.uniform(0, 0.2, x.shape), x.dtype)

    return net, *jax.tree_util.tree_map_with_path(moved, (params, state))


@pytest.mark.parametrize("depth", [18, 50])
def test_there_and_back_nothing_changes(drawn, depth):
    net, params, state = drawn_net(drawn, depth, features=4)
    there = to_torchvision(net.made.module, params, state)
    assert there["conv1.weight"].shape == (4, 3, 7, 7)
    back = from_torchvision(net.made.module, params, state, there)
    for own, found in zip(jax.tree.leaves((params, state)), jax.tree.leaves(back), strict=True):
        np.testing.assert_array_equal(own, found)


def test_every_array_has_one_name_of_its_own(drawn):
    net, params, state = drawn_net(drawn, 50, features=4)
    listed = [torch for array in names(net.made.module, params) for torch in array.theirs]
    assert len(set(listed)) == len(listed) == len(jax.tree.leaves((params, state)))


def test_another_network_is_told_by_the_first_names_that_differ(drawn):
    net, params, state = drawn_net(drawn, 18, features=4)
    there = to_torchvision(net.made.module, params, state)
    there["conv1.weight"] = there["conv1.weight"][:, :, :3, :3]
    del there["layer4.1.bn2.running_var"]
    with pytest.raises(
        ValueError,
        match=r"conv1.weight is \[4, 3, 3, 3\], expected \[4, 3, 7, 7\]; layer4.1.bn2.running_var is missing",
    ):
        from_torchvision(net.made.module, params, state, there)


def test_a_deeper_network_is_not_cut_to_fit(drawn):
    deep, shallow = drawn_net(drawn, 34, features=4), drawn_net(drawn, 18, features=4)
    there = to_torchvision(deep[0].made.module, *deep[1:])
    with pytest.raises(
        ValueError, match=r"another network: layer1.2.conv1.weight is unknown to this network"
    ):
        from_torchvision(shallow[0].made.module, *shallow[1:], there)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"variant": "d"}, "variant='d'"),
        ({"selective": 0.0625}, "no variant='d', no selective=0.0625"),
        ({"excite": 0.25}, "excite=0.25"),
        ({"width": 2}, "128 channels in its first stage"),
        ({"stages": 3}, "stages=3"),
        ({"norm": nets.layer_norm()}, "the norm LayerNorm"),
        ({"norm": nets.batch_norm(epsilon=1e-3)}, "batch norm with epsilon=0.001"),
    ],
)
def test_what_torchvision_lacks_is_refused_by_name(settings, message):
    net = nets.resnet(50, **({"stem": "imagenet", "norm": nets.batch_norm()} | settings))
    with pytest.raises(ValueError, match=message):
        check_torchvision(net.made.module)
    with pytest.raises(ValueError, match="got SmallConvNet"):
        check_torchvision(nets.small_convnet(norm=nets.batch_norm()).made.module)


def test_wrappers_of_a_network_say_what_is_inside():
    inner = nets.resnet(18, stem="cifar", norm=nets.batch_norm())
    outer = nets.chunked(nets.remat(nets.standardized(inner, mean=[0.5], std=[0.25])), 2)
    assert outer.made == inner.made._replace(mean=(0.5,), std=(0.25,))


@pytest.mark.parametrize(
    ("prefix", "others"),
    [
        ("", ("fc.",)),
        ("module.encoder_q.", ("module.encoder_k.",)),
        ("state_dict.backbone.", ("state_dict.momentum_backbone.", "state_dict.projector.0.weight")),
        ("classy_state_dict.base_model.model.trunk._feature_blocks.", ()),
    ],
)
def test_the_network_that_leads_is_found_below_its_prefix(prefix, others):
    inside = {"conv1.weight": 1, "layer1.0.conv1.weight": 2, "bn1.weight": 3}
    found = {prefix + name: x for name, x in inside.items()}
    found |= {other + name: -x for other in others for name, x in inside.items() if other != "fc."}
    assert without_prefix(found) == (prefix, inside)


def test_children_by_number_get_their_names():
    found = {
        "backbone.0.weight": 1,
        "backbone.1.bias": 2,
        "backbone.4.0.conv1.weight": 3,
        "backbone.7.1.bn2.weight": 4,
    }
    want = {"conv1.weight": 1, "bn1.bias": 2, "layer1.0.conv1.weight": 3, "layer4.1.bn2.weight": 4}
    assert without_prefix(found | {"projection_head.layers.0.weight": 5}) == ("backbone.", want)


def test_none_and_several_are_refused():
    with pytest.raises(ValueError, match="no ResNet by torchvision's names"):
        without_prefix({"a.weight": 0})
    two = {f"{p}.{name}": 0 for p in "ab" for name in ("conv1.weight", "layer1.0.conv1.weight")}
    with pytest.raises(ValueError, match=r"several ResNets in the file: 'a\.', 'b\.'"):
        without_prefix(two)


@pytest.mark.parametrize(
    ("depth", "settings", "size"),
    [
        (18, {"pool": "torch"}, 32),
        (18, {"pool": "same"}, 32),
        (18, {"stem": "cifar"}, 32),
        (50, {"pool": "torch"}, 33),
        (50, {"pool": "torch", "inner": 2, "groups": 32}, 32),
    ],
)
def test_torchvision_makes_the_same_of_images(drawn, depth, settings, size):
    """Forward parity at random weights, by the very lines that an export prints."""
    torch = pytest.importorskip("torch")
    pytest.importorskip("torchvision")
    net, params, state = drawn_net(drawn, depth, **settings)
    images = np.random.default_rng(3).uniform(size=(2, size, size, 3)).astype(np.float32)
    maps, _ = jax.jit(lambda p, s, x: net.apply(p, s, x, train=False))(params, state, images)
    ours = np.asarray(maps[-1].mean((1, 2)))
    scope: dict = {}
    exec("\n".join(in_torch(net.made.module)), scope)
    arrays = to_torchvision(net.made.module, params, state)
    scope["model"].load_state_dict({name: torch.from_numpy(x) for name, x in arrays.items()})
    with torch.no_grad():
        theirs = scope["model"](torch.from_numpy(images.transpose(0, 3, 1, 2).copy())).numpy()
    assert np.abs(ours).max() > 0.1
    assert np.abs(theirs - ours).max() < 1e-4 * np.abs(ours).max()


def test_torchvision_s_own_networks_are_understood_whole_and_as_their_children(drawn):
    torch = pytest.importorskip("torch")
    models = pytest.importorskip("torchvision").models
    theirs = models.resnet18()
    children = torch.nn.Sequential(
        *list(theirs.children())[:-1]
    )  # lightly's examples build their backbone so
    net, params, state = drawn_net(drawn, 18)
    for prefix, module in (("", theirs), ("backbone.", children)):
        found = {prefix + name: x.numpy() for name, x in module.state_dict().items()}
        where, inside = without_prefix(found)
        assert where == prefix
        new, _ = from_torchvision(net.made.module, params, state, inside)
        last = theirs.layer4[1].conv2.weight.detach().numpy().transpose(2, 3, 1, 0)
        np.testing.assert_array_equal(new["stage4_block2"]["Conv_1"]["kernel"], last)
