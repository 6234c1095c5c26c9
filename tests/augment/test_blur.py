"""The Gaussian blur, and texture."""

import jax
import numpy as np
import pytest
from scipy import stats

from jaxcl import augment
from jaxcl.augment import blur

KEY = jax.random.key(5)


def test_the_width_of_a_blur_is_uniform(drawn):
    assert stats.kstest(drawn(augment.gaussian_blur()).sigma, stats.uniform(0.1, 1.9).cdf).pvalue > 1e-3


def test_blur_is_a_convolution_over_black():
    image = np.zeros((40, 40, 1), np.float32)
    image[0, 20] = 1
    out = np.asarray(jax.jit(augment.gaussian_blur().apply)(blur.Blur(True, 0.8), image))[..., 0]
    taps = np.exp(-(np.arange(-2, 3) ** 2) / (2 * 0.8**2))
    taps /= taps.sum()
    np.testing.assert_allclose(out[:3, 18:23], np.outer(taps[2:], taps), atol=1e-7)
    np.testing.assert_allclose(np.sum(out), taps[2:].sum(), atol=1e-6)


def test_a_width_of_zero_is_refused():
    with pytest.raises(ValueError, match="sigma"):
        augment.gaussian_blur(sigma=(0, 1))


# --- texture


texture = jax.jit(augment.texture().apply)


def textured(image, on=True, angle=0.3, phase=1.0):
    params = blur.Texture(np.bool_(on), *np.float32([angle, 4.0, phase, 2.0, 1.0]))
    return np.asarray(texture(params, np.float32(image)))


@pytest.fixture(scope="module")
def scene():
    """A smooth picture whose right half is rough."""
    y, x = np.mgrid[:32, :32] / 32
    smooth = np.stack([0.3 + 0.4 * x, 0.7 - 0.3 * y, 0.5 + 0 * x], axis=-1)
    return smooth + 0.15 * np.random.default_rng(0).uniform(-1, 1, (32, 32, 1)) * (x > 0.5)[..., None]


def test_texture_changes_what_is_fine_and_keeps_what_is_coarse(scene):
    def coarse(image):
        return image.reshape(4, 8, 4, 8, 3).mean(axis=(1, 3))

    one, other = textured(scene), textured(scene, angle=2.0)
    assert np.abs(one - scene)[:, 20:].mean() > 0.05
    assert np.abs(one - other)[:, 20:].mean() > 0.05
    assert np.abs(coarse(one) - coarse(scene)).max() < 0.06


def test_texture_comes_where_the_image_was_rough(scene):
    rough = [
        np.abs(np.diff(textured(scene), axis=1))[4:-4, part].mean() for part in (slice(4, 12), slice(20, 28))
    ]
    assert rough[0] < 0.03
    assert rough[1] > 3 * rough[0]


def test_texture_stays_in_range_is_left_out_by_its_coin_and_draws_half_of_the_time(scene):
    made = textured(scene)
    assert made.min() >= 0
    assert made.max() <= 1
    np.testing.assert_array_equal(textured(scene, on=False), scene.astype(np.float32))
    op = augment.texture()
    sample = jax.jit(jax.vmap(lambda key: op.sample(key, (64, 64, 3))))
    drawn = jax.device_get(sample(jax.random.split(KEY, 2000)))
    assert float(np.mean(drawn.on)) == pytest.approx(0.5, abs=0.04)
    assert float(drawn.period.min()) >= 4
    assert float(drawn.period.max()) <= 16
    assert augment.describe(jax.tree.map(lambda x: x[:1], drawn._replace(on=np.ones(2000, bool))))[0][
        0
    ].startswith("texture angle")
