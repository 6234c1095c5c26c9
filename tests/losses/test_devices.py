"""The device law: every loss is a row, and none may tell how many devices there are."""

import inspect
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import jaxcl.losses as losses
from jaxcl import devices
from jaxcl.losses import blockwise
from jaxcl.similarity import cosine
from jaxcl.testing import EVERYWHERE, assert_same_everywhere, assert_shared, step_of

KEY = jax.random.key(7)


def of_views(loss, **options):
    """A row of the table from a loss of two views."""

    def placed(w, b, axis_name):
        return loss(b["x"] @ w, b["y"] @ w, axis_name=axis_name, **options)

    return placed


def of_three_views(loss, **options):
    def placed(w, b, axis_name):
        return loss(b["x"] @ w, b["y"] @ w, (b["x"] - b["y"]) @ w, axis_name=axis_name, **options)

    return placed


def of_rows(loss, **options):
    return lambda w, b, axis_name: loss(b["x"] @ w, axis_name=axis_name, **options)


def with_labels(w, b, axis_name, **options):
    return losses.supervised_contrastive(b["label"], b["x"] @ w, b["y"] @ w, axis_name=axis_name, **options)


def with_queue(w, b, axis_name, **options):
    # The queue is the same everywhere and depends on the parameters, so its gradient is looked at as well.
    return losses.queue_nce(b["x"] @ w, b["y"] @ w, jnp.sin(3 * w) @ w, axis_name=axis_name, **options)


def scores_with_a_hole(w, b, axis_name):
    z = b["x"] @ w
    scores = jnp.where(jnp.arange(z.shape[1]) == b["label"][:, None], -jnp.inf, z @ jnp.sin(3 * w))
    return losses.info_nce(jnp.sum(z * b["y"], axis=1), scores, temperature=5.0, axis_name=axis_name)


def in_two_spaces(w, b, axis_name):
    q = jnp.stack([b["x"] @ w, b["x"] @ w.T])
    k = jnp.stack([jnp.stack([b["y"] @ w, b["y"]]), jnp.stack([b["y"], b["y"] @ w.T])])
    where = jnp.broadcast_to(b["label"] > 2, k.shape[:3])
    queue = jnp.stack([jnp.sin(3 * w) @ w, w])
    return losses.looc(q, k, queue, where=where, temperature=5.0, axis_name=axis_name)


def learnt_temperature(w, b, axis_name, **options):
    return losses.nt_xent(
        b["x"], b["y"] @ w, temperature=jnp.exp(w[0, 0] - 2), axis_name=axis_name, **options
    )


def of_distribution(distribution, **options):
    return of_views(partial(losses.generalized, KEY), distribution=distribution, weight=5.0, **options)


def of_maps(w, b, axis_name):
    targets = jnp.stack([b["y"] @ w, b["y"], b["y"] @ w.T], axis=1)
    return losses.map_nce(b["x"] @ w, targets, axis_name=axis_name)


def of_noise(w, b, axis_name):
    scores = b["x"] @ jnp.sin(3 * w)
    return losses.binary_nce(scores, 20 * jnp.exp(w[0, 0]), images=20, axis_name=axis_name)


def of_scores(w, b, axis_name):
    return losses.softmax_nce(b["x"] @ jnp.sin(3 * w), 1.0, axis_name=axis_name)


def of_grids(w, b, axis_name, **options):
    grid = jnp.stack([b["y"] @ w, b["y"], b["y"] @ w.T, b["x"], b["x"] @ w.T, b["x"] @ w], axis=1)
    grid = grid.reshape(-1, 3, 2, grid.shape[-1])
    return losses.patch_nce(grid @ w, grid, below={1: 1.0, 2: 0.5}, axis_name=axis_name, **options)


def scaled_cosine(q, k):
    return jnp.tanh(cosine(q, k))


sliced = losses.sliced_wasserstein

