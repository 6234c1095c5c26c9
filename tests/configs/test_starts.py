"""Which network a config begins with, and how its weights start: the authors' definitions, written out."""

from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcl import About
from jaxcl.cli.words import knobs_of
from jaxcl.config import load_config
from jaxcl.train.state import by_path

CONFIGS = Path(__file__).parents[2] / "configs"
CIFAR = About(50_000, (32, 32, 3), tuple("abcdefghij"))
IMAGENET = About(1_281_167, (224, 224, 3), tuple(map(str, range(1000))))


def made(name, about, words=""):
    """The method of a config, as these words of a command line set its knobs."""
    config = CONFIGS / f"{name}.py"
    return load_config(config).recipe(knobs_of("train", config, words.split()), about).method


def encoder_of(name, about, words):
    """The shapes of an encoder's parameters, by their paths."""
    net = made(name, about, words).five_parts.encoder["encoder"]
    shapes = jax.eval_shape(net.init, jax.random.key(0), jnp.zeros((2, *about.shape)))[0]
    return {path: x.shape for path, x in by_path(shapes).items()}


@pytest.mark.parametrize("depth", [18, 34])
@pytest.mark.parametrize(
    ("row", "about"),
    [("simclr_imagenet", IMAGENET), ("simclr_v2", IMAGENET), ("simclr_cifar10 --details simclr", CIFAR)],
)
def test_simclrs_small_resnets_have_a_convolution_on_the_shortcut_of_every_stage(row, about, depth):
    """resnet.py, block_group: use_projection=True for a stage's first block, also where its shape stays, so the first
    stage of a ResNet-18 has a 1x1 convolution of 64 to 64 channels. A supervised run is of the same network by its
    knob, so that it may be fine-tuned."""
    name, *words = row.split()
    theirs = encoder_of(name, about, " ".join([*words, f"--depth {depth}"]))
    assert theirs["stage1_block1/shortcut/kernel"] == (1, 1, 64, 64)
    assert [path for path in theirs if path.endswith("shortcut/kernel")] == [
        f"stage{stage}_block1/shortcut/kernel" for stage in (1, 2, 3, 4)
    ]
    stem = "imagenet" if about is IMAGENET else "cifar"
    words = f"--encoder resnet --depth {depth} --stem {stem} --shortcuts "
    assert encoder_of("supervised", about, words + "of_every_stage") == theirs
    assert encoder_of("supervised", about, words + "where_needed") != theirs


@pytest.mark.parametrize(
    ("words", "about"),
    [("--preset imagenet", IMAGENET), ("--preset cifar10 --shortcuts of_every_stage", CIFAR)],
)
def test_byols_small_resnets_can_have_a_convolution_on_the_shortcut_of_every_stage(words, about):
    """networks.py: use_projection=True for a stage's first block."""
    theirs = encoder_of("byol", about, f"{words} --depth 18")
    shortcuts = [path for path in theirs if path.endswith("shortcut/kernel")]
    assert shortcuts == [f"stage{stage}_block1/shortcut/kernel" for stage in (1, 2, 3, 4)]
    usual = encoder_of("byol", about, f"{words} --depth 18 --shortcuts where_needed")
    assert len([path for path in usual if path.endswith("shortcut/kernel")]) == 3


# A config, and the words of a supervised run beside it whose encoder starts alike.
SMALL = "--features 8 --depth 2 --out 16"
OF_TORCH = "--initialization torch --no-zero-init-last-gamma"
OF_HAIKU = "--initialization haiku --no-zero-init-last-gamma"
REFERENCES = {
    f"amdim --preset cifar10 {SMALL}": "--encoder amdim --standardize cifar10 --amdim 8 2 16",
    f"yadim --preset cifar10 {SMALL}": "--encoder amdim --standardize cifar10 --amdim 8 2 16",
    "moco_cifar10": f"--encoder resnet --depth 18 --standardize cifar10_moco {OF_TORCH}",
    "simclr_cifar10": f"--encoder resnet --depth 18 {OF_TORCH}",
    "simclr_cifar10 --details simclr": "--encoder resnet --depth 18 --shortcuts of_every_stage",
    "byol --preset cifar10": f"--encoder resnet --depth 18 --standardize cifar10 {OF_HAIKU}",
    "byol --preset imagenet --depth 18": "--encoder resnet --depth 18 --stem imagenet --standardize imagenet"
    f" --shortcuts of_every_stage {OF_HAIKU}",
}


