"""These tests compile much and run little: the compiler may take it easy, but where memory is measured."""

import jax
import pytest


@pytest.fixture(scope="module", autouse=True)
def compile_quickly(request):
    if "blockwise" in request.module.__name__:
        yield
        return
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", before)  # also that of all tests after these
