"""Corruptions against their definitions written out with other libraries or loops, and what all of them share."""

import colorsys
import functools
import io

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from jaxcl.evaluate import CORRUPTIONS, Subject, corrupt, robustness
from jaxcl.evaluate.corruptions import blur, digital, noise, weather
from jaxcl.typing import Images

KEY = jax.random.key(5)


def photograph(h=32, w=32, c=3, seed=0):
    """Smooth shapes with edges and some grain, uint8."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:h, :w]
    waves = [
        np.sin(x / rng.uniform(2, 9) + rng.uniform(0, 6)) * np.cos(y / rng.uniform(2, 9)) for _ in range(c)
    ]
    image = 120 + 80 * np.stack(waves, axis=2) + 60 * ((x + y) % 20 > 12)[:, :, None]
    return np.clip(image + rng.normal(0, 6, image.shape), 0, 255).astype(np.uint8)


PHOTO = photograph()
X = PHOTO / 255


@functools.cache
def compiled(name):
    return jax.jit(CORRUPTIONS[name].apply)


def made(name, severity, image=X):
    return np.asarray(compiled(name)(KEY, jnp.asarray(image, jnp.float32), severity))


ALL = pytest.mark.parametrize("name", CORRUPTIONS)
SEVERITIES = pytest.mark.parametrize("severity", [1, 2, 3, 4, 5])


def test_there_are_fifteen_in_the_four_groups_of_the_paper():
    groups = [corruption.group for corruption in CORRUPTIONS.values()]
    assert {group: groups.count(group) for group in groups} == {
        "noise": 3,
        "blur": 4,
        "weather": 4,
        "digital": 4,
    }
    constants = {**noise.CONSTANTS, **blur.CONSTANTS, **weather.CONSTANTS, **digital.CONSTANTS}
    assert list(constants) == list(CORRUPTIONS)
    assert all(len(table) == 5 for both in constants.values() for table in both)


@ALL
def test_every_corruption_changes_the_image_more_when_it_is_severer_and_stays_in_range(name):
    one, five = made(name, 1), made(name, 5)
    assert one.shape == five.shape == X.shape
    for image in (one, five):
        assert np.isfinite(image).all()
        assert 0 <= image.min() <= image.max() <= 1
    # The published elastic transform is not milder at severity 1: there its affine map moves furthest.
    assert 0 < np.square(one - X).mean() < np.square(five - X).mean() or name == "elastic_transform"


IMAGES = np.stack([photograph(seed=i) for i in range(5)])


# What makes it so is one function for all: those that compile slowly are left to the slow tests.
SLOWLY = [pytest.param(name, marks=pytest.mark.slow) for name in ("shot_noise", "fog")]


@pytest.mark.parametrize("name", ["gaussian_noise", "glass_blur", *SLOWLY])
def test_an_images_corruption_depends_on_its_number_and_not_on_its_batch_or_the_devices(name, monkeypatch):
    whole = corrupt(KEY, name, IMAGES, 3, batch_size=8)
    assert whole.dtype == np.uint8
    others = IMAGES.copy()
    others[:4] = 255 - others[:4]
    np.testing.assert_array_equal(corrupt(KEY, name, others, 3, batch_size=8)[4], whole[4])
    one = jax.local_devices()[:1]
    monkeypatch.setattr(jax, "local_devices", lambda: one)
    # In a batch of its own size on one device; a rounding may fall to either side of a level, or of a photon.
    alone = corrupt(KEY, name, IMAGES, 3, batch_size=5)
    assert np.mean(np.abs(alone.astype(int) - whole) > 1) < 0.001


@pytest.mark.parametrize("shape", [(28, 28, 1), (20, 24, 3), (4, 4, 1), (70, 70, 3)])
def test_images_of_any_size_with_one_channel_or_three_can_be_corrupted(shape):
    image = jax.ShapeDtypeStruct(shape, jnp.float32)
    for found in CORRUPTIONS.values():
        out = jax.eval_shape(found.apply, KEY, image, jax.ShapeDtypeStruct((), jnp.int32))
        assert out.shape == shape


# ---------------------------------------------------------------------------------------------- noise


@SEVERITIES
def test_noise_has_the_published_moments(severity):
    gray = np.full((64, 64, 3), 0.4)
    s = (0.04, 0.06, 0.08, 0.09, 0.10)[severity - 1]
    noise = made("gaussian_noise", severity, gray) - 0.4
    assert abs(noise.mean()) < 4 * s / np.sqrt(noise.size)
    assert noise.std() == pytest.approx(s, rel=0.03)
    c = (500, 250, 100, 75, 50)[severity - 1]
    shot = made("shot_noise", severity, gray)
    assert shot.mean() == pytest.approx(0.4, abs=4 * np.sqrt(0.4 / c / shot.size))
    assert shot.std() == pytest.approx(np.sqrt(0.4 / c), rel=0.03)
    np.testing.assert_allclose(shot * c, np.round(shot * c), atol=1e-3)
    p = (0.01, 0.02, 0.03, 0.05, 0.07)[severity - 1]
    impulse = made("impulse_noise", severity, gray)
    error = 4 * np.sqrt(p / impulse.size)
    assert np.mean(impulse == 0) == pytest.approx(p / 2, abs=error)
    assert np.mean(impulse == 1) == pytest.approx(p / 2, abs=error)


# ---------------------------------------------------------------------------------------------- blur


@SEVERITIES
def test_defocus_is_the_convolution_with_a_softened_disk(severity):
    r, softness = ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1))[severity - 1]
    disk = np.array([[float(x * x + y * y <= r * r) for x in range(-8, 9)] for y in range(-8, 9)])
    taps = np.exp(-np.square([-1.0, 0.0, 1.0]) / (2 * softness**2))
    taps /= taps.sum()
    kernel = ndimage.correlate(disk / disk.sum(), np.outer(taps, taps), mode="constant")
    want = np.stack([ndimage.correlate(X[..., i], kernel, mode="mirror") for i in range(3)], axis=2)
    np.testing.assert_allclose(made("defocus_blur", severity), want, atol=1e-5)


def test_glass_takes_a_color_from_the_pixel_itself_or_its_neighbors_up_and_left():
    out = made("glass_blur", 1)  # sigma 0.05 blurs nothing
    for y in range(32):
        for x in range(32):
            reach = (0, 1) if y > 1 and x > 1 else (0,)
            near = [X[y - dy, x - dx] for dy in reach for dx in reach]
            assert np.abs(np.asarray(near) - out[y, x]).max(axis=1).min() < 1e-5
    assert np.mean(np.abs(out - X).max(axis=2) > 1e-3) > 0.5


def test_glass_blurs_before_and_after_as_scipy_does(monkeypatch):
    monkeypatch.setitem(blur.CONSTANTS, "glass_blur", (((0.4, 1, 0),) * 5, ()))
    out = np.asarray(jax.jit(lambda x: blur.glass_blur(KEY, x, 1))(np.float32(X)))
    smooth = functools.partial(ndimage.gaussian_filter, sigma=(0.4, 0.4, 0), mode="nearest", truncate=4)
    np.testing.assert_allclose(out, smooth(np.floor(255 * smooth(X)) / 255), atol=2 / 255)
    assert np.mean(np.abs(out - smooth(np.floor(255 * smooth(X)) / 255)) > 1e-5) < 0.01


def smeared(image, radius, sigma, angle):
    """ImageMagick's definition in loops."""
    h, w, _ = image.shape
    taps = np.exp(-np.square(np.arange(2 * radius + 1)) / (2 * sigma**2))
    taps /= taps.sum()
    out = np.zeros_like(image)
    for i, tap in enumerate(taps):
        dx = int(np.ceil(i * np.cos(np.deg2rad(angle)) - 0.5))
        dy = int(np.ceil(i * np.sin(np.deg2rad(angle)) - 0.5))
        for y in range(h):
            for x in range(w):
                out[y, x] += tap * image[min(max(y + dy, 0), h - 1), min(max(x + dx, 0), w - 1)]
    return out