# name -> (params, batch, axis_name) -> scalar, for params [d, d] and batch {"x", "y", "label"} of [n, d], [n]
LOSSES = {
    "nt_xent": of_views(losses.nt_xent, temperature=0.1),
    "nt_xent blockwise": of_views(losses.nt_xent, temperature=0.1, block_size=8),
    "nt_xent blockwise, cold": of_views(losses.nt_xent, temperature=0.01, block_size=8),
    "nt_xent blockwise, odd block": of_views(losses.nt_xent, temperature=0.1, block_size=5),
    "nt_xent, another similarity": of_views(losses.nt_xent, temperature=0.1, similarity=scaled_cosine),
    "nt_xent, learnt temperature": learnt_temperature,
    "nt_xent blockwise, learnt temperature": partial(learnt_temperature, block_size=8),
    "nt_xent, three views": of_three_views(losses.nt_xent, temperature=0.1),
    "nt_xent blockwise, three views": of_three_views(losses.nt_xent, temperature=0.1, block_size=8),
    "cross_view_nt_xent": of_views(losses.cross_view_nt_xent),
    "dcl": of_views(losses.dcl),
    "dcl blockwise": of_views(losses.dcl, block_size=8),
    "dcl blockwise, three views": of_three_views(losses.dcl, block_size=8),
    "supervised_contrastive": with_labels,
    "supervised_contrastive blockwise": partial(with_labels, block_size=8),
    "supervised_contrastive, another similarity": partial(with_labels, similarity=scaled_cosine),
    "queue_nce": with_queue,
    "queue_nce blockwise": partial(with_queue, block_size=3, temperature=2.0),
    "queue_nce blockwise, cosine": partial(with_queue, block_size=3, similarity=cosine),
    "info_nce": scores_with_a_hole,
    "looc": in_two_spaces,
    "nt_logistic": of_views(losses.nt_logistic),
    "nt_logistic, semi-hard": of_views(losses.nt_logistic, semi_hard=True),
    "nt_logistic, both sides": of_views(losses.nt_logistic, sides=2),
    "margin_triplet": of_views(losses.margin_triplet),
    "margin_triplet, semi-hard": of_views(losses.margin_triplet, semi_hard=True),
    "alignment": of_views(losses.alignment),
    "alignment per entry": of_views(losses.alignment, per="entry"),
    "log_sum_exp": of_rows(losses.log_sum_exp, temperature=0.2),
    "log_sum_exp blockwise": of_rows(losses.log_sum_exp, temperature=0.2, mask_self=False, block_size=8),
    "decoupled_nt_xent": of_views(losses.decoupled_nt_xent),
    "decoupled_nt_xent, notebook": of_views(losses.decoupled_nt_xent, convention="notebook"),
    "decoupled_nt_xent blockwise": of_views(losses.decoupled_nt_xent, block_size=8),
    "uniformity": of_rows(losses.uniformity),
    "uniformity blockwise": of_rows(losses.uniformity, block_size=8),
    "alignment_uniformity": of_views(losses.alignment_uniformity, alpha=1.5),
    "sliced_wasserstein": of_rows(partial(sliced, KEY)),
    "sliced_wasserstein, projections that do not divide": of_rows(partial(sliced, KEY), projections=11),
    "sliced_wasserstein, quantiles": of_rows(partial(sliced, KEY), prior=losses.normal, exact_quantiles=True),
    "sliced_wasserstein, own prior": of_rows(
        partial(sliced, KEY), prior=lambda k, s: 3 * losses.normal(k, s)
    ),
    "generalized": of_distribution(sliced),
    "generalized, cube": of_distribution(partial(sliced, prior=losses.uniform_cube), normalized=False),
    "generalized, log_sum_exp": of_distribution(losses.keyless(losses.log_sum_exp, temperature=0.2)),
    "variance_term": of_rows(losses.variance_term, target=4.0),
    "covariance_term": of_rows(losses.covariance_term),
    "vicreg": of_views(losses.vicreg),
    "barlow_twins": of_views(losses.barlow_twins),
    "visreg": of_views(partial(losses.visreg, KEY)),
    "map_nce": of_maps,
    "binary_nce": of_noise,
    "softmax_nce": of_scores,
    "patch_nce": partial(of_grids, block_size=0),
    "patch_nce blockwise": partial(of_grids, block_size=8),
    "patch_nce in groups": partial(of_grids, block_size=0, group_size=2),
    "patch_nce in groups, blockwise": partial(of_grids, block_size=8, group_size=2),
    "regression": of_views(losses.regression),
    "negative_cosine": of_views(losses.negative_cosine),
}


