"""The k nearest neighbors of a feature by cosine similarity, exact, in memory that does not grow with the bank.

Wu et al. (2018, arXiv:1805.01978, section 3.4) made the weighted vote the usual quick check of a representation.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxcl import devices
from jaxcl.evaluate.checks import check_features, check_labels
from jaxcl.evaluate.figures import TOP
from jaxcl.typing import Array

VOTES = ("majority", "weighted")


def knn(
    train_features: np.ndarray,
    train_labels: np.ndarray,
    test_features: np.ndarray,
    *,
    k: int,
    vote: str = "majority",
    temperature: float = 0.1,
    block: tuple[int, int] | None = None,
) -> np.ndarray:
    """The label [n] that the k nearest rows of the bank give every test feature.

    train_features [m, d], test_features [n, d]
        compared by cosine similarity, in float32. Of equally similar rows the first counts as nearer.
    vote
        "majority": every neighbor has one vote, as scikit-learn's `KNeighborsClassifier(metric="cosine")`.
        "weighted": neighbor i has `exp(similarity_i / temperature)` votes (Wu et al. 2018, eq. 8 and below; MoCo's
        CIFAR demo takes k = 200 and temperature 0.1).
        Of classes with equal votes the smallest label wins.
    block
        (queries, bank rows) compared at a time; None chooses. It changes speed and memory, never the neighbors of
        features whose similarities differ.

    Raises ValueError where the labels are missing, hold a negative number (-1 marks unlabelled images), shapes do
    not fit, k exceeds the bank, or a feature is not finite.

    >>> bank, labels = np.array([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0]]), np.array([7, 7, 3])
    >>> knn(bank, labels, np.array([[2.0, 0.0], [0.1, 5.0]]), k=1).tolist()
    [7, 3]
    >>> knn(bank, labels, np.array([[0.1, 5.0]]), k=3).tolist()
    [7]
    >>> knn(bank, labels, np.array([[0.1, 5.0]]), k=3, vote="weighted").tolist()
    [3]
    """
    return knn_ranked(
        train_features, train_labels, test_features, k=k, vote=vote, temperature=temperature, block=block
    )[:, 0]


def knn_ranked(
    train_features: np.ndarray,
    train_labels: np.ndarray,
    test_features: np.ndarray,
    *,
    k: int,
    vote: str = "majority",
    temperature: float = 0.1,
    block: tuple[int, int] | None = None,
) -> np.ndarray:
    """The labels [n, min(5, classes)] of the classes with the most votes, the best first; otherwise as `knn`.

    A class without a vote is no answer: where fewer than five have one, -1 stands in its place.

    >>> bank, labels = np.array([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [-1.0, 0.0]]), np.array([7, 7, 3, 5])
    >>> knn_ranked(bank, labels, np.array([[2.0, 0.1]]), k=3).tolist()
    [[7, 3, -1]]
    """
    labels = _checked(train_labels, len(train_features), vote, temperature)
    indices, similarities = nearest(train_features, test_features, k, block=block)
    return _voted(indices, similarities, labels, vote, temperature)


def knn_ranked_each(
    train_features: np.ndarray,
    train_labels: np.ndarray,
    test_features: np.ndarray,
    *,
    k: int,
    vote: str = "majority",
    temperature: float = 0.1,
    block: tuple[int, int] | None = None,
) -> np.ndarray:
    """`knn_ranked` of m encoders at once, features [m, n, d] and [m, q, d] of the same images: [m, q, min(5, classes)].

    One program compares the queries of all encoders, each with its own bank; memory holds m banks. In one process.
    """
    labels = _checked(train_labels, np.shape(train_features)[1], vote, temperature)
    checked = [
        np.stack([check_features(name, own) for own in features])
        for name, features in (("train_features", train_features), ("test_features", test_features))
    ]
    bank, queries = checked
    _check_query(bank.shape[1:], queries.shape[1:], k)
    rows, columns = _block(block, k)
    rows, columns, n = min(rows, queries.shape[1]), min(columns, bank.shape[1]), queries.shape[1]
    unit_bank = _unit_rows_each(bank)
    parts = []
    for first in range(0, n, rows):
        part = queries[:, first : first + rows]
        part = np.pad(part, ((0, 0), (0, rows - part.shape[1]), (0, 0)))
        parts.append(_nearest_each(unit_bank, part, k=k, block=columns))
        if len(parts) > 4:  # Let no more than a few blocks wait.
            parts[-5][0].block_until_ready()
    indices, similarities = (
        np.concatenate([np.asarray(x) for x in column], axis=1)[:, :n] for column in zip(*parts, strict=True)
    )
    return np.stack(
        [_voted(i, s, labels, vote, temperature) for i, s in zip(indices, similarities, strict=True)]
    )


def _checked(labels: np.ndarray, n: int, vote: str, temperature: float) -> np.ndarray:
    if vote not in VOTES:
        raise ValueError(f"vote must be one of {', '.join(VOTES)}; got {vote!r}.")
    if not temperature > 0:
        raise ValueError(f"temperature must be positive; got {temperature}.")
    return check_labels("kNN", labels, n)


def _voted(
    indices: np.ndarray, similarities: np.ndarray, labels: np.ndarray, vote: str, temperature: float
) -> np.ndarray:
    """The labels [n, min(5, classes)] with the most votes of the neighbors [n, k]."""
    classes, labels = np.unique(labels, return_inverse=True)
    if vote == "majority":
        weights = np.ones_like(similarities)
    else:
        # Relative to the nearest: a small temperature would overflow, and the winner is the same.
        weights = np.exp((similarities - similarities[:, :1]).astype(np.float64) / temperature)
    best = np.empty((len(indices), min(TOP, len(classes))), np.int64)
    rows = max(1, 2**22 // len(classes))
    for first in range(0, len(indices), rows):
        part = slice(first, first + rows)
        size = len(indices[part])
        cells = np.arange(size)[:, None] * len(classes) + labels[indices[part]]
        counts = np.bincount(cells.ravel(), weights[part].ravel(), minlength=size * len(classes))
        votes = counts.reshape(size, -1)
        order = np.argsort(-votes, axis=1, kind="stable")[:, : best.shape[1]]
        best[part] = np.where(np.take_along_axis(votes, order, axis=1) > 0, classes[order], -1)
    return best


def knn_accuracy(
    train_features: np.ndarray,
    train_labels: np.ndarray,
    test_features: np.ndarray,
    test_labels: np.ndarray,
    **settings: Any,
) -> float:
    """The fraction, in [0, 1], of the test features that `knn` labels correctly; `settings` as there (k is needed).

    >>> x = np.array([[1.0, 0.0], [0.0, 1.0]])
    >>> knn_accuracy(x, np.array([0, 1]), x, np.array([0, 0]), k=1)
    0.5
    """
    test_labels = check_labels("kNN accuracy", test_labels, len(test_features))
    return float(np.mean(knn(train_features, train_labels, test_features, **settings) == test_labels))


def nearest(
    train_features: np.ndarray, test_features: np.ndarray, k: int, *, block: tuple[int, int] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """The k rows of the bank most similar to every test feature: indices int32 [n, k], cosine similarities [n, k].

    The nearest comes first; of equally similar rows, the one with the smaller index. The n x m matrix of
    similarities is never made: a block of it lives at a time, and is merged into a running top k. Beside the features
    that are given, memory holds one copy of the bank, at unit length, and blocks. With several processes all of them
    must call it, with the same features: each looks for the neighbors of its part of the queries.

    >>> indices, similarities = nearest(np.array([[1.0, 0.0], [0.0, 1.0]]), np.array([[3.0, 4.0]]), 2)
    >>> indices.tolist(), similarities.round(4).tolist()
    ([[1, 0]], [[0.8..., 0.6...]])
    """
    bank = check_features("train_features", train_features)
    queries = check_features("test_features", test_features)
    _check_query(bank.shape, queries.shape, k)
    rows, columns = _block(block, k)
    n = len(queries)
    queries = queries[devices.own_rows(n)]
    rows = min(rows, len(queries))
    unit_bank = _unit_bank(bank)
    parts = []
    for first in range(0, len(queries), rows):
        part = queries[first : first + rows]
        part = np.pad(part, ((0, rows - len(part)), (0, 0)))
        parts.append(_nearest(unit_bank, part, k=k, block=min(columns, len(bank))))
        if len(parts) > 4:  # Let no more than a few blocks wait.
            parts[-5][0].block_until_ready()
    indices, similarities = (
        np.concatenate([np.asarray(x) for x in column]) for column in zip(*parts, strict=True)
    )
    found = indices[: len(queries)], similarities[: len(queries)]
    return devices.gather_rows(found[0], n), devices.gather_rows(found[1], n)


def _check_query(bank: tuple[int, ...], queries: tuple[int, ...], k: int) -> None:
    if bank[1] != queries[1]:
        raise ValueError(
            f"train_features {bank} and test_features {queries} must have the same width: were they made"
            " by the same encoder?"
        )
    if not 1 <= k <= bank[0]:
        raise ValueError(f"k must be between 1 and the size of the bank, {bank[0]}; got {k}.")


def _block(block: tuple[int, int] | None, k: int) -> tuple[int, int]:
    rows, columns = block or (256, 4096 if k <= 32 else 16384)
    if rows < 1 or columns < 1:
        raise ValueError(f"block must be two positive numbers, (queries, bank rows); got {block}.")
    return rows, columns


def _unit_bank(bank: np.ndarray, *, rows: int = 4096) -> Array:
    """The rows [m, d] at unit length, on the device: written block by block into the one copy that is kept there."""
    # XLA on a CPU sums fewer rows than these in another order; so the numbers are those of the bank taken as a whole.
    rows = min(rows, len(bank))
    filled = jnp.zeros(bank.shape, bank.dtype)
    for first in range(0, len(bank), rows):
        # The last block reaches back over rows that are there already, so that there is one program.
        first = min(first, len(bank) - rows)
        filled = _write(filled, _unit_rows(bank[first : first + rows]), np.int32(first))
        filled.block_until_ready()  # Blocks that wait would be copies, too.
    return filled


@functools.partial(jax.jit, donate_argnums=0)
def _write(filled: Array, block: Array, first: Array) -> Array:
    return lax.dynamic_update_slice_in_dim(filled, block, first, 0)


@jax.jit
def _unit_rows(x: Array) -> Array:
    # Scaled by the largest entry first: features of any magnitude have a square that is a float32.
    x = x / jnp.maximum(jnp.max(jnp.abs(x), axis=1, keepdims=True), jnp.finfo(x.dtype).tiny)
    return x * lax.rsqrt(jnp.maximum(jnp.sum(jnp.square(x), axis=1, keepdims=True), jnp.finfo(x.dtype).tiny))


@functools.partial(jax.jit, static_argnames=("k", "block"))
def _nearest(bank: Array, queries: Array, *, k: int, block: int) -> tuple[Array, Array]:
    """bank [m, d] of unit rows, queries [n, d] -> indices [n, k], similarities [n, k]; one [n, block] at a time."""
    m, n = bank.shape[0], queries.shape[0]
    queries = _unit_rows(queries)
    # A row of the block is searched through the maxima of its groups: the k largest entries lie in the k groups with
    # the largest maxima. About sqrt(block k) candidates stay of block entries, which is what makes k = 200 cheap.
    group = 1 << round(np.log2(max(block / k, 1)) / 2)
    groups = -(-block // group)
    picked = min(k, groups)

    def merge(i, best):
        # The last block reaches back over rows that were seen, which are struck out: no padded copy of the bank.
        first = jnp.minimum(i * block, m - block)
        part = lax.dynamic_slice_in_dim(bank, first, block)
        similarities = lax.dot_general(
            queries,
            part,
            (((1,), (1,)), ((), ())),
            precision=lax.Precision.HIGHEST,
            preferred_element_type=bank.dtype,
        )
        similarities = jnp.where(first + jnp.arange(block) < i * block, -jnp.inf, similarities)
        similarities = jnp.pad(similarities, ((0, 0), (0, groups * group - block)), constant_values=-jnp.inf)
        similarities = similarities.reshape(n, groups, group)
        _, chosen = lax.top_k(jnp.max(similarities, axis=2), picked)
        # In the bank's order, so that of equals the first wins.
        chosen = jnp.sort(chosen, axis=1)[:, :, None]
        candidates = jnp.take_along_axis(similarities, chosen, axis=1).reshape(n, -1)
        numbers = (first + chosen * group + jnp.arange(group)).reshape(n, -1).astype(jnp.int32)
        best_numbers, best_similarities = best
        candidates = jnp.concatenate([best_similarities, candidates], axis=1)
        numbers = jnp.concatenate([best_numbers, numbers], axis=1)
        similarities, order = lax.top_k(candidates, k)
        return jnp.take_along_axis(numbers, order, axis=1), similarities

    nothing = jnp.zeros((n, k), jnp.int32), jnp.full((n, k), -jnp.inf, bank.dtype)
    return lax.fori_loop(0, -(-m // block), merge, nothing)


_unit_rows_each = jax.jit(jax.vmap(_unit_rows))


@functools.partial(jax.jit, static_argnames=("k", "block"))
def _nearest_each(banks: Array, queries: Array, *, k: int, block: int) -> tuple[Array, Array]:
    """`_nearest` of m banks [m, b, d] and queries [m, n, d]."""
    return jax.vmap(functools.partial(_nearest, k=k, block=block))(banks, queries)
