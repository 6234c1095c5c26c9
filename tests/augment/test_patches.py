"""An image as patches, each changed by itself."""

import jax
import numpy as np
import pytest

from jaxcl import augment
from jaxcl.images import patches

KEY = jax.random.key(2)
B = 6


@pytest.fixture(scope="module")
def batch():
    image = np.random.default_rng(0).integers(0, 256, (B, 20, 20, 3), np.uint8)
    return {"image": image, "index": np.arange(B, dtype=np.int32)}


def test_each_patch_is_changed_by_itself_and_one_that_draws_nothing_is_cut_out(batch):
    plain = augment.each_patch(augment.clip(), 8, 4)
    (grid,) = jax.jit(augment.n_views(plain, 1))(KEY, batch)
    np.testing.assert_allclose(grid, patches(batch["image"] / np.float32(255), 8, 4), atol=1e-6)
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
