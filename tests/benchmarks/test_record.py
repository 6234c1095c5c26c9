"""The record's reference is dkobak/simclr-cifar10 setting for setting; its runner counts, times and evaluates."""

import dataclasses
import math
import sys
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.neighbors import KNeighborsClassifier

from jaxcl.evaluate import knn

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module", autouse=True)
def beside_the_benchmarks():
    sys.path.insert(0, str(BENCHMARKS))
    yield
    sys.path.remove(str(BENCHMARKS))


@pytest.fixture(scope="module")
def record():
    import record

    return record


@pytest.fixture(scope="module")
def parts():
    import record_parts

    return record_parts


@pytest.fixture(scope="module")
def arithmetic():
    from accelerator_phases.common import arithmetic

    return arithmetic


@pytest.fixture(scope="module")
def carry(record, parts):
    """The reference's state before the first step, as shapes."""
    return jax.eval_shape(partial(parts.init, record.REFERENCE), jax.random.key(0))


def shapes(tree):
    return jax.tree.map(lambda x: x.shape, tree)


# ------------------------------------------------------------------------------------- the reference, fact by fact


def test_the_network_is_torchvision_s_resnet18_with_a_small_stem_and_without_its_classifier(carry):
    encoder = carry.train.params["encoder"]
    published = 11_689_512 - 513_000 - (49 - 9) * 3 * 64
    assert sum(math.prod(x.shape) for x in jax.tree.leaves(encoder)) == published
    assert encoder["stem"]["kernel"].shape == (3, 3, 3, 64)


def test_the_head_is_two_linear_layers_with_biases_and_no_batch_norm(carry):
    assert shapes(carry.train.params["head"]) == {
        "Dense_0": {"kernel": (512, 1024)},
        "Bias_0": {"bias": (1024,)},
        "Dense_1": {"kernel": (1024, 128), "bias": (128,)},
    }
    assert not jax.tree.leaves(carry.train.state["head"])
    assert carry.averaged == ()


def test_residual_branches_start_at_one_and_kernels_as_pytorch_s(record, parts):
    recipe = dataclasses.replace(record.REFERENCE, stages=1, dtype="float32")
    init = jax.jit(partial(parts.init, recipe), compiler_options=record.TOY_COMPILER)
    params = init(jax.random.key(0)).train.params
    for name in ("stage1_block1", "stage1_block2"):
        assert (params["encoder"][name]["BatchNorm_1"]["scale"] == 1).all()
        kernel = params["encoder"][name]["Conv_1"]["kernel"]
        np.testing.assert_allclose(jnp.std(kernel), (2 / (9 * 64)) ** 0.5, rtol=0.02)
    assert float(jnp.max(jnp.abs(params["encoder"]["stem"]["kernel"]))) <= 27**-0.5
    bias = params["head"]["Bias_0"]["bias"]
    np.testing.assert_allclose(jnp.std(bias), 64**-0.5 / 3**0.5, rtol=0.1)


def test_the_learning_rate_falls_once_an_epoch_without_warm_up(record, parts):
    recipe = record.REFERENCE
    sizes = parts.batch_sizes(recipe, 50_000)
    assert sizes == (512,) * 97 + (336,)  # nothing is dropped
    rate = parts.learning_rate_of(recipe, 100 * len(sizes), len(sizes))
    for epoch in (0, 1, 50, 99):
        want = 0.12 * (1 + math.cos(math.pi * epoch / 100)) / 2
        for step in (98 * epoch, 98 * epoch + 97):
            assert float(rate(step)) == pytest.approx(want, rel=1e-5, abs=1e-8)
    assert record.REFERENCE_EPOCHS == 100


def test_the_learning_rate_of_a_known_length_is_the_library_s(record, parts):
    from jaxcl.train import optim

    recipe = dataclasses.replace(record.RECORD, warmup=0.1)
    ours = parts.learning_rate_of(recipe, jnp.float32(200), 20)
    theirs = optim.warmup_cosine(recipe.learning_rate, steps=200, warmup_steps=20)
    at = jnp.arange(201)
    np.testing.assert_allclose(jax.vmap(ours)(at), jax.vmap(theirs)(at), atol=1e-6)


