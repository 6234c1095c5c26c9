"""The first thing that people run learns digits, where raw pixels and the untrained encoder see colors."""

from pathlib import Path

import jax
import numpy as np
import pytest

from jaxcl.config import load_config
from jaxcl.data import open as open_data
from jaxcl.evaluate import embed, knn_accuracy, raw_pixels
from jaxcl.keys import init_key, run_key
from jaxcl.train import init_state, make_step

CONFIG = Path(__file__).parents[2] / "configs" / "quickstart.py"
BATCH = 16


@pytest.fixture(scope="module")
def config():
    return load_config(CONFIG)


@pytest.fixture(scope="module")
def digits(config):
    return open_data("digits", size=config.Knobs.size)


def batch_of(images, rows):
    return {"image": images.images[rows], "index": rows.astype(np.int32)}


def saturation(x):
    return np.asarray(x.max(axis=-1) - x.min(axis=-1))


def test_its_views_are_mostly_gray_and_never_mirrored_and_their_hues_are_free(config, digits):
    batch = batch_of(digits.train, np.arange(256))
    views = jax.jit(config.recipe(config.Knobs(), digits.about).views)(jax.random.key(0), batch)
    gray = np.concatenate([saturation(x).max(axis=(1, 2)) < 1e-4 for x in views])
    assert abs(gray.mean() - config.Knobs.grayscale) < 0.06  # 0.018 is a standard deviation
    # Without gray views: the hues of an image's two views have no more in common than those of two images.
    free = config.recipe(config.Knobs(grayscale=0.0, min_area=1.0), digits.about).views
    bound = config.recipe(config.Knobs(grayscale=0.0, min_area=1.0, hue=0.0), digits.about).views

    def alike(views):
        """Mean cosine of the colors, less their grays, of the two views."""
        a, b = (np.asarray(x - x.mean(axis=-1, keepdims=True)).reshape(256, -1) for x in views)
        return np.mean(np.sum(a * b, 1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1))

    assert alike(jax.jit(bound)(jax.random.key(0), batch)) > 0.8
    assert abs(alike(jax.jit(free)(jax.random.key(0), batch))) < 0.45


@pytest.mark.slow
def test_a_fifth_of_its_steps_tells_digits_apart_where_pixels_and_the_untrained_encoder_do_not(
    config, digits
):
    knobs = config.Knobs(epochs=3)
    recipe, images, b = config.recipe(knobs, digits.about), digits.train, knobs.batch_size
    rng = np.random.default_rng(0)
    order = np.concatenate([rng.permutation(len(images.images))[: recipe.steps // 3 * b] for _ in range(3)])
    state = init_state(init_key(0), recipe.method, recipe.optimizer, batch_of(images, order[:b]))
    step = jax.jit(make_step(recipe.method, recipe.optimizer))

    def accuracy(features):
        bank, queries = (features(x.images) for x in (digits.train, digits.test))
        return knn_accuracy(bank, digits.train.labels, queries, digits.test.labels, k=10)

    def learnt(state):
        encoder = jax.tree_util.Partial(recipe.method.embed, state.params, state.state)
        return accuracy(lambda x: embed(encoder, x))

    assert accuracy(raw_pixels) < 0.3
    assert learnt(state) < 0.3
    for rows in order.reshape(-1, b):
        state, _ = step(state, run_key(0), batch_of(images, rows))
    assert learnt(state) > 0.65
