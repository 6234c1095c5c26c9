"""Values and gradients of other libraries' losses, where those are installed."""

import importlib
from functools import partial

import jax
import numpy as np
import pytest

from jaxcl.losses import barlow_twins, dcl, nt_xent, supervised_contrastive, vicreg

N, D = 16, 8


def peer(name):
    """The module, or a skip that says why not: a library may be absent, or not fit the others that are there."""
    try:
        return importlib.import_module(name)
    except Exception as reason:
        pytest.skip(f"{name} cannot be imported here: {type(reason).__name__}: {reason}")


@pytest.fixture(scope="module")
def views():
    rng = np.random.default_rng(0)
    z1 = rng.normal(size=(N, D)).astype(np.float32)
    return z1, z1 + 0.5 * rng.normal(size=(N, D)).astype(np.float32)


def assert_same(ours, theirs, views):
    """theirs: torch tensors -> scalar."""
    torch = peer("torch")
    tensors = [torch.tensor(z, requires_grad=True) for z in views]
    want = theirs(*tensors)
    want.backward()
    value, gradient = jax.jit(jax.value_and_grad(ours, (0, 1)))(*views)
    np.testing.assert_allclose(value, want.item(), rtol=1e-5)
    for g, z in zip(gradient, tensors, strict=True):
        np.testing.assert_allclose(g, z.grad.numpy(), atol=1e-5 * float(z.grad.abs().max()), rtol=1e-4)


def test_nt_xent_is_optax_s(views):
    optax = peer("optax")
    z, labels = np.concatenate(views), np.tile(np.arange(N), 2)

    def theirs(a, b):
        return optax.losses.ntxent(jax.numpy.concatenate([a, b]), labels, temperature=0.2)

    ours = jax.jit(jax.value_and_grad(partial(nt_xent, temperature=0.2), (0, 1)))(*views)
    want = jax.jit(jax.value_and_grad(theirs, (0, 1)))(*views)
    assert z.shape == (2 * N, D)
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("block_size", [0, 8])
def test_nt_xent_is_lightly_s(block_size, views):
    lightly = peer("lightly.loss")
    ours = partial(nt_xent, temperature=0.2, block_size=block_size)
    assert_same(ours, lightly.NTXentLoss(temperature=0.2), views)


def test_dcl_is_lightly_s(views):
    assert_same(partial(dcl, temperature=0.2), peer("lightly.loss").DCLLoss(temperature=0.2), views)


def test_vicreg_is_lightly_s(views):
    assert_same(vicreg, peer("lightly.loss").VICRegLoss(), views)


def test_barlow_twins_is_lightly_s(views):
    # Theirs has no epsilon of its own but the batch norm's, as ours.
    assert_same(barlow_twins, peer("lightly.loss").BarlowTwinsLoss(), views)


def test_nt_xent_and_supervised_contrastive_are_pytorch_metric_learning_s(views):
    torch, losses = peer("torch"), peer("pytorch_metric_learning.losses")
    instances, labels = torch.arange(N), torch.arange(N) % 4

    def of(loss, y):
        return lambda a, b: loss(torch.cat([a, b]), torch.cat([y, y]))

    assert_same(partial(nt_xent, temperature=0.2), of(losses.NTXentLoss(temperature=0.2), instances), views)
    ours = partial(supervised_contrastive, np.arange(N) % 4, temperature=0.2)
    assert_same(ours, of(losses.SupConLoss(temperature=0.2), labels), views)
