"""Noise-contrastive losses, by float64 loops."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcl.losses import binary_nce, map_nce, patch_nce
from jaxcl.similarity import cosine, dot, scaled_dot


def draw(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape)


def map_nce_by_loops(source, targets, clip, penalty):
    n, places, d = targets.shape
    raw = np.zeros((n, n, places))
    for i in range(n):
        for j in range(n):
            for k in range(places):
                raw[i, j, k] = sum(a * b for a, b in zip(source[i], targets[j, k], strict=True)) / np.sqrt(d)
    score = clip * np.tanh(raw / clip)
    total = 0.0
    for i in range(n):
        for k in range(places):
            others = sum(np.exp(score[i, j, m]) for j in range(n) if j != i for m in range(places))
            total -= np.log(np.exp(score[i, i, k]) / (np.exp(score[i, i, k]) + others))
    return total / (n * places) + penalty * np.sum(raw**2) / raw.size


def test_map_nce_is_the_loops_of_its_equation():
    source, targets = 3 * draw(0, 4, 5), 3 * draw(1, 4, 3, 5)
    with jax.enable_x64(True):
        got = jax.jit(partial(map_nce, clip=2.0, penalty=0.3))(source, targets)
    assert got.dtype == jnp.float64
    np.testing.assert_allclose(got, map_nce_by_loops(source, targets, 2.0, 0.3), rtol=1e-12)


def test_the_penalty_is_on_scores_before_the_clip():
    source, targets = np.full((2, 4), 50.0, np.float32), np.full((2, 1, 4), 50.0, np.float32)
    np.testing.assert_allclose(
        jax.jit(partial(map_nce, penalty=1.0))(source, targets), np.log(2) + (4 * 2500 / 2) ** 2, rtol=1e-6
    )


def test_other_places_of_the_own_map_are_no_negatives():
    # Equal scores everywhere: each positive is one among itself and the places of other images.
    np.testing.assert_allclose(
        jax.jit(lambda: map_nce(jnp.ones((3, 4)), jnp.ones((3, 7, 4)), penalty=0.0))(),
        np.log(1 + 2 * 7),
        rtol=1e-6,
    )


def test_a_clip_keeps_scores_of_any_size_finite_and_half_precision_is_computed_in_float32():
    source, targets = 1e4 * draw(0, 4, 5), 1e4 * draw(1, 4, 3, 5)
    got = jax.jit(partial(map_nce, penalty=0.0))(source.astype(jnp.bfloat16), targets.astype(jnp.bfloat16))
    assert got.dtype == jnp.float32
    assert 0 <= float(got) < 50


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="Embed both with the same width"):
        map_nce(jnp.ones((2, 3)), jnp.ones((2, 5, 4)))
    with pytest.raises(ValueError, match="3 dimensions"):
        map_nce(jnp.ones((2, 3)), jnp.ones((2, 3)))
    with pytest.raises(ValueError, match="the negatives are other images"):
        map_nce(jnp.ones((1, 3)), jnp.ones((1, 5, 3)))


def test_binary_nce_is_the_loops_of_its_equation():
    scores, z, images = 3 * draw(0, 4, 6), 70.0, 50
    noise, total = 5 / images, 0.0
    for row in scores:
        p = np.exp(row) / z
        total -= np.log(p[0] / (p[0] + noise + 1e-7))
        total -= sum(np.log(noise / (x + noise + 1e-7)) for x in p[1:])
    with jax.enable_x64(True):
        got = jax.jit(partial(binary_nce, images=images))(scores, z)
    np.testing.assert_allclose(got, total / len(scores), rtol=1e-12)


def test_binary_nce_stays_finite_where_exponentials_would_not():
    scores = jnp.array([[200.0, -200.0, 0.0]])
    gradient = jax.jit(jax.grad(lambda s: binary_nce(s, 1.0, images=100)))(scores)
    assert np.all(np.isfinite(gradient))


@pytest.mark.parametrize("block_size", [0, 5])
@pytest.mark.parametrize("below", [1, 2])
def test_patch_nce_is_the_loops_of_its_equation(below, block_size):
    p, t = 3 * draw(0, 2, 4, 3, 5), 3 * draw(1, 2, 4, 3, 5)
    total, count = 0.0, 0
    for i in range(2):
        for r in range(4 - below):
            for c in range(3):
                exps = [np.exp(0.2 * (p[i, r, c] @ x)) for image in t for row in image for x in row]
                total -= np.log(np.exp(0.2 * (p[i, r, c] @ t[i, r + below, c])) / sum(exps))
                count += 1
    with jax.enable_x64(True):
        got = jax.jit(partial(patch_nce, below=below, scale=0.2, block_size=block_size))(p, t)
    np.testing.assert_allclose(got, total / count, rtol=1e-12)


@pytest.mark.parametrize("similarity", [dot, cosine])
def test_patch_nce_in_blocks_has_the_gradient_of_the_whole_matrix(similarity):
    grids = [jnp.asarray(draw(seed, 2, 4, 3, 5), jnp.float32) for seed in (0, 1)]

    def step(block_size):
        loss = partial(patch_nce, below={1: 1.0, 3: 0.5}, similarity=similarity, block_size=block_size)
        return jax.jit(jax.value_and_grad(loss, (0, 1)))(*grids)

    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), step(7), step(0))


def test_patch_nce_of_many_patches_needs_no_matrix_of_them():
    shape = jax.ShapeDtypeStruct((64, 7, 7, 8), jnp.float32)

    def temporaries(block_size):
        loss = partial(patch_nce, below={2: 1.0}, block_size=block_size)
        made = jax.jit(jax.grad(loss, (0, 1))).lower(shape, shape).compile()
        return made.memory_analysis().temp_size_in_bytes

    assert temporaries(None) < temporaries(0) / 4
    with pytest.raises(ValueError, match="similarity=dot or similarity=cosine"):
        patch_nce(
            jnp.ones((2, 4, 3, 5)), jnp.ones((2, 4, 3, 5)), below=1, similarity=scaled_dot, block_size=4
        )


def test_patch_nce_of_several_rows_is_their_weighted_sum():
    p, t = jnp.asarray(draw(0, 2, 5, 3, 4)), jnp.asarray(draw(1, 2, 5, 3, 4))
    weights = {2: 1.0, 3: 0.5, 4: 3.0}

    @jax.jit
    def both(p, t):
        apart = sum(weight * patch_nce(p, t, below=below) for below, weight in weights.items())
        return patch_nce(p, t, below=weights), apart

    np.testing.assert_allclose(*both(p, t), rtol=1e-6)
    with pytest.raises(ValueError, match="at least one number of rows"):
        patch_nce(p, t, below={})


def test_patch_nce_of_what_is_alike_is_the_log_of_all_patches_of_the_batch():
    np.testing.assert_allclose(
        jax.jit(lambda: patch_nce(jnp.ones((3, 4, 5, 2)), jnp.ones((3, 4, 5, 2)), below=3))(),
        np.log(60),
        rtol=1e-6,
    )


def test_rows_beyond_the_grid_are_refused():
    with pytest.raises(ValueError, match="below must be 1 to 3 rows for a grid of 4 rows; got 4"):
        patch_nce(jnp.ones((3, 4, 5, 2)), jnp.ones((3, 4, 5, 2)), below=4)


def test_patch_nce_of_groups_compares_neighbours_in_the_batch_alone():
    """As Bolts does on the GPUs of a batch: the mean of the loss of each of them, and its gradient."""
    grids = [jnp.asarray(draw(seed, 6, 4, 3, 5), jnp.float32) for seed in (0, 1)]

    def apart(p, t):
        plain = partial(patch_nce, below={1: 1.0, 2: 0.5}, block_size=0)
        return sum(plain(p[i : i + 2], t[i : i + 2]) for i in (0, 2, 4)) / 3

    truth = jax.jit(jax.value_and_grad(apart, (0, 1)))(*grids)
    for block_size in (0, 5):
        loss = partial(patch_nce, below={1: 1.0, 2: 0.5}, block_size=block_size, group_size=2)
        found = jax.jit(jax.value_and_grad(loss, (0, 1)))(*grids)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-7), found, truth)
    both = jax.jit(lambda p, t: (patch_nce(p, t, below=1, group_size=6), patch_nce(p, t, below=1)))(*grids)
    assert float(both[0]) == float(both[1])
    with pytest.raises(
        ValueError,
        match=r"compares groups of 4 images, and the 6 of a batch.*--group-size, where 0 compares all",
    ):
        patch_nce(*grids, below=1, group_size=4)
    with pytest.raises(ValueError, match="must be at least 1; got -1"):
        patch_nce(*grids, below=1, group_size=-1)


def test_of_3072_images_on_64_gpus_each_patch_is_compared_with_48_times_49():
    """Falcon and Cho's weights 1 to 5 of a grid of 7 x 7; what is alike is found by chance."""
    below = {2: 1.0, 3: 2.0, 4: 3.0, 5: 4.0, 6: 5.0}
    few = jnp.zeros((96, 7, 7, 1))
    value = jax.jit(partial(patch_nce, below=below, group_size=48))(few, few)
    np.testing.assert_allclose(value, 15 * np.log(48 * 49), rtol=1e-5)


def test_groups_need_the_memory_of_one():
    """On an accelerator a group of 48 grids of 49 patches is one tile: not those of all groups at once."""

    def temporaries(images):
        shape = jax.ShapeDtypeStruct((images, 7, 7, 8), jnp.float32)
        loss = partial(patch_nce, below={2: 1.0}, block_size=2048, group_size=48)
        made = jax.jit(jax.grad(loss, (0, 1))).lower(shape, shape).compile()
        return made.memory_analysis().temp_size_in_bytes

    assert temporaries(8 * 48) < 1.5 * temporaries(2 * 48)
