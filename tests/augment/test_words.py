"""What was drawn, in words."""

import jax
import numpy as np
import pytest

from jaxcl import augment
from jaxcl.augment import blur, color, geometry, pixels
from jaxcl.augment.views import SHARED

KEY = jax.random.key(2)
B = 6


@pytest.fixture(scope="module")
def batch():
    image = np.random.default_rng(0).integers(0, 256, (B, 20, 20, 3), np.uint8)
    return {"image": image, "index": np.arange(B, dtype=np.int32)}


def test_captions_tell_of_every_view_what_was_drawn_for_it(batch):
    recipes = [augment.random_resized_crop(8), augment.translate(3)]
    views = augment.each_view(recipes, shared=augment.flip(probability=1.0))
    told = augment.captions(KEY, views, batch)
    for view, recipe in enumerate(recipes):
        (lines,) = zip(*augment.describe(augment.draw(KEY, recipe, batch, view=view)), strict=True)
        assert [image[view] for image in told] == [f"flip\n{line}" for line in lines]
    assert augment.captions(KEY, augment.two_views(augment.clip()), batch) == [["", ""]] * B
    assert augment.captions(KEY, augment.from_host(2), batch) is None
    parts = augment.captions(KEY, augment.channel_views(augment.cmc(8), (1, 2)), batch)  # of one picture
    assert [len(image) for image in parts] == [2] * B
    assert all(image[0] == image[1] for image in parts)
    assert augment.draw(KEY, augment.flip(), batch, view=SHARED).on.shape == (B,)


def test_a_description_tells_what_was_done_and_only_that():
    params = (
        geometry.Crop(*(np.array([n]) for n in (1, 2, 3, 4))),
        (geometry.Flip(np.array([False])), blur.Blur(np.array([True]), np.array([0.5]))),
        color.Jitter(
            np.array([True]), np.array([[3, 0, 2, 1]]), *(np.array([x]) for x in (0.5, 1.5, 1.0, -0.1))
        ),
        geometry.Rotation(np.array([2])),
        (),
        geometry.Shift(np.array([1]), np.array([-2])),
        pixels.Hole(*(np.array([x]) for x in (True, 3, 4))),
        pixels.Noise(*(np.array([x]) for x in (True, 0.125, 7))),
        pixels.Edges(np.array([True])),
    )
    assert augment.describe(params) == [
        [
            "crop 3 x 4 at (1, 2)",
            "blur sigma 0.50",
            "jitter hue -0.10, brightness 0.50, saturation 1.00, contrast 1.50",
            "rotate 180 degrees",
            "shift down 1, right -2",
            "hole around (3, 4)",
            "noise 0.12",
            "edges",
        ]
    ]
