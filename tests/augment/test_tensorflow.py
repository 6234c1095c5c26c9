"""Every op beside tf.image, for the same parameters, on pixels within and outside of [0, 1]."""

import jax
import numpy as np
import pytest
from scipy import stats

from jaxcl import augment
from jaxcl.augment import blur, color, compose, describe, draw, geometry, render, simclr

tf = pytest.importorskip("tensorflow", reason="the comparison is with tf.image")

RANGES = {"inside": (0.0, 1.0), "outside": (-0.3, 1.3)}
FACTORS = [0.0, 0.4, 1.0, 1.7, 5.0]
contrast, saturation, hue = map(jax.jit, (color.adjust_contrast, color.adjust_saturation, color.adjust_hue))
bicubic, bilinear = (
    jax.jit(augment.random_resized_crop(16, method=method).apply) for method in ("bicubic", "bilinear")
)


@pytest.fixture(scope="module", params=RANGES)
def image(request):
    low, high = RANGES[request.param]
    pixels = np.random.default_rng(1).uniform(low, high, (24, 24, 3)).astype(np.float32)
    pixels[:2] = pixels[:2, :, :1]  # gray
    pixels[2] = 0
    pixels[3] = np.round(pixels[3])  # ties between channels
    return pixels


@pytest.mark.parametrize("factor", FACTORS)
def test_contrast(image, factor):
    np.testing.assert_allclose(contrast(factor, image), tf.image.adjust_contrast(image, factor), atol=1e-5)


@pytest.mark.parametrize("factor", FACTORS)
def test_saturation(image, factor):
    want = tf.image.adjust_saturation(image, factor)
    np.testing.assert_allclose(saturation(factor, image), want, atol=1e-5)


@pytest.mark.parametrize("turns", [-0.5, -0.2, 0.0, 0.03, 0.1, 0.5])
def test_hue(image, turns):
    want = tf.image.adjust_hue(image, turns)
    np.testing.assert_allclose(hue(turns, image), want, atol=1e-5)


def test_grayscale(image):
    out = jax.jit(augment.grayscale().apply)(color.Grayscale(np.bool_(True)), image)
    want = tf.image.grayscale_to_rgb(tf.image.rgb_to_grayscale(image))
    np.testing.assert_allclose(out, want, atol=1e-6)


def crop_of(image, box, size, **how):
    top, left, height, width = box
    return tf.image.resize(
        tf.convert_to_tensor(image)[top : top + height, left : left + width], (size, size), **how
    )


BOXES = [(0, 0, 24, 24), (3, 5, 7, 11), (17, 0, 7, 9), (20, 1, 1, 23)]


@pytest.mark.parametrize("box", BOXES)
def test_bicubic_crop(image, box):
    out = bicubic(geometry.Crop(*map(np.int32, box)), image)
    # TensorFlow looks its weights up in a table of 1024 steps a pixel: up to about 1e-3 off on noise such as this.
    np.testing.assert_allclose(out, crop_of(image, box, 16, method="bicubic"), atol=2e-3)


def test_bicubic_crop_where_the_table_of_tensorflow_is_exact(image):
    # Boxes of a quarter, half or twice the size: every weight is a table entry.
    for box in [(3, 5, 4, 8), (0, 8, 8, 4), (2, 2, 16, 16)]:
        out = bicubic(geometry.Crop(*map(np.int32, box)), image)
        np.testing.assert_allclose(out, crop_of(image, box, 16, method="bicubic"), atol=5e-6)


@pytest.mark.parametrize("box", BOXES)
def test_bilinear_crop(image, box):
    out = bilinear(geometry.Crop(*map(np.int32, box)), image)
    np.testing.assert_allclose(out, crop_of(image, box, 16, method="bilinear"), atol=1e-5)


@pytest.mark.parametrize("method", ["bicubic", "bilinear"])
def test_antialiased_crop(image, method):
    op = augment.random_resized_crop(10, method=method, antialias=True)
    out = jax.jit(op.apply)(geometry.Crop(*map(np.int32, (1, 0, 23, 17))), image)
    np.testing.assert_allclose(
        out, crop_of(image, (1, 0, 23, 17), 10, method=method, antialias=True), atol=1e-5
    )


@pytest.mark.parametrize("sigma", [0.1, 0.7, 2.0])
def test_blur(sigma):
    image = np.random.default_rng(2).random((60, 44, 3)).astype(np.float32)
    out = jax.jit(augment.gaussian_blur().apply)(blur.Blur(np.bool_(True), np.float32(sigma)), image)
    np.testing.assert_allclose(out, tf_blur(image, sigma), atol=1e-6)


