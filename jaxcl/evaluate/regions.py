"""Local features by k-means: which regions of images a representation takes for alike, without labels."""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxcl.typing import Array


class Clusters(NamedTuple):
    """What `k_means` found."""

    labels: np.ndarray  # int32 [n], the center nearest to each point
    centers: np.ndarray  # [k, d]
    inertia: float  # the sum of squared distances to the nearest center


def regions(key: Array, maps: np.ndarray, *, k: int, together: bool = True) -> np.ndarray:
    """The clusters int32 [n, h, w], from 0 to k - 1, of the positions of feature maps [n, h, w, c].

    As the study of local features in "Intriguing Properties of Contrastive Losses" (Chen, Luo and Li, 2021,
    arXiv:2011.02803): k-means on features of unit length, at every position of an encoder's middle maps.
    The paper shows it for block groups 2 to 4 of a ResNet.

    together
        the positions of all images are clustered as one set, so that a cluster is the same thing in each; False: each
        image by itself. The published page does not say which it was.

    >>> maps = np.array([[[[1.0, 0.0], [2.0, 0.0]], [[0.0, 3.0], [0.0, 1.0]]]])
    >>> found = regions(jax.random.key(0), maps, k=2)
    >>> found.shape, bool(found[0, 0, 0] == found[0, 0, 1] != found[0, 1, 0] == found[0, 1, 1])
    ((1, 2, 2), True)
    """
    maps = np.asarray(maps, np.float32)
    if maps.ndim != 4:
        raise ValueError(f"regions takes feature maps [n, h, w, c]; got {maps.shape}.")
    n, h, w, c = maps.shape
    length = np.linalg.norm(maps, axis=3, keepdims=True)
    maps = maps / np.maximum(length, np.finfo(np.float32).tiny)
    if together:
        return k_means(key, maps.reshape(-1, c), k=k).labels.reshape(n, h, w)
    own = [k_means(jax.random.fold_in(key, i), one.reshape(-1, c), k=k).labels for i, one in enumerate(maps)]
    return np.stack(own).reshape(n, h, w)


def k_means(key: Array, points: np.ndarray, *, k: int, iterations: int = 100, restarts: int = 4) -> Clusters:
    """Lloyd's algorithm on points [n, d]: centers are the means of the points nearest to them.

    The first centers are points, each drawn with a chance that grows with the squared distance to those drawn before
    (k-means++, Arthur and Vassilvitskii, 2007). Of `restarts` draws the one of the smallest inertia is kept. A center
    that no point is nearest to stays where it is; of equally near centers the first counts. In float32.

    >>> found = k_means(jax.random.key(0), np.array([[0.0], [1.0], [10.0], [11.0]]), k=2)
    >>> sorted(found.centers.ravel().tolist()), found.inertia
    ([0.5, 10.5], 1.0)
    """
    points = np.asarray(points, np.float32)
    if points.ndim != 2 or not 1 <= k <= len(points):
        raise ValueError(f"k_means takes points [n, d] and k from 1 to n; got {points.shape} and k={k}.")
    if iterations < 1 or restarts < 1:
        raise ValueError(f"iterations and restarts must be at least 1; got {iterations} and {restarts}.")
    best: Clusters | None = None
    for own in jax.random.split(key, restarts):
        labels, centers, inertia = _lloyd(own, points, k=k, iterations=iterations)
        if best is None or float(inertia) < best.inertia:
            best = Clusters(np.asarray(labels), np.asarray(centers), float(inertia))
    assert best is not None
    return best


def _distances(points: Array, centers: Array) -> Array:
    """Squared, [n, k]."""
    products = jnp.matmul(points, centers.T, precision=lax.Precision.HIGHEST)
    squares = jnp.sum(jnp.square(points), axis=1)[:, None] + jnp.sum(jnp.square(centers), axis=1)
    return jnp.maximum(squares - 2 * products, 0)


@functools.partial(jax.jit, static_argnames=("k", "iterations"))
def _lloyd(key: Array, points: Array, *, k: int, iterations: int) -> tuple[Array, Array, Array]:
    first_key, *draw_keys = jax.random.split(key, k)
    centers = jnp.broadcast_to(
        points[jax.random.randint(first_key, (), 0, len(points))], (k, points.shape[1])
    )
    nearest = _distances(points, centers[:1])[:, 0]
    for i, draw_key in enumerate(draw_keys, start=1):
        # Where all points are centers already, any will do.
        chosen = jax.random.categorical(draw_key, jnp.log(nearest + 1e-30))
        centers = centers.at[i].set(points[chosen])
        nearest = jnp.minimum(nearest, _distances(points, points[chosen][None])[:, 0])

    def unfinished(carry):
        number, _, moved = carry
        return (number < iterations) & moved

    def step(carry):
        number, centers, _ = carry
        own = jax.nn.one_hot(jnp.argmin(_distances(points, centers), axis=1), k)
        counts = jnp.sum(own, axis=0)[:, None]
        sums = jnp.matmul(own.T, points, precision=lax.Precision.HIGHEST)
        new = jnp.where(counts > 0, sums / jnp.maximum(counts, 1), centers)
        return number + 1, new, jnp.any(new != centers)

    _, centers, _ = lax.while_loop(unfinished, step, (0, centers, jnp.array(True)))
    distances = _distances(points, centers)
    labels = jnp.argmin(distances, axis=1).astype(jnp.int32)
    # From differences, as squares of far points would cancel.
    return labels, centers, jnp.sum(jnp.square(points - centers[labels]))
