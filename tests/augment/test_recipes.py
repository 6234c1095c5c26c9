"""The papers' recipes, views of several recipes, and the ops that only they use."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcl import augment
from jaxcl.augment import ops
from jaxcl.augment.pipelines import SHARED

KEY = jax.random.key(2)
B = 6


@pytest.fixture(scope="module")
def batch():
    image = np.random.default_rng(0).integers(0, 256, (B, 20, 20, 3), np.uint8)
    return {"image": image, "index": np.arange(B, dtype=np.int32)}


def settings_of(recipe):
    return {step.name: dict(step.settings) for step in dict(recipe.settings)["steps"]}


# -------------------------------------------------------------------------------------------- what the papers say

PUBLISHED = {
    "moco_v1": (augment.moco_v1(8), "crop > grayscale > jitter > flip > clip", 0.4, 1.0, 0.2),
    "moco_v2": (augment.moco_v2(8), "crop > jitter > grayscale > blur > flip > clip", 0.1, 0.8, 0.2),
    "byol": (augment.byol(8)[0], "crop > flip > jitter > grayscale > clip > blur > solarize", 0.1, 0.8, 0.08),
    "amdim, 32": (augment.amdim(32), "translate > jitter > grayscale > clip", 0.2, 0.8, None),
    "amdim, 64": (augment.amdim(64), "crop > jitter > grayscale > clip", 0.2, 0.8, 0.3),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_recipe_has_the_published_order_and_strengths(name):
    recipe, order, hue, probability, least = PUBLISHED[name]
    settings = settings_of(recipe)
    assert recipe.name == order
    strengths = (0.4, 0.4, 0.2 if name == "byol" else 0.4, hue)
    assert tuple(settings["jitter"][change] for change in ops.JITTERS) == strengths
    assert settings["jitter"]["probability"] == probability
    assert settings["grayscale"]["probability"] == (0.25 if "amdim" in name else 0.2)
    assert least is None or settings["crop"]["area"] == (least, 1.0)


def test_byols_views_are_blurred_and_solarized_differently():
    first, second = map(settings_of, augment.byol(32))
    assert (first["blur"]["probability"], second["blur"]["probability"]) == (1.0, 0.1)
    assert (first["solarize"]["probability"], second["solarize"]["probability"]) == (0.0, 0.2)


def test_multi_crop_is_two_sizes_of_disjoint_areas():
    recipes = augment.multi_crop(16, 8, counts=(2, 3))
    areas = [settings_of(recipe)["crop"]["area"] for recipe in recipes]
    assert areas == [(0.14, 1.0)] * 2 + [(0.05, 0.14)] * 3
    assert [settings_of(recipe)["crop"]["size"] for recipe in recipes] == [(16, 16)] * 2 + [(8, 8)] * 3


# -------------------------------------------------------------------------------------------- views


def test_each_view_of_the_same_recipe_is_n_views(batch):
    recipe = augment.compose(augment.random_resized_crop(8), augment.clip())
    one = jax.jit(augment.n_views(recipe, 2))(KEY, batch)
    other = jax.jit(lambda key, batch: augment.each_view([recipe] * 2)(key, batch))(KEY, batch)
    for x, y in zip(one, other, strict=True):
        np.testing.assert_allclose(x, y, atol=2e-6)


def test_views_may_differ_in_size_and_chunks_change_nothing(batch):
    recipes = [augment.random_resized_crop(8), augment.random_resized_crop((4, 6)), augment.flip()]
    whole, parts = (
        jax.jit(lambda batch, chunk=chunk: augment.each_view(recipes, chunk=chunk)(KEY, batch))(batch)
        for chunk in (1000, 4)
    )
    assert [x.shape for x in whole] == [(B, 8, 8, 3), (B, 4, 6, 3), (B, 20, 20, 3)]
    for x, y in zip(whole, parts, strict=True):
        np.testing.assert_allclose(x, y, atol=2e-6)


def test_what_is_shared_is_done_to_all_views_of_an_image_or_to_none(batch):
    many = {"image": np.repeat(batch["image"][:1], 64, 0), "index": np.arange(64)}
    views = augment.each_view([augment.clip(), augment.clip()], shared=augment.flip())
    x1, x2 = jax.jit(lambda batch: views(KEY, batch))(many)
    np.testing.assert_array_equal(x1, x2)
    original = many["image"][0] / np.float32(255)
    flipped = [np.allclose(x, original[:, ::-1]) for x in x1]
    assert all(np.allclose(x, original) for x, done in zip(x1, flipped, strict=True) if not done)
    assert 15 < sum(flipped) < 49
    with pytest.raises(ValueError, match="shared must keep the shape"):
        jax.eval_shape(
            lambda: augment.each_view([augment.clip()], shared=augment.random_resized_crop(8))(KEY, batch)
        )


def test_captions_tell_of_every_view_what_was_drawn_for_it(batch):
    recipes = [augment.random_resized_crop(8), augment.translate(3)]
    views = augment.each_view(recipes, shared=augment.flip(probability=1.0))
    told = augment.captions(KEY, views, batch)
    for view, recipe in enumerate(recipes):
        (lines,) = zip(*augment.describe(augment.draw(KEY, recipe, batch, view=view)), strict=True)
        assert [image[view] for image in told] == [f"flip\n{line}" for line in lines]
    assert augment.captions(KEY, augment.two_views(augment.clip()), batch) == [["", ""]] * B
    assert augment.captions(KEY, augment.from_host(2), batch) is None
    assert augment.draw(KEY, augment.flip(), batch, view=SHARED).on.shape == (B,)


def test_cmcs_views_are_the_two_parts_of_one_picture(batch):
    recipe = augment.cmc(8)
    light, color = jax.jit(lambda batch: augment.channel_views(recipe, (1, 2))(KEY, batch))(batch)
    (whole,) = jax.jit(lambda batch: augment.n_views(recipe, 1)(KEY, batch))(batch)
    assert light.shape == (B, 8, 8, 1)
    np.testing.assert_allclose(np.concatenate([light, color], 3), whole, atol=1e-6)
    assert np.abs(whole).max() <= 1.0001
    with pytest.raises(ValueError, match="sum to"):
        jax.eval_shape(lambda: augment.channel_views(recipe, (1, 1))(KEY, batch))


# -------------------------------------------------------------------------------------------- ops


def test_lab_of_known_colors():
    # sRGB -> L*, a*, b* (D65), as tables have them.
    known = {
        (255, 255, 255): (100, 0, 0),
        (0, 0, 0): (0, 0, 0),
        (255, 0, 0): (53.24, 80.09, 67.20),
        (0, 255, 0): (87.73, -86.18, 83.18),
        (0, 0, 255): (32.30, 79.19, -107.86),
        (119, 119, 119): (50.03, 0, 0),
    }
    scaled = augment.lab().apply((), jnp.asarray(np.array(list(known)) / 255, jnp.float32)[None])[0]
    low, high = np.array([0, -86.183, -107.857]), np.array([100, 98.233, 94.478])
    got = (np.asarray(scaled) + 1) / 2 * (high - low) + low
    np.testing.assert_allclose(got, list(known.values()), atol=0.03)


def test_ycbcr_of_known_colors():
    known = {
        (0, 0, 0): (16, 128, 128),
        (255, 255, 255): (235, 128, 128),
        (255, 0, 0): (81.481, 90.203, 240),
        (0, 0, 255): (40.966, 240, 109.786),
    }
    scaled = augment.ycbcr().apply((), jnp.asarray(np.array(list(known)) / 255, jnp.float32)[None])[0]
    low, high = np.array([16, 16, 16]), np.array([235, 240, 240])
    got = (np.asarray(scaled) + 1) / 2 * (high - low) + low
    np.testing.assert_allclose(got, list(known.values()), atol=1e-3)


def test_ydbdr_of_known_colors():
    known = {
        (0, 0, 0): (0, 0, 0),
        (255, 255, 255): (1, 0, 0),
        (255, 0, 0): (0.299, -0.45, -1.333),
        (0, 255, 0): (0.587, -0.883, 1.116),
        (0, 0, 255): (0.114, 1.333, 0.217),
    }
    scaled = augment.ydbdr().apply((), jnp.asarray(np.array(list(known)) / 255, jnp.float32)[None])[0]
    low, high = np.array([0, -1.333, -1.333]), np.array([1, 1.333, 1.333])
    got = (np.asarray(scaled) + 1) / 2 * (high - low) + low
    np.testing.assert_allclose(got, list(known.values()), atol=1e-5)


@pytest.mark.parametrize("name", ["lab", "ycbcr", "ydbdr"])
def test_a_space_is_known_by_its_name_and_cmc_ends_in_it(name):
    assert augment.color_space(name).name == name
    assert augment.cmc(8, space=name).name.endswith(name)
    with pytest.raises(ValueError, match="one of lab, ycbcr, ydbdr; got 'hsv'"):
        augment.cmc(8, space="hsv")


@pytest.mark.parametrize("op", [augment.lab(), augment.ycbcr(), augment.ydbdr()])
def test_color_spaces_need_three_channels(op):
    with pytest.raises(ValueError, match=r"\[h, w, 3\]"):
        op.apply((), jnp.zeros((4, 4, 1)))


@pytest.mark.parametrize(("shape", "size", "stride"), [((32, 32), 8, 4), ((9, 14), 4, 3), ((5, 5), 5, 1)])
def test_patches_are_cut_where_they_should_be(shape, size, stride):
    images = np.random.default_rng(1).random((2, *shape, 3), np.float32)
    out = augment.patches(images, size, stride)
    rows, columns = ((n - size) // stride + 1 for n in shape)
    assert out.shape == (2, rows, columns, size, size, 3)
    for i in range(rows):
        for j in range(columns):
            top, left = i * stride, j * stride
            np.testing.assert_array_equal(out[:, i, j], images[:, top : top + size, left : left + size])


def test_a_mosaic_of_patches_that_do_not_overlap_is_the_image(batch):
    image = batch["image"]
    np.testing.assert_array_equal(augment.mosaic(augment.patches(jnp.asarray(image), 5, 5)), image)


def test_each_patch_is_changed_by_itself_and_one_that_draws_nothing_is_cut_out(batch):
    plain = augment.each_patch(augment.clip(), 8, 4)
    (grid,) = jax.jit(augment.n_views(plain, 1))(KEY, batch)
    np.testing.assert_allclose(grid, augment.patches(batch["image"] / np.float32(255), 8, 4), atol=1e-6)
    (flipped,) = jax.jit(augment.n_views(augment.each_patch(augment.flip(), 8, 4), 1))(KEY, batch)
    turned = np.asarray(
        [
            [np.array_equal(a, b[:, ::-1]) for a, b in zip(*pair, strict=True)]
            for pair in zip(flipped.reshape(B, 16, 8, 8, 3), grid.reshape(B, 16, 8, 8, 3), strict=True)
        ]
    )
    assert 0.25 < turned.mean() < 0.75
    assert all(0 < image.sum() < 16 for image in turned)


def test_cpc_patches_are_the_last_step_of_a_recipe(batch):
    recipe = augment.compose(augment.flip(), augment.cpc_patches(8, 4))
    views = augment.n_views(recipe, 1)
    (grid,) = jax.jit(views)(KEY, batch)
    assert grid.shape == (B, 4, 4, 8, 8, 3)
    assert 0 <= grid.min() <= grid.max() <= 1
    assert augment.captions(KEY, views, batch)[0][0] in ("", "flip")
    (dropped,) = jax.jit(augment.n_views(augment.cpc_patches(8, 4, drop=1.0), 1))(KEY, batch)
    middle = np.all(np.asarray(dropped) == 0.5, axis=(3, 4))  # [b, rows, columns, channels]
    assert np.all(middle.sum(axis=-1) >= 2)
    assert np.all(middle.mean(axis=(0, 1, 2)) > 0.4)  # any two of the three


def test_patches_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="do not fit"):
        augment.patches(jnp.zeros((4, 4, 3)), 5, 1)


def test_reflected_borders_are_those_of_numpy():
    image = np.random.default_rng(1).random((7, 9, 3), np.float32)
    padded = np.pad(image, ((4, 4), (4, 4), (0, 0)), mode="reflect")
    op = augment.translate(4, border="reflect")
    for down, right in [(0, 0), (4, -4), (-3, 2), (-4, 4)]:
        out = op.apply(ops.Shift(jnp.int32(down), jnp.int32(right)), jnp.asarray(image))
        np.testing.assert_array_equal(out, padded[4 - down : 11 - down, 4 - right : 13 - right])
    with pytest.raises(ValueError, match="edge, reflect"):
        augment.translate(4, border="wrap")


def test_shifts_happen_as_often_as_asked():
    op = augment.translate(4, probability=0.3)
    shifts = jax.vmap(lambda key: op.sample(key, (8, 8, 3)))(jax.random.split(KEY, 2000))
    moved = np.mean((shifts.down != 0) | (shifts.right != 0))
    assert abs(moved - 0.3 * (1 - 1 / 81)) < 0.04


@pytest.mark.parametrize("shape", [(20, 20), (33, 20), (20, 41)])
def test_the_center_crop_is_the_center_box_resized(shape):
    image = np.random.default_rng(3).random((*shape, 3), np.float32)
    side = round(0.875 * min(shape))
    top, left = ((n - side + 1) // 2 for n in shape)
    out = augment.center_crop(8).apply((), jnp.asarray(image))
    box = jax.tree.map(jnp.int32, ops.Crop(top, left, side, side))
    np.testing.assert_allclose(out, augment.random_resized_crop(8).apply(box, jnp.asarray(image)), atol=1e-6)
    fused = augment.fuse(augment.evaluation(8))
    np.testing.assert_allclose(fused.apply(((), ()), jnp.asarray(image)), jnp.clip(out, 0, 1), atol=1e-6)


def test_the_logarithm_of_the_ratio_is_uniform():
    op = augment.random_resized_crop(
        8, area=(0.05, 0.1), law=augment.uniform_area_log_ratio, ratio=(0.5, 2.0)
    )
    boxes = jax.vmap(lambda key: op.sample(key, (400, 400, 3)))(jax.random.split(KEY, 3000))
    ratio = np.log(np.asarray(boxes.width / boxes.height))
    assert abs(ratio.mean()) < 0.03
    np.testing.assert_allclose(np.quantile(ratio, [0.25, 0.75]), [-np.log(2) / 2, np.log(2) / 2], atol=0.04)


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
