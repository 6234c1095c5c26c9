"""Colors and blur beside Pillow's, through which torchvision's transforms of MoCo, AMDIM and CMC went."""

import functools

import jax
import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageFilter

from jaxcl import augment
from jaxcl.augment import blur, color, geometry


@pytest.fixture(scope="module")
def photo():
    """Smooth, with colors from end to end, as bytes."""
    y, x = np.mgrid[:48, :40] / 8
    rng = np.random.default_rng(0)
    waves = [np.cos(a * x + b * y + c) for a, b, c in rng.uniform(0.3, 2, (3, 3))]
    return np.uint8(np.round((127.5 + 110 * np.stack(waves, axis=-1)) * [1, 0.8, 0.4]))


@functools.cache
def jitter_of(name):
    op = augment.color_jitter(*(0.5 if name == one else 0.0 for one in color.JITTERS), colors="torchvision")
    return jax.jit(op.apply)


def jittered(image, **changes):
    """One change alone, the other three left out."""
    (name,) = changes
    still = {"brightness": 1.0, "contrast": 1.0, "saturation": 1.0, "hue": 0.0}
    params = color.Jitter(on=True, order=np.arange(4), **{**still, **changes})
    return 255 * np.asarray(jitter_of(name)(params, np.float32(image / 255)))


@pytest.mark.parametrize("factor", [0.6, 1.4])
@pytest.mark.parametrize("name", ["brightness", "contrast", "saturation"])
def test_brightness_contrast_and_saturation_are_pillows(photo, name, factor):
    enhance = {"brightness": "Brightness", "contrast": "Contrast", "saturation": "Color"}[name]
    theirs = np.asarray(getattr(ImageEnhance, enhance)(Image.fromarray(photo)).enhance(factor))
    # Pillow cuts fractions off, and rounds the mean gray.
    np.testing.assert_allclose(jittered(photo, **{name: factor}), theirs, atol=1.6)


@pytest.mark.parametrize("fraction", [-0.3, 0.1])
def test_the_hue_is_turned_in_pillows_hsv(photo, fraction):
    h, s, v = Image.fromarray(photo).convert("HSV").split()
    turned = np.asarray(h).astype(int) + round(255 * fraction)
    h = Image.fromarray(np.uint8(turned % 256))
    theirs = np.asarray(Image.merge("HSV", (h, s, v)).convert("RGB")).astype(float)
    ours = jittered(photo, hue=fraction)
    # Hue and saturation are bytes there: a step of the hue is up to six of a channel.
    assert np.abs(ours - theirs).mean() < 1.5
    assert np.abs(ours - theirs).max() < 9


@pytest.mark.parametrize("box", [(3, 5, 40, 30), (0, 0, 48, 40), (10, 20, 12, 9)])
def test_amdims_crops_are_cut_out_and_resized_by_pillow(photo, box):
    """datasets.py: interpolation 3 is PIL.Image.BICUBIC, which widens its kernel where the box shrinks."""
    top, left, height, width = box
    crop = dict(augment.amdim(64).settings)["steps"][0]
    settings = dict(crop.settings)
    assert (settings["size"], settings["area"], settings["ratio"]) == ((64, 64), (0.3, 1.0), (0.7, 1.4))
    assert settings["distribution"] is augment.uniform_area_log_ratio
    small = augment.random_resized_crop(16, **{key: settings[key] for key in ("method", "antialias")})
    cut = Image.fromarray(photo).crop((left, top, left + width, top + height))
    for op, size in ((crop, 64), (small, 16)):
        theirs = np.asarray(cut.resize((size, size), Image.Resampling.BICUBIC), float)
        ours = jax.jit(op.apply)(geometry.Crop(*map(np.int32, box)), np.float32(photo / 255))
        np.testing.assert_allclose(255 * np.clip(ours, 0, 1), theirs, atol=1.5)  # Pillow rounds twice


