"""The fast form beside the exact one, for the same draws."""

import colorsys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcl import augment
from jaxcl.augment import color as colors
from jaxcl.augment import fused

KEY = jax.random.key(5)
B = 12


@pytest.fixture(scope="module")
def batch():
    # Smooth as photographs are, and of middling colors, so that mild changes stay within [0, 1].
    y, x = np.mgrid[0:40, 0:32] / 10
    waves = np.random.default_rng(0).uniform(0.3, 2, (B, 1, 1, 3, 3))
    image = np.cos(waves[..., 0] * y[..., None] + waves[..., 1] * x[..., None] + 6 * waves[..., 2])
    return {"image": np.uint8(128 + 60 * image), "index": np.arange(B, dtype=np.int32)}


def rendered(recipe, forms, batch):
    """One view of the recipe, in each of the forms."""

    @jax.jit
    def views(batch):
        params = augment.draw(KEY, recipe, batch)
        return [augment.render(form, params, batch["image"]) for form in forms]

    return [np.asarray(x) for x in views(batch)]


def both(recipe, batch):
    """The exact and the fused form of one view."""
    return rendered(recipe, (recipe, augment.fuse(recipe)), batch)


def sure(**strengths):
    names = ("brightness", "contrast", "saturation", "hue")
    how = {name: value for name, value in strengths.items() if name not in names}
    return augment.color_jitter(*(strengths.get(name, 0.0) for name in names), probability=1.0, **how)


# What is linear as it stands, and not clipped on the way: equal up to rounding.
EQUAL = {
    "crop and flip": augment.crop_and_flip(20),
    "crop, antialiased": augment.random_resized_crop((20, 24), method="bilinear", antialias=True),
    "two crops": augment.compose(augment.random_resized_crop(24), augment.random_resized_crop(20)),
    "flip alone": augment.flip(probability=1.0),
    "shift and flip": augment.compose(augment.translate(4), augment.flip(), augment.translate(3)),
    "crop and blur": augment.compose(augment.random_resized_crop(20), augment.gaussian_blur()),
    "blur alone": augment.gaussian_blur(probability=1.0),
    "blur over the edge": augment.gaussian_blur(probability=1.0, border="edge", radius=8),
    "Pillow's blur": augment.gaussian_blur(probability=1.0, border="edge", boxes=3),
    "brightness and contrast": sure(brightness=0.1, contrast=0.3),
    "torchvision's contrast and saturation": sure(contrast=0.3, saturation=0.2, colors="torchvision"),
    "torchvision's contrast, blurred over a mirror": augment.compose(
        sure(contrast=0.3, colors="torchvision"), augment.gaussian_blur(probability=1.0, border="reflect")
    ),
    "brightness by adding": sure(brightness=0.1, contrast=0.3, brightness_form="add"),
    "contrast of a crop": augment.compose(augment.random_resized_crop(20), sure(contrast=0.3)),
    "an offset, blurred": augment.compose(
        sure(brightness=0.1, brightness_form="add"), augment.gaussian_blur(probability=1.0), augment.flip()
    ),
    "contrast after a blur": augment.compose(
        augment.random_resized_crop(40), augment.gaussian_blur(probability=1.0), sure(contrast=0.3)
    ),
    "contrast before and after a blur": augment.compose(
        sure(contrast=0.2), augment.gaussian_blur(probability=1.0), sure(contrast=0.2), augment.flip()
    ),
    "grayscale and contrast": augment.compose(augment.grayscale(probability=0.5), sure(contrast=0.3)),
    "what is not linear": augment.compose(
        augment.random_resized_crop(20), augment.rotate90(), augment.flip(), augment.solarize()
    ),
    "compositions of compositions": augment.compose(
        augment.flip(),
        augment.compose(augment.compose(augment.grayscale()), augment.solarize(probability=1.0)),
    ),
}


@pytest.fixture(scope="module")
def linear(batch):
    """name -> both forms: a program for all of them compiles sooner than one for each."""

    @jax.jit
    def made(batch):
        found = {}
        for name, recipe in EQUAL.items():
            params = augment.draw(KEY, recipe, batch)
            forms = (recipe, augment.fuse(recipe))
            found[name] = [augment.render(form, params, batch["image"]) for form in forms]
        return found

    return jax.device_get(made(batch))


@pytest.mark.parametrize("name", EQUAL)
def test_what_is_linear_is_equal(name, linear):
    exact, fast = linear[name]
    np.testing.assert_allclose(fast, exact, atol=3e-6)