@pytest.mark.parametrize("severity", [1, 5])
def test_motion_is_a_one_sided_gaussian_along_a_line(severity):
    radius, sigma = {1: (6, 1), 5: (9, 2.5)}[severity]
    angle = float(jax.random.uniform(KEY, (), jnp.float32, -45, 45))
    np.testing.assert_allclose(
        made("motion_blur", severity), smeared(X, radius, sigma, angle), atol=0.51 / 255
    )


@SEVERITIES
def test_zoom_is_the_mean_of_scipys_zooms(severity):
    factors = np.arange(1, (1.06, 1.11, 1.16, 1.21, 1.26)[severity - 1], 0.01)
    want = X.copy()
    for factor in factors:
        kept = int(np.ceil(32 / factor))
        top = (32 - kept) // 2
        part = ndimage.zoom(X[top : top + kept, top : top + kept], (factor, factor, 1), order=1)
        trim = (len(part) - 32) // 2
        want += part[trim : trim + 32, trim : trim + 32]
    np.testing.assert_allclose(made("zoom_blur", severity), want / (len(factors) + 1), atol=1e-4)


# ---------------------------------------------------------------------------------------------- weather


plasma = jax.jit(weather.plasma, static_argnums=(1, 2))


def test_the_fractal_field_is_diamond_squares_on_strided_arrays():
    field = np.zeros((32, 32))
    draws = np.asarray(jax.random.uniform(KEY, (1023,), minval=-1, maxval=1), np.float64)
    step, size, used = 32, 100.0, 0
    while step >= 2:
        half, n = step // 2, 32 // step
        noise = size * size * draws[used : used + 3 * n * n].reshape(3, n, n)
        for which, (dy, dx) in enumerate([(half, half), (0, half), (half, 0)]):
            # The four points around, on a torus: corners of a square, or those above, below, left and right.
            around = (
                [(-half, -half), (-half, half), (half, -half), (half, half)]
                if which == 0
                else [(-half, 0), (half, 0), (0, -half), (0, half)]
            )
            for i in range(n):
                for j in range(n):
                    y, x = i * step + dy, j * step + dx
                    total = sum(field[(y + v) % 32, (x + u) % 32] for v, u in around)
                    field[y, x] = total / 4 + noise[which][i, j]
        step, size, used = half, size / 2.5, used + 3 * n * n
    field -= field.min()
    np.testing.assert_allclose(plasma(KEY, 32, 32, 2.5), field / field.max(), atol=1e-4)


