"""Comparing losses: the weights of the negatives are those that algebra gives."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcl.losses import alignment_uniformity, compare_losses, nt_xent, vicreg
from jaxcl.similarity import normalize


@pytest.mark.parametrize("width", [32, 5])
def test_nt_xent_weighs_a_negative_by_its_share_of_the_two_anchors_softmax(width):
    n, temperature = 8, 0.3
    z1 = jax.random.normal(jax.random.key(0), (n, width))
    z2 = z1 + jax.random.normal(jax.random.key(1), (n, width))
    found = compare_losses(z1, z2, {"nt_xent": partial(nt_xent, temperature=temperature)})
    z = np.asarray(normalize(jnp.concatenate([z1, z2])), np.float64)
    s = z @ z.T
    p = np.exp(s / temperature) * (1 - np.eye(2 * n))
    p /= p.sum(axis=1, keepdims=True)
    i, j = np.triu_indices(2 * n, 1)
    negative = i % n != j % n
    want = (p + p.T)[i, j][negative]
    np.testing.assert_allclose(found.similarity, s[i, j][negative], atol=1e-6)
    np.testing.assert_allclose(
        found.weights[0], want / want.sum(), rtol=3e-3 if width < 2 * n else 3e-2, atol=1e-5
    )
    assert found.unexplained[0] < 0.02


def test_agreement_is_a_cosine_and_colder_losses_look_at_nearer_negatives():
    z = jax.random.normal(jax.random.key(0), (2, 8, 32))
    losses = {
        "cold": partial(nt_xent, temperature=0.05),
        "warm": nt_xent,
        "twice": lambda a, b: 2 * nt_xent(a, b),
        "uniform": alignment_uniformity,
        "moments": vicreg,
    }
    found = compare_losses(*z, losses)
    np.testing.assert_allclose(found.agreement, found.agreement.T)
    np.testing.assert_allclose(np.diagonal(found.agreement), 1, rtol=1e-6)
    np.testing.assert_allclose(found.agreement[1, 2], 1, rtol=1e-6)
    assert found.agreement[0, 1] < 0.999
    np.testing.assert_allclose(found.weights.sum(axis=1), 1)
    np.testing.assert_allclose(found.values[2], 2 * found.values[1], rtol=1e-6)
    average = found.weights @ found.similarity
    assert average[0] > average[1]
    text = str(found)
    assert text == found.table()
    assert all(name in text for name in losses)
    np.testing.assert_allclose(found.profile().sum(axis=1), 1)