def tf_blur(image, sigma):
    radius = image.shape[0] // 10 // 2
    taps = tf.exp(-(tf.range(-radius, radius + 1, dtype=tf.float32) ** 2) / (2 * sigma**2))
    taps = taps / tf.reduce_sum(taps)
    out = tf.convert_to_tensor(image)[None]
    for shape in ((-1, 1), (1, -1)):
        kernel = tf.tile(tf.reshape(taps, (*shape, 1, 1)), (1, 1, 3, 1))
        out = tf.nn.depthwise_conv2d(out, kernel, (1, 1, 1, 1), "SAME")
    return out[0].numpy()


@pytest.mark.parametrize("size", [(32, 32), (40, 75)])
def test_the_height_law_is_that_of_sample_distorted_bounding_box(size):
    n = 5000

    @tf.function
    def boxes():
        def one(seed):
            begin, extent, _ = tf.image.stateless_sample_distorted_bounding_box(
                (*size, 3),
                tf.constant([[[0.0, 0.0, 1.0, 1.0]]]),
                seed=tf.stack([seed, 7]),
                min_object_covered=0.1,
                aspect_ratio_range=(3 / 4, 4 / 3),
                area_range=(0.08, 1.0),
                max_attempts=100,
            )
            return tf.concat([begin[:2], extent[:2]], 0)

        return tf.map_fn(one, tf.range(n))

    theirs = boxes().numpy()
    op = augment.random_resized_crop(32, distribution=augment.uniform_height)
    sample = jax.jit(jax.vmap(lambda key: op.sample(key, (*size, 3))))
    ours = sample(jax.random.split(jax.random.key(3), n))
    ours = np.stack(ours, axis=1)
    derived = {
        "top": lambda box: box[:, 0],
        "left": lambda box: box[:, 1],
        "height": lambda box: box[:, 2],
        "width": lambda box: box[:, 3],
        "area": lambda box: box[:, 2] * box[:, 3],
        "aspect": lambda box: box[:, 3] / box[:, 2],
    }
    for name, of in derived.items():
        assert stats.ks_2samp(of(ours), of(theirs)).pvalue > 1e-3, name
        assert of(ours).min() >= of(theirs).min() * 0.9 - 1
    assert {tuple(row) for row in theirs[:, 2:]} - {tuple(row) for row in ours[:, 2:]} == set() or size != (
        32,
        32,
    )


@pytest.mark.parametrize("brightness_form", ["multiply", "add"])
def test_a_whole_view_is_the_reference_pipelines(brightness_form):
    recipe = simclr(40, strength=1.0, brightness_form=brightness_form)
    images = np.random.default_rng(4).integers(0, 256, (24, 48, 48, 3), np.uint8)
    batch = {"image": images, "index": np.arange(24)}
    params = jax.device_get(jax.jit(lambda batch: draw(jax.random.key(5), recipe, batch))(batch))
    out = np.asarray(jax.jit(lambda params, images: render(recipe, params, images))(params, batch["image"]))
    assert len(describe(params)) == 24
    # The resize alone is compared above; here the same pixels go into everything that follows.
    crop = jax.jit(lambda params, images: render(augment.random_resized_crop(40), params, images))
    cropped = np.asarray(crop(params[0], images))
    for i in range(24):
        _, flip, jitter, gray, _, blur = jax.tree.map(lambda field, i=i: field[i], params)
        x = tf.convert_to_tensor(cropped[i])
        x = tf.image.flip_left_right(x) if flip.on else x
        for change in jitter.order if jitter.on else ():
            x = (
                lambda x, jitter=jitter: (
                    x + jitter.brightness if brightness_form == "add" else x * jitter.brightness
                ),
                lambda x, jitter=jitter: tf.image.adjust_contrast(x, jitter.contrast),
                lambda x, jitter=jitter: tf.image.adjust_saturation(x, jitter.saturation),
                lambda x, jitter=jitter: tf.image.adjust_hue(x, jitter.hue),
            )[change](x)
            x = tf.clip_by_value(x, 0.0, 1.0)
        x = tf.tile(tf.image.rgb_to_grayscale(x), (1, 1, 3)) if gray.on else x
        x = tf.clip_by_value(x, 0.0, 1.0).numpy()
        x = tf_blur(x, blur.sigma) if blur.on else x
        np.testing.assert_allclose(out[i], x, atol=1e-4)


def test_composition_is_nested_application(image):
    parts = compose(
        augment.flip(probability=1.0), compose(augment.grayscale(probability=1.0), augment.clip())
    )
    out = jax.jit(lambda image: parts.apply(parts.sample(jax.random.key(0), image.shape), image))(image)
    want = tf.clip_by_value(
        tf.image.grayscale_to_rgb(tf.image.rgb_to_grayscale(tf.image.flip_left_right(image))), 0, 1
    )
    np.testing.assert_allclose(out, want, atol=1e-6)
