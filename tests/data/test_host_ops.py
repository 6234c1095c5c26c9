"""Each op's two forms, on the device and on the host, for the same parameters."""

import jax
import numpy as np
import pytest

from jaxcl import augment
from jaxcl.augment import ops
from jaxcl.data.tf_ops import TWINS, host_apply

tf = pytest.importorskip("tensorflow", reason="TensorFlow is not installed")

DRAWS = 10
OPS = {
    "crop": ops.random_resized_crop(20),
    "crop, as large boxes as there are": ops.random_resized_crop(20, area=(0.9, 1.0), law=ops.uniform_height),
    "crop, bilinear": ops.random_resized_crop((9, 14), method="bilinear"),
    "crop, antialiased": ops.random_resized_crop(6, antialias=True),
    "crop, bilinear, antialiased": ops.random_resized_crop(6, method="bilinear", antialias=True),
    "flip": ops.flip(),
    "rotate90": ops.rotate90(),
    "translate": ops.translate(5),
    "jitter": ops.color_jitter(0.8, 0.8, 0.8, 0.2),
    "jitter, additive": ops.color_jitter(0.8, 0.8, 0.8, 0.2, brightness_form="add"),
    "jitter, two changes only": ops.color_jitter(0.0, 0.5, 0.0, 0.5, probability=1.0),
    "jitter, none": ops.color_jitter(0.0, 0.0, 0.0, 0.0, probability=1.0),
    "grayscale": ops.grayscale(probability=0.5),
    "solarize": ops.solarize(probability=0.5),
    "blur": ops.gaussian_blur(),
    "texture": augment.texture(probability=0.8),
    "clip": ops.clip(),
    "first channels": augment.first_channels(ops.color_jitter(0.8, 0.8, 0.8, 0.2), 1),
    "a recipe": augment.simclr(24),
    "a recipe of recipes": augment.compose(augment.compose(ops.flip(), ops.clip()), augment.simclr(24)),
}


@pytest.fixture(scope="module")
def images():
    """As they come, and as a crop may leave them: a little below 0 and above 1, with grays and ties."""
    pixels = np.random.default_rng(0).uniform(-0.1, 1.1, (DRAWS, 32, 32, 3)).astype(np.float32)
    pixels[:, :3] = pixels[:, :3, :, :1]
    pixels[:, 3] = np.round(pixels[:, 3])
    return pixels


def both(op, images):
    @jax.jit
    def device(images):
        keys = jax.random.split(jax.random.key(7), len(images))
        params = jax.vmap(lambda key: op.sample(key, images.shape[1:]))(keys)
        return params, jax.vmap(op.apply)(params, images)

    params, ours = jax.device_get(device(images))
    apply = host_apply(op)
    # One by one, without a graph: that saves building it. The pipeline's tests have graphs.
    return np.stack([apply(row(params, i), tf.constant(image)) for i, image in enumerate(images)]), ours


def row(params, i):
    return jax.tree.map(lambda x: tf.constant(np.asarray(x[i])), params)


@pytest.mark.parametrize(
    ("name", "channels"), [*((name, 3) for name in OPS), *((name, 1) for name in ("jitter", "grayscale"))]
)
def test_both_lanes_do_the_same(name, channels, images):
    theirs, ours = both(OPS[name], images[..., :channels])
    assert theirs.shape == ours.shape
    assert theirs.dtype == np.float32
    # The promise is 1/255; what differs is rounding.
    np.testing.assert_allclose(theirs, ours, atol=1e-4)


def test_a_crop_takes_bytes():
    images = np.random.default_rng(1).integers(0, 256, (DRAWS, 30, 41, 3), np.uint8)
    op = augment.simclr(16)
    batch = {"image": images, "index": np.arange(DRAWS)}
    params = jax.jit(lambda batch: augment.draw(jax.random.key(3), op, batch))(batch)
    ours = jax.jit(lambda params, images: augment.render(op, params, images))(params, images)
    apply = host_apply(op)
    for i in range(3):
        np.testing.assert_allclose(apply(row(params, i), tf.constant(images[i])), ours[i], atol=1e-4)


def test_every_op_of_the_room_has_a_form_for_the_host():
    made = [ops.random_resized_crop(8), ops.flip(), ops.rotate90(), ops.translate(1), ops.grayscale()]
    made += [ops.color_jitter(1, 1, 1, 0.1), ops.solarize(), ops.gaussian_blur(), ops.clip()]
    assert {op.name for op in made} <= set(TWINS)


def test_an_op_of_ones_own_is_refused_by_name_and_taken_with_its_twin():
    own = ops.Op("invert", lambda key, shape: (), lambda params, image: 1 - image, (), ops.same_shape)
    recipe = augment.compose(ops.clip(), own)
    with pytest.raises(ValueError, match="op 'invert' has no form for the host.*pass twins"):
        host_apply(recipe)
    apply = host_apply(recipe, twins={"invert": lambda: lambda params, image: 1 - image})
    assert apply(((), ()), tf.constant([[[0.25]]])).numpy().item() == 0.75