@pytest.mark.parametrize("row", REFERENCES)
def test_a_reference_row_has_the_start_of_the_run_beside_it(row):
    """The same key gives the same first weights."""
    name, *words = row.split()
    both = [
        made(name, CIFAR, " ".join(words)).five_parts.encoder["encoder"],
        made("supervised", CIFAR, REFERENCES[row]).five_parts.encoder["encoder"],
    ]
    first, other = (
        by_path(jax.jit(net.init)(jax.random.key(3), jnp.zeros((2, 32, 32, 3)))[0]) for net in both
    )
    assert first.keys() == other.keys()
    for path in first:
        np.testing.assert_array_equal(first[path], other[path], err_msg=path)


def test_a_student_may_have_the_shortcuts_of_simclrs_code(monkeypatch, tmp_path):
    config, supervised = load_config(CONFIGS / "distill.py"), load_config(CONFIGS / "supervised.py")
    teacher = SimpleNamespace(recipe=supervised.recipe(supervised.Knobs(), CIFAR), about=CIFAR)
    monkeypatch.setattr(config, "open_run", lambda path: teacher)
    own = {"encoder": "resnet", "depth": 18, "shortcuts": "of_every_stage"}
    method = config.recipe(config.Knobs(teacher=str(tmp_path), **own), CIFAR).method
    init = method.five_parts.encoder["encoder"].init
    shapes = jax.eval_shape(init, jax.random.key(0), jnp.zeros((2, 32, 32, 3)))[0]
    assert shapes["stage1_block1"]["shortcut"]["kernel"].shape == (1, 1, 64, 64)


def check_as_in_torch(layers):
    """torch.nn.Conv2d and Linear, reset_parameters: kernel and bias from U(-a, a), a = 1 / sqrt(fan in), whose variance
    is 1 / (3 fan in). Of layers of one fan in: {name: [numbers]}, and the fan in."""
    for name, (numbers, fan_in) in layers.items():
        scaled = np.asarray(numbers) * fan_in**0.5
        assert np.abs(scaled).max() <= 1 + 1e-5, name
        # The standard error of a mean square of U(-1, 1) is 0.298 / sqrt(n).
        assert abs(np.mean(scaled**2) - 1 / 3) < 5 * 0.298 / scaled.size**0.5, name


@pytest.mark.parametrize("preset", ["cifar10", "stl10", "imagenet"])
def test_cpcs_target_predictor_and_context_start_as_in_bolts(preset):
    """CPCTask and PixelCNN of PyTorch Lightning Bolts: plain Conv2d throughout, with biases. z has 2048 channels, the
    context 256 within: 1x1, 1x3, 2x1, 1x1, five times."""
    parts = made("cpc", CIFAR, f"--preset {preset}").five_parts.extraction

    @jax.jit
    def init(key):
        grid = jnp.zeros((1, 7, 7, 2048))
        return {name: parts[name].init(key, grid)[0] for name in ("target", "predictor", "context")}

    begun = init(jax.random.key(0))
    layers = {
        "target": (begun["target"]["Dense_0"], 2048),
        "predictor": (begun["predictor"]["Dense_0"], 2048),
    }
    fans = {"Dense_0": 2048, "Conv_0": 3 * 256, "Conv_1": 2 * 256, "Dense_1": 256}
    for block in range(5):
        for name, fan_in in fans.items():
            room, number = name.split("_")
            own = f"{room}_{int(number) + 2 * block}"
            layers[f"context/{own}"] = (begun["context"][own], fan_in)
    assert len(begun["context"]) == 4 * 5
    for kind in ("kernel", "bias"):
        check_as_in_torch({f"{name}/{kind}": (layer[kind], fan) for name, (layer, fan) in layers.items()})


@pytest.mark.parametrize("preset", ["imagenet_henaff", "imagenet_pseudo_code"])
def test_what_the_pseudo_code_does_not_say_starts_without_biases(preset):
    parts = made("cpc", CIFAR, f"--preset {preset}").five_parts.extraction
    for name in ("target", "context"):
        begun = jax.jit(parts[name].init)(jax.random.key(0), jnp.zeros((1, 6, 6, 64)))[0]
        assert not any(np.any(x) for path, x in by_path(begun).items() if path.endswith("bias"))


