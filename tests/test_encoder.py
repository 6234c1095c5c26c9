"""An encoder is what its run has learnt, and needs nothing else of the run."""

from pathlib import Path

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxcl import augment, keys, nets
from jaxcl.config import CommonKnobs, Recipe
from jaxcl.encoder import at_layer, encoder_of
from jaxcl.losses import keyless, queue_nce
from jaxcl.methods import moco
from jaxcl.runs import Run
from jaxcl.train import checkpoint, init_state
from jaxcl.train.state import blank_batch
from jaxcl.typing import About

ABOUT = About(64, (8, 8, 3), ("a", "b"))
IMAGES = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3), np.uint8)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run with a queue far too large for any machine; what its checkpoint holds of it is small."""
    views = augment.two_views(augment.crop_and_flip(8))

    def recipe(queue_size):
        method = moco(
            views=views,
            encoder=nets.conv_n(features=(4,), dense=4, norm=nets.batch_norm()),
            head=nets.mlp_head(norm=nets.no_norm(), hidden=(), out=4),
            loss=keyless(queue_nce, temperature=0.2),
            queue_size=queue_size,
        )
        return Recipe(method, optax.adam(1e-3), optax.constant_schedule(1e-3), views, 10, 16)

    folder: Path = tmp_path_factory.mktemp("run")
    small = recipe(8)
    fresh = init_state(keys.init_key(0), small.method, small.optimizer, blank_batch(ABOUT))
    trained = fresh._replace(step=jnp.int32(3), params=jax.tree.map(lambda x: x + 0.5, fresh.params))
    checkpoint.save(folder / "checkpoints", 3, trained)
    return Run(folder, None, CommonKnobs(), ABOUT, {}, recipe(2**50)), fresh, trained


def test_its_features_are_those_of_the_method_at_the_newest_checkpoint(run):
    opened, _, trained = run
    encoder = encoder_of(opened, opened.recipe.method.embed)
    assert encoder.step == 3
    want = jax.jit(opened.recipe.method.embed)(trained.params, trained.state, jnp.float32(IMAGES) / 255)
    np.testing.assert_allclose(encoder(IMAGES), want, rtol=1e-6)
    np.testing.assert_array_equal(
        encoder.embed(jnp.float32(IMAGES) / 255), encoder.embed(jnp.float32(IMAGES) / 255)
    )


def test_untrained_it_is_what_the_run_began_with_bit_for_bit(run):
    opened, fresh, _ = run
    before = encoder_of(opened, opened.recipe.method.embed, untrained=True)
    assert before.step == 0
    chex.assert_trees_all_equal(before.params["encoder"], fresh.params["encoder"])
    chex.assert_trees_all_equal(before.state["query"]["encoder"], fresh.state["query"]["encoder"])


@pytest.mark.parametrize("untrained", [False, True])
def test_queue_target_and_head_are_not_built(run, untrained):
    opened, *_ = run
    encoder = encoder_of(opened, opened.recipe.method.embed, untrained=untrained)
    assert jax.tree.leaves(encoder.params["head"]) == []
    for name in ("queue", "target", "key"):
        assert jax.tree.leaves(encoder.state[name]) == []
    assert jax.tree.leaves(encoder.params["encoder"])


def test_it_travels_through_transformations_as_its_weights(run):
    opened, *_ = run
    encoder = encoder_of(opened, opened.recipe.method.embed)
    features = jax.jit(lambda embed, images: embed(images))(encoder.embed, jnp.float32(IMAGES) / 255)
    np.testing.assert_allclose(features, encoder(IMAGES), rtol=1e-6)


def test_an_encoder_with_a_number_that_is_not_finite_is_refused_by_name(run, tmp_path):
    opened, fresh, _ = run

    def spoil(path, x):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        return x.at[0].set(jnp.nan) if name.startswith("encoder") and name.endswith("kernel") else x

    params = jax.tree_util.tree_map_with_path(spoil, fresh.params)
    checkpoint.save(tmp_path / "checkpoints", 5, fresh._replace(params=params))
    with pytest.raises(
        ValueError, match=r"at step 5 has numbers that are not finite.*params/encoder/.*kernel"
    ):
        encoder_of(opened._replace(dir=tmp_path), opened.recipe.method.embed)


def test_a_layer_of_the_head_is_what_the_head_makes_of_the_representation(run):
    opened, _, trained = run
    h = encoder_of(opened, opened.recipe.method.embed)(IMAGES)
    z = encoder_of(opened, at_layer(opened, 1))(IMAGES)
    (dense,) = trained.params["head"].values()
    np.testing.assert_allclose(z, h @ dense["kernel"] + dense.get("bias", 0.0), rtol=1e-5)
    np.testing.assert_array_equal(encoder_of(opened, at_layer(opened, -1))(IMAGES), z)
    np.testing.assert_array_equal(encoder_of(opened, at_layer(opened, 0))(IMAGES), h)
    with pytest.raises(ValueError, match="has 1 layers, and layer 0 is its input; got layer 2"):
        at_layer(opened, 2)
    bare = opened.recipe._replace(method=opened.recipe.method._replace(layers=None))
    with pytest.raises(ValueError, match=r"no single projection head .* Leave out --layers \(layer=\)"):
        at_layer(opened._replace(recipe=bare), 1)


def test_images_of_another_scale_kind_or_layout_are_refused_with_what_to_do(run):
    opened, *_ = run
    encoder = encoder_of(opened, opened.recipe.method.embed, untrained=True)
    floats = IMAGES / np.float32(255)
    np.testing.assert_allclose(encoder(floats), encoder(IMAGES), rtol=1e-5, atol=1e-6)
    for wrong, said in (
        (255 * floats, r"to 25\d. Of numbers from 0 to 255: images / 255"),
        ((floats - 0.5) / 0.2, "standardizes them itself"),
        (IMAGES.astype(np.int32), "got int32. Of numbers from 0 to 255"),
        (IMAGES.transpose(0, 3, 1, 2), r"images.transpose\(0, 2, 3, 1\)"),
        (IMAGES[0], r"images\[None\]"),
    ):
        with pytest.raises(ValueError, match=said):
            encoder(wrong)
    assert jax.eval_shape(encoder, jnp.zeros((2, 8, 8, 3))).shape == (2, 4)  # numbers that are not known yet
