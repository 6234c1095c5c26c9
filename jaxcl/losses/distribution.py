"""Losses of two terms: views of one image agree, and all rows together follow a distribution.

    loss = alignment(z1, z2) + weight * distribution(z1 and z2 together)

is the generalised contrastive loss of Chen, Luo and Li 2021 (Intriguing Properties of Contrastive Losses,
arXiv:2011.02803). With log_sum_exp as the distribution and its weight equal to the temperature it is NT-Xent times the
temperature; with a sliced Wasserstein distance it prescribes any distribution that can be sampled.

All return the mean over the global batch, the same on every device; inputs of float32 at least, as in `contrast`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import ndtri

from jaxcl import collectives
from jaxcl.losses import checks
from jaxcl.losses.contrast import _bound, _log_partition, interleave
from jaxcl.losses.sorting import sort_rows, sort_values
from jaxcl.similarity import cosine, cosine_by_row, normalize
from jaxcl.typing import Array

# (key, shape [m, d]) -> a sample of m rows
Prior = Callable[[Array, tuple[int, int]], Array]

# (key, z [m, d], axis_name=...) -> scalar
Distribution = Callable[..., Array]


def alignment(z1: Array, z2: Array, *, per: str = "sample", axis_name: str | None = None) -> Array:
    """How well the views of an image agree: [n, d], [n, d] -> scalar, lower is better.

    per="sample"
        minus the mean cosine, in [-1, 1]: the paper's alignment term (eq. 1).
    per="entry"
        half the mean squared difference over all n d entries, as the authors' notebook computes it. For unit rows
        this is (1 - mean cosine) / d: a weight tuned with the one is d times off with the other.

    axis_name
        the axis over which rows are split under `shard_map` or `pmap`; None where one program sees the global batch.

    >>> z1, z2 = jnp.array([[1.0, 0.0]]), jnp.array([[-1.0, 0.0]])
    >>> float(alignment(z1, z1)), float(alignment(z1, z2)), float(alignment(z1, z2, per="entry"))
    (-1.0, 1.0, 1.0)
    """
    z1, z2 = checks.views("alignment", z1, z2)
    if per == "sample":
        value = -jnp.mean(cosine_by_row(z1, z2))
    elif per == "entry":
        value = jnp.mean(jnp.square(z1 - z2)) / 2
    else:
        raise ValueError(
            f'alignment averages per="sample" (the paper) or per="entry" (its notebook); got {per!r}.'
        )
    return collectives.mean(value, axis_name)


def log_sum_exp(
    z: Array,
    *,
    temperature: float | Array,
    mask_self: bool = True,
    block_size: int | None = None,
    axis_name: str | None = None,
) -> Array:
    """How crowded the sphere is: z [m, d], all views together -> scalar, lower is more spread out.

        1/m sum_i log sum_k exp(cosine(z_i, z_k) / temperature),    k != i if mask_self

    (arXiv:2011.02803, eq. 2, without its factor temperature, which belongs to the weight). The paper leaves k = i
    out, the authors' notebook keeps it. `block_size` as in `nt_xent`.

    axis_name
        the axis over which rows are split under `shard_map` or `pmap`; None where one program sees the global batch.

    >>> round(float(log_sum_exp(jnp.eye(2), temperature=1.0, mask_self=False)), 4)  # log(e + 1)
    1.3133
    """
    z = checks.rows("log_sum_exp", "z", z)
    known = checks.positive("log_sum_exp", "temperature", temperature)
    if mask_self:
        checks.several("log_sum_exp", len(z), axis_name, "a row is compared with the others")
    z = normalize(z) * jax.lax.rsqrt(jnp.asarray(temperature, z.dtype))
    log_z, _ = _log_partition(z, int(mask_self), 0, _bound(cosine, known), block_size, axis_name)
    return collectives.mean(jnp.mean(log_z), axis_name)


def decoupled_nt_xent(
    z1: Array,
    z2: Array,
    *,
    temperature: float | Array = 1.0,
    weight: float | Array = 0.1,
    convention: str = "paper",
    block_size: int | None = None,
    axis_name: str | None = None,
) -> Array:
    """NT-Xent with the weight of its second term set free of its temperature: [n, d], [n, d] -> scalar.

    convention="paper"
        alignment per sample + weight * log_sum_exp with k = i left out: at weight = temperature this is the
        temperature times NT-Xent.
    convention="notebook"
        alignment per entry + weight * (log_sum_exp with k = i kept - log d), as the authors' notebook computes it.

    The two differ by far more than a constant (at d = 64 and equal weight, the second cares 64 times less about
    alignment), so a weight is worth nothing without its convention. temperature 1.0 and weight 0.1 are the published
    setting, whose convention is not published.

    block_size
        how the sum over all pairs is made: 0 keeps the matrix of similarities, b > 0 makes it b rows at a time, None
        decides by the size; the value is the same.
    axis_name
        the axis over which rows are split under `shard_map` or `pmap`; None where one program sees the global batch.

    >>> z1, z2 = jnp.eye(3), jnp.eye(3)[:, ::-1]
    >>> from jaxcl.losses.contrast import nt_xent
    >>> round(float(decoupled_nt_xent(z1, z2, temperature=0.5, weight=0.5) - 0.5 * nt_xent(z1, z2)), 6)
    0.0
    """
    z1, z2 = (normalize(z) for z in checks.views("decoupled_nt_xent", z1, z2))
    if convention not in ("paper", "notebook"):
        raise ValueError(f'decoupled_nt_xent has convention="paper" and "notebook"; got {convention!r}.')
    paper = convention == "paper"
    spread = log_sum_exp(
        interleave(z1, z2),
        temperature=temperature,
        mask_self=paper,
        block_size=block_size,
        axis_name=axis_name,
    )
    if not paper:
        spread -= np.log(z1.shape[1])
    return alignment(z1, z2, per="sample" if paper else "entry", axis_name=axis_name) + weight * spread


def uniformity(
    z: Array, *, t: float | Array = 2.0, block_size: int | None = None, axis_name: str | None = None
) -> Array:
    """Log of the mean Gaussian potential of all pairs of normalised rows: z [m, d] -> scalar in [-4 t, 0].

        log mean_{i != j} exp(-t |z_i - z_j|^2)

    (Wang & Isola 2020, arXiv:2005.10242, eq. 5). `block_size` as in `nt_xent`.

    axis_name
        the axis over which rows are split under `shard_map` or `pmap`; None where one program sees the global batch.

    >>> round(float(uniformity(jnp.array([[1.0, 0.0], [-2.0, 0.0]]))), 4)  # |z_1 - z_2|^2 = 4
    -8.0
    """
    z = normalize(checks.rows("uniformity", "z", z))
    known = checks.positive("uniformity", "t", t)
    total = checks.several("uniformity", len(z), axis_name, "it is a mean over pairs")
    # |a - b|^2 = 2 - 2 a.b, so the potential is a log-partition at temperature 1 / (2 t).
    root = jnp.sqrt(2 * t) if known is None else np.sqrt(2 * known)
    log_z, _ = _log_partition(z * root, 1, 0, None if known is None else 2 * known, block_size, axis_name)
    # The largest row is subtracted so that the sum over devices is one of numbers in range.
    top = jax.lax.stop_gradient(jnp.max(collectives.gather(log_z, axis_name)))
    average = collectives.mean(jnp.mean(jnp.exp(log_z - top)), axis_name)
    # Equal on every device already; the mean says so to those who check.
    return collectives.mean(jnp.log(average) + top, axis_name) - 2 * t - np.log(total - 1)


def alignment_uniformity(
    z1: Array,
    z2: Array,
    *,
    weight: float | Array = 1.0,
    alpha: float | Array = 2.0,
    t: float | Array = 2.0,
    block_size: int | None = None,
    axis_name: str | None = None,
) -> Array:
    """mean |z1_i - z2_i|^alpha + weight * (uniformity(z1) + uniformity(z2)) / 2: [n, d], [n, d] -> scalar.

    Of normalised rows (Wang & Isola 2020, arXiv:2005.10242, eq. 4 to 6).

    block_size
        how the sum over all pairs is made: 0 keeps the matrix of similarities, b > 0 makes it b rows at a time, None
        decides by the size; the value is the same.
    axis_name
        the axis over which rows are split under `shard_map` or `pmap`; None where one program sees the global batch.

    >>> z = jnp.array([[1.0, 0.0], [-1.0, 0.0]])
    >>> round(float(alignment_uniformity(z, z)), 4)
    -8.0
    """
    z1, z2 = (normalize(z) for z in checks.views("alignment_uniformity", z1, z2))
    squared = jnp.sum(jnp.square(z1 - z2), axis=1)
    if checks.positive("alignment_uniformity", "alpha", alpha) != 2:  # traced, it may be any
        # |.|^alpha has an infinite slope at 0 where alpha < 1, and nan from the root's rule below 2.
        squared = jnp.maximum(squared, jnp.finfo(squared.dtype).eps ** 2) ** (alpha / 2)
    spread = partial(uniformity, t=t, block_size=block_size, axis_name=axis_name)
    return collectives.mean(jnp.mean(squared), axis_name) + weight * (spread(z1) + spread(z2)) / 2


# --- prescribed distributions -------------------------------------------------------------------------------------


def uniform_sphere(key: Array, shape: tuple[int, int], *, first: Array | int = 0) -> Array:
    """Rows uniform on the unit sphere: normal draws, normalised. `first` as for `normal`."""
    return normalize(normal(key, shape, first=first))


def uniform_cube(key: Array, shape: tuple[int, int], *, first: Array | int = 0) -> Array:
    """Entries uniform in (-1, 1). `first` as for `normal`."""
    return _row_by_row(partial(jax.random.uniform, minval=-1.0, maxval=1.0), key, shape, first)


def normal(key: Array, shape: tuple[int, int], *, first: Array | int = 0) -> Array:
    """Entries of mean 0 and variance 1.

    Each row has a key of its own, so that a device draws the rows `first`, `first` + 1, ... of a larger sample alone.

    >>> key = jax.random.key(0)
    >>> bool(jnp.all(normal(key, (2, 3), first=6) == normal(key, (8, 3))[6:]))
    True
    """
    return _row_by_row(jax.random.normal, key, shape, first)


def _row_by_row(
    draw: Callable[[Array, tuple[int]], Array], key: Array, shape: tuple[int, int], first
) -> Array:
    rows, width = shape
    keys = jax.vmap(partial(jax.random.fold_in, key))(first + jnp.arange(rows))
    return jax.vmap(lambda key: draw(key, (width,)))(keys)


def _own_sample(prior: Prior, key: Array, n: int, d: int, axis_name: str | None) -> Array:
    """This device's n rows of a sample of all devices' rows."""
    if any(prior is known for known in (uniform_sphere, uniform_cube, normal)):
        first = collectives.rows(n, axis_name)[0]
        return collectives.split_rows(prior(key, (n, d), first=first))  # type: ignore[call-arg]
    m = n * collectives.size(axis_name)
    sample = prior(key, (m, d))
    if sample.shape != (m, d):
        raise ValueError(f"the prior was asked for a sample of shape {(m, d)} and returned {sample.shape}.")
    return collectives.own_rows(sample, axis_name)


def orthogonal_directions(key: Array, width: int, count: int) -> Array:
    """[width, count] unit columns, uniformly random and orthogonal to each other in runs of `width`."""
    runs = -(-count // width)
    q, r = jnp.linalg.qr(jax.random.normal(key, (runs, width, width)))
    # The signs make the factor uniform over the orthogonal matrices (Mezzadri 2007, arXiv:math-ph/0609050).
    q = q * jnp.where(jnp.diagonal(r, axis1=1, axis2=2) < 0, -1.0, 1.0)[:, None, :]
    return jnp.concatenate(list(q), axis=1)[:, :count]


def sliced_wasserstein(
    key: Array,
    z: Array,
    *,
    prior: Prior = uniform_sphere,
    projections: int | None = None,
    exact_quantiles: bool = False,
    axis_name: str | None = None,
) -> Array:
    """Distance of all rows from a sample of a distribution, along random lines: z [m, d] -> scalar >= 0.

        mean over entries of ( sort(z W) - sort(p W) )^2,    each column sorted,

    with W [d, projections] random orthogonal directions and p [m, d] a sample of the prior, both drawn anew from the
    key (arXiv:2011.02803, algorithm 1, as in the authors' notebook). The gradient goes through the sorted values.

    key
        the step's; the same on every device, and another at every step.
    z
        the rows of both views, on the scale of the prior: normalise them for `uniform_sphere`, leave them for
        `normal` and `uniform_cube`. (`generalized` does the first.)
    prior
        `uniform_sphere`, `uniform_cube`, `normal`, or any (key, shape [m, d]) -> sample. Of the first three each device
        draws its own rows; any other is asked once for all rows, by every device under an axis.
    projections
        how many directions; d if None.
    exact_quantiles
        compare with the prior's quantiles at (k - 1/2)/m instead of a sample: half the sorting and no sampling
        noise. Another estimator, so off by default. Known for `normal` (the normal distribution along every
        direction) and `uniform_sphere` ((1 + u)/2 follows Beta((d-1)/2, (d-1)/2)).

    Under an axis m counts all devices' rows. Each device sorts along its part of the directions.

    axis_name
        the axis over which rows are split under `shard_map` or `pmap`; None where one program sees the global batch.

    >>> key = jax.random.key(0)
    >>> own = uniform_sphere(jax.random.split(key)[1], (8, 4))  # the very sample that the key leads to
    >>> float(sliced_wasserstein(key, own[::-1]))
    0.0
    """
    z = checks.rows("sliced_wasserstein", "z", z)
    n, d = z.shape
    count = d if projections is None else projections
    if count < 1:
        raise ValueError(f"sliced_wasserstein needs one projection or more; got {projections}.")
    m = n * collectives.size(axis_name)
    # Shared key: every device must draw the same directions and the same sample.
    directions_key, prior_key = jax.random.split(key)
    directions = orthogonal_directions(directions_key, d, count).astype(z.dtype)
    # As many for each device; what is filled up has the length 0.
    directions = jnp.pad(directions, ((0, 0), (0, -count % collectives.sharers(z, axis_name))))
    drawn: tuple[Array, ...] = ()
    if exact_quantiles:
        quantiles = jnp.asarray(_quantiles(prior, m, d), z.dtype)
    else:
        sample = _own_sample(prior, prior_key, n, d, axis_name)
        drawn = (project(sample.astype(z.dtype), directions),)

    def distances(*rows, axis_name):
        """Along each of this device's directions, from n rows of each device: [n, p], [n, p] -> [p / devices]."""
        along, *sampled = (collectives.share_columns(x, axis_name).T for x in rows)
        target = sort_values(sampled[0]) if sampled else quantiles
        return jnp.mean(jnp.square(sort_rows(along) - target), axis=1)

    # Projected before they are dealt out: a number a row and direction, not d a row. Both in the same way, so that
    # equal rows give equal numbers.
    each = collectives.by_rows(distances, project(z, directions), *drawn, axis_name=axis_name)
    total = jnp.sum(jnp.where(collectives.rows(len(each), axis_name) < count, each, 0))
    return collectives.mean(total * collectives.size(axis_name) / count, axis_name)


def project(rows: Array, directions: Array) -> Array:
    # In float32 on every device: what is sorted are differences of rows, and those of collapsed rows are small.
    return jnp.matmul(rows, directions, precision="highest")


@lru_cache(maxsize=16)
def _quantiles(prior: Prior, m: int, d: int) -> np.ndarray:
    """The prior's quantiles [m] along any direction, at (k - 1/2)/m."""
    middle = (np.arange(m) + 0.5) / m
    if prior is normal:
        with jax.ensure_compile_time_eval():
            return np.asarray(ndtri(jnp.asarray(middle, jnp.float32)))
    if prior is uniform_sphere:
        from scipy.special import betaincinv  # comes with jax

        return np.sign(middle - 0.5) if d == 1 else 2 * betaincinv((d - 1) / 2, (d - 1) / 2, middle) - 1
    raise ValueError(
        "exact_quantiles are known for the priors `normal` and `uniform_sphere`, whose projections have one"
        f" distribution in every direction; got {getattr(prior, '__name__', prior)!r}. Leave exact_quantiles out to"
        " compare with a sample."
    )


def generalized(
    key: Array,
    z1: Array,
    z2: Array,
    *,
    distribution: Distribution,
    weight: float | Array,
    per: str = "entry",
    normalized: bool = True,
    axis_name: str | None = None,
) -> Array:
    """alignment(z1, z2) + weight * distribution of both views: key, [n, d], [n, d] -> scalar.

    distribution
        (key, z [2n, d], axis_name=...) -> scalar, as `sliced_wasserstein`, or
        `partial(sliced_wasserstein, prior=normal)`; `keyless(log_sum_exp, temperature=0.2)` makes one of a term that
        draws nothing.
    weight
        5 in the published runs with a sliced Wasserstein distance, whose two terms are both means over entries.
    per
        how alignment averages, see there.
    normalized
        whether rows are scaled to unit length first: True for the sphere, False for `normal` and `uniform_cube`.

    >>> from jaxcl.losses import keyless
    >>> z = jnp.eye(2)
    >>> round(float(generalized(jax.random.key(0), z, z, distribution=keyless(log_sum_exp, temperature=1.0),
    ...                         weight=1.0, per="sample")), 4)  # -1 + log(e + 2)
    0.5514
    """
    z1, z2 = checks.views("generalized", z1, z2)
    if normalized:
        z1, z2 = normalize(z1), normalize(z2)
    spread = distribution(key, interleave(z1, z2), axis_name=axis_name)
    return alignment(z1, z2, per=per, axis_name=axis_name) + weight * spread
