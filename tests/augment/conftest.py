"""Draws and images for the tests of ops."""

import functools

import jax
import numpy as np
import pytest


@functools.cache
def keys(n, seed=0):
    return jax.random.split(jax.random.key(seed), n)


@functools.cache
def sampler(op, shape):
    return jax.jit(jax.vmap(lambda key: op.sample(key, shape)))


@pytest.fixture(scope="session")
def drawn():
    """(op, shape, seed) -> 4000 draws of the op's parameters, as numpy; their keys may be given backwards."""

    def draws(op, shape=(24, 24, 3), seed=0, backwards=False):
        given = keys(4000, seed)[::-1] if backwards else keys(4000, seed)
        return jax.tree.map(np.asarray, sampler(op, shape)(given))

    return draws


@pytest.fixture(scope="session")
def images():
    return np.random.default_rng(0).random((6, 24, 24, 3), np.float32)
