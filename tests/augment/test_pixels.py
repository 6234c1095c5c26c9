"""Edges, holes and noise, against loops, other libraries and the distributions they should have."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcl import augment
from jaxcl.augment.pixels import normal_of


def apply(op, params, image):
    return np.asarray(jax.jit(op.apply)(params, image))


def some(op, seed=0, shape=(24, 24, 3)):
    return jax.tree.map(jnp.asarray, op.sample(jax.random.key(seed), shape))


def test_edges_are_sobels_filters_in_two_loops(images):
    op, image = augment.sobel(probability=1.0), images[0, :7, :9]
    kernel = np.array([[-1, -2, -1], [0, 0, 0], [1, 2, 1]])
    padded = np.pad(image.astype(np.float64), ((1, 1), (1, 1), (0, 0)), mode="reflect")
    want = np.empty(image.shape)
    for i in range(7):
        for j in range(9):
            for c in range(3):
                window = padded[i : i + 3, j : j + 3, c]
                want[i, j, c] = min(1, np.hypot((window * kernel).sum(), (window * kernel.T).sum()))
    np.testing.assert_allclose(apply(op, some(op), image), want, atol=1e-5)


def test_a_plain_image_has_no_edges_and_a_step_has_one():
    op = augment.sobel(probability=1.0)
    assert not apply(op, some(op), np.full((6, 6, 1), 0.7, np.float32)).any()
    step = np.zeros((6, 6, 1), np.float32)
    step[:, 3:] = 0.1
    np.testing.assert_allclose(apply(op, some(op), step)[2, :, 0], [0, 0, 0.4, 0.4, 0, 0], atol=1e-6)


@pytest.mark.parametrize(("row", "column"), [(0, 0), (12, 5), (23, 23)])
def test_a_hole_is_that_of_its_authors_loop(images, row, column):
    """uoguelph-mlrg/Cutout: from center - length // 2 to center + length // 2, clipped to the image."""
    op = augment.cutout(side=0.5, fill=0.25)
    drawn = some(op)._replace(on=jnp.bool_(True), row=jnp.int32(row), column=jnp.int32(column))
    want = images[1].copy()
    for i in range(24):
        for j in range(24):
            if max(0, row - 6) <= i < min(24, row + 6) and max(0, column - 6) <= j < min(24, column + 6):
                want[i, j] = 0.25
    np.testing.assert_array_equal(apply(op, drawn, images[1]), want)


def test_holes_are_anywhere_and_evenly_so(drawn):
    holes = drawn(augment.cutout(), shape=(24, 12, 3))
    for field, n in ((holes.row, 24), (holes.column, 12)):
        counts = np.bincount(field, minlength=n)
        assert len(counts) == n
        assert np.all(np.abs(counts - 4000 / n) < 5 * np.sqrt(4000 / n))


def test_noise_is_normal_and_of_its_own_at_every_place():
    many = np.asarray(jax.jit(jax.vmap(lambda seed: normal_of(seed, 3000)))(np.arange(40)), np.float64)
    n = many.size
    assert abs(many.mean()) < 4 / np.sqrt(n)
    assert abs((many**2).mean() - 1) < 4 * np.sqrt(2 / n)
    assert abs((many**3).mean()) < 4 * np.sqrt(15 / n)
    assert abs((many**4).mean() - 3) < 4 * np.sqrt(96 / n)
    # Neighboring places, places a row apart, and neighboring seeds have nothing to do with each other.
    for a, b in ((many[:, 1:], many[:, :-1]), (many[:, 64:], many[:, :-64]), (many[1:], many[:-1])):
        assert abs((a * b).mean()) < 4 / np.sqrt(a.size)


def test_noise_has_the_scale_that_was_drawn():
    op, gray = (
        augment.gaussian_noise(scale=(0.02, 0.1), probability=1.0),
        np.full((64, 64, 3), 0.5, np.float32),
    )
    for seed in range(3):
        params = some(op, seed)
        change = apply(op, params, gray) - gray
        assert 0.02 <= params.scale <= 0.1
        assert change.std() == pytest.approx(float(params.scale), rel=0.03)


def test_odd_settings_are_refused():
    with pytest.raises(ValueError, match="over the image's height, must be in \\(0, 1\\]; got 0"):
        augment.cutout(side=0)
    with pytest.raises(ValueError, match=r"0 <= least <= greatest; got \(0.2, 0.1\)"):
        augment.gaussian_noise(scale=(0.2, 0.1))