def test_every_parameter_is_decayed_and_momentum_is_plain(record, parts):
    tx = parts.optimizer_of(record.REFERENCE, lambda step: 0.12)
    params = {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}
    state, moved = tx.init(params), []
    for _ in range(2):
        updates, state = tx.update(params, state, params)
        moved.append(updates)
    for name in params:
        np.testing.assert_allclose(moved[0][name], -0.12 * 1.0005, rtol=1e-5)
        np.testing.assert_allclose(moved[1][name], -0.12 * 1.0005 * 1.9, rtol=1e-5)


def test_views_are_crops_of_a_fifth_of_the_image_or_more_rarely_gray_and_not_standardized(record, parts):
    (phase,) = record.REFERENCE.phases
    settings = {
        op.name: dict(op.settings)
        for op in dict(parts.augmentation(record.REFERENCE, phase.size, phase.min_area).settings)["steps"]
    }
    crop, jitter = settings["crop"], settings["jitter"]
    assert crop["area"] == (0.2, 1.0)
    assert (crop["method"], crop["antialias"], crop["size"]) == ("bilinear", True, (32, 32))
    assert [jitter[name] for name in ("brightness", "contrast", "saturation", "hue")] == [0.4, 0.4, 0.4, 0.1]
    assert (jitter["probability"], settings["flip"]["probability"]) == (0.8, 0.5)
    assert settings["grayscale"]["probability"] == 0.1
    batch = {"image": jnp.full((2, 32, 32, 3), 255, jnp.uint8), "index": jnp.arange(2)}
    for view in jax.jit(parts.views_of(record.REFERENCE, phase))(jax.random.key(0), batch):
        assert view.shape == (2, 32, 32, 3)
        assert 0.5 < float(view.min()) <= float(view.max()) <= 1


def test_each_view_has_batch_statistics_of_its_own(record, parts, drawn):
    encoder, _ = parts.network_of(dataclasses.replace(record.toy(record.REFERENCE), stages=1))
    x = jax.random.uniform(jax.random.key(0), (8, 8, 8, 3))
    x = x.at[1::2].multiply(0.1)
    params, state = drawn(encoder.init, jax.random.key(1), x)
    apply = jax.jit(partial(encoder.apply, train=True))
    together, new = apply(params, state, x)
    alone = state
    for view in (0, 1):
        maps, alone = apply(params, state, jnp.repeat(x[view::2], 2, 0))
        np.testing.assert_allclose(together[-1][view::2], maps[-1][::2], atol=2e-4)


# ------------------------------------------------------------------------------------- arithmetic


def test_an_epoch_of_the_reference_is_a_third_of_a_petaflop(record, arithmetic):
    programs = record.programs_of(record.REFERENCE, record.REAL)
    assert set(programs) == {"init", "features", (0, 97, 512), (0, 1, 336)}
    flop = sum(
        arithmetic(program.function, *program.arguments)
        for name, program in programs.items()
        if isinstance(name, tuple)
    )
    # A ResNet-18 of 32 pixels has 0.556 G multiply-adds a view; forward, and twice that backward. The loss adds 1 %.
    assert flop == pytest.approx(6 * 0.556e9 * 2 * 50_000, rel=0.03)


# ------------------------------------------------------------------------------------- the accuracy


def test_the_contest_s_accuracy_is_scikit_learn_s_own(record):
    draws = np.random.default_rng(0)
    bank, queries = (
        draws.normal(size=(400, 8)).astype(np.float32),
        draws.normal(size=(300, 8)).astype(np.float32),
    )
    labels, answers = draws.integers(0, 10, 400), draws.integers(0, 10, 300)
    theirs = KNeighborsClassifier(10, metric="cosine").fit(bank, labels)
    ours = knn(bank, labels, queries, k=10)
    np.testing.assert_array_equal(ours, theirs.predict(queries))
    assert record.sklearn_accuracy(bank, labels, queries, answers) == pytest.approx(
        100 * np.mean(ours == answers)
    )


def test_of_tied_votes_both_take_the_smallest_label_and_equal_neighbors_do_no_harm():
    draws = np.random.default_rng(1)
    # 5 against 5 in every neighborhood, the far class with the smaller label; and every row of the bank 3 times.
    queries = np.eye(4, dtype=np.float32)
    near = np.repeat(queries, 5, 0) + 0.01 * draws.normal(size=(20, 4)).astype(np.float32)
    far = np.repeat(queries, 5, 0) + 0.1 * draws.normal(size=(20, 4)).astype(np.float32)
    bank, labels = np.concatenate([near, far]), np.repeat([7, 3], 20)
    theirs = KNeighborsClassifier(10, metric="cosine").fit(bank, labels).predict(queries)
    np.testing.assert_array_equal(knn(bank, labels, queries, k=10), theirs)
    np.testing.assert_array_equal(theirs, 3)
    bank, labels = np.repeat(bank, 3, 0), np.repeat(labels, 3)
    theirs = KNeighborsClassifier(9, metric="cosine").fit(bank, labels).predict(queries)
    np.testing.assert_array_equal(knn(bank, labels, queries, k=9), theirs)


