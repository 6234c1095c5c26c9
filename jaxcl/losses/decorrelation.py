"""Losses that keep rows apart by their moments: invariance + variance + what the coordinates have in common.

They fit alignment + weight * distribution with moments for the distribution, so their memory grows with the batch and
the square of the width. Moments are those of the global batch; all return its mean, the same on every device.
"""

from __future__ import annotations

import jax.numpy as jnp
from jax import lax

from jaxcl import collectives
from jaxcl.losses import checks
from jaxcl.losses.contrast import interleave
from jaxcl.losses.distribution import normal, sliced_wasserstein
from jaxcl.typing import Array


def variance_term(
    z: Array, *, target: float = 1.0, epsilon: float = 1e-4, axis_name: str | None = None
) -> Array:
    """mean_j max(target - sqrt(var(z_j) + epsilon), 0): z [n, d] -> scalar (Bardes et al. 2022, eq. 1).

    axis_name
        the axis over which rows are split under `shard_map` or `pmap`; None where one program sees the global batch.
    """
    z, total = _moments("variance_term", z, axis_name)
    variance = collectives.mean(jnp.mean(jnp.square(z), axis=0), axis_name) * (total / (total - 1))
    return jnp.mean(jnp.maximum(target - jnp.sqrt(variance + epsilon), 0))


def covariance_term(z: Array, *, axis_name: str | None = None) -> Array:
    """1/d sum_{i != j} cov(z)_ij^2: z [n, d] -> scalar (Bardes et al. 2022, eq. 3).

    axis_name
        the axis over which rows are split under `shard_map` or `pmap`; None where one program sees the global batch.

    >>> float(covariance_term(jnp.array([[1.0, 1.0], [-1.0, -1.0]])))  # cov is 2 everywhere: (4 + 4) / 2
    4.0
    """
    z, total = _moments("covariance_term", z, axis_name)
    covariance = _products(z, z, axis_name) * (total / (total - 1))
    return jnp.sum(jnp.square(_off_diagonal(covariance))) / z.shape[1]


def vicreg(
    z1: Array,
    z2: Array,
    *,
    invariance: float | Array = 25.0,
    variance: float | Array = 25.0,
    covariance: float | Array = 1.0,
    epsilon: float = 1e-4,
    axis_name: str | None = None,
) -> Array:
    """Variance-invariance-covariance regularisation: [n, d], [n, d] -> scalar.

        invariance * mean (z1 - z2)^2 + variance * (v(z1) + v(z2)) / 2 + covariance * (c(z1) + c(z2))

    with v and c as in `variance_term` and `covariance_term`, of rows as they come (Bardes, Ponce & LeCun 2022,
    arXiv:2105.04906, eq. 6; means, halves and default weights as in the authors' code). ValueError for one image.

    axis_name
        the axis over which rows are split under `shard_map` or `pmap`; None where one program sees the global batch.
    """
    z1, z2 = checks.views("vicreg", z1, z2)
    checks.several("vicreg", len(z1), axis_name, "it takes variances")
    same = collectives.mean(jnp.mean(jnp.square(z1 - z2)), axis_name)
    spread = [variance_term(z, epsilon=epsilon, axis_name=axis_name) for z in (z1, z2)]
    shared = [covariance_term(z, axis_name=axis_name) for z in (z1, z2)]
    return invariance * same + variance * sum(spread) / 2 + covariance * sum(shared)


