"""Between parts 3 and 4: features are mixed so that positives become harder and negatives more diverse.

Zhu, Zhao, Liu, Sun and Chen, "Improving Contrastive Learning by Visualizing Feature Transformation" (2021,
arXiv:2108.02982). With MoCo it is one line,

    moco(..., transform=mixing(positives=2.0, negatives=1.6))

with SimCLR `partial(mixed_nt_xent, temperature=0.1)` in place of its loss, with SimCLRv2 `simclr_v2(...,
transform=batch_scores)`, with CMC `cmc(..., transform=mixing_scores())`, and the parts are there to be used alone;
`MIXES` names the settings that configs offer as --mix. What was read of this paper is its abstract and its authors'
code; the code applies it to MoCo only, so the forms for SimCLR's in-batch negatives (`batch_scores`) and for CMC's are
ours.

AMDIM, CPC and YADIM have none of it. The authors extrapolate vectors of length 1, where only the angle becomes harder;
those methods' scores are products of vectors of any length, to which extrapolation would add l (1 - l) |q - k|^2.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Literal, Protocol

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from jaxcl import collectives
from jaxcl.losses import family, info_nce, keyless, nt_xent
from jaxcl.shapes import check
from jaxcl.similarity import normalize
from jaxcl.typing import Array, Loss

# A word -> settings of `mixing` or `mixed_nt_xent`: extrapolated positives alone, interpolated negatives alone, both,
# and both with a factor for every entry, which the paper's code calls dim_mask and its text dimension-level mixing. One
# side alone is that side of "both", which is ours: there the code has a factor for every entry, and alpha 2 (`mixing`).
MIXES: dict[str, dict[str, Any]] = {
    "positives": {"negatives": None},
    "negatives": {"positives": None},
    "both": {},
    "dimensions": {"dimension_wise": True},
}
Mix = Literal["none", "positives", "negatives", "both", "dimensions"]


class Transform(Protocol):
    """(key, step [], q [n, d], k [n, d], negatives [m, d], axis_name=None) -> the three as the loss is to see them. The
    axis comes from the method."""

    def __call__(
        self,
        key: Array,
        step: Array,
        q: Array,
        k: Array,
        negatives: Array,
        /,
        *,
        axis_name: str | None = None,
    ) -> tuple[Array, Array, Array]: ...


def extrapolate_positives(
    key: Array,
    q: Array,
    k: Array,
    *,
    alpha: float | Array = 2.0,
    dimension_wise: bool = False,
    renormalize: bool = False,
    axis_name: str | None = None,
) -> tuple[Array, Array]:
    """A positive pair pushed apart along the line through both: q, k [n, d] -> q', k' [n, d].

        q' = l q + (1 - l) k,    k' = l k + (1 - l) q,    l = 1 + Beta(alpha, alpha)  in (1, 2)

    For unit vectors of score s = q.k the new score is s + 2 l (1 - l) (1 - s), at most s and at least 5 s - 4. The
    gradient of both q' and k' reaches q, also where k is constant.

    dimension_wise
        a number l for every entry; otherwise one for the whole step.
    renormalize
        scale q' and k' to unit length. The authors' code does not.

    The draws are the same on any number of devices; under `shard_map` and `pmap` say the axis.

    axis_name
        the axis over which rows are split under `shard_map` or `pmap`; None where one program sees the global batch.
    """
    check("extrapolate_positives", q=(q, "nd"), k=(k, "nd"))
    shape = (collectives.size(axis_name) * len(q), q.shape[1]) if dimension_wise else ()
    factor = 1 + beta(key, alpha, shape, q.dtype)
    if dimension_wise:
        factor = collectives.own_rows(factor, axis_name)
    q, k = lerp(factor, q, k), lerp(factor, k, q)
    return (normalize(q), normalize(k)) if renormalize else (q, k)


def interpolate_negatives(
    key: Array, negatives: Array, *, alpha: float | Array = 1.6, dimension_wise: bool = False
) -> Array:
    """Every negative mixed with another one: [m, d] -> [m, d], all of them replaced.

        n'_j = l n_j + (1 - l) n_permutation(j),    l from Beta(alpha, alpha), a fresh permutation at each call

    They are not normalized again, so mixed negatives are shorter than unit vectors and score nearer to zero. With
    `dimension_wise` every entry has an l of its own; otherwise there is one for the whole step. `negatives` must be
    the same on every device, as a queue is.
    """
    check("interpolate_negatives", negatives=(negatives, "md"))
    permutation_key, factor_key = jax.random.split(key)
    others = negatives[jax.random.permutation(permutation_key, len(negatives))]
    shape = negatives.shape if dimension_wise else ()
    return lerp(beta(factor_key, alpha, shape, negatives.dtype), negatives, others)


def mixing(
    *,
    positives: float | Array | None = 2.0,
    negatives: float | Array | None = 1.6,
    dimension_wise: bool | str = False,
    renormalize: bool = False,
    start: int | Array = 0,
) -> Transform:
    """The transform that `moco` takes: extrapolated positives, interpolated negatives, or one of the two.

    A factor, and the permutation of negatives, is drawn for the whole batch. The authors' code draws them on every GPU,
    for its part of the batch.

    positives, negatives
        alpha of each Beta distribution; None leaves that side as it is. The defaults are those of the paper's runs. Of
        one side alone the authors' code always draws a factor for every entry, from Beta(2, 2), whatever its options
        say: mixing(negatives=None, dimension_wise=True) and mixing(positives=None, negatives=2.0, dimension_wise=True).
    dimension_wise
        True, False, "positives" or "negatives": where every entry has a factor of its own.
    renormalize
        scale mixed positives to unit length (negatives never are).
    start
        the step from which on features are mixed. In the authors' runs it is the first. Extrapolation makes the pull
        between positives 1 - 2 l (1 - l), about 2.5, times as strong, whatever alpha is, and the push of the negatives
        only l, about 1.5, times: while features are still much alike this can keep them so. In short runs of ours (160
        steps of a small encoder on digits, temperature 0.2) plain MoCo and interpolation alone had left that state
        (mean score of negatives near 0), with extrapolation from step 0 they had not (0.98), and with a start at
        step 60 they were drawn back towards it (0.79). `monitor.score_monitor` shows it.
    """
    among(dimension_wise, "positives")

    def transform(key, step, q, k, queue, *, axis_name=None):
        positives_key, negatives_key = jax.random.split(key)
        mixed_q, mixed_k, mixed_queue = q, k, queue
        if positives is not None:
            mixed_q, mixed_k = extrapolate_positives(
                positives_key,
                q,
                k,
                alpha=positives,
                dimension_wise=among(dimension_wise, "positives"),
                renormalize=renormalize,
                axis_name=axis_name,
            )
        if negatives is not None:
            mixed_queue = interpolate_negatives(
                negatives_key,
                queue,
                alpha=negatives,
                dimension_wise=among(dimension_wise, "negatives"),
            )
        mixed = mixed_q, mixed_k, mixed_queue
        if isinstance(start, int) and start <= 0:
            return mixed
        pairs = zip(mixed, (q, k, queue), strict=True)
        return tuple(jnp.where(step >= start, new, old) for new, old in pairs)

    return transform


class ScoresTransform(Protocol):
    """(key, q [n, d], k [n, d], scored, axis_name=None) -> scores [n, 1 + m], the positive first."""

    def __call__(
        self,
        key: Array,
        q: Array,
        k: Array,
        scored: Callable[[Array], Array],
        /,
        *,
        axis_name: str | None = None,
    ) -> Array: ...


def mixing_scores(
    *, positives: float | Array | None = 2.0, negatives: float | Array | None = 1.6
) -> ScoresTransform:
    """The transform that `cmc` takes, whose queries have negatives of their own each: extrapolated pairs q', k',

        scores = (q'.k', q'.n'_1, ..., q'.n'_m),      n'_j = l n_j + (1 - l) n_permutation(j)

    with one permutation of the columns and one l for the whole step. What is mixed are the scores, which is the same
    as mixing the negatives.

    positives, negatives
        alpha of each Beta distribution, as in `mixing`; None leaves that side as it is. (A factor for every entry would
        need the negatives themselves, as many as n m.)

    The transform is given `scored`, q -> its products [n, 1 + m] with its own key and with its negatives. That the
    paper's authors apply theirs to CMC is not known: this form is ours.
    """

    def transform(key, q, k, scored, *, axis_name=None):
        positives_key, permutation_key, factor_key = jax.random.split(key, 3)
        if positives is not None:
            q, k = extrapolate_positives(positives_key, q, k, alpha=positives, axis_name=axis_name)
        others = scored(q)[:, 1:]
        if negatives is not None:
            order = jax.random.permutation(permutation_key, others.shape[1])
            others = lerp(beta(factor_key, negatives, (), others.dtype), others, others[:, order])
        return jnp.concatenate([jnp.sum(q * k, axis=1, keepdims=True), others], axis=1)

    return transform


def mixed_nt_xent(
    key: Array,
    z1: Array,
    z2: Array,
    *,
    temperature: float | Array = 0.5,
    positives: float | Array | None = 2.0,
    negatives: float | Array | None = 1.6,
    dimension_wise: bool | str = False,
    axis_name: str | None = None,
) -> Array:
    """NT-Xent of mixed features, a loss for SimCLR: `info_nce` of `batch_scores`, in which everything else is said.

        methods.simclr(..., loss=partial(mixed_nt_xent, temperature=0.1))

    With positives=None and negatives=None it is `nt_xent`.

    axis_name
        the axis over which rows are split under `shard_map` or `pmap`; None where one program sees the global batch.
    """
    scores = batch_scores(
        key,
        z1,
        z2,
        positives=positives,
        negatives=negatives,
        dimension_wise=dimension_wise,
        axis_name=axis_name,
    )
    return info_nce(*scores, temperature=temperature, axis_name=axis_name)


def nt_xent_of(mix: str, *, temperature: float | Array) -> Loss:
    """SimCLR's loss by the word of --mix: `nt_xent` for "none", otherwise `mixed_nt_xent` with the settings in `MIXES`.

    (key, z1, z2, axis_name=None) -> scalar, the mean over the global batch.
    """
    if mix == "none":
        return keyless(nt_xent, temperature=temperature)
    return partial(mixed_nt_xent, temperature=temperature, **MIXES[mix])


def family_of(mix: str, name: str, **settings: Any) -> Loss:
    """A loss of the generalized family by its name, `losses.family`, mixed by the word of --mix.

    Raises ValueError where another loss than NT-Xent is to be mixed.
    """
    if mix == "none":
        return family(name, **settings)
    if name != "nt_xent":
        raise ValueError(
            f"--mix is for --loss nt_xent, which scores every positive and every negative by itself; got --mix {mix}"
            f" with --loss {name}. Leave out --mix, or choose --loss nt_xent."
        )
    return nt_xent_of(mix, temperature=settings["temperature"])


class BatchScores(Protocol):
    """(key, z1 [n, d], z2 [n, d], queue=[m, d], axis_name=None) -> scores of the 2n positives and of their negatives
    [2n, 2N + m]: what `batch_scores` is with its settings. The axis comes from the method."""

    def __call__(
        self, key: Array, z1: Array, z2: Array, /, *, queue: Array, axis_name: str | None = None
    ) -> tuple[Array, Array]: ...


def batch_scores(
    key: Array,
    z1: Array,
    z2: Array,
    *,
    positives: float | Array | None = 2.0,
    negatives: float | Array | None = 1.6,
    dimension_wise: bool | str = False,
    queue: Array | None = None,
    axis_name: str | None = None,
) -> tuple[Array, Array]:
    """The same for in-batch negatives: z1, z2 [n, d] -> the scores of `mixed_nt_xent`, for `losses.info_nce`.

    Rows are normalized here. The 2n anchors are the extrapolated pairs, z1' and z2' of an image in turn, and the score
    of a positive is z1'.z2'. Negatives are the batch's own, unextrapolated rows z_j of other images, interpolated
    with those of a random other row of the batch; where that would be a view of the anchor's own image, z_j stays
    as it is. `dimension_wise` as in `mixing`: a factor for every entry of a row. This form is ours (see above).

    Returns positives [2n] and negatives [2n, 2N + m], N the global batch, with -inf where it is the anchor's own image.
    With both sides None the loss is `nt_xent`. Memory grows with the square of the batch.

    queue
        m further rows [m, d] that are negatives of all anchors, of unit length and the same on every device, as those
        of `simclr_v2` are; they are interpolated among themselves (`interpolate_negatives`). None: m = 0.
    axis_name
        the axis over which rows are split under `shard_map` or `pmap`; None where one program sees the global batch.
    """
    check("batch_scores", z1=(z1, "nd"), z2=(z2, "nd"))
    positives_key, permutation_key, factor_key, queue_key = jax.random.split(key, 4)
    z1, z2 = normalize(z1), normalize(z2)
    a, b = z1, z2
    if positives is not None:
        each = among(dimension_wise, "positives")
        a, b = extrapolate_positives(
            positives_key, z1, z2, alpha=positives, dimension_wise=each, axis_name=axis_name
        )
    positive = jnp.repeat(jnp.sum(a * b, axis=1), 2)
    anchors, rows = (jnp.stack(pair, axis=1).reshape(-1, z1.shape[1]) for pair in ((a, b), (z1, z2)))
    everyone = collectives.gather(rows, axis_name)
    scores = anchors @ everyone.T
    image = collectives.rows(len(rows), axis_name)[:, None] // 2
    columns = jnp.arange(scores.shape[1])
    if negatives is not None:
        order = jax.random.permutation(permutation_key, scores.shape[1])
        if among(dimension_wise, "negatives"):
            factor = beta(factor_key, negatives, everyone.shape, everyone.dtype)
            mixed = anchors @ lerp(factor, everyone, everyone[order]).T
        else:  # linear, so it can be done on the scores
            mixed = lerp(beta(factor_key, negatives, (), scores.dtype), scores, scores[:, order])
        scores = jnp.where(order // 2 == image, scores, mixed)
    scores = jnp.where(columns // 2 == image, -jnp.inf, scores)
    if queue is not None:
        if negatives is not None:
            each = among(dimension_wise, "negatives")
            queue = interpolate_negatives(queue_key, queue, alpha=negatives, dimension_wise=each)
        queued = jnp.matmul(anchors, queue.T, precision="highest")
        scores = jnp.concatenate([scores, queued], axis=1)
    return positive, scores


def among(dimension_wise: bool | str, side: str) -> bool:
    """Whether a side is mixed by a factor for every entry."""
    if dimension_wise not in (True, False, "positives", "negatives"):
        raise ValueError(
            f'dimension_wise is True, False, "positives" or "negatives"; got {dimension_wise!r}.'
        )
    return dimension_wise in (True, side)


def beta(key: Array, alpha: float | Array, shape: tuple[int, ...], dtype: DTypeLike) -> Array:
    """Beta(alpha, alpha), drawn in float32 always: with 64 bits switched on the same numbers are drawn.

    (1 + cos(2 pi V) sqrt(1 - U^(2 / (2 alpha - 1)))) / 2 for uniform U and V (Ulrich 1984), which holds for
    alpha >= 1/2 and has no loop of trials; this matters where every entry of a long queue draws its own.
    """

    def by_trials(alpha):
        return jax.random.beta(key, alpha, alpha, shape, jnp.float32)

    def at_once(alpha):
        u, v = jax.random.uniform(key, (2, *shape), jnp.float32)
        return 0.5 + 0.5 * jnp.cos(2 * jnp.pi * v) * jnp.sqrt(1 - u ** (2 / (2 * alpha - 1)))

    if isinstance(alpha, jax.core.Tracer):
        return jax.lax.cond(alpha > 0.5, at_once, by_trials, alpha).astype(dtype)
    if not alpha > 0:
        raise ValueError(f"Beta(alpha, alpha) needs alpha above 0; got {alpha}.")
    return (at_once if alpha > 0.5 else by_trials)(alpha).astype(dtype)


def lerp(factor: Array, a: Array, b: Array) -> Array:
    """factor a + (1 - factor) b: a for 1, beyond a for more."""
    return factor * a + (1 - factor) * b
