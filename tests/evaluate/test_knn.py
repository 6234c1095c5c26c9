"""kNN against scikit-learn and against a sort of the whole matrix of similarities."""

import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.neighbors import KNeighborsClassifier

from jaxcl.evaluate import knn, knn_accuracy, nearest

module = importlib.import_module("jaxcl.evaluate.knn")


def blobs(n, *, classes=7, d=12, spread=1.0, seed=0):
    rng = np.random.default_rng(seed)
    centers = np.random.default_rng(99).normal(size=(classes, d))
    y = rng.integers(0, classes, n)
    return (centers[y] + spread * rng.normal(size=(n, d))).astype(np.float32), y


BANK, LABELS = blobs(203)
QUERIES, ANSWERS = blobs(37, seed=1)


def sorted_matrix(bank, queries, k):
    """The definition, in float64: all similarities, a stable sort."""
    unit = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in (bank.astype(float), queries.astype(float))]
    similarities = unit[1] @ unit[0].T
    order = np.argsort(-similarities, axis=1, kind="stable")[:, :k]
    return order, np.take_along_axis(similarities, order, axis=1)


@pytest.mark.parametrize("block", [None, (5, 16), (64, 100)])
@pytest.mark.parametrize("k", [1, 20, 203])
def test_the_neighbors_are_those_of_the_whole_sorted_matrix(k, block):
    indices, similarities = nearest(BANK, QUERIES, k, block=block)
    want_indices, want = sorted_matrix(BANK, QUERIES, k)
    np.testing.assert_allclose(similarities, want, atol=1e-6)
    np.testing.assert_array_equal(indices, want_indices)


@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    k=st.sampled_from([1, 3, 17]),
    block=st.sampled_from([(4, 5), (40, 8), (9, 64)]),
)
def test_of_equal_neighbors_the_first_counts_as_nearer_in_every_block(seed, k, block):
    # Rows along the axes: many exact ties, and similarities 0, 1, -1 without rounding.
    rng = np.random.default_rng(seed)
    bank = np.eye(4, dtype=np.float32)[rng.integers(0, 4, 40)] * rng.choice([-1, 1], (40, 1))
    queries = np.eye(4, dtype=np.float32)[rng.integers(0, 4, 9)]
    indices, _ = nearest(bank, queries, k, block=block)
    np.testing.assert_array_equal(indices, np.argsort(-(queries @ bank.T), axis=1, kind="stable")[:, :k])


@pytest.mark.parametrize("k", [1, 4, 10, 51])
def test_the_majority_is_that_of_scikit_learn(k):
    for labels in (LABELS, LABELS % 2, np.arange(203) % 50 * 3 + 1):  # The last has ties in most votes.
        peer = KNeighborsClassifier(k, metric="cosine", algorithm="brute").fit(BANK, labels)
        np.testing.assert_array_equal(knn(BANK, labels, QUERIES, k=k), peer.predict(QUERIES))


@pytest.mark.parametrize("temperature", [0.07, 1.0])
def test_the_weighted_vote_is_that_of_scikit_learn_with_the_same_weights(temperature):
    weights = lambda distance: np.exp((1 - distance) / temperature)  # noqa: E731
    peer = KNeighborsClassifier(40, metric="cosine", algorithm="brute", weights=weights).fit(BANK, LABELS)
    got = knn(BANK, LABELS, QUERIES, k=40, vote="weighted", temperature=temperature)
    np.testing.assert_array_equal(got, peer.predict(QUERIES))


def test_a_small_temperature_leaves_the_nearest_and_a_large_one_the_majority():
    near = knn(BANK, LABELS, QUERIES, k=30, vote="weighted", temperature=1e-5)
    np.testing.assert_array_equal(near, knn(BANK, LABELS, QUERIES, k=1))
    far = knn(BANK, LABELS, QUERIES, k=15, vote="weighted", temperature=1e6)
    votes = np.sort(
        np.stack([np.bincount(LABELS[i], minlength=7) for i in nearest(BANK, QUERIES, 15)[0]]), axis=1
    )
    clear = votes[:, -1] > votes[:, -2]
    np.testing.assert_array_equal(far[clear], knn(BANK, LABELS, QUERIES, k=15)[clear])


