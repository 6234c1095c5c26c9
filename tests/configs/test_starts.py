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


# A config, and the words of a supervised run beside it whose encoder starts alike.
REFERENCES = {
    "moco_cifar10": "--depth 18 --standardize cifar10_moco --initialization torch --no-zero-init-last-gamma",
    "simclr_cifar10": "--depth 18 --initialization torch --no-zero-init-last-gamma",
    "simclr_cifar10 --details simclr": "--depth 18 --shortcuts of_every_stage",
    "byol --preset cifar10": "--depth 18 --standardize cifar10 --no-zero-init-last-gamma",
}


@pytest.mark.parametrize("row", REFERENCES)
def test_a_reference_row_has_the_start_of_the_run_beside_it(row):
    """The same key gives the same first weights."""
    name, *words = row.split()
    both = [
        made(name, CIFAR, " ".join(words)).five_parts.encoder["encoder"],
        made("supervised", CIFAR, f"--encoder resnet --stem cifar {REFERENCES[row]}").five_parts.encoder[
            "encoder"
        ],
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
