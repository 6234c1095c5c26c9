"""The state of a run, and where its encoder may come from."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxcl import augment, nets
from jaxcl.losses import keyless, queue_nce
from jaxcl.methods import moco, with_probe
from jaxcl.train import checkpoint, init_state
from jaxcl.train.state import blank_batch, start_from
from jaxcl.typing import About, Method

ABOUT = About(64, (8, 8, 3), ("a", "b"))
BATCH = blank_batch(ABOUT)


def method(*, width=4, out=4):
    linear = nets.mlp_head(norm=nets.no_norm(), hidden=(), out=out)
    return moco(
        views=augment.two_views(augment.crop_and_flip(8)),
        encoder=nets.conv_n(features=(width,), dense=4, norm=nets.batch_norm()),
        head=linear,
        loss=keyless(queue_nce, temperature=0.2),
        queue_size=8,
    )


def begun(seed, **changes):
    return init_state(jax.random.key(seed), method(**changes), optax.adam(1e-3), BATCH)


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    """Another run's state, with another head, and its checkpoints."""
    folder, state = tmp_path_factory.mktemp("other"), begun(1, out=6)
    checkpoint.save(folder, 7, state)
    return folder, state


def test_a_blank_batch_initialises_what_a_batch_of_images_does():
    rng = np.random.default_rng(0)
    batch = {"image": rng.integers(0, 256, (8, 8, 8, 3), np.uint8), "index": np.arange(5, 13, dtype=np.int32)}
    chex.assert_trees_all_equal(begun(0), init_state(jax.random.key(0), method(), optax.adam(1e-3), batch))


def test_a_run_starts_from_the_encoder_of_another_and_so_does_its_target(other):
    folder, theirs = other
    fresh = begun(0)
    started = start_from(fresh, folder)
    chex.assert_trees_all_equal(started.params["encoder"], theirs.params["encoder"])
    chex.assert_trees_all_equal(started.state["target"]["encoder"], theirs.params["encoder"])
    # An alias could not be donated.
    kernel, copy = (jax.tree.leaves(tree["encoder"])[0] for tree in (started.params, started.state["target"]))
    assert kernel.unsafe_buffer_pointer() != copy.unsafe_buffer_pointer()
    # Everything else is as it was.
    restored = started._replace(
        params={**started.params, "encoder": fresh.params["encoder"]},
        state={**started.state, "target": {**started.state["target"], "encoder": fresh.params["encoder"]}},
    )
    chex.assert_trees_all_equal(restored, fresh)


def test_a_classifier_trained_along_is_no_obstacle(other):
    folder, theirs = other
    probed, _ = with_probe(
        method(),
        classes=2,
        views=augment.n_views(augment.crop_and_flip(8), 1),
    )
    started = start_from(init_state(jax.random.key(0), probed, optax.adam(1e-3), BATCH), folder)
    chex.assert_trees_all_equal(started.params["method"]["encoder"], theirs.params["encoder"])


def test_an_encoder_made_otherwise_is_refused_and_what_differs_is_named(other):
    with pytest.raises(ValueError, match="is not of the shape") as refused:
        start_from(begun(0, width=5), other[0])
    assert "params/encoder/" in str(refused.value)
    assert "shape" in str(refused.value)


def test_a_method_without_one_encoder_says_so(other, tmp_path):
    two = Method(lambda key, batch: ({"left": jnp.ones(2), "right": jnp.ones(2)}, ()), None, None)
    with pytest.raises(ValueError, match=r'the method of this run has no params\["encoder"\]'):
        start_from(init_state(jax.random.key(0), two, optax.adam(1e-3), BATCH), other[0])
    with pytest.raises(FileNotFoundError, match="no checkpoint in"):
        start_from(begun(0), tmp_path)
