"""The state of a run, and where its encoder may come from."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxcl import augment, nets
from jaxcl.losses import keyless, queue_nce
from jaxcl.methods import moco, supervised, with_probe
from jaxcl.train import checkpoint, init_state
from jaxcl.train.state import blank_batch, fill, start_from
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


def tuned(seed, *, until):
    """A supervised run that keeps so many layers of a head of two."""
    method, _ = supervised(
        views=augment.n_views(augment.crop_and_flip(8), 1),
        encoder=nets.conv_n(features=(4,), dense=4, norm=nets.batch_norm()),
        head=nets.projection_head(layers=2, until=until, norm=nets.batch_norm()),
        classes=2,
    )
    return init_state(jax.random.key(seed), method, optax.adam(1e-3), BATCH)


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory):
    """A run of MoCo with a head of two layers, whose batch statistics have moved; and the same with a probe."""
    made = {}
    for name in ("plain", "probed"):
        own = moco(
            views=augment.two_views(augment.crop_and_flip(8)),
            encoder=nets.conv_n(features=(4,), dense=4, norm=nets.batch_norm()),
            head=nets.projection_head(layers=2, out=3, norm=nets.batch_norm()),
            loss=keyless(queue_nce, temperature=0.2),
            queue_size=8,
        )
        if name == "probed":
            own, _ = with_probe(own, classes=2, views=augment.n_views(augment.crop_and_flip(8), 1))
        state = init_state(jax.random.key(5), own, optax.adam(1e-3), BATCH)
        query = jax.tree.map(lambda x: x + 0.25, state.state["query"])
        state = state._replace(state={**state.state, "query": query})
        folder = tmp_path_factory.mktemp(name)
        checkpoint.save(folder / "checkpoints", 1, state)
        made[name] = folder, state
    return made


@pytest.mark.parametrize("name", ["plain", "probed"])
def test_fine_tuning_starts_from_encoder_and_first_layer_with_their_statistics(pretrained, name):
    folder, theirs = pretrained[name]
    fresh = tuned(0, until=1)
    started = start_from(fresh, folder / "checkpoints", parts=("encoder", "head"))
    params = theirs.params["method"] if name == "probed" else theirs.params
    chex.assert_trees_all_equal(started.params["encoder"], params["encoder"])
    assert started.params["head"]  # the first dense layer and its norm, of two
    for layer, own in started.params["head"].items():
        chex.assert_trees_all_equal(own, params["head"][layer])
    statistics = theirs.state["query"]
    chex.assert_trees_all_equal(started.state["encoder"], statistics["encoder"])
    for layer, own in started.state["head"]["batch_stats"].items():
        chex.assert_trees_all_equal(own, statistics["head"]["batch_stats"][layer])
    chex.assert_trees_all_equal(started.params["probe"], fresh.params["probe"])


def test_a_head_of_no_layers_takes_nothing_and_the_encoder_alone_may_be_taken(pretrained):
    folder, theirs = pretrained["plain"]
    started = start_from(tuned(0, until=0), folder / "checkpoints", parts=("encoder", "head"))
    chex.assert_trees_all_equal(started.params["encoder"], theirs.params["encoder"])
    assert started.params["head"] == {}


def resnet_run(depth, shortcuts="where_needed", *, seed=0):
    """A supervised run of a narrow ResNet."""
    settings = {"stem": "cifar", "features": 2, "norm": nets.batch_norm(), "shortcuts": shortcuts}
    method, _ = supervised(
        views=augment.n_views(augment.crop_and_flip(8), 1),
        encoder=nets.resnet(depth, **settings),
        head=nets.projection_head(mode="none", norm=nets.batch_norm()),
        classes=2,
    )
    return init_state(jax.random.key(seed), method, optax.adam(1e-3), BATCH)


@pytest.mark.parametrize("parts", [None, ("encoder",)])
@pytest.mark.parametrize(
    ("theirs", "surplus"),
    [((34,), "stage1_block3"), ((18, "of_every_stage"), "stage1_block1/shortcut/kernel")],
)
def test_of_an_encoder_that_has_more_no_part_is_taken(tmp_path, theirs, surplus, parts):
    """Every array of a ResNet-18 is one of a ResNet-34's by name and shape, or of one with more shortcuts."""
    checkpoint.save(tmp_path, 1, resnet_run(*theirs, seed=1))
    with pytest.raises(ValueError, match="is not of the shape") as refused:
        start_from(resnet_run(18), tmp_path, parts=parts)
    assert f"params/encoder/{surplus}" in str(refused.value)
    assert "unexpected" in str(refused.value)
    alike = resnet_run(*theirs)
    saved = checkpoint.restore(tmp_path, alike)[0].params["encoder"]
    chex.assert_trees_all_equal(start_from(alike, tmp_path, parts=parts).params["encoder"], saved)


def test_statistics_that_the_encoder_does_not_have_are_not_passed_over(tmp_path):
    theirs, own = resnet_run(18, seed=1), resnet_run(18)
    more = {"batch_stats": {**theirs.state["encoder"]["batch_stats"], "other": jnp.ones(2)}}
    checkpoint.save(tmp_path, 1, theirs._replace(state={**theirs.state, "encoder": more}))
    with pytest.raises(ValueError, match="state/encoder/batch_stats/other"):
        start_from(own, tmp_path, parts=("encoder",))


def test_a_teacher_that_has_more_than_its_run_s_config_makes_is_refused(pretrained):
    folder, theirs = pretrained["plain"]
    blank = {"params": {"encoder": theirs.params["encoder"]}, "state": theirs.state}
    fresh = tuned(0, until=0)
    with pytest.raises(ValueError, match="params/head/"):
        fill(fresh._replace(state={**fresh.state, "teacher": blank}), {"teacher": folder})


def test_a_teacher_is_filled_in_from_its_run(pretrained):
    folder, theirs = pretrained["plain"]
    blank = jax.tree.map(jnp.zeros_like, {"params": theirs.params, "state": theirs.state})
    fresh = tuned(0, until=0)
    fresh = fresh._replace(state={**fresh.state, "teacher": blank})
    filled = fill(fresh, {"teacher": folder})
    chex.assert_trees_all_equal(filled.state["teacher"]["params"], theirs.params)
    chex.assert_trees_all_equal(filled.state["teacher"]["state"], theirs.state)
    chex.assert_trees_all_equal(filled._replace(state=fresh.state), fresh)