def test_every_image_is_its_own_nearest_neighbor():
    assert knn_accuracy(BANK, LABELS, BANK, LABELS, k=1) == 1.0


def test_of_classes_with_equal_votes_the_smallest_label_wins():
    bank = np.eye(3, dtype=np.float32)
    for labels in ([9, 4, 6], [4, 9, 6]):
        assert knn(bank, np.array(labels), np.ones((1, 3)), k=3).tolist() == [4]


def test_blobs_are_told_apart_and_shuffled_labels_are_chance():
    tight, y = blobs(300, spread=0.05, seed=2)
    assert knn_accuracy(tight[:200], y[:200], tight[200:], y[200:], k=5) == 1.0
    x, y = blobs(3000, seed=3)
    y = np.random.default_rng(4).permutation(y)
    chance = knn_accuracy(x[:1500], y[:1500], x[1500:], y[1500:], k=10)
    assert abs(chance - 1 / 7) < 4 * np.sqrt(1 / 7 * 6 / 7 / 1500)


def test_the_length_of_a_feature_changes_nothing():
    scale = 10.0 ** np.random.default_rng(0).integers(-25, 18, (203, 1))
    np.testing.assert_array_equal(nearest(BANK * scale, 1e-25 * QUERIES, 9)[0], nearest(BANK, QUERIES, 9)[0])


def test_memory_does_not_grow_with_the_bank():
    def temporaries(m):
        bank, queries = (
            jax.ShapeDtypeStruct((m, 64), jnp.float32),
            jax.ShapeDtypeStruct((64, 64), jnp.float32),
        )
        compiled = module._nearest.lower(bank, queries, k=20, block=1024).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    small, large = temporaries(4096), temporaries(262144)
    assert large <= small + 1024
    assert large < 64 * 262144 * 4 / 20  # A small part of one [queries, bank] matrix.


def test_the_bank_is_copied_once():
    bank, block = (jax.ShapeDtypeStruct((n, 64), jnp.float32) for n in (262144, 4096))
    compiled = module._write.lower(bank, block, jax.ShapeDtypeStruct((), jnp.int32)).compile()
    memory = compiled.memory_analysis()
    assert memory.alias_size_in_bytes == 262144 * 64 * 4  # what is written to is what is given
    assert memory.temp_size_in_bytes < 4 * 4096 * 64 * 4


@pytest.mark.parametrize("rows", [1, 7, 202, 203, 4096])
def test_a_bank_in_blocks_is_the_bank(rows):
    np.testing.assert_allclose(module._unit_bank(BANK, rows=rows), module._unit_rows(BANK), rtol=1e-6)


def test_errors_say_what_to_do():
    with pytest.raises(ValueError, match="kNN needs labels: this data set has none"):
        knn(BANK, None, QUERIES, k=1)
    with pytest.raises(ValueError, match=r"kNN needs labels: one integer a row, \(203,\); got int64 \(3,\)"):
        knn(BANK, LABELS[:3], QUERIES, k=1)
    with pytest.raises(ValueError, match="negative, which marks unlabelled"):
        knn(BANK, LABELS - 1, QUERIES, k=1)
    with pytest.raises(ValueError, match="between 1 and the size of the bank, 203; got 204"):
        nearest(BANK, QUERIES, 204)
    with pytest.raises(ValueError, match=r"\(203, 12\) and test_features \(37, 5\) must have the same width"):
        nearest(BANK, QUERIES[:, :5], 3)
    with pytest.raises(ValueError, match="vote must be one of majority, weighted"):
        knn(BANK, LABELS, QUERIES, k=1, vote="plurality")
    with pytest.raises(ValueError, match="temperature must be positive"):
        knn(BANK, LABELS, QUERIES, k=1, vote="weighted", temperature=0)
    broken = BANK.copy()
    broken[7, 2] = np.nan
    with pytest.raises(
        ValueError, match=r"train_features hold NaN or infinity in 1 of 203 rows \(the first is row 7\)"
    ):
        nearest(broken, QUERIES, 3)
    with pytest.warns(UserWarning, match="train_features are alike in all 203 rows: .* collapsed"):
        nearest(np.ones_like(BANK), QUERIES, 3)
    with pytest.raises(ValueError, match=r"must be \[n, d\]"):
        nearest(BANK[0], QUERIES, 3)
