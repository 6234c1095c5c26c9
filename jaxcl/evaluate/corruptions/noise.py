"""Noise: Gaussian, shot and impulse."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxcl.evaluate.corruptions.common import Constants, clipped, constants, of_severity
from jaxcl.typing import Array

# name -> the constants of the five severities: for CIFAR-10's size, and for ImageNet's.
CONSTANTS: dict[str, Constants] = {
    # standard deviation
    "gaussian_noise": ((0.04, 0.06, 0.08, 0.09, 0.10), (0.08, 0.12, 0.18, 0.26, 0.38)),
    # photons at white
    "shot_noise": ((500, 250, 100, 75, 50), (60, 25, 12, 5, 3)),
    # fraction of values replaced
    "impulse_noise": ((0.01, 0.02, 0.03, 0.05, 0.07), (0.03, 0.06, 0.09, 0.17, 0.27)),
}


def gaussian_noise(key: Array, image: Array, severity: Array) -> Array:
    """x + s N(0, 1), for every value on its own."""
    s = of_severity(constants(CONSTANTS["gaussian_noise"], len(image)), severity)
    return clipped(image + s * jax.random.normal(key, image.shape, image.dtype))


def shot_noise(key: Array, image: Array, severity: Array) -> Array:
    """Poisson(c x) / c: light that comes in quanta, c of them at white."""
    c = of_severity(constants(CONSTANTS["shot_noise"], len(image)), severity)
    return clipped(jax.random.poisson(key, image * c).astype(image.dtype) / c)


def impulse_noise(key: Array, image: Array, severity: Array) -> Array:
    """Salt and pepper: a value becomes 0 or 1, as likely, with the given probability."""
    p = of_severity(constants(CONSTANTS["impulse_noise"], len(image)), severity)
    u = jax.random.uniform(key, image.shape)
    return jnp.where(u < p / 2, 0.0, jnp.where(u < p, 1.0, image)).astype(image.dtype)