# Each kind in every placement: of pairs, of a queue, of draws that devices share, and of statistics.
OF_KINDS = ["nt_xent blockwise", "queue_nce", "sliced_wasserstein", "vicreg"]
# Rows whose every part is in another row; in every placement they are slow tests.
OF_PARTS = {
    "nt_xent blockwise, cold",
    "nt_xent, learnt temperature",
    "dcl blockwise, three views",
    "supervised_contrastive, another similarity",
    "queue_nce blockwise, cosine",
    "nt_logistic, semi-hard",
    "decoupled_nt_xent blockwise",
    "uniformity blockwise",
    "generalized",
    "generalized, log_sum_exp",
}


@pytest.fixture(scope="module")
def example():
    w, x, y = np.split(np.random.default_rng(0).normal(size=(72, 8)).astype(np.float32), [8, 40])
    return w, {"x": x, "y": y, "label": np.arange(32) % 5}


def all_of(names):
    """One program for many losses: each has parameters of its own, and a factor whose gradient is the loss itself."""

    def together(params, batch, axis_name):
        return sum(factor * LOSSES[name](w, batch, axis_name) for name, (w, factor) in params.items())

    return together


def assert_law(names, example, placements):
    w, batch = example
    params = {name: (w, np.ones((), np.float32)) for name in names}
    assert_same_everywhere(all_of(names), params, batch, placements=placements)


PARTS, QUICK = 6, [name for name in LOSSES if name not in {*OF_PARTS, *OF_KINDS}]


@pytest.mark.parametrize("part", range(PARTS))
def test_value_and_gradient_are_the_same_on_one_device_and_on_eight(part, example):
    assert_law(QUICK[part::PARTS], example, ["shard_map"])


def test_one_loss_of_each_kind_is_the_same_in_every_placement(example):
    assert_law(OF_KINDS, example, EVERYWHERE)


@pytest.mark.slow
@pytest.mark.parametrize("placement", EVERYWHERE)
@pytest.mark.parametrize("part", range(PARTS))
def test_every_loss_is_the_same_in_every_placement(part, placement, example):
    assert_law(list(LOSSES)[part::PARTS], example, [placement])


# --- and the work is shared ---------------------------------------------------------------------------------------

# images, width; the second for the slow tests
SIZES = [(512, 8), (2048, 32)]


def rows_of_all(name, images, width):
    """Bytes that every device must have: the blockwise losses' rows of all devices, a gradient for each, and four
    numbers a row (its log-partition, its cotangent, and what they are summed in)."""
    if "blockwise" not in name or "queue" in name:
        return 4 * images * width  # gathered, and used at once
    views = 3 if "three" in name else 1 if name.startswith(("log_sum_exp", "uniformity")) else 2
    views = 6 if name.startswith("patch_nce") else views  # of six patches each
    # The sums of all classes and their gradient.
    copies = 4 if name.startswith("supervised") else 2
    return 4 * images * views * (copies * width + 6)


@pytest.fixture
def blocks_where_told(monkeypatch):
    """The same program on one device and on eight: left to itself one has so many products that it chooses blocks,
    where each of eight stores its few."""
    monkeypatch.setattr(blockwise, "PLAIN_BELOW", float("inf"))


def assert_work_is_shared(name, placements, images, width):
    of = jax.ShapeDtypeStruct
    batch = {"x": of((images, width), jnp.float32), "y": of((images, width), jnp.float32)}
    batch["label"] = of((images,), jnp.int32)
    # 11 directions are 2 for each of 8 devices; blocks that do not divide the rows are filled up; the directions, which
    # do not grow with the batch, are drawn by each.
    exceptions = {"do not divide": 1.5, "odd block": 1.2, "blockwise, three": 1.2, "quantiles": 1.25}
    operations = next((most for what, most in exceptions.items() if what in name), 1.1)
    assert_shared(
        step_of(LOSSES[name]),
        of((), jnp.float32),
        of((width, width), jnp.float32),
        batch,
        placements=placements,
        whole=rows_of_all(name, images, width),
        operations=operations,
        temporaries=max(1.25, operations),
    )


