"""Rows that go round a ring of devices: the numbers of gathered rows, without their memory."""

import math

import jax
import jax.numpy as jnp
import pytest
from jax.scipy.special import logsumexp

from jaxcl import collectives, devices
from jaxcl.cost import cost
from jaxcl.losses import blockwise, dcl, log_sum_exp, nt_xent
from jaxcl.programs import by_kind
from jaxcl.programs import collectives as collectives_of
from jaxcl.testing import EVERYWHERE, assert_same_everywhere, step_of
from jaxcl.train.placement import place


@pytest.fixture
def ring(monkeypatch):
    monkeypatch.setattr(blockwise, "GATHERED", 0)


@pytest.fixture(scope="module")
def example():
    keys = jax.random.split(jax.random.key(0), 3)
    w, x, y = (jax.random.normal(key, (n, 8)) for key, n in zip(keys, (8, 48, 48), strict=True))
    return {"bound": (w, jnp.ones(())), "no bound": (w, jnp.ones(())), "rows": (w, jnp.ones(()))}, {
        "x": x,
        "y": y,
    }


def losses(params, batch, axis_name):
    """Several in one program: a factor's gradient is the loss. At 0.01 no bound is of use."""

    def of(name, loss):
        w, factor = params[name]
        return factor * loss(batch["x"] @ w, batch["y"] @ w)

    return (
        of("bound", lambda x, y: nt_xent(x, y, temperature=0.2, block_size=5, axis_name=axis_name))
        + of("no bound", lambda x, y: dcl(x, y, x - y, temperature=0.01, block_size=4, axis_name=axis_name))
        + of(
            "rows",
            lambda x, y: log_sum_exp(x, temperature=0.2, mask_self=False, block_size=3, axis_name=axis_name),
        )
    )


def test_values_and_gradients_are_those_of_one_device(ring, example):
    assert_same_everywhere(losses, *example, placements=["jit"])


@pytest.mark.slow
def test_they_are_in_every_placement(ring, example):
    assert_same_everywhere(losses, *example, placements=EVERYWHERE)


def test_so_they_are_on_an_odd_number_of_devices(ring, example):
    assert_same_everywhere(losses, *example, placements=["shard_map"], devices=3)


@pytest.mark.slow
def test_so_they_are_on_two_devices_which_only_face_each_other(ring, example):
    assert_same_everywhere(losses, *example, placements=["shard_map"], devices=2)


def test_it_is_the_sum_over_all_pairs(ring):
    """Against the matrix, in float64 on the host's side of the law: log sum_k exp(z_i z_k) without k = i."""
    z = jax.random.normal(jax.random.key(0), (32, 4))

    def step(carry, w, z):
        return carry, blockwise.log_partition(z * w, block_size=4)[0].sum()

    mesh = devices.make_mesh(devices=8)
    _, found = place(step, "jit", mesh)(jnp.zeros(()), jnp.ones(()), devices.split(z, mesh))
    s = jnp.where(jnp.eye(32, dtype=bool), -jnp.inf, z @ z.T)
    assert math.isclose(float(found), float(logsumexp(s, axis=1).sum()), rel_tol=1e-5)


def compiled(rows, *, monkeypatch, gathered):
    monkeypatch.setattr(blockwise, "GATHERED", gathered)
    loss = step_of(lambda w, b, axis: log_sum_exp(b["x"] * w, temperature=0.2, block_size=64, axis_name=axis))
    of = jax.ShapeDtypeStruct
    step = place(loss(None), "jit", devices.make_mesh(devices=8))
    shapes = of((), jnp.float32), of((32,), jnp.float32), {"x": of((rows, 32), jnp.float32)}
    return step.lower(*shapes).compile()


def test_nobody_holds_the_rows_of_all_and_the_work_is_shared_as_before(monkeypatch):
    rows = 4096
    ring, whole = (compiled(rows, monkeypatch=monkeypatch, gathered=g) for g in (0, 2**40))
    of_all = 4 * rows * 32
    assert cost(whole).temporaries > 2 * of_all
    assert cost(ring).temporaries < 1.25 * of_all  # a few times an eighth of them, and tiles
    assert cost(ring).products < 1.1 * cost(whole).products
    kinds = by_kind(collectives_of(ring.as_text(), devices=8))
    assert "all-gather" not in kinds
    assert kinds["collective-permute"]["bytes"] > 0


def test_it_is_chosen_by_the_bytes_of_all_rows():
    of = jax.ShapeDtypeStruct
    assert not blockwise.goes_round(of((2**16, 128), jnp.float32), 8)
    assert blockwise.goes_round(of((2**17, 128), jnp.float32), 8)
    assert not blockwise.goes_round(of((2**30, 128), jnp.float32), 1)


def test_the_device_that_comes_next_is_the_one_whose_numbers_arrive():
    numbers = jax.vmap(lambda x: collectives.from_next(x, "devices", steps=2), axis_name="devices")(
        jnp.arange(5)
    )
    assert numbers.tolist() == [2, 3, 4, 0, 1]
