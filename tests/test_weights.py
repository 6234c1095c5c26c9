"""An encoder goes out as a file and comes in from one, and is the same there."""

import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxcl import augment, keys, losses, methods, nets, tensors, weights
from jaxcl.cli import main
from jaxcl.config import load_config
from jaxcl.encoder import load_encoder
from jaxcl.nets.simclr_v2 import simclr_v2_names
from jaxcl.nets.torchvision import array_of, to_torchvision
from jaxcl.runs import create_or_resume
from jaxcl.train import checkpoint
from jaxcl.train.state import TrainState, blank_batch
from jaxcl.typing import About

CONFIGS = Path(__file__).parents[1] / "configs"
ABOUT = About(32, (16, 16, 3), ())
IMAGES = np.random.default_rng(0).integers(0, 256, (4, 16, 16, 3), np.uint8)
CONFIG = """
from dataclasses import dataclass
import optax
from jaxcl import CommonKnobs, Recipe, augment, losses, methods, nets

@dataclass(frozen=True)
class Knobs(CommonKnobs):
    data: str = "npz:images.npz"
    batch_size: int = 16
    rate: float = 0.0

def recipe(knobs, about):
    views = augment.two_views(augment.flip())
    method = methods.simclr(
        views=views,
        encoder=ENCODER,
        head=nets.mlp_head(norm=nets.no_norm(), hidden=(), out=5),
        loss=losses.keyless(losses.nt_xent, temperature=0.5),
    )
    return Recipe(method, optax.sgd(knobs.rate), optax.constant_schedule(knobs.rate), views, 1, 16)
"""
SMALL = "nets.conv_n(features=(4,), dense=6, norm=nets.batch_norm())"
RESNET = 'nets.resnet(18, stem="imagenet", pool="torch", norm=nets.batch_norm())'
LARGE = f"nets.standardized({RESNET}, mean=[0.5] * 3, std=[0.2] * 3)"


def moved(x, by):
    """An array of one's own, made by numpy: nothing is compiled."""
    return jnp.asarray(np.asarray(x) + np.asarray(by, x.dtype))


@pytest.fixture(scope="module")
def world(tmp_path_factory, drawn):
    """Two runs whose encoders were drawn, not trained: a small network, and a ResNet-18."""
    folder = tmp_path_factory.mktemp("world")
    np.savez(folder / "images.npz", train_images=np.tile(IMAGES, (8, 1, 1, 1)), test_images=IMAGES)
    for name, encoder in {"small": SMALL, "large": LARGE}.items():
        path = folder / f"{name}.py"
        path.write_text(CONFIG.replace("ENCODER", encoder))
        config = load_config(path)
        create_or_resume(folder / name, path, config.Knobs(), ABOUT)
        init = config.recipe(config.Knobs(), ABOUT).method.init
        params, state = drawn(init, keys.init_key(0), blank_batch(ABOUT))
        params, state = jax.tree.map(lambda x: moved(x, 0.1) if x.ndim < 4 else x, (params, state))
        checkpoint.save(folder / name / "checkpoints", 7, TrainState(jnp.int32(7), params, (), state))
    return folder


