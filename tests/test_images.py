"""Patches, where they should be."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcl.images import mosaic, patches


@pytest.mark.parametrize(("shape", "size", "stride"), [((32, 32), 8, 4), ((9, 14), 4, 3), ((5, 5), 5, 1)])
def test_patches_are_cut_where_they_should_be(shape, size, stride):
    images = np.random.default_rng(1).random((2, *shape, 3), np.float32)
    out = np.asarray(jax.jit(patches, static_argnums=(1, 2))(images, size, stride))
    rows, columns = ((n - size) // stride + 1 for n in shape)
    assert out.shape == (2, rows, columns, size, size, 3)
    for i in range(rows):
        for j in range(columns):
            top, left = i * stride, j * stride
            np.testing.assert_array_equal(out[:, i, j], images[:, top : top + size, left : left + size])


def test_a_mosaic_of_patches_that_do_not_overlap_is_the_image():
    image = np.random.default_rng(0).integers(0, 256, (6, 20, 20, 3), np.uint8)
    np.testing.assert_array_equal(jax.jit(lambda image: mosaic(patches(image, 5, 5)))(image), image)


def test_patches_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="do not fit"):
        patches(jnp.zeros((4, 4, 3)), 5, 1)