def test_the_same_is_drawn(batch):
    recipe = augment.simclr(20)
    drawn = jax.jit(
        lambda view: [augment.draw(KEY, form, batch, view=view) for form in (recipe, augment.fuse(recipe))]
    )
    for view in (0, 1):
        jax.tree.map(np.testing.assert_array_equal, *drawn(view))


@pytest.fixture(scope="module")
def simclr(batch):
    """The exact form of a whole recipe, the fused one, and that with factors of bfloat16."""
    recipe = augment.simclr(20, strength=0.5)
    return rendered(recipe, (recipe, augment.fuse(recipe), augment.fuse(recipe, dtype=jnp.bfloat16)), batch)


def test_a_whole_recipe_is_near(simclr):
    exact, fast, _ = simclr
    assert fast.shape == exact.shape
    assert fast.min() >= 0
    assert fast.max() <= 1
    assert np.abs(fast - exact).mean() < 0.03
    # Nearer than the exact form of another view by far.
    assert np.abs(fast - exact).mean() < 0.2 * np.abs(exact[1:] - exact[:-1]).mean()


def test_bfloat16_factors_change_less_than_a_hundredth(simclr):
    _, fast, half = simclr
    assert half.dtype == np.float32
    assert 0 < np.abs(half - fast).max() < 0.02
    assert np.abs(half - fast).mean() < 0.003


def test_gray_images_stay_gray(batch):
    gray = {**batch, "image": batch["image"][..., :1]}
    exact, fast = both(augment.simclr(20, strength=0.2), gray)
    assert fast.shape[3] == 1
    np.testing.assert_allclose(fast, exact, atol=0.02)


def test_an_op_on_some_channels_is_left_as_it_is(batch):
    coded = {**batch, "image": np.concatenate([batch["image"], batch["image"][..., :2]], 3)}
    recipe = augment.compose(*(augment.first_channels(op, 3) for op in (augment.flip(), augment.grayscale())))
    exact, fast = both(recipe, coded)
    np.testing.assert_array_equal(fast, exact)


def jitter_of(**fields):
    values = {"brightness": 1.0, "contrast": 1.0, "saturation": 1.0, "hue": 0.0} | fields
    return colors.Jitter(np.bool_(True), np.arange(4), *(np.float32(values[name]) for name in colors.JITTERS))


FULL = {"brightness": 0.8, "contrast": 0.8, "saturation": 0.8, "hue": 0.2, "brightness_form": "multiply"}


jitter_color = jax.jit(lambda params: fused.jitter_color(params, jnp.zeros(3), FULL))


def color(params, pixel):
    matrix, offset = jax.device_get(jitter_color(params))
    return matrix @ np.float32(pixel) + offset


def test_shifting_the_hue_leaves_grays_and_luma_and_goes_round(batch):
    pixels = np.random.default_rng(1).random((8, 3))
    for fraction in (0.1, -0.3, 0.5):
        np.testing.assert_allclose(color(jitter_of(hue=fraction), [0.4] * 3), [0.4] * 3, atol=1e-4)
        for pixel in pixels:
            shifted = color(jitter_of(hue=fraction), pixel)
            np.testing.assert_allclose(shifted @ fused.LUMA, pixel @ fused.LUMA, atol=1e-5)
            np.testing.assert_allclose(color(jitter_of(hue=-fraction), shifted), pixel, atol=1e-4)
    np.testing.assert_allclose(color(jitter_of(hue=1.0), pixels[0]), pixels[0], atol=1e-4)


@pytest.mark.parametrize("fraction", [-0.1, -0.03, 0.03, 0.1])
def test_hues_shift_as_far_as_those_of_hsv_on_average(fraction):
    pixels = [colorsys.hsv_to_rgb(hue, 0.3, 0.5) for hue in np.arange(0, 1, 1 / 24)]
    shifted = []
    for pixel in pixels:
        before, after = (
            colorsys.rgb_to_hsv(*pixel)[0],
            colorsys.rgb_to_hsv(*color(jitter_of(hue=fraction), pixel))[0],
        )
        shifted.append((after - before + 0.5) % 1 - 0.5)
    assert np.all(np.sign(shifted) == np.sign(fraction))
    np.testing.assert_allclose(np.mean(shifted), fraction, rtol=0.1)


def test_saturation_mixes_with_the_gray_of_equal_luma():
    pixel = np.array([0.6, 0.3, 0.2])
    gray = pixel @ fused.LUMA
    for factor in (0.0, 0.5, 1.0, 1.7):
        want = factor * pixel + (1 - factor) * gray
        np.testing.assert_allclose(color(jitter_of(saturation=factor), pixel), want, atol=1e-6)
