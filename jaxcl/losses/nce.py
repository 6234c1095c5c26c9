"""Noise-contrastive losses of feature maps, of grids of patches, and of a memory of every image."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import jax.numpy as jnp
from jax import lax
from jax.scipy.special import logsumexp

from jaxcl import collectives
from jaxcl.losses import blockwise, checks
from jaxcl.losses.looc import info_nce
from jaxcl.shapes import widened
from jaxcl.similarity import cosine, dot, normalize, scaled_dot, tanh_clip
from jaxcl.typing import Array, Similarity


def map_nce(
    source: Array,
    targets: Array,
    *,
    clip: float | Array | None = 20.0,
    penalty: float | Array = 0.05,
    similarity: Similarity = scaled_dot,
    axis_name: str | None = None,
) -> Array:
    """AMDIM's: one vector of an image finds the positions of its other view's map among those of all images.

    source [n, d] and targets [n, l, d], the l positions of a map -> scalar. With s_ijk the similarity of source i and
    position k of image j's map (by default their product over sqrt(d)), and c(s) = clip tanh(s / clip):

        loss =  1/(n l) sum_i sum_k -log( exp c(s_iik) / ( exp c(s_iik) + sum_{j != i, m} exp c(s_ijm) ) )
              + penalty mean(s^2)

    (Bachman et al. 2019, arXiv:1906.00910, eq. 4 and section 3.4, in the order of their code: the penalty is on scores
    before they are clipped, all of them.) Other positions of the image's own map are neither positives nor negatives.

    clip
        20 in the authors' code, 10 in PyTorch Lightning Bolts' default; None: not clipped.
    penalty
        0.05 in the authors' code since July 2019, and in Bolts, whose figures Falcon and Cho (2020) report; 0.04 in the
        authors' before.

    axis_name
        the axis over which rows are split under `shard_map` or `pmap`; None where one program sees the global batch.

    Raises ValueError for a batch of one image, or shapes that do not fit.

    >>> s, t = jnp.eye(2), jnp.eye(2)[:, None]
    >>> round(float(map_nce(s, t, penalty=0.0, clip=None)), 4)  # log(1 + exp(-1 / sqrt 2))
    0.4008
    """
    source, targets = checks.rows("map_nce", "source", source), as_floats("map_nce", "targets", targets, 3)
    if targets.shape[::2] != source.shape:
        raise ValueError(
            "map_nce pairs source [n, d] with targets [n, positions, d];"
            f" got {source.shape} and {targets.shape}. Embed both with the same width."
        )
    n, positions = targets.shape[:2]
    total = checks.several("map_nce", n, axis_name, "the negatives are other images")
    if clip is not None:
        checks.positive("map_nce", "clip", clip)
    everyone = collectives.gather(targets, axis_name).astype(source.dtype)
    raw = similarity(source, everyone.reshape(total * positions, -1)).reshape(n, total, positions)
    scores = raw if clip is None else tanh_clip(raw, clip)
    own = (collectives.rows(n, axis_name)[:, None] == jnp.arange(total))[:, :, None]
    positive = jnp.sum(jnp.where(own, scores, 0), axis=1)  # [n, positions]
    negatives = logsumexp(jnp.where(own, -jnp.inf, scores), axis=(1, 2))[:, None]
    nce = jnp.mean(jnp.logaddexp(positive, negatives) - positive)
    return collectives.mean(nce + penalty * jnp.mean(jnp.square(raw)), axis_name)


def patch_nce(
    predictions: Array,
    targets: Array,
    *,
    below: int | Mapping[int, float],
    scale: float | Array = 0.1,
    similarity: Similarity = dot,
    group_size: int | None = None,
    block_size: int | None = None,
    axis_name: str | None = None,
) -> Array:
    """CPC's: each prediction finds the patch so many rows below among all patches of the batch.

    predictions, targets [n, h, w, d], of grids of patches -> scalar. With s = scale * similarity (a product) of the
    prediction at row r, column c of image i and a target,

        loss = mean over i, r < h - below, c of
               -log( exp s(i r c, i (r + below) c) / sum over all images, rows and columns of exp s(i r c, j p q) )

    (van den Oord et al. 2018, arXiv:1807.03748, eq. 4; Henaff et al. 2019, arXiv:1905.09272, eq. 2.) Other patches of
    the same image are negatives as well.

    below
        how many rows; or {how many: weight}, for the weighted sum of the losses of predictions that serve them all:
        their scores, and the sums over all patches, are then computed once.
    group_size
        how many images, neighbours in the batch, are compared with each other: the loss is the mean of those of these
        groups. None: all n. (Bolts compares what lies on one of its GPUs: of a batch of 3,072 on 64 of them 48.)
    block_size
        as in `losses.contrast`: None computes blockwise where the matrix of scores would be large, 0 never.

    axis_name
        the axis over which rows are split under `shard_map` or `pmap`; None where one program sees the global batch.

    >>> grid = jnp.array([[1.0, 0.0], [0.0, 1.0]])[None, :, None]          # two patches, one above the other
    >>> round(float(patch_nce(grid[:, ::-1], grid, below=1, scale=1.0)), 4)      # log(1 + 1/e)
    0.3133
    """
    predictions = as_floats("patch_nce", "predictions", predictions, 4)
    targets = as_floats("patch_nce", "targets", targets, 4)
    if predictions.shape != targets.shape:
        raise ValueError(
            f"patch_nce pairs two grids [n, h, w, d]; got {predictions.shape} and {targets.shape}."
        )
    n, h, w, d = targets.shape
    if group_size is not None and group_size != n * collectives.size(axis_name):
        check_groups(n, group_size)
        loss = partial(patch_nce, below=below, scale=scale, similarity=similarity, block_size=block_size)
        of_own = partial(of_groups, loss, group_size)
        values = collectives.by_rows(of_own, predictions, targets, together=group_size, axis_name=axis_name)
        return collectives.mean(jnp.mean(values), axis_name)
    weights = dict(below) if isinstance(below, Mapping) else {below: 1.0}
    for rows in weights:
        if not 0 < rows < h:
            raise ValueError(f"below must be 1 to {h - 1} rows for a grid of {h} rows; got {rows}.")
    if not weights:
        raise ValueError("below needs at least one number of rows; got none.")

    predicting = h - min(weights)  # rows that have any to predict
    columns = n * h * w * collectives.size(axis_name)
    is_product = similarity is dot or similarity is cosine
    if block_size and not is_product:
        raise ValueError(
            "patch_nce computes blockwise only where s is a product: similarity=dot or similarity=cosine. Leave"
            " block_size out for another similarity."
        )
    if is_product and blockwise.chosen(block_size, n * predicting * w, columns):
        if similarity is cosine:
            predictions, targets = normalize(predictions), normalize(targets)
        q, targets = scale * predictions[:, :predicting], targets.astype(predictions.dtype)
        everything = collectives.gather(targets, axis_name).reshape(-1, d)
        log_z = blockwise.log_partition_between(
            q.reshape(-1, d), everything, block_size=block_size, axis_name=axis_name
        )
        log_z, value = log_z.reshape(n, predicting, w), jnp.zeros((), q.dtype)
        for rows, weight in weights.items():
            positive = jnp.sum(q[:, : h - rows] * targets[:, rows:], axis=-1)
            value = value + weight * jnp.mean(log_z[:, : h - rows] - positive)
        return collectives.mean(value, axis_name)

    everything = collectives.gather(targets, axis_name).reshape(-1, d).astype(predictions.dtype)
    scores = scale * similarity(predictions[:, :predicting].reshape(-1, d), everything)
    over_all = jnp.sum(logsumexp(scores, axis=1).reshape(n, predicting, w), axis=(0, 2))
    own = collectives.rows(n, axis_name)[:, None, None] * (h * w) + jnp.arange(w)
    scores = scores.reshape(n, predicting, w, -1)
    value = jnp.zeros((), scores.dtype)
    for rows, weight in weights.items():
        label = own + jnp.arange(rows, h)[:, None] * w
        positive = jnp.take_along_axis(scores[:, : h - rows], label[..., None], axis=3)
        mean = (jnp.sum(over_all[: h - rows]) - jnp.sum(positive)) / (n * (h - rows) * w)
        value = value + weight * mean
    return collectives.mean(value, axis_name)


def binary_nce(
    scores: Array,
    partition: Array | float,
    *,
    images: int,
    epsilon: float | Array = 1e-7,
    axis_name: str | None = None,
) -> Array:
    """CMC's: is a row drawn from the data (the first column) or from the noise (the k others)? [n, 1 + k] -> scalar.

    With P = exp(score) / partition, and noise that draws each of the `images` equally often,

        loss = 1/n sum_i [ -log( P_i0 / (P_i0 + k/images + epsilon) )
                           - sum_{j>0} log( (k/images) / (P_ij + k/images + epsilon) ) ]

    (Gutmann and Hyvarinen 2010; Wu et al. 2018, arXiv:1805.01978, eqs. 3 to 7, as in the code of CMC,
    arXiv:1906.05849.) Scores are divided by the temperature already. `partition` is a constant: images times the
    mean of exp(score).

    The other form in that code, a softmax over the 1 + k scores, is `softmax_nce`.

    axis_name
        the axis over which rows are split under `shard_map` or `pmap`; None where one program sees the global batch.

    >>> round(float(binary_nce(jnp.zeros((1, 3)), 2.0, images=4)), 4)      # P = k/images = 1/2: 3 log 2
    2.0794
    """
    scores = checks.rows("binary_nce", "scores", scores)
    if scores.shape[1] < 2:
        raise ValueError(f"binary_nce needs a positive and at least one negative a row; got {scores.shape}.")
    log_p = scores - jnp.log(jnp.asarray(partition, scores.dtype))
    noise = (scores.shape[1] - 1) / images
    log_sum = jnp.logaddexp(log_p, jnp.log(jnp.asarray(noise + epsilon, scores.dtype)))
    positive = log_sum[:, 0] - log_p[:, 0]
    negatives = jnp.sum(log_sum[:, 1:] - jnp.log(jnp.asarray(noise, scores.dtype)), axis=1)
    return collectives.mean(jnp.mean(positive + negatives), axis_name)


def softmax_nce(scores: Array, partition: Array | float, *, axis_name: str | None = None) -> Array:
    """CMC's other form: which column of the scores [n, 1 + k] is the positive (the first is)? -> scalar.

        loss = 1/n sum_i -log( exp(s_i0) / sum_j exp(s_ij) )

    It needs no `partition`, and takes one only to stand where `binary_nce` stands.

    axis_name
        the axis over which rows are split under `shard_map` or `pmap`; None where one program sees the global batch.

    >>> round(float(softmax_nce(jnp.zeros((1, 3)), 1.0)), 4)      # log 3
    1.0986
    """
    del partition
    scores = checks.rows("softmax_nce", "scores", scores)
    if scores.shape[1] < 2:
        raise ValueError(f"softmax_nce needs a positive and at least one negative a row; got {scores.shape}.")
    return info_nce(scores[:, 0], scores[:, 1:], temperature=1.0, axis_name=axis_name)


def of_groups(loss: Callable[..., Array], size: int, *grids: Array, axis_name: str | None = None) -> Array:
    """[n, ...], of one device -> the loss of each of its groups of neighbours, [n / size]: one after the other."""
    del axis_name  # no group needs another device's
    return lax.map(lambda group: loss(*group), tuple(x.reshape(-1, size, *x.shape[1:]) for x in grids))


def check_groups(n: int, size: int) -> None:
    if size < 1:
        raise ValueError(
            f"group_size, how many images are compared with each other, must be at least 1; got {size}."
        )
    if n % size:
        raise ValueError(
            f"patch_nce compares groups of {size} images, and the {n} of a batch, or of a device's part of it, are no"
            " multiple of that. Choose a batch that is, another group_size (--group-size, where 0 compares all), or"
            " --placement jit where a device's part alone is none."
        )


def as_floats(name: str, what: str, x: Array, dimensions: int) -> Array:
    """x in float32 at least, of so many dimensions."""
    x = jnp.asarray(x)
    if x.ndim != dimensions or 0 in x.shape:
        raise ValueError(
            f"{name} takes {what} of {dimensions} dimensions, none of them empty; got {x.shape}."
        )
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise TypeError(f"{name} takes {what} as floating point; got {x.dtype}.")
    return widened(x)