# A loss for each way in which the work is shared.
@pytest.mark.parametrize(
    "name", ["nt_xent", "nt_xent blockwise", "queue_nce blockwise", "sliced_wasserstein"]
)
def test_under_jit_a_device_does_its_share(name, blocks_where_told):
    assert_work_is_shared(name, ["jit"], *SIZES[0])


@pytest.mark.slow
@pytest.mark.parametrize(("images", "width"), SIZES)
@pytest.mark.parametrize("name", LOSSES)
def test_a_device_does_its_share_of_every_loss(name, images, width, blocks_where_told):
    # A prior of one's own is asked once, for all rows: only `jit` can share that.
    assert_work_is_shared(name, ["jit"] if "own prior" in name else devices.PLACEMENTS, images, width)


# What is exported beside losses: makers, priors, and what looks at several losses.
NO_LOSSES = {
    "compare_losses",
    "family",
    "keyless",
    "normal",
    "orthogonal_directions",
    "scaled",
    "temperature_of",
    "uniform_cube",
    "uniform_sphere",
}


def test_every_exported_loss_is_a_row_of_the_table():
    rows = {name.split(",")[0].split(" ")[0] for name in LOSSES}
    assert rows | NO_LOSSES == set(losses.__all__)
    assert not rows & NO_LOSSES


def test_every_row_of_the_table_is_given_its_axis_by_name_and_by_default_has_none():
    for name in {name.split(",")[0].split(" ")[0] for name in LOSSES}:
        axis = inspect.signature(getattr(losses, name)).parameters["axis_name"]
        assert (axis.kind, axis.default) == (axis.KEYWORD_ONLY, None)


@pytest.mark.parametrize("name", ["nt_xent blockwise", "queue_nce blockwise", "vicreg"])
def test_a_batch_split_on_an_explicit_mesh_gives_the_same(name, example):
    w, batch = example
    mesh = jax.make_mesh((8,), ("devices",), axis_types=(AxisType.Explicit,))
    with jax.set_mesh(mesh):
        split = jax.device_put(batch, NamedSharding(mesh, PartitionSpec("devices")))
        whole = jax.device_put(w, NamedSharding(mesh, PartitionSpec()))
        got = jax.jit(jax.value_and_grad(lambda w, b: LOSSES[name](w, b, None)))(whole, split)
    want = jax.jit(jax.value_and_grad(lambda w, b: LOSSES[name](w, b, None)))(w, batch)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-4, atol=1e-5)


def test_the_law_catches_negatives_without_a_gradient(example):
    def forgetful(w, b, axis_name):
        from jaxcl import collectives

        z, keys = b["x"] @ w, b["y"] @ w
        keys = jax.lax.stop_gradient(collectives.gather(keys, axis_name)) if axis_name else keys
        return collectives.mean((z @ keys.T).var(), axis_name)

    with pytest.raises(AssertionError, match="differs from one device"):
        assert_same_everywhere(forgetful, *example, placements=["shard_map"])


@pytest.mark.parametrize("placement", ["shard_map", "shard_map_unchecked", "pmap", "vmap"])
def test_a_loss_that_ignores_its_axis_is_told_so(placement, example):
    def deaf(w, b, axis_name):
        return losses.nt_xent(b["x"] @ w, b["y"] @ w)

    with pytest.raises(AssertionError, match="ignores its axis_name: it sends nothing between devices"):
        assert_same_everywhere(deaf, *example, placements=[placement])


def test_a_loss_that_is_wrong_otherwise_is_not_told_that_it_ignores_its_axis(example):
    from jaxcl import collectives

    def eightfold(w, b, axis_name):
        return collectives.size(axis_name) * losses.nt_xent(b["x"] @ w, b["y"] @ w, axis_name=axis_name)

    with pytest.raises(AssertionError, match="8 times that of one.$"):
        assert_same_everywhere(eightfold, *example, placements=["pmap"])
