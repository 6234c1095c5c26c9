"""MoCo's configs beside the authors' settings."""

from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from jaxcl import About
from jaxcl.config import load_config
from jaxcl.five_parts import described

CONFIGS = Path(__file__).parents[2] / "configs"


@pytest.fixture(scope="module")
def demo():
    config = load_config(CONFIGS / "moco_cifar10.py")
    return config, About(50_000, (32, 32, 3), ())


def test_the_demos_rate_falls_once_an_epoch(demo):
    config, about = demo
    rate = config.recipe(config.Knobs(), about).learning_rate
    per_epoch = 50_000 // 512
    for step in (0, 1, per_epoch - 1, per_epoch, 100 * per_epoch + 7):
        truth = 0.06 * 0.5 * (1 + np.cos(np.pi * (step // per_epoch) / 200))
        np.testing.assert_allclose(rate(jnp.int32(step)), truth, rtol=1e-5)


def test_the_demos_views_are_torchvisions(demo):
    config, about = demo
    (one, other) = config.recipe(config.Knobs(), about).views.recipes
    assert one is other
    steps = {op.name: dict(op.settings) for op in dict(one.settings)["steps"]}
    assert list(steps) == ["crop", "jitter", "grayscale", "flip", "clip"]
    assert steps["crop"]["area"] == (0.08, 1.0)
    assert steps["crop"]["antialias"]
    assert steps["jitter"]["colors"] == "torchvision"


@pytest.mark.parametrize(("name", "size"), [("moco_cifar10", 32), ("moco_imagenet", 224)])
def test_mocos_networks_start_as_torchvisions(name, size):
    # What the words mean is tested beside the networks.
    config = load_config(CONFIGS / f"{name}.py")
    parts = config.recipe(config.Knobs(), About(1000, (size, size, 3), ())).method.five_parts
    encoder, head = described(parts.encoder["encoder"]), described(parts.extraction["head"])
    assert "zero_init_last_gamma=False" in encoder
    assert "initialization='torch'" in encoder
    assert "initialization='torch'" in head