def test_tensorflows_contrast_and_saturation_are_others(photo):
    image = np.float32(photo / 255)
    for name, theirs in (("contrast", color.adjust_contrast), ("saturation", color.adjust_saturation)):
        other = np.abs(jittered(photo, **{name: 0.6}) - 255 * np.asarray(jax.jit(theirs)(0.6, image)))
        assert other.mean() > 4, name


@pytest.fixture(scope="module")
def blurred():
    """(image, sigma) -> the blur of MoCo v2, and two Gaussians that differ at the border, in bytes."""
    (op,) = [step for step in dict(augment.moco_v2(48).settings)["steps"] if step.name == "blur"]
    ops = (op, augment.gaussian_blur(border="edge", radius=8), augment.gaussian_blur(radius=8))
    made = jax.jit(lambda image, sigma: [255 * op.apply(blur.Blur(True, sigma), image) for op in ops])
    return lambda image, sigma: jax.device_get(made(np.float32(image / 255), sigma))


@pytest.mark.parametrize("sigma", [0.5, 1.3, 2.0])
def test_the_blur_of_moco_v2_is_pillows(photo, blurred, sigma):
    ours, gaussian, black = blurred(photo, sigma)
    theirs = np.asarray(Image.fromarray(photo).filter(ImageFilter.GaussianBlur(radius=sigma))).astype(float)
    # Of its six passes each rounds to bytes.
    assert np.abs(ours - theirs).max() < 2.5
    assert np.abs(gaussian - theirs)[8:-8, 8:-8].max() < 4
    assert np.abs(black - theirs).max() > 20  # at the border


@pytest.mark.parametrize(
    "how",
    [{"border": "edge", "boxes": 3}, {"border": "edge", "radius": 8}, {"border": "reflect", "radius": 8}],
)
def test_a_white_image_stays_white(how):
    op = augment.gaussian_blur(**how, probability=1.0)
    forms = (op, augment.fuse(op), augment.gaussian_blur(radius=8))
    made = jax.jit(lambda image: [form.apply(blur.Blur(True, 1.7), image) for form in forms])
    *white, dark = made(np.ones((24, 20, 3), np.float32))
    for one in white:
        np.testing.assert_allclose(one, 1.0, atol=1e-6)
    assert np.min(dark) < 0.5


def test_a_blur_of_its_own_reach_is_a_convolution_over_the_nearest_pixel():
    image = np.random.default_rng(1).uniform(size=(12, 9, 1))
    taps = np.exp(-(np.arange(-3, 4) ** 2) / (2 * 1.1**2))
    taps /= taps.sum()
    padded, truth = np.pad(image, ((3, 3), (3, 3), (0, 0)), mode="edge"), np.zeros_like(image)
    for i in range(12):
        for j in range(9):
            truth[i, j] = np.einsum("a,b,abc->c", taps, taps, padded[i : i + 7, j : j + 7])
    op = augment.gaussian_blur(border="edge", radius=3)
    ours = jax.jit(op.apply)(blur.Blur(True, 1.1), np.float32(image))
    np.testing.assert_allclose(ours, truth, atol=1e-6)


def test_other_colors_borders_and_radii_are_refused():
    with pytest.raises(ValueError, match="tensorflow.*torchvision"):
        augment.color_jitter(0.4, 0.4, 0.4, 0.1, colors="opencv")
    with pytest.raises(ValueError, match="border must be black, edge or reflect"):
        augment.gaussian_blur(border="wrap")
    with pytest.raises(ValueError, match="radius"):
        augment.gaussian_blur(radius=-1)
    with pytest.raises(ValueError, match="and without radius; got boxes=3"):
        augment.gaussian_blur(boxes=3, radius=4)


def test_boxes_have_the_variance_of_the_gaussian_that_they_stand_for():
    taps_of = jax.jit(lambda sigma: blur.box_taps(blur.box_radius(sigma, 3), 8))
    for sigma in (0.3, 1.0, 2.0, 3.7):
        taps = np.asarray(taps_of(np.float32(sigma)), np.float64)
        assert abs(taps.sum() - 1) < 1e-6
        np.testing.assert_allclose(3 * np.sum(taps * np.arange(-8, 9) ** 2), sigma**2, rtol=1e-5)