def barlow_twins(
    z1: Array,
    z2: Array,
    *,
    weight: float | Array = 5e-3,
    epsilon: float = 1e-5,
    axis_name: str | None = None,
) -> Array:
    """The correlations between the coordinates of two views should be the identity: [n, d], [n, d] -> scalar.

        sum_i (1 - C_ii)^2 + weight * sum_{i != j} C_ij^2,
        C = 1/n sum_b a_b b_b^T,  a = (z1 - mean) / sqrt(var + epsilon), b the same of z2, biased variances

    (Zbontar et al. 2021, arXiv:2103.03230, eq. 1; epsilon is the authors' batch norm's). ValueError for one image.

    axis_name
        the axis over which rows are split under `shard_map` or `pmap`; None where one program sees the global batch.

    >>> z = jnp.array([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
    >>> round(float(barlow_twins(z, z)), 6)
    0.0
    """
    z1, z2 = checks.views("barlow_twins", z1, z2)
    checks.several("barlow_twins", len(z1), axis_name, "it takes variances")
    a, b = (_standardized(z, epsilon, axis_name) for z in (z1, z2))
    c = _products(a, b, axis_name)
    return jnp.sum(jnp.square(1 - jnp.diagonal(c))) + weight * jnp.sum(jnp.square(_off_diagonal(c)))


def visreg(
    key: Array,
    z1: Array,
    z2: Array,
    *,
    scale: float | Array = 1.0,
    shape: float | Array = 1.0,
    centre: float | Array = 1.0,
    projections: int | None = None,
    exact_quantiles: bool = False,
    epsilon: float = 1e-6,
    axis_name: str | None = None,
) -> Array:
    """Invariance, with scale and shape of the distribution held apart: key, [n, d], [n, d] -> scalar.

        mean (z1 - z2)^2 / 2 + scale * mean_j (1 - std_j)^2 + shape * SW((z - mean) / std) + centre * mean_j mean_j^2

    over both views together: SW is the sliced Wasserstein distance from the normal distribution, of standardised
    coordinates with the standard deviations held constant, so that it shapes and never scales. After VISReg (Wu et
    al. 2026, arXiv:2606.02572), whose covariance-free form and scale term this follows; the weights, the centring
    term and the choice of a sampled prior are ours. ValueError for one image.

    axis_name
        the axis over which rows are split under `shard_map` or `pmap`; None where one program sees the global batch.
    """
    z1, z2 = checks.views("visreg", z1, z2)
    checks.several("visreg", len(z1), axis_name, "it takes variances")
    z = interleave(z1, z2)
    middle = collectives.mean(jnp.mean(z, axis=0), axis_name)
    spread = jnp.sqrt(collectives.mean(jnp.mean(jnp.square(z - middle), axis=0), axis_name) + epsilon)
    distance = sliced_wasserstein(
        key,
        (z - middle) / lax.stop_gradient(spread),
        prior=normal,
        projections=projections,
        exact_quantiles=exact_quantiles,
        axis_name=axis_name,
    )
    same = collectives.mean(jnp.mean(jnp.square(z1 - z2)), axis_name) / 2
    return (
        same
        + scale * jnp.mean(jnp.square(1 - spread))
        + shape * distance
        + centre * jnp.mean(jnp.square(middle))
    )


def _moments(name: str, z: Array, axis_name: str | None) -> tuple[Array, int]:
    """Rows less their mean over the global batch, and how many there are."""
    z = checks.rows(name, "z", z)
    total = checks.several(name, len(z), axis_name, "it takes a variance")
    return z - collectives.mean(jnp.mean(z, axis=0), axis_name), total


def _standardized(z: Array, epsilon: float, axis_name: str | None) -> Array:
    z = z - collectives.mean(jnp.mean(z, axis=0), axis_name)
    return z * lax.rsqrt(collectives.mean(jnp.mean(jnp.square(z), axis=0), axis_name) + epsilon)


def _products(a: Array, b: Array, axis_name: str | None) -> Array:
    """1/n sum over the global batch of a_i b_i^T: [n, d], [n, d] -> [d, d]."""
    if axis_name is None:  # does nothing but on an explicitly sharded mesh
        a, b = collectives.gather(a), collectives.gather(b)
    return collectives.mean(a.T @ b / len(a), axis_name)


def _off_diagonal(c: Array) -> Array:
    return jnp.where(jnp.eye(len(c), dtype=bool), 0, c)