# ------------------------------------------------------------------------------------- runs


@pytest.mark.slow
def test_a_rehearsal_goes_from_compiling_to_scikit_learn_s_word(record, parts):
    rows = []
    recipe = dataclasses.replace(
        record.toy(record.RECORD), phases=(parts.Phase(0.5, 8, 0.2), parts.Phase(1.0, 16, 0.2))
    )
    last = record.run(recipe, None, rows.append, epochs=(4, 3, 2), toy=True, deadline=3600)
    events = [row["event"] for row in rows]
    assert events[:2] == ["compiled", "measured"]
    assert events[-1] == "finished"
    assert last is rows[-1]
    seen = [row for row in rows if row["event"] == "accuracy"]
    assert [row["epoch"] for row in seen] == [1, 2, 3, 4]  # the longest of (4, 3, 2)
    assert [row["target"] for row in rows if row["event"] == "target"] == list(record.TARGETS)
    assert all(np.diff([row["pflop"] for row in seen]) >= 0)
    for row in rows:
        assert row["seconds"] >= row["training_seconds"]
    assert last["knn"] == seen[-1]["knn"] == last["knn_sklearn"]
    assert last["knn"] > 20  # of ten classes


def test_the_longest_schedule_that_fits_is_taken(record):
    def seconds(epochs):
        return 2.0 * epochs

    assert record.longest((10, 20, 40), seconds, left=45.0) == 20
    assert record.longest((10, 20, 40), seconds, left=None) == 40
    assert record.longest((10, 20, 40), seconds, left=19.0) is None


def test_all_programs_of_both_runs_are_listed_with_their_arguments(record):
    listed = record.programs()
    names = [name for name, _, _ in listed]
    assert len(set(names)) == len(names)
    assert {name.split(":")[0] for name in names} == {"reference", "record"}
    for _, function, arguments in record.programs(toy=True):
        jax.eval_shape(function, *arguments)


def test_phases_end_with_an_epoch_and_calls_cover_it(record, parts):
    recipe = dataclasses.replace(
        record.RECORD, phases=(parts.Phase(0.5, 16, 0.2), parts.Phase(1.0, 32, 0.2)), batch_size=512
    )
    plan = parts.plan(recipe, 50_000, 5)
    assert (plan.steps, plan.ends) == (5 * 97, (2, 5))
    assert [plan.phase(epoch) for epoch in range(5)] == [0, 0, 1, 1, 1]
    for per_epoch in (1, 3, 97):
        made = record.calls((512,) * 97 + (336,), per_epoch)
        assert sum(steps * size for steps, size in made) == 50_000
    with pytest.raises(ValueError, match="fewer than a batch"):
        parts.plan(recipe, 100, 5)


def test_muon_moves_a_convolution_along_an_orthogonal_matrix_and_vectors_by_adam(record, parts):
    recipe = dataclasses.replace(
        record.RECORD, learning_rate=0.1, vector_rate=0.3, weight_decay=0.0, muon_rms=None
    )
    tx = parts.optimizer_of(recipe, lambda step: recipe.learning_rate)
    params = {"kernel": jnp.ones((3, 3, 4, 8)), "bias": jnp.ones(8)}
    grads = {"kernel": jax.random.normal(jax.random.key(0), (3, 3, 4, 8)), "bias": jnp.full(8, 5.0)}
    updates, _ = jax.jit(lambda grads, params: tx.update(grads, tx.init(params), params))(grads, params)
    values = jnp.linalg.svd(updates["kernel"].reshape(36, 8), compute_uv=False)
    np.testing.assert_allclose(values, 0.1, rtol=0.4)  # five Newton-Schulz steps make them only nearly equal
    # Adam with a look ahead: its first step is half as long again.
    np.testing.assert_allclose(updates["bias"], -0.03 * 1.47, rtol=0.01)
