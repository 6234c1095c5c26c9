"""Ops in a row."""

import jax
import numpy as np

from jaxcl import augment, collectives
from jaxcl.augment import geometry, op

KEY = jax.random.key(11)


def test_a_step_that_draws_by_a_key_of_its_own_leaves_the_other_draws_as_they_are():
    own = augment.Op(
        "own", lambda key, shape: geometry.Flip(op.uniform(key) < 0.5), lambda params, image: image
    )
    plain = augment.compose(augment.translate(3), augment.grayscale(probability=0.5))
    mixed = augment.compose(
        augment.translate(3), own, augment.compose(own, augment.grayscale(probability=0.5))
    )
    assert plain.numbers == 4
    assert mixed.decide is None

    @jax.jit
    def both(keys):
        return [jax.vmap(lambda key, op=op: op.sample(key, (8, 8, 3)))(keys) for op in (plain, mixed)]

    (shift, _), (same, first, (second, gray)) = both(jax.random.split(KEY, 2000))
    jax.tree.map(np.testing.assert_array_equal, shift, same)
    coins = np.stack([first.on, second.on, gray.on, shift.down > 0]).astype(float)
    assert np.abs(np.corrcoef(coins) - np.eye(4)).max() < 0.1


def test_a_composition_of_compositions_draws_its_numbers_in_a_row():
    flat = augment.compose(augment.flip(), augment.grayscale(), augment.translate(3))
    nested = augment.compose(augment.flip(), augment.compose(augment.grayscale(), augment.translate(3)))
    a, b, c = flat.sample(KEY, (8, 8, 3))
    jax.tree.map(np.testing.assert_array_equal, nested.sample(KEY, (8, 8, 3)), (a, (b, c)))


def test_a_tpu_is_given_the_same_pictures(monkeypatch):
    """There crops are flipped as they are made, blurs are matrix products, and a jitter reads its image twice."""
    images = np.random.default_rng(0).uniform(size=(8, 32, 38, 3)).astype(np.float32)
    recipes = [augment.simclr(32), augment.moco_v2(32)]
    recipes += [
        augment.color_jitter(0.8, 0.8, 0.8, 0.2, brightness_form="add"),  # as in augment.simclr
        augment.compose(augment.color_jitter(0.4, 0.0, 0.4, 0.1), augment.gaussian_blur(probability=1.0)),
    ]

    def pictures():
        def of_one(key, image):
            made = (recipe.apply(recipe.sample(key, image.shape), image) for recipe in recipes)
            return tuple(made)

        return jax.jit(jax.vmap(of_one))(jax.random.split(jax.random.key(1), len(images)), images)

    here = pictures()
    monkeypatch.setattr(collectives, "target", lambda: collectives.Target("tpu", 1))
    for got, want in zip(pictures(), here, strict=True):
        np.testing.assert_allclose(got, want, atol=2e-5)
        assert np.asarray(want).std() > 0.05
