"""Every op is a row, and keeps one contract."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcl import augment

# Every op once, and the shape it makes of [24, 24, 3].
OPS = {
    "crop": (augment.random_resized_crop(16), (16, 16, 3)),
    "crop_uniform_height": (
        augment.random_resized_crop((12, 20), distribution=augment.uniform_height),
        (12, 20, 3),
    ),
    "crop_bilinear_antialias": (augment.random_resized_crop(8, method="bilinear", antialias=True), (8, 8, 3)),
    "flip": (augment.flip(), (24, 24, 3)),
    "rotate90": (augment.rotate90(), (24, 24, 3)),
    "translate": (augment.translate(4), (24, 24, 3)),
    "jitter": (augment.color_jitter(0.8, 0.8, 0.8, 0.2), (24, 24, 3)),
    "jitter_add": (augment.color_jitter(0.8, 0.8, 0.8, 0.2, brightness_form="add"), (24, 24, 3)),
    "grayscale": (augment.grayscale(), (24, 24, 3)),
    "drop_channels": (augment.drop_channels(), (24, 24, 3)),
    "solarize": (augment.solarize(), (24, 24, 3)),
    "blur": (augment.gaussian_blur(), (24, 24, 3)),
    "sobel": (augment.sobel(), (24, 24, 3)),
    "cutout": (augment.cutout(), (24, 24, 3)),
    "noise": (augment.gaussian_noise(), (24, 24, 3)),
    "clip": (augment.clip(), (24, 24, 3)),
}
NEVER = {
    "flip": augment.flip(probability=0.0),
    "rotate90": augment.rotate90(probability=0.0),
    "translate": augment.translate(0),
    "jitter, probability": augment.color_jitter(0.8, 0.8, 0.8, 0.2, probability=0.0),
    "jitter, strength": augment.color_jitter(0.0, 0.0, 0.0, 0.0, probability=1.0),
    "grayscale": augment.grayscale(probability=0.0),
    "drop_channels": augment.drop_channels(probability=0.0),
    "solarize": augment.solarize(probability=0.0),
    "blur": augment.gaussian_blur(probability=0.0),
    "sobel": augment.sobel(probability=0.0),
    "cutout": augment.cutout(probability=0.0),
    "noise": augment.gaussian_noise(probability=0.0),
    "whole crop": augment.random_resized_crop(24, area=(1.0, 1.0), ratio=(1.0, 1.0)),
}


def keys(n):
    return jax.random.split(jax.random.key(0), n)


@pytest.fixture(scope="module")
def changed(images):
    """name -> the op's draws for each image, and what it makes of them: one program for all."""

    @jax.jit
    def of_all(keys, images):
        made = {}
        for name, (op, _) in OPS.items():
            params = jax.vmap(lambda key, op=op: op.sample(key, images.shape[1:]))(keys)
            made[name] = params, jax.vmap(op.apply)(params, images)
        return made

    return jax.device_get(of_all(keys(6), images))


@pytest.mark.parametrize("name", OPS)
def test_an_op_keeps_its_promises_on_shapes_types_and_range(name, images, changed):
    (op, shape), (params, out) = OPS[name], changed[name]
    assert out.shape == (6, *shape)
    assert out.dtype == jnp.float32
    assert np.all(np.isfinite(out))
    overshoot = 0.3 if name == "crop" or name == "crop_uniform_height" else 0.0
    assert -overshoot <= out.min()
    assert out.max() <= 1 + overshoot
    if name in ("jitter", "rotate90"):
        # For an image by itself a switch is a switch, and not a choice among all that it could do.
        single = jax.jit(op.apply)(jax.tree.map(lambda field: field[2], params), images[2])
        np.testing.assert_allclose(single, out[2], atol=1e-5)


@pytest.mark.parametrize("name", [name for name in OPS if name != "clip"])
def test_a_key_draws_the_same_wherever_it_stands_and_another_key_something_else(drawn, name):
    op, _ = OPS[name]
    params = drawn(op)
    backwards = drawn(op, backwards=True)
    jax.tree.map(lambda x, y: np.testing.assert_array_equal(x, y[::-1]), params, backwards)
    assert all(len(np.unique(field, axis=0)) > 1 for field in params)


def of_all(ops):
    """(keys, images) -> {name: what the op makes of each image}: one program for all."""

    @jax.jit
    def made(keys, images):
        def of_one(key, image):
            return {name: op.apply(op.sample(key, image.shape), image) for name, op in ops.items()}

        return jax.vmap(of_one)(keys, images)

    return lambda keys, images: jax.device_get(made(keys, images))


@pytest.fixture(scope="module")
def unchanged(images):
    return of_all(NEVER)(keys(6), images)


