"""Each op on the device and its host implementation, for the same parameters."""

import jax
import numpy as np
import pytest

from jaxcl import augment
from jaxcl.augment import op as ops
from jaxcl.data.host_ops import IMPLEMENTATIONS, host_apply

tf = pytest.importorskip("tensorflow", reason="TensorFlow is not installed")

DRAWS = 10
OPS = {
    "crop": augment.random_resized_crop(20),
    "crop, as large boxes as there are": augment.random_resized_crop(
        20, area=(0.9, 1.0), distribution=augment.uniform_height
    ),
    "crop, bilinear": augment.random_resized_crop((9, 14), method="bilinear"),
    "crop, antialiased": augment.random_resized_crop(6, antialias=True),
    "crop, bilinear, antialiased": augment.random_resized_crop(6, method="bilinear", antialias=True),
    "flip": augment.flip(),
    "rotate90": augment.rotate90(),
    "translate": augment.translate(5),
    "jitter": augment.color_jitter(0.8, 0.8, 0.8, 0.2),
    "jitter, additive": augment.color_jitter(0.8, 0.8, 0.8, 0.2, brightness_form="add"),
    "jitter, two changes only": augment.color_jitter(0.0, 0.5, 0.0, 0.5, probability=1.0),
    "jitter, torchvision's colors": augment.color_jitter(0.8, 0.8, 0.8, 0.2, colors="torchvision"),
    "jitter, none": augment.color_jitter(0.0, 0.0, 0.0, 0.0, probability=1.0),
    "grayscale": augment.grayscale(probability=0.5),
    "drop channels": augment.drop_channels(),
    "solarize": augment.solarize(probability=0.5),
    "blur": augment.gaussian_blur(),
    "blur, over the edge": augment.gaussian_blur(border="edge", radius=8),
    "blur, Pillow's": augment.gaussian_blur(border="edge", boxes=3),
    "blur, over a mirror": augment.gaussian_blur(border="reflect"),
    "texture": augment.texture(probability=0.8),
    "sobel": augment.sobel(),
    "cutout": augment.cutout(side=0.4, probability=0.8),
    "noise": augment.gaussian_noise(),
    "clip": augment.clip(),
    "lab": augment.lab(),
    "ycbcr": augment.ycbcr(),
    "ydbdr": augment.ydbdr(),
    "first channels": augment.first_channels(augment.color_jitter(0.8, 0.8, 0.8, 0.2), 1),
    "first channels, cropped": augment.first_channels(augment.random_resized_crop(32), 2),
    "first channels, flipped before a crop": augment.compose(
        augment.first_channels(augment.flip(), 1), augment.random_resized_crop(20)
    ),
    "first channels, by a recipe within a recipe": augment.compose(
        augment.flip(), augment.first_channels(augment.simclr(32), 3), augment.clip()
    ),
    "AMDIM's shift": augment.translate(4, probability=0.8, border="reflect"),
    "patches": augment.cpc_patches(16, 8),
    "a recipe": augment.simclr(24),
    "a recipe of recipes": augment.compose(
        augment.compose(augment.flip(), augment.clip()), augment.simclr(24)
    ),
}


@pytest.fixture(scope="module")
def images():
    """As they come, and as a crop may leave them: a little below 0 and above 1, with grays and ties."""
    pixels = np.random.default_rng(0).uniform(-0.1, 1.1, (DRAWS, 32, 32, 3)).astype(np.float32)
    pixels[:, :3] = pixels[:, :3, :, :1]
    pixels[:, 3] = np.round(pixels[:, 3])
    return pixels


def both(op, images, as_seen=lambda images: images):
    """What the host makes of the images, and what the device makes of what `as_seen` makes of them."""

    @jax.jit
    def device(images):
        keys = jax.random.split(jax.random.key(7), len(images))
        params = jax.vmap(lambda key: op.sample(key, images.shape[1:]))(keys)
        return params, jax.vmap(op.apply)(params, as_seen(images))

    params, ours = jax.device_get(device(images))
    apply = host_apply(op)
    # One by one, without a graph: that saves building it. The pipeline's tests have graphs.
    return np.stack([apply(row(params, i), tf.constant(image)) for i, image in enumerate(images)]), ours


def row(params, i):
    return jax.tree.map(lambda x: tf.constant(np.asarray(x[i])), params)


@pytest.mark.parametrize(
    ("name", "channels"), [*((name, 3) for name in OPS), *((name, 1) for name in ("jitter", "grayscale"))]
)
def test_device_and_host_do_the_same(name, channels, images):
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


@pytest.mark.parametrize(
    "op",
    [
        augment.first_channels(augment.random_resized_crop(32), 3),
        augment.first_channels(augment.simclr(32), 3),
        augment.first_channels(augment.compose(augment.color_jitter(0.8, 0.8, 0.8, 0.2), augment.clip()), 3),
        augment.compose(augment.first_channels(augment.flip(), 3), augment.random_resized_crop(32)),
    ],
    ids=["a crop", "a recipe", "colors", "a flip before a crop"],
)
def test_a_code_beside_a_picture_of_bytes_is_as_the_device_has_it(op):
    """Pictures whose fourth and fifth channel are a code, as `rand_bits` makes them."""
    images = np.random.default_rng(2).integers(0, 256, (DRAWS, 32, 32, 5), np.uint8)
    images[..., 3:] = 255 * (images[:, :1, :1, 3:] // 128)
    theirs, ours = both(op, images, lambda images: images / np.float32(255))
    assert theirs.dtype == np.float32
    np.testing.assert_allclose(theirs, ours, atol=1e-4)
    np.testing.assert_allclose(theirs[..., 3:], images[..., 3:] / 255, atol=1e-4)


def test_an_op_on_first_channels_that_changes_the_size_is_refused_as_on_the_device():
    op = augment.first_channels(augment.random_resized_crop(14), 1)
    drawn = op.sample(jax.random.key(0), (28, 28, 3))
    with pytest.raises(ValueError, match=r"keeps height and width.*crop made \(14, 14\) of \(28, 28\)"):
        host_apply(op)(drawn, tf.zeros((28, 28, 3)))


def test_every_op_of_the_room_has_a_host_implementation():
    made = [
        augment.random_resized_crop(8),
        augment.flip(),
        augment.rotate90(),
        augment.translate(1),
        augment.grayscale(),
    ]
    made += [augment.color_jitter(1, 1, 1, 0.1), augment.solarize(), augment.gaussian_blur(), augment.clip()]
    made += [augment.sobel(), augment.cutout(), augment.gaussian_noise()]
    made += [augment.texture(), augment.lab(), augment.ycbcr(), augment.ydbdr(), augment.drop_channels()]
    assert {op.name for op in made} <= set(IMPLEMENTATIONS)


def test_an_op_of_ones_own_is_refused_by_name_and_taken_with_its_host_implementation():
    own = ops.Op("invert", lambda key, shape: (), lambda params, image: 1 - image, (), ops.same_shape)
    recipe = augment.compose(augment.clip(), own)
    with pytest.raises(ValueError, match="op 'invert' has no host implementation.*pass implementations"):
        host_apply(recipe)
    apply = host_apply(recipe, implementations={"invert": lambda: lambda params, image: 1 - image})
    assert apply(((), ()), tf.constant([[[0.25]]])).numpy().item() == 0.75