def test_fog_is_the_field_added_and_scaled_to_the_brightest_value():
    field = np.asarray(plasma(KEY, 32, 32, 2.5), np.float64)[:, :, None]
    np.testing.assert_allclose(
        made("fog", 3), np.clip((X + 0.75 * field) * X.max() / (X.max() + 0.75), 0, 1), atol=1e-4
    )


def test_snow_is_flakes_that_fall_and_an_image_that_pales():
    mean, std, zoom, threshold, radius, sigma, kept = (0.25, 0.3, 2.25, 0.6, 12, 6, 0.85)
    flakes_key, angle_key = jax.random.split(KEY)
    flakes = mean + std * np.asarray(jax.random.normal(flakes_key, (32, 32)), np.float64)
    crop = int(np.ceil(32 / zoom))
    top = (32 - crop) // 2
    flakes = ndimage.zoom(flakes[top : top + crop, top : top + crop], zoom, order=1)
    trim = (len(flakes) - 32) // 2
    flakes = flakes[trim : trim + 32, trim : trim + 32]
    flakes = np.floor(255 * np.clip(np.where(flakes < threshold, 0, flakes), 0, 1)) / 255
    angle = float(jax.random.uniform(angle_key, (), jnp.float32, -135, -45))
    flakes = smeared(flakes[:, :, None], radius, sigma, angle)
    pale = np.maximum(X, 1.5 * (X @ [0.299, 0.587, 0.114])[:, :, None] + 0.5)
    want = np.clip(kept * X + (1 - kept) * pale + flakes + np.rot90(flakes, 2), 0, 1)
    np.testing.assert_allclose(made("snow", 4), want, atol=1.5 / 255)


@SEVERITIES
def test_brightness_raises_the_value_of_hsv(severity):
    raised = (0.05, 0.1, 0.15, 0.2, 0.3)[severity - 1]
    got = made("brightness", severity)
    for y, x in [(0, 0), (7, 20), (31, 13), (16, 5)]:
        hue, saturation, value = colorsys.rgb_to_hsv(*X[y, x])
        want = colorsys.hsv_to_rgb(hue, saturation, min(value + raised, 1))
        np.testing.assert_allclose(got[y, x], want, atol=1e-5)
    black = np.asarray(weather.brightness(KEY, jnp.zeros((2, 2, 3)), 3))
    np.testing.assert_allclose(black, 0.15, atol=1e-6)


# ---------------------------------------------------------------------------------------------- digital


@SEVERITIES
def test_contrast_is_about_the_mean_of_each_channel(severity):
    factor = (0.75, 0.5, 0.4, 0.3, 0.15)[severity - 1]
    mean = X.mean(axis=(0, 1))
    np.testing.assert_allclose(
        made("contrast", severity), np.clip((X - mean) * factor + mean, 0, 1), atol=1e-5
    )