def test_a_run_starts_from_what_another_exported_with_its_statistics(world, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(world)
    file = str(tmp_path / "small.safetensors")
    assert main(["export", "small", "--to", "safetensors", "--out", file]) == 0
    assert tensors.read(file).about["step"] == "7"
    assert main(["train", "small.py", "--init", file, "--run-dir", str(tmp_path / "next")]) == 0
    assert f"Starts from the encoder of {file}" in capsys.readouterr().out
    # The rate is 0, so that the step moved nothing but running statistics, by a tenth.
    mine, theirs = load_encoder(tmp_path / "next"), load_encoder("small")
    for a, b in zip(jax.tree.leaves(mine.params), jax.tree.leaves(theirs.params), strict=True):
        np.testing.assert_array_equal(a, b)
    mean = [jax.tree.leaves(one.state)[0] for one in (mine, theirs)]
    assert 0 < np.abs(mean[0] - mean[1]).max() < 0.2


def test_what_is_no_encoder_of_this_run_is_said_before_there_is_a_run(world, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(world)
    file = tmp_path / "other.safetensors"
    tensors.write(file, {"params/encoder/Conv_0/kernel": np.zeros((3, 3, 3, 9), np.float32)})
    for init, message in {
        str(file): "cannot be started from. The file has another encoder than this config: params differ in",
        "nowhere.safetensors": "There is no file",
        "nowhere": "expected a run directory, or a file of weights",
        "images.npz": "expected a run directory, or a file of weights",
    }.items():
        assert main(["train", "small.py", "--init", init, "--run-dir", str(tmp_path / "next")]) == 1
        assert message in capsys.readouterr().err
        assert not (tmp_path / "next").exists()


def test_a_run_that_sees_other_numbers_than_the_one_it_starts_from_is_refused_with_the_knob(
    world, tmp_path, monkeypatch, capsys
):
    """What standardizes has no parameters: the arrays of both encoders are alike."""
    monkeypatch.chdir(world)
    mean, std = "[0.485, 0.456, 0.406]", "[0.229, 0.224, 0.225]"  # torchvision's, of ImageNet
    variants = {
        "imagenet": f"nets.standardized({SMALL}, mean={mean}, std={std})",
        "odd": f"nets.standardized({SMALL}, mean=[0.1], std=[0.2])",
        "same": f"nets.standardized({SMALL}, mean={mean}, std={std})",
    }
    for name, encoder in variants.items():
        (world / f"{name}.py").write_text(CONFIG.replace("ENCODER", encoder))
    assert main(["train", "imagenet.py", "--init", "small", "--run-dir", str(tmp_path / "none")]) == 1
    said = capsys.readouterr().err
    assert (
        f"the encoder of {world}/small standardizes images by nothing, and that of this config by mean"
        in said
    )
    assert "Give --standardize none where the config has it" in said
    assert not (tmp_path / "none").exists()
    for name in ("imagenet", "odd"):
        path = world / f"{name}.py"
        create_or_resume(world / name, path, load_config(path).Knobs(), ABOUT)
        shutil.copytree(world / "small/checkpoints", world / name / "checkpoints")
    assert main(["train", "small.py", "--init", "imagenet", "--run-dir", str(tmp_path / "none")]) == 1
    assert "mean (0.485, 0.456, 0.406)" in (said := capsys.readouterr().err)
    assert "Give --standardize imagenet where the config has it, or set it in a copy of the config." in said
    assert main(["train", "small.py", "--init", "odd", "--run-dir", str(tmp_path / "none")]) == 1
    assert "than it was trained on. Set it in a copy of the config." in capsys.readouterr().err
    assert main(["train", "same.py", "--init", "imagenet", "--run-dir", str(tmp_path / "next")]) == 0
    assert "Starts from the encoder of" in capsys.readouterr().out
    # A run that goes on needs nothing of what it began with.
    (world / "imagenet").rename(world / "elsewhere")
    assert main(["train", "same.py", "--init", "imagenet", "--run-dir", str(tmp_path / "next")]) == 0
    (world / "elsewhere").rename(world / "imagenet")
    capsys.readouterr()
    # Without its config it is not known, and that is said.
    shutil.copytree(world / "imagenet/checkpoints", tmp_path / "bare/checkpoints")
    bare = str(tmp_path / "bare")
    assert main(["train", "small.py", "--init", bare, "--run-dir", str(tmp_path / "other")]) == 0
    assert f"How {bare} standardizes images is not known here" in capsys.readouterr().out


def test_supervised_takes_the_figures_of_the_run_that_it_starts_from():
    """Those of MoCo's demo too, and the padding of a pool, which has no parameters either."""
    supervised, moco = (load_config(CONFIGS / f"{name}.py") for name in ("supervised", "moco_cifar10"))
    cifar = About(50000, (32, 32, 3), tuple("0123456789"))
    theirs = moco.recipe(moco.Knobs(), cifar).method

    def own(**knobs):
        return supervised.recipe(supervised.Knobs(encoder="resnet", depth=18, **knobs), cifar).method

    with pytest.raises(ValueError, match="Give --standardize cifar10_moco where"):
        weights.check_seen_alike("runs/moco", theirs, own())
    weights.check_seen_alike("runs/moco", theirs, own(standardize="cifar10_moco"))
    with pytest.raises(ValueError, match="padded as pool='torch' .* Give --pool torch where"):
        weights.check_seen_alike("runs/one", own(stem="imagenet", pool="torch"), own(stem="imagenet"))
    weights.check_seen_alike("runs/one", own(pool="torch"), own())  # a stem without a pool


def test_a_network_that_torchvision_lacks_is_refused_and_another_is_told_how_to_load_it(world, capsys):
    assert main(["export", str(world / "small"), "--to", "torchvision"]) == 1
    said = capsys.readouterr().err
    assert "Only a `nets.resnet` has torchvision's names; got ConvN" in said
    assert "`--to safetensors` writes any encoder" in said
    assert main(["export", str(world / "large"), "--to", "torchvision"]) == 0
    said = capsys.readouterr().out
    assert "ResNet(BasicBlock, [2, 2, 2, 2])" in said
    assert "standardized by mean (0.5, 0.5, 0.5) and std (0.2, 0.2, 0.2)" in said
    found = tensors.read(world / "large/weights/torchvision.safetensors")
    assert found.about["pool"] == "torch"
    assert len(found.arrays) == 20 * 5  # 20 convolutions, each with a norm's four


def test_pytorch_makes_of_an_exported_run_what_the_run_does(world, tmp_path):
    torch = pytest.importorskip("torch")
    pytest.importorskip("torchvision")
    lines = []
    weights.export_run(world / "large", "torchvision", out=tmp_path / "large.pth", say=lines.append)
    scope: dict = {}
    exec("\n".join(line.strip() for line in lines[1:]), scope)
    x = torch.from_numpy(((IMAGES / 255 - 0.5) / 0.2).astype(np.float32).transpose(0, 3, 1, 2).copy())
    with torch.no_grad():
        theirs = scope["model"](x).numpy()
    ours = np.asarray(load_encoder(world / "large")(IMAGES))
    assert np.abs(theirs - ours).max() < 1e-4 * np.abs(ours).max()


def test_timm_gets_lines_of_its_own_and_a_run_starts_from_its_file(world, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(world)
    file = str(tmp_path / "timm.safetensors")
    assert main(["export", "large", "--to", "timm", "--out", file]) == 0
    said = capsys.readouterr().out
    assert "timm.create_model('resnet18', num_classes=0)" in said
    method = load_config("large.py").recipe(load_config("large.py").Knobs(), ABOUT).method
    lines = []
    theirs = load_encoder("large")
    params = {"encoder": theirs.params["encoder"], "head": {}}
    state = jax.tree.map(jnp.zeros_like, {"encoder": theirs.state["encoder"], "head": {}})
    train = TrainState(jnp.int32(0), params, (), state)
    began = weights.starting_from(file, method, say=lines.append)(train)
    for a, b in zip(jax.tree.leaves(began.state), jax.tree.leaves(theirs.state), strict=True):
        np.testing.assert_array_equal(a, b)
    # As the Hugging Face Hub keeps a file: its config says what weights do not show.
    (tmp_path / "config.json").write_text('{"architecture": "resnetaa18"}')
    with pytest.raises(ValueError, match="resnetaa18 has anti-aliasing before its strides"):
        weights.starting_from(file, method)(train)


# --- from PyTorch ------------------------------------------------------------------------------------------------


def resnet_moco(drawn, **settings):
    """A method whose encoder is a small ResNet-18, its state, and the weights of another by torchvision's names."""
    net = nets.resnet(
        18, norm=nets.batch_norm(), features=4, **({"stem": "imagenet", "pool": "torch"} | settings)
    )
    method = methods.moco(
        views=augment.two_views(augment.crop_and_flip(16)),
        encoder=net,
        head=nets.mlp_head(norm=nets.no_norm(), hidden=(), out=4),
        loss=losses.keyless(losses.queue_nce, temperature=0.2),
        queue_size=8,
    )
    params, state = drawn(method.init, keys.init_key(0), blank_batch(ABOUT))
    state = {**state, "target": jax.tree.map(lambda x: moved(x, 0), params)}
    train = TrainState(jnp.int32(0), params, optax.EmptyState(), state)
    own = params["encoder"], state["query"]["encoder"]
    other = jax.tree.map(lambda x: moved(x, 0.5), own)
    return method, train, other, to_torchvision(net.made.module, *other)


def test_the_encoder_its_statistics_and_its_target_are_those_of_the_file(drawn, tmp_path):
    method, train, (params, state), arrays = resnet_moco(drawn)
    arrays = {f"module.encoder_q.{name}": x for name, x in arrays.items()}
    arrays |= {name.replace("_q", "_k"): 0 * x for name, x in arrays.items()}
    tensors.write(tmp_path / "moco.safetensors", arrays | {"module.queue": np.zeros((4, 8), np.float32)})
    lines = []
    began = weights.starting_from(tmp_path / "moco.safetensors", method, say=lines.append)(train)
    for found, want in (
        (began.params["encoder"], params),
        (began.state["target"]["encoder"], params),
        (began.state["query"]["encoder"], state),
        (began.state["key"]["encoder"], state),
    ):
        for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(want), strict=True):
            np.testing.assert_array_equal(a, b)
    assert began.params["head"] is train.params["head"]
    assert lines[0] == "The ResNet is that of module.encoder_q.* in the file."
    assert "standardizes images by nothing" in lines[1]


def test_another_padding_is_refused_by_name_unless_the_file_says_that_it_is_its_own(drawn, tmp_path):
    method, train, _, arrays = resnet_moco(drawn, pool="same")
    tensors.write(tmp_path / "x.safetensors", arrays)
    with pytest.raises(
        ValueError, match=r"pool='torch' of nets.resnet, and that of this config as pool='same'"
    ):
        weights.starting_from(tmp_path / "x.safetensors", method)(train)
    tensors.write(tmp_path / "y.safetensors", arrays, about={"pool": "same"})
    weights.starting_from(tmp_path / "y.safetensors", method)(train)


def test_another_stem_is_refused_by_its_shape_and_a_head_is_not_in_a_file(drawn, tmp_path):
    method, train, _, arrays = resnet_moco(drawn, stem="cifar")
    tensors.write(tmp_path / "x.safetensors", arrays | {"conv1.weight": np.zeros((4, 3, 7, 7), np.float32)})
    with pytest.raises(ValueError, match=r"conv1.weight is \[4, 3, 7, 7\], expected \[4, 3, 3, 3\]"):
        weights.starting_from(tmp_path / "x.safetensors", method)(train)
    with pytest.raises(ValueError, match="has an encoder alone, and this run also starts from encoder, head"):
        weights.starting_from(tmp_path / "x.safetensors", method, carries=("encoder", "head"))


def test_a_file_of_pytorch_is_read_and_executes_nothing(drawn, tmp_path):
    torch = pytest.importorskip("torch")
    method, train, (params, _), arrays = resnet_moco(drawn)
    saved = {f"backbone.{name}": torch.from_numpy(x).half() for name, x in arrays.items()}
    torch.save({"epoch": 3, "state_dict": saved, "arch": "resnet18"}, tmp_path / "x.ckpt")
    began = weights.starting_from(tmp_path / "x.ckpt", method)(train)
    stem = began.params["encoder"]["stem"]["kernel"]
    np.testing.assert_allclose(stem, params["stem"]["kernel"], atol=2e-3)
    assert stem.dtype == jnp.float32

    class Trap:
        def __reduce__(self):
            return Path.touch, (tmp_path / "sprung",)

    torch.save({"state_dict": saved, "hyper": Trap()}, tmp_path / "trap.pth")
    with pytest.raises(ValueError, match="holds more than arrays, or is damaged, and is not opened"):
        weights.read(tmp_path / "trap.pth")
    assert not (tmp_path / "sprung").exists()


def test_without_pytorch_its_files_are_answered_with_a_command(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "torch", None)
    (tmp_path / "x.pth").touch()
    with pytest.raises(ImportError, match="pip install torch"):
        weights.read(tmp_path / "x.pth")


def test_simclr_v2_s_networks_come_in_as_they_were_converted(drawn, tmp_path):
    module = nets.resnet(
        50, stem="imagenet", features=4, selective=0.0625, norm=nets.batch_norm()
    ).made.module.clone(blocks=(1, 1, 1, 1))
    net = nets.from_linen(module)
    method = methods.simclr(
        views=augment.two_views(augment.crop_and_flip(16)),
        encoder=net,
        head=nets.mlp_head(norm=nets.no_norm(), hidden=(), out=4),
        loss=losses.keyless(losses.nt_xent, temperature=0.5),
    )
    params, state = drawn(net.init, jax.random.key(0), np.zeros((1, 32, 32, 3), np.float32))
    found = {}
    for array in simclr_v2_names(module, params):
        x = np.asarray(array_of(params if array.learnt else state["batch_stats"], array.ours)) + 1
        found[f"resnet.{array.theirs[0]}"] = x.transpose(3, 2, 0, 1) if x.ndim == 4 else x
    tensors.write(tmp_path / "r50_1x_sk1.safetensors", found | {"head.layers.0.weight": np.zeros((4, 4))})
    lines = []
    train = TrainState(jnp.int32(0), {"encoder": params}, (), {"encoder": state})
    began = weights.starting_from(tmp_path / "r50_1x_sk1.safetensors", method, say=lines.append)(train)
    for own, new in (params, began.params["encoder"]), (state, began.state["encoder"]):
        for a, b in zip(jax.tree.leaves(own), jax.tree.leaves(new), strict=True):
            np.testing.assert_array_equal(np.asarray(a) + 1, b)
    assert lines[0] == "The ResNet is that of resnet.* in the file."


def test_a_checkpoint_of_tensorflow_is_named_with_who_converts_it(world, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(world)
    (tmp_path / "model.ckpt-37535.index").touch()
    for init in (tmp_path, tmp_path / "model.ckpt-37535"):
        assert main(["train", "small.py", "--init", str(init), "--run-dir", str(tmp_path / "next")]) == 1
        assert "is a checkpoint of TensorFlow's, which is not read here" in capsys.readouterr().err
