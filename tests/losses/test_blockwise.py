"""Tiles: the numbers of the matrix that is never made, and the memory that shows that it is not."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy.special import logsumexp

from jaxcl.feature_transform import batch_scores
from jaxcl.losses import (
    blockwise,
    dcl,
    looc,
    margin_triplet,
    nt_logistic,
    nt_xent,
    queue_nce,
    sliced_wasserstein,
    supervised_contrastive,
    tiles,
    uniformity,
)
from jaxcl.similarity import normalize


def plain(z, group):
    s, i = z @ z.T, jnp.arange(len(z))
    out = (i[:, None] // group == i // group) if group else jnp.zeros(s.shape, bool)
    return logsumexp(jnp.where(out, -jnp.inf, s), axis=1)


@pytest.mark.parametrize(("rows", "block", "group"), [(64, 16, 1), (50, 16, 2), (30, 7, 3), (30, 16, 0)])
def test_the_sums_and_their_gradient_are_those_of_the_whole_matrix(rows, block, group):
    temperature = 0.05
    z = normalize(jax.random.normal(jax.random.key(0), (rows, 16))) / temperature**0.5
    weights = jax.random.normal(jax.random.key(1), (rows,))

    def with_gradient(sums, z):
        """The sums of all rows, and the gradient of their weighted sum."""
        value = jax.value_and_grad(lambda z: (sums(z) @ weights, sums(z)), has_aux=True)
        (_, rows), gradient = value(z)
        return rows, gradient

    def tiles(z, bound):
        return blockwise.log_partition(z, group=group, bound=bound, block_size=block)[0]

    @jax.jit
    def all_three(z):
        known, unknown = partial(tiles, bound=1 / temperature), partial(tiles, bound=None)
        return [with_gradient(sums, z) for sums in (partial(plain, group=group), known, unknown)]

    want, *others = all_three(z)
    for got in others:
        np.testing.assert_allclose(got[0], want[0], rtol=1e-6)
        np.testing.assert_allclose(got[1], want[1], rtol=1e-5, atol=1e-5 * float(jnp.abs(want[1]).max()))


def test_two_sets_of_rows_and_both_their_gradients():
    q, k = jax.random.normal(jax.random.key(0), (37, 8)), 3 * jax.random.normal(jax.random.key(1), (101, 8))
    weights = jax.random.normal(jax.random.key(2), (37,))
    blocks = jax.grad(lambda q, k: blockwise.log_partition_between(q, k, block_size=16) @ weights, (0, 1))
    whole = jax.grad(lambda q, k: logsumexp(q @ k.T, axis=1) @ weights, (0, 1))
    for got, want in zip(*jax.jit(lambda q, k: (blocks(q, k), whole(q, k)))(q, k), strict=True):
        np.testing.assert_allclose(got, want, atol=2e-5)


def test_second_derivatives_are_those_of_the_whole_matrix():
    z = jax.random.normal(jax.random.key(0), (4, 2))
    blocks = jax.hessian(lambda z: blockwise.log_partition(z, block_size=2)[0].sum())
    whole = jax.hessian(lambda z: plain(z, 1).sum())
    got, want = jax.jit(lambda z: (blocks(z), whole(z)))(z)
    np.testing.assert_allclose(got, want, atol=1e-5)


def test_vmap_over_batches_is_a_loop_over_batches():
    z = jax.random.normal(jax.random.key(0), (2, 3, 8, 4))
    got = jax.jit(jax.vmap(partial(nt_xent, block_size=4)))(*z)
    one = jax.jit(partial(nt_xent, block_size=0))
    np.testing.assert_allclose(got, [one(a, b) for a, b in zip(*z, strict=True)], rtol=1e-5)


def temporaries(loss, *shapes):
    """Bytes that value and gradient need beside their arguments and results; compiled, never run."""
    arguments = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    step = jax.jit(jax.value_and_grad(loss, argnums=tuple(range(len(shapes)))))
    return step.lower(*arguments).compile().memory_analysis().temp_size_in_bytes


def test_nt_xent_of_16k_images_needs_a_hundredth_of_the_memory():
    views = [(16384, 128)] * 2
    matrix = temporaries(partial(nt_xent, temperature=0.1, block_size=0), *views)
    assert matrix > 3 * (2 * 16384) ** 2 * 4 / 4
    assert temporaries(partial(nt_xent, temperature=0.1), *views) <= matrix / 100
    assert temporaries(partial(nt_xent, temperature=0.01), *views) <= matrix / 100


@pytest.mark.parametrize(
    ("loss", "shapes"),
    [
        (partial(dcl, temperature=0.1), [(16384, 128)] * 2),
        (lambda a, b: supervised_contrastive(jnp.arange(16384) % 1000, a, b), [(16384, 128)] * 2),
        (uniformity, [(32768, 128)]),
        (queue_nce, [(16384, 128), (16384, 128), (65536, 128)]),
    ],
    ids=["dcl", "supervised_contrastive", "uniformity", "queue_nce"],
)
def test_the_default_needs_memory_for_rows_and_not_for_pairs(loss, shapes):
    rows = sum(n * d * 4 for n, d in shapes)
    assert temporaries(loss, *shapes) <= 6 * rows + 16 * 2**20


def test_small_batches_are_computed_plainly_and_large_ones_in_tiles():
    def loops(n):
        return str(jax.make_jaxpr(nt_xent)(jnp.ones((n, 2)), jnp.ones((n, 2)))).count("scan[")

    assert loops(128) == 0
    assert loops(2048) > 0


# --- products that are rounded, as on accelerators ----------------------------------------------------------------


def rounded(x):
    return x.astype(jnp.bfloat16).astype(x.dtype)


@pytest.mark.parametrize("loss", [nt_xent, dcl])
def test_gradients_of_nearly_collapsed_rows_survive_products_in_bfloat16(loss, monkeypatch):
    """Networks begin so: all rows within a hundredth of one point."""
    rng = np.random.default_rng(0)
    point, image = rng.normal(size=32), rng.normal(size=(64, 32))
    views = [jnp.asarray(point + 0.01 * (image + rng.normal(size=(64, 32))), jnp.float32) for _ in range(2)]

    def gradient(block_size):
        return jax.jit(jax.grad(lambda *z: loss(*z, temperature=0.1, block_size=block_size), (0, 1)))(*views)

    want = gradient(0)
    for name in ("products", "weighted"):
        of_floats = getattr(tiles, name)
        monkeypatch.setattr(tiles, name, lambda a, b, _, f=of_floats: f(rounded(a), rounded(b)))
    for got, true in zip(gradient(16), want, strict=True):
        np.testing.assert_allclose(got, true, atol=0.03 * float(jnp.abs(true).max()))


def products_of(jaxpr):
    """The precision of every matrix product, also in loops and calls."""
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            yield equation.params["precision"]
        for value in equation.params.values():
            for inner in value if isinstance(value, tuple | list) else (value,):
                inner = getattr(inner, "jaxpr", inner)
                if hasattr(inner, "eqns"):
                    yield from products_of(inner)


@pytest.mark.parametrize(
    "loss",
    [
        margin_triplet,
        nt_logistic,
        partial(supervised_contrastive, np.arange(64) % 8, block_size=0),
        partial(supervised_contrastive, np.arange(64) % 8, block_size=16),
        lambda a, b: sliced_wasserstein(jax.random.key(0), a - b),
        lambda a, b: queue_nce(a, b, jnp.ones((128, 8)), block_size=0),
        lambda a, b: queue_nce(a, b, jnp.ones((128, 8)), block_size=32),
        lambda a, b: looc(jnp.stack([a, a]), jnp.stack([b] * 4).reshape(2, 2, 64, 8), jnp.ones((2, 128, 8))),
    ],
    ids=[
        "triplet",
        "logistic",
        "supervised",
        "supervised blockwise",
        "swd",
        "queue",
        "queue blockwise",
        "looc",
    ],
)
def test_losses_that_rounding_drowns_multiply_in_float32(loss):
    traced = jax.make_jaxpr(jax.value_and_grad(loss, (0, 1)))(jnp.ones((64, 8)), jnp.ones((64, 8)))
    found = set(products_of(traced.jaxpr))
    assert found
    assert all(precision == (jax.lax.Precision.HIGHEST,) * 2 for precision in found), found


def test_a_queue_beside_the_batch_is_multiplied_in_float32():
    def scores(a, b):
        return batch_scores(jax.random.key(0), a, b, queue=jnp.ones((37, 8)))

    traced = jax.make_jaxpr(scores)(jnp.ones((64, 8)), jnp.ones((64, 8)))
    products = [one for one in traced.jaxpr.eqns if one.primitive.name == "dot_general"]
    (queued,) = (one for one in products if one.outvars[0].aval.shape == (128, 37))
    assert queued.params["precision"] == (jax.lax.Precision.HIGHEST,) * 2
