"""MoCo's configs beside the authors' settings."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcl import About, augment
from jaxcl.config import load_config
from jaxcl.five_parts import described

CONFIGS = Path(__file__).parents[2] / "configs"


@pytest.fixture(scope="module")
def demo():
    config = load_config(CONFIGS / "moco_cifar10.py")
    return config, About(50_000, (32, 32, 3), ())


def test_the_demos_rate_falls_once_an_epoch(demo):
    """Its epochs are counted from 1 (`range(1, args.epochs + 1)`): the first is below 0.06, the last has no rate."""
    config, about = demo
    rate = config.recipe(config.Knobs(), about).learning_rate
    per_epoch = 50_000 // 512
    for step in (0, 1, per_epoch - 1, per_epoch, 100 * per_epoch + 7, 198 * per_epoch):
        truth = 0.06 * 0.5 * (1 + np.cos(np.pi * (step // per_epoch + 1) / 200))
        np.testing.assert_allclose(rate(jnp.int32(step)), truth, rtol=1e-3)
    np.testing.assert_allclose(rate(jnp.int32(199 * per_epoch)), 0, atol=1e-9)


@pytest.mark.parametrize("name", ["moco_cifar10", "moco_cifar10_cpu"])
def test_mixing_starts_with_the_epoch_that_is_asked_for(name):
    """Epoch 2.0 of 50,000 images in batches of 512 ends with step 194, of which step 193 is the last without."""
    config = load_config(CONFIGS / f"{name}.py")
    knobs = config.Knobs(batch_size=512, extrapolate=2.0, interpolate=1.6, start_epoch=2.0)
    about = About(50_000, (32, 32, 3), tuple("abcdefghij"))
    transform = config.recipe(knobs, about).method.five_parts.extraction["transform"]
    q, k, queue = (jnp.asarray(np.random.default_rng(i).normal(size=(8, 4)), jnp.float32) for i in range(3))
    for step, mixed in ((0, False), (193, False), (194, True)):
        seen = transform(jax.random.key(0), jnp.asarray(step), q, k, queue)
        assert all(bool(jnp.any(x != given)) == mixed for x, given in zip(seen, (q, k, queue), strict=True))


def test_main_moco_counts_its_epochs_from_zero():
    config = load_config(CONFIGS / "moco_imagenet.py")
    rate = config.recipe(config.Knobs(), About(1_281_167, (224, 224, 3), ())).learning_rate
    per_epoch = 1_281_167 // 256
    for step in (0, per_epoch - 1, per_epoch, 199 * per_epoch):
        truth = 0.03 * 0.5 * (1 + np.cos(np.pi * (step // per_epoch) / 200))
        np.testing.assert_allclose(rate(jnp.int32(step)), truth, rtol=1e-3)


def test_feature_transformations_first_recipe_is_gray_after_the_jitter():
    """dataset/util.py of its code, augmentation 'A': crop, jitter of all, then grayscale; He et al. have it before."""
    config = load_config(CONFIGS / "moco_imagenet100.py")
    about = About(126_689, (224, 224, 3), ())
    names = [
        op.name
        for op in dict(config.recipe(config.PRESETS["v1_ft"], about).views.recipes[0].settings)["steps"]
    ]
    assert names == ["crop", "jitter", "grayscale", "flip", "clip"]
    names = [op.name for op in dict(augment.moco_v1(224).settings)["steps"]]
    assert names == ["crop", "grayscale", "jitter", "flip", "clip"]


def test_loocs_blur_is_moco_v2s():
    config = load_config(CONFIGS / "looc.py")
    views = config.recipe(config.PRESETS["moco"], About(126_689, (224, 224, 3), ())).views

    def blur(recipe):
        return next(op.settings for op in flat(recipe) if op.name == "blur")

    def flat(op):
        steps = dict(op.settings).get("steps", ())
        return [op, *(inner for step in steps for inner in flat(step))]

    assert blur(views.recipes[0]) == blur(augment.moco_v2(224))


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