AMDIMS = {
    "amdim --preset cifar10": (32, {"Conv_0/bias": 3 * 9}, 4 * 256),
    "amdim --preset stl10": (64, {"Conv_0/bias": 3 * 9}, 8 * 192),
    "amdim --preset imagenet": (128, {"Conv_0/bias": 3 * 25, "Conv_1/bias": 192 * 9}, 8 * 192),
    "yadim --preset cifar10": (32, {"Conv_0/bias": 3 * 9}, None),
    "yadim --preset stl10": (64, {"Conv_0/bias": 3 * 9}, None),
    "yadim --preset imagenet": (128, {"Conv_0/bias": 3 * 25, "Conv_1/bias": 320 * 9}, None),
}


@pytest.mark.parametrize("row", AMDIMS)
def test_amdims_biases_start_as_in_its_code(row):
    """model.py: of the encoder Conv3x3 alone has a bias, nn.Conv2d's of 3x3 or 5x5 positions; of FakeRKHSConvNet, which
    reads the maps of 5 and 7, the shortcut. init_weights leaves both as PyTorch starts them."""
    size, fans, channels = AMDIMS[row]
    name, *words = row.split()
    parts = made(name, About(1000, (size, size, 3), ()), " ".join(words)).five_parts

    @jax.jit
    def init(key):
        # What is not a bias is drawn for nothing, and left out by the compiler.
        begun = by_path(parts.encoder["encoder"].init(key, jnp.zeros((2, size, size, 3)))[0])
        heads = [head for head in parts.extraction.get("heads", ()) if head is not None]
        of_heads = [by_path(head.init(key, jnp.zeros((2, 5, 5, channels)))[0]) for head in heads]
        return [{path: x for path, x in each.items() if path.endswith("bias")} for each in (begun, *of_heads)]

    of_encoder, *of_heads = init(jax.random.key(1))
    assert {path for path in of_encoder if "Norm" not in path} == fans.keys()
    check_as_in_torch({path: (of_encoder[path], fan_in) for path, fan_in in fans.items()})
    assert len(of_heads) == (0 if channels is None else 2)
    for begun in of_heads:
        check_as_in_torch({"shortcut": (begun["shortcut/bias"], channels)})


def test_byols_kernels_start_as_haiku_has_them():
    """hk.Conv2D and hk.Linear: a normal of deviation 1 / sqrt(fan in) within two deviations, whose own deviation is
    then 0.8796 of it; biases 0. (The other start named here makes up for the cut.)"""
    method = made("byol", IMAGENET, "--preset imagenet")
    net, head = method.five_parts.encoder["encoder"], method.five_parts.extraction["projector"]

    @jax.jit
    def kernels(key):
        encoder = net.init(key, jnp.zeros((2, 32, 32, 3)))[0]
        projector = head.init(key, jnp.zeros((2, 2048)))[0]
        block = encoder["stage4_block2"]["Conv_1"]["kernel"]
        return (
            encoder["stem"]["kernel"],
            block,
            projector["Dense_0"]["kernel"],
            projector["Dense_1"]["kernel"],
        )

    for kernel, fan_in in zip(kernels(jax.random.key(0)), (3 * 49, 9 * 512, 2048, 4096), strict=True):
        scaled = np.asarray(kernel) * fan_in**0.5
        assert 1.9 < np.abs(scaled).max() <= 2 + 1e-5
        np.testing.assert_allclose(scaled.std(), 0.8796, rtol=0.02 if fan_in == 147 else 0.005)


@pytest.mark.parametrize(("preset", "inner"), [("imagenet", 32), ("imagenet_2x", 128)])
def test_cmcs_stem_has_64_channels_whatever_the_width(preset, inner):
    """models/resnet.py: conv1 of 64 channels, self.base = 64 width for the stages alone."""
    for encoder, channels in zip(
        made("cmc", IMAGENET, f"--preset {preset}").five_parts.encoder["encoders"], (1, 2), strict=True
    ):
        shapes = jax.eval_shape(encoder.init, jax.random.key(0), jnp.zeros((2, 224, 224, channels)))[0]
        kernels = {path: x.shape for path, x in by_path(shapes).items() if path.endswith("kernel")}
        assert kernels["stem/kernel"] == (7, 7, channels, 64)
        assert kernels["stage1_block1/shortcut/kernel"] == (1, 1, 64, 4 * inner)
        assert (1, 1, 64, inner) in kernels.values()