@SEVERITIES
def test_elastic_is_an_affine_map_and_a_smooth_displacement(severity):
    fractions = ((0, 0, 0.08), (0.05, 0.2, 0.07), (0.08, 0.06, 0.06), (0.1, 0.04, 0.05), (0.1, 0.03, 0.03))
    strength, sigma, jitter = 32 * np.asarray(fractions[severity - 1])
    affine_key, x_key, y_key = jax.random.split(KEY, 3)
    points = np.array([[26, 26], [26, 6], [6, 6]], float)
    draws = np.asarray(jax.random.uniform(affine_key, (3, 2), jnp.float32, -1, 1), np.float64)
    # The affine map from the moved points back, solved as a linear system.
    back = np.linalg.solve(np.column_stack([points + jitter * draws, np.ones(3)]), points)
    y, x = np.mgrid[:32, :32]
    from_x, from_y = np.moveaxis(np.stack([x, y, np.ones_like(x)], axis=2) @ back, 2, 0)

    def sampled(image, y, x, mode):
        return np.stack(
            [ndimage.map_coordinates(image[..., i], (y, x), order=1, mode=mode) for i in range(3)], 2
        )

    rotated = sampled(X, from_y, from_x, "mirror")
    dx, dy = (
        strength
        * ndimage.gaussian_filter(
            np.asarray(jax.random.uniform(k, (32, 32, 1), jnp.float32, -1, 1), np.float64)[..., 0],
            max(sigma, 1e-9),
            mode="reflect",
            truncate=3,
        )
        for k in (x_key, y_key)
    )
    want = sampled(rotated, y + dy, x + dx, "reflect")
    np.testing.assert_allclose(made("elastic_transform", severity), want, atol=2e-3)


@SEVERITIES
def test_pixelate_is_pillows_box_filter_twice(severity):
    small = int(32 * (0.95, 0.9, 0.85, 0.75, 0.65)[severity - 1])
    shrunk = Image.fromarray(PHOTO).resize((small, small), Image.Resampling.BOX)
    want = np.asarray(shrunk.resize((32, 32), Image.Resampling.BOX), int)
    assert np.abs(255 * made("pixelate", severity) - want).max() < 1.6


def jpeg(image, quality):
    file = io.BytesIO()
    Image.fromarray(image.squeeze()).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file), int).reshape(image.shape)


@SEVERITIES
def test_jpeg_is_nearly_what_libjpeg_makes(severity):
    quality = (80, 65, 58, 50, 40)[severity - 1]
    difference = np.abs(255 * made("jpeg_compression", severity) - jpeg(PHOTO, quality))
    change = np.abs(jpeg(PHOTO, quality) - PHOTO.astype(int))
    # A coefficient near the middle of two levels may fall to the other one: rounding in fixed point against ours.
    assert difference.mean() < 0.12 * change.mean()
    assert np.median(difference) < 1.5


def test_jpeg_of_one_channel_is_what_libjpeg_makes():
    gray = PHOTO[:, :, :1]
    difference = np.abs(255 * made("jpeg_compression", 5, gray / 255) - jpeg(gray, 40))
    assert difference.mean() < 0.2


# ---------------------------------------------------------------------------------------------- the score


def test_a_classifier_of_brightness_survives_contrast_and_not_brightness():
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 2
    # Two grays, 80 and 90: brightness moves the dark ones above the border, contrast keeps every mean.
    images = np.clip(80 + 10 * labels[:, None, None, None] + rng.normal(0, 5, (60, 8, 8, 1)), 0, 255)
    data = Images("two grays", images.astype(np.uint8), labels)
    seen = []
    score = robustness(
        KEY,
        Subject(lambda x: x.mean(axis=(1, 2)), data, data),
        names=("brightness", "contrast"),
        progress=lambda what, fraction: seen.append((what, fraction)),
    )
    assert score.clean == 1.0
    np.testing.assert_array_equal(score.accuracies["brightness"], 0.5)
    assert score.accuracies["contrast"][:4].min() > 0.9
    assert set(score.groups) == {"weather", "digital"}
    assert score.mean == pytest.approx((score.groups["weather"] + score.groups["digital"]) / 2)
    assert ("brightness", 0.0) in seen


def test_corrupt_says_what_it_needs():
    with pytest.raises(ValueError, match="no corruption 'rain'"):
        corrupt(KEY, "rain", IMAGES, 1)
    with pytest.raises(ValueError, match="severity must be one of"):
        corrupt(KEY, "fog", IMAGES, 0)
    with pytest.raises(ValueError, match="one channel or three"):
        corrupt(KEY, "fog", IMAGES / 255, 1)
