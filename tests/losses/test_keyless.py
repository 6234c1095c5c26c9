"""Losses as methods call them: with a key, settings of their own, and the axis of the method."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcl.losses import keyless, nt_xent, patch_nce, scaled

KEY = jax.random.key(0)


def test_the_key_is_ignored_and_the_axis_handed_on():
    seen = []

    def loss(a, b, *, weight, axis_name=None):
        seen.append((a, b, weight, axis_name))
        return jnp.zeros(())

    keyless(loss, weight=3)(KEY, 1, 2, axis_name="devices")
    assert seen == [(1, 2, 3, "devices")]


def test_what_a_page_adds_by_name_reaches_the_loss():
    grid = np.random.default_rng(0).normal(size=(2, 3, 1, 4)).astype(np.float32)

    @jax.jit
    def both(grid):
        page = keyless(patch_nce, scale=0.5)(KEY, grid, grid, below={1: 1.0})
        return page, patch_nce(grid, grid, below={1: 1.0}, scale=0.5)

    one, other = both(grid)
    assert one == other


def test_settings_may_be_traced_and_stand_in_a_partial():
    z = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)

    @jax.jit
    def value(temperature):
        return keyless(partial(nt_xent, block_size=0), temperature=temperature)(KEY, z, z)

    plain = jax.jit(partial(nt_xent, temperature=0.3))(z, z)
    assert float(value(0.3)) == pytest.approx(float(plain), rel=1e-6)


def test_twice_nt_xent_is_the_loss_of_simclrs_code_written_out():
    """objective.py: mean over a's rows plus mean over b's rows, each against [ab, aa] and [ba, bb] without itself."""
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 5, 4))
    unit = [z / np.linalg.norm(z, axis=1, keepdims=True) for z in (a, b)]
    total = 0.0
    for own, other in (unit, unit[::-1]):
        each = []
        for i in range(5):
            cross = [float(own[i] @ other[k]) / 0.3 for k in range(5)]
            within = [float(own[i] @ own[k]) / 0.3 for k in range(5) if k != i]
            each.append(-cross[i] + np.log(np.sum(np.exp(cross + within))))
        total += np.mean(each)
    loss = partial(scaled, loss=keyless(nt_xent, temperature=0.3), factor=2.0)
    assert float(jax.jit(loss)(KEY, a, b)) == pytest.approx(total, rel=1e-5)


def test_an_axis_is_no_setting():
    with pytest.raises(TypeError, match="the method gives it. Leave it out"):
        keyless(nt_xent, axis_name="devices")


def test_a_loss_without_an_axis_is_refused_as_it_would_be_a_device_s_alone():
    def mine(z1, z2):
        return jnp.mean(z1 * z2)

    with pytest.raises(TypeError, match="mine takes no axis_name. Give it one"):
        keyless(mine)


def test_a_setting_of_another_loss_is_named_with_those_there_are():
    with pytest.raises(TypeError, match="temperature, similarity, block_size; got clip"):
        keyless(nt_xent, clip=20.0)
