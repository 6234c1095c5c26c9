"""Clusters of local features: Lloyd's algorithm ends where centers are means of what is nearest to them."""

import jax
import numpy as np
import pytest

from jaxcl.evaluate import k_means, regions


def points(seed=0, n=90, d=3):
    """Three heaps, far from each other."""
    rng = np.random.default_rng(seed)
    centers = np.array([[0, 0, 0], [8, 0, 0], [0, 8, 0]])[:, :d]
    own = np.arange(n) % 3
    return (centers[own] + rng.normal(0, 0.5, (n, d))).astype(np.float32), own


def test_a_center_is_the_mean_of_the_points_that_are_nearest_to_it():
    x = np.random.default_rng(1).normal(size=(70, 4)).astype(np.float32)
    found = k_means(jax.random.key(0), x, k=5)
    total = 0.0
    for i, point in enumerate(x.astype(np.float64)):
        distances = [float(np.sum((point - center) ** 2)) for center in found.centers]
        assert distances[found.labels[i]] <= min(distances) + 1e-5
        total += distances[found.labels[i]]
    for j, center in enumerate(found.centers):
        np.testing.assert_allclose(center, x[found.labels == j].mean(axis=0), atol=1e-5)
    assert found.inertia == pytest.approx(total, rel=1e-5)


def test_heaps_are_found():
    x, own = points()
    labels = k_means(jax.random.key(0), x, k=3).labels
    assert len({(a, b) for a, b in zip(labels, own, strict=True)}) == 3


def test_as_many_clusters_as_points_leave_nothing_over():
    x = np.arange(6, dtype=np.float32)[:, None]
    found = k_means(jax.random.key(0), x, k=6)
    assert found.inertia == 0
    assert sorted(found.labels) == list(range(6))


def test_equal_points_are_one_cluster():
    found = k_means(jax.random.key(0), np.ones((5, 2)), k=3)
    assert len(set(found.labels)) == 1
    assert found.inertia == 0


def test_regions_look_at_directions_and_not_at_lengths():
    x, own = points(n=64)
    maps = (x + 1e-3).reshape(4, 4, 4, 3)
    lengths = np.random.default_rng(2).uniform(0.1, 10, (4, 4, 4, 1)).astype(np.float32)
    one, other = (regions(jax.random.key(0), m, k=3) for m in (maps, maps * lengths))
    np.testing.assert_array_equal(one, other)
    assert one.shape == (4, 4, 4)


def test_images_are_clustered_together_or_each_by_itself():
    """Two images of one direction each: together they are two clusters, alone each is one."""
    maps = np.zeros((2, 2, 2, 2), np.float32)
    maps[0, ..., 0] = maps[1, ..., 1] = 1
    both = regions(jax.random.key(0), maps, k=2)
    assert both[0].min() == both[0].max() != both[1].min() == both[1].max()
    alone = regions(jax.random.key(0), maps, k=2, together=False)
    assert all(len(np.unique(image)) == 1 for image in alone)


@pytest.mark.parametrize(("shape", "k"), [((5, 2), 6), ((5, 2), 0), ((5,), 1)])
def test_more_clusters_than_points_are_refused(shape, k):
    with pytest.raises(ValueError, match=r"points \[n, d\] and k from 1 to n"):
        k_means(jax.random.key(0), np.zeros(shape), k=k)