@pytest.mark.parametrize("name", NEVER)
def test_without_probability_or_strength_nothing_happens(name, images, unchanged):
    np.testing.assert_allclose(unchanged[name], images, atol=0 if name != "whole crop" else 1e-6)


OBLONG = [name for name in OPS if name != "rotate90"]


@pytest.fixture(scope="module")
def of_gray(images):
    return of_all({name: OPS[name][0] for name in OBLONG})(keys(1), images[:1, :20, :, :1])


@pytest.mark.parametrize("name", OBLONG)
def test_a_gray_oblong_image_goes_through(name, of_gray):
    (out,) = of_gray[name]
    assert out.shape[2] == 1
    assert np.all(np.isfinite(out))


@pytest.mark.parametrize(
    ("op", "probability"),
    [
        (augment.flip(), 0.5),
        (augment.color_jitter(0.4, 0.4, 0.4, 0.1), 0.8),
        (augment.grayscale(), 0.2),
        (augment.gaussian_blur(), 0.5),
        (augment.solarize(probability=0.3), 0.3),
        (augment.sobel(), 0.5),
        (augment.cutout(probability=0.3), 0.3),
        (augment.gaussian_noise(), 0.5),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_coins_fall_as_often_as_they_should(drawn, op, probability):
    sigma = np.sqrt(probability * (1 - probability) / 4000)
    assert abs(drawn(op).on.mean() - probability) < 4 * sigma


# -------------------------------------------------------------------------------------------- traced settings

# A function of one number that makes an op, and a number for it.
TRACED = {
    "crop, uniform height": (
        lambda x: augment.random_resized_crop(16, area=(x, 1.0), distribution=augment.uniform_height),
        0.2,
    ),
    "crop, uniform area": (lambda x: augment.random_resized_crop(16, area=(0.1, x), ratio=(x, 1.0)), 0.6),
    "crop, log ratio": (
        lambda x: augment.random_resized_crop(
            16, ratio=(x, 2.0), distribution=augment.uniform_area_log_ratio
        ),
        0.5,
    ),
    "center crop": (lambda x: augment.center_crop(8, fraction=x), 0.7),
    "flip": (lambda x: augment.flip(probability=x), 0.5),
    "rotate90": (lambda x: augment.rotate90(probability=x), 0.5),
    "translate": (lambda x: augment.translate(3, probability=x), 0.5),
    "jitter": (lambda x: augment.color_jitter(x, x, x, x / 4, probability=x), 0.7),
    "jitter, added": (lambda x: augment.color_jitter(x, 0.0, x, 0.0, brightness_form="add"), 0.3),
    "jitter, no strength": (lambda x: augment.color_jitter(x, x, x, x, probability=1.0), 0.0),
    "grayscale": (lambda x: augment.grayscale(probability=x), 0.5),
    "drop_channels": (lambda x: augment.drop_channels(probability=x), 0.5),
    "solarize": (lambda x: augment.solarize(threshold=x, probability=x), 0.5),
    "blur": (lambda x: augment.gaussian_blur(sigma=(x, 2 * x), probability=x), 0.6),
    "texture": (lambda x: augment.texture(probability=x), 0.5),
    "sobel": (lambda x: augment.sobel(probability=x), 0.5),
    "cutout": (lambda x: augment.cutout(probability=x), 0.5),
    "noise": (lambda x: augment.gaussian_noise(scale=(0.1, x), probability=x), 0.5),
}


@pytest.fixture(scope="module")
def of_numbers(images):
    """name -> what the op makes when it was made of a number, of a traced one, and of one that jax holds but knows."""

    def of(op, keys, images):
        return jax.vmap(lambda key, image: op.apply(op.sample(key, image.shape), image))(keys, images)

    @jax.jit
    def views(traced, *given):
        return {
            name: [of(make(number), *given) for number in (value, traced[name], jnp.float32(value))]
            for name, (make, value) in TRACED.items()
        }

    return jax.device_get(views({name: value for name, (_, value) in TRACED.items()}, keys(6), images))


@pytest.mark.parametrize("name", TRACED)
def test_an_op_made_of_a_traced_number_does_what_the_number_does(name, of_numbers):
    want, *others = of_numbers[name]
    for got in others:
        np.testing.assert_allclose(got, want, atol=2e-5)


@pytest.mark.parametrize(
    "make",
    [
        lambda x: augment.random_resized_crop(8, area=(x, 0.5)),
        lambda x: augment.color_jitter(0, 0, 0, x),
        lambda x: augment.gaussian_blur(sigma=(0.1, -x)),
        lambda x: augment.center_crop(8, fraction=1 + x),
    ],
)
def test_an_array_whose_value_is_known_is_checked_as_a_number_is(make):
    with pytest.raises(ValueError, match="must be|at most 0.5"):
        make(jnp.float32(0.9))
