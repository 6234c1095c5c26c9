"""The papers' recipes: what they are made of."""

from functools import partial

import jax
import numpy as np
import pytest

from jaxcl import augment
from jaxcl.augment import color

KEY = jax.random.key(2)
B = 6


@pytest.fixture(scope="module")
def batch():
    image = np.random.default_rng(0).integers(0, 256, (B, 20, 20, 3), np.uint8)
    return {"image": image, "index": np.arange(B, dtype=np.int32)}


def settings_of(recipe):
    return {step.name: dict(step.settings) for step in dict(recipe.settings)["steps"]}


PUBLISHED = {
    "moco_v1": (augment.moco_v1(8), "crop > grayscale > jitter > flip > clip", 0.4, 1.0, 0.2),
    "moco_v2": (augment.moco_v2(8), "crop > jitter > grayscale > blur > flip > clip", 0.1, 0.8, 0.2),
    "byol": (
        augment.byol(8)[0],
        "crop > clip > flip > jitter > grayscale > clip > blur > solarize",
        0.1,
        0.8,
        0.08,
    ),
    "amdim, 32": (augment.amdim(32), "translate > jitter > grayscale > clip", 0.2, 0.8, None),
    "amdim, 64": (augment.amdim(64), "crop > jitter > grayscale > clip", 0.2, 0.8, 0.3),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_recipe_has_the_published_order_and_strengths(name):
    recipe, order, hue, probability, least = PUBLISHED[name]
    settings = settings_of(recipe)
    assert recipe.name == order
    strengths = (0.4, 0.4, 0.2 if name == "byol" else 0.4, hue)
    assert tuple(settings["jitter"][change] for change in color.JITTERS) == strengths
    assert settings["jitter"]["probability"] == probability
    assert settings["grayscale"]["probability"] == (0.25 if "amdim" in name else 0.2)
    assert least is None or settings["crop"]["area"] == (least, 1.0)


def test_byols_views_are_blurred_and_solarized_differently():
    first, second = map(settings_of, augment.byol(32))
    assert (first["blur"]["probability"], second["blur"]["probability"]) == (1.0, 0.1)
    assert (first["solarize"]["probability"], second["solarize"]["probability"]) == (0.0, 0.2)


def test_byols_crops_and_brightness_are_those_of_its_code():
    """dataset.py, _decode_and_random_crop: area uniform, ratio log-uniform, sides cut to the image; none redrawn."""
    h, w, n = 375, 500, 4000
    rng, boxes = np.random.default_rng(0), []
    for _ in range(n):
        pixels, ratio = rng.uniform(0.08, 1) * h * w, np.exp(rng.uniform(np.log(3 / 4), np.log(4 / 3)))
        width, height = round(np.sqrt(pixels * ratio)), round(np.sqrt(pixels / ratio))
        boxes.append((min(height, h), min(width, w)))
    truth = np.array(boxes)
    recipe = augment.byol(224)[0]
    sample = jax.jit(jax.vmap(lambda key: recipe.sample(key, (h, w, 3))))
    drawn = sample(jax.random.split(KEY, n))
    crop, jitter = drawn[0], drawn[3]
    ours = np.stack([np.asarray(crop.height), np.asarray(crop.width)], axis=1)
    np.testing.assert_allclose(ours.mean(axis=0), truth.mean(axis=0), rtol=0.02)
    np.testing.assert_allclose(ours.std(axis=0), truth.std(axis=0), rtol=0.05)
    assert ours.prod(axis=1).mean() == pytest.approx(truth.prod(axis=1).mean(), rel=0.02)
    assert (ours[:, 0] == h).mean() == pytest.approx((truth[:, 0] == h).mean(), abs=0.02)
    assert (np.asarray(crop.top) + ours[:, 0]).max() == h
    assert (np.asarray(crop.left) + ours[:, 1]).max() == w
    # augmentations.py: brightness is a summand from U(-0.4, 0.4).
    assert dict(settings_of(recipe)["jitter"])["brightness_form"] == "add"
    assert abs(np.asarray(jitter.brightness)).max() <= 0.4
    assert abs(np.asarray(jitter.brightness).mean()) < 0.02


def test_multi_crop_is_two_sizes_of_disjoint_areas():
    recipes = augment.multi_crop(16, 8, counts=(2, 3))
    areas = [settings_of(recipe)["crop"]["area"] for recipe in recipes]
    assert areas == [(0.14, 1.0)] * 2 + [(0.05, 0.14)] * 3
    assert [settings_of(recipe)["crop"]["size"] for recipe in recipes] == [(16, 16)] * 2 + [(8, 8)] * 3


def test_every_recipe_and_its_fused_form_make_pictures(batch):
    recipes = [augment.moco_v1(8), augment.byol(20)[1]]
    views = jax.jit(lambda batch: augment.each_view([*recipes, *map(augment.fuse, recipes)])(KEY, batch))(
        batch
    )
    for x in views:
        assert 0 <= x.min() <= x.max() <= 1
    for exact, other in zip(views[:2], views[2:], strict=True):
        assert exact.shape == other.shape
        assert not np.array_equal(exact, batch["image"] / 255)


def test_switches_of_the_recipe_take_ops_in_and_out():
    assert augment.simclr(8).name == "crop > flip > jitter > grayscale > clip > blur"
    assert augment.simclr(8, blur=False, flip=False).name == "crop > jitter > grayscale > clip"
    assert augment.crop_and_flip(8).name == "crop > flip > clip"


def test_hue_and_gray_of_the_recipe_are_those_of_its_steps():
    given, own = settings_of(augment.simclr(8, hue=0.5, grayscale=0.8)), settings_of(augment.simclr(8))
    assert (given["jitter"]["hue"], given["grayscale"]["probability"]) == (0.5, 0.8)
    assert (own["jitter"]["hue"], own["grayscale"]["probability"]) == (0.2, 0.2)


def test_a_recipe_of_a_traced_strength_makes_the_views_of_the_number(batch):
    def views(strength, least, batch):
        recipe = augment.simclr(12, strength=strength, min_area=least)
        return augment.n_views(recipe, 1)(KEY, batch)

    def fused(strength, least, batch):
        recipe = augment.fuse(augment.simclr(12, strength=strength, min_area=least))
        return augment.n_views(recipe, 1)(KEY, batch)

    @partial(jax.jit, static_argnums=0)
    def three_ways(make, strengths, least, batch):
        several = jax.vmap(make, in_axes=(0, 0, None))(strengths, least, batch)
        return make(0.5, 0.2, batch), make(strengths[1], least[1], batch), several

    for make in (views, fused):
        made = three_ways(make, np.float32([0.1, 0.5]), np.float32([0.3, 0.2]), batch)
        for x, y, z in zip(*made, strict=True):
            np.testing.assert_allclose(y, x, atol=2e-5)
            np.testing.assert_allclose(z[1], x, atol=2e-5)
