"""CPC: which patches are predicted from which."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcl import nets
from jaxcl.extract import last, pool
from jaxcl.images import patches
from jaxcl.losses import keyless, patch_nce
from jaxcl.methods import cpc, falcon_cho_rows, henaff_rows, pseudo_code_rows

ENCODER = nets.small_convnet(features=(4,), norm=nets.layer_norm())
CONTEXT = nets.masked_context(hidden=4, blocks=1)
LINEAR = nets.mlp_head(norm=nets.no_norm(), hidden=(), out=3)


def method(**changes):
    parts = {
        "views": lambda key, batch: (jnp.asarray(batch["image"], jnp.float32) / 255,),
        "encoder": ENCODER,
        "context": CONTEXT,
        "target": LINEAR,
        "predictor": LINEAR,
        "loss": keyless(patch_nce),
        "patch": (8, 8),
    }
    return cpc(**(parts | changes))


@jax.jit
def loss_of_images(params, state, batch):
    return method().loss(params, state, jax.random.key(1), batch)[0]


@pytest.fixture(scope="module")
def batch():
    image = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), np.uint8)
    return {"image": image, "index": np.arange(3, dtype=np.int32)}


@pytest.fixture(scope="module")
def begun(batch, drawn):
    return drawn(method().init, jax.random.key(0), batch)


def test_the_rows_are_those_of_the_double_loop_in_the_published_code():
    for height in (4, 6, 7):
        counted = {}
        for ignored in range(height - 1):
            for i in range(ignored + 1, height):
                if height - i - 1 > 0:  # else there is no such row: nan there, and left out
                    counted[i + 1] = counted.get(i + 1, 0) + 1
        assert falcon_cho_rows(height) == counted
    assert henaff_rows(7) == {3: 1, 4: 1, 5: 1}
    # The published loop: for i in range(steps_to_ignore, steps_to_predict), the target lies i + 1 rows below.
    assert pseudo_code_rows(7) == {i + 1: 1 for i in range(2, 3)}


def test_cifar_has_a_grid_of_seven_by_seven(batch):
    m = method(patch=(8, 4), represent=lambda grid: grid[0].reshape(len(grid[0]), -1))
    params, state = jax.eval_shape(m.init, jax.random.key(0), batch)
    shape = jax.eval_shape(m.embed, params, state, jnp.zeros((3, 32, 32, 3))).shape
    assert shape == (3, 7 * 7 * 4)


def test_a_step_is_put_together_by_hand(batch, begun):
    params, state = begun
    value = loss_of_images(params, state, batch)
    x = batch["image"].astype(np.float32) / 255
    grid = np.zeros((3, 4, 4, 4), np.float32)

    @jax.jit
    def encoded(params, patch):
        return pool(ENCODER.apply(params, state["encoder"], patch, train=True)[0])

    for r in range(4):
        for c in range(4):
            grid[:, r, c] = encoded(params["encoder"], x[:, 8 * r : 8 * r + 8, 8 * c : 8 * c + 8])

    @jax.jit
    def made(params, z):
        t, _ = LINEAR.apply(params["target"], {}, z, train=True)
        seen, _ = CONTEXT.apply(params["rotation_0"]["context"], {}, z, train=True)
        return *LINEAR.apply(params["rotation_0"]["predictor"], {}, seen, train=True)[:1], t

    p, t = made(params, grid)
    p, t = np.asarray(p, np.float64), np.asarray(t, np.float64)
    total, flat = 0.0, t.reshape(-1, 3)
    for below, weight in {2: 1, 3: 2}.items():
        terms = []
        for i in range(3):
            for r in range(4 - below):
                for c in range(4):
                    logits = 0.1 * flat @ p[i, r, c]
                    terms.append(np.log(np.exp(logits).sum()) - logits[i * 16 + (r + below) * 4 + c])
        total += weight * np.mean(terms)
    np.testing.assert_allclose(value, total, rtol=1e-5)


def test_what_is_below_the_predicted_row_is_no_part_of_its_prediction(batch, begun):
    """The prediction of the first row is the same, whatever the rows below show."""
    seen = []
    m = method(loss=lambda key, p, t, *, below, axis_name: seen.append(p) or patch_nce(p, t, below=below))

    @jax.jit
    def predicted(params, state, batch):
        m.loss(params, state, jax.random.key(1), batch)
        return seen.pop()

    changed = {**batch, "image": np.concatenate([batch["image"][:, :8], 255 - batch["image"][:, 8:]], axis=1)}
    one, other = (predicted(*begun, b) for b in (batch, changed))
    np.testing.assert_allclose(one[:, 0], other[:, 0], atol=1e-6)
    assert not np.allclose(one[:, 1], other[:, 1], atol=1e-3)


def test_four_directions_are_the_image_turned_with_a_context_of_their_own(batch, drawn):
    """The second direction alone is the first of the turned image, when it is given the same weights."""
    m = method(rotations=2, shared_predictor=False, rows=lambda height: {1: 1.0, 2: 1.0})
    params, state = drawn(m.init, jax.random.key(0), batch)
    assert set(params["rotation_1"]) == {"context", "predictor_1", "predictor_2"}
    calls = []
    spy = method(
        rotations=2,
        shared_predictor=False,
        rows=lambda height: {1: 1.0, 2: 1.0},
        loss=lambda key, p, t, *, below, axis_name: calls.append((p, t)) or jnp.zeros(()),
    )

    @jax.jit
    def called(params, state, batch):
        spy.loss(params, state, jax.random.key(1), batch)
        return calls

    calls = called(params, state, batch)
    np.testing.assert_allclose(calls[2][1], np.rot90(calls[0][1], 1, axes=(1, 2)), atol=1e-6)
    assert not np.allclose(calls[2][0], calls[0][0], atol=1e-3)
    with pytest.raises(ValueError, match="must be 1 to 4"):
        method(rotations=5)


def test_what_cpc_cannot_predict_it_says(batch):
    def begin(**changes):
        jax.eval_shape(method(**changes).init, jax.random.key(0), batch)

    with pytest.raises(ValueError, match="cannot predict no row below in a grid of 2 rows"):
        begin(patch=(16, 16), context=LINEAR)
    with pytest.raises(ValueError, match=r"cannot predict \[1, 4\] below in a grid of 4 rows"):
        begin(rows=lambda height: {4: 1.0, 1: 1.0})
    with pytest.raises(ValueError, match="grid of three columns"):
        begin(patch=(16, 16), rows=lambda height: {1: 1.0})
    with pytest.raises(
        ValueError, match=r"one vector of an image's maps, .* got \(an array \[48, 2, 2, 4\],\)"
    ):
        begin(extract=last)
    with pytest.raises(ValueError, match="needs at least 15x15 pixels; got 8x8"):
        begin(encoder=nets.conv_n(norm=nets.layer_norm()))
    with pytest.raises(ValueError, match="needs 1 view of an image; its `views` made 2"):
        begin(views=lambda key, batch: (batch["image"], batch["image"]))


def test_views_may_come_as_patches(batch, begun):
    def views(key, batch):
        return (patches(jnp.asarray(batch["image"], jnp.float32) / 255, 8, 8),)

    m = method(views=views)
    chex.assert_trees_all_equal_shapes(jax.eval_shape(m.init, jax.random.key(0), batch), begun)
    loss_of_patches = jax.jit(lambda *given: m.loss(*given, jax.random.key(1), batch)[0])
    assert loss_of_patches(*begun) == loss_of_images(*begun, batch)


def test_patches_come_row_by_row(batch):
    cut = jax.jit(lambda x: patches(x, 8, 8))(np.float32(batch["image"]))
    np.testing.assert_array_equal(cut[1, 2, 3], batch["image"][1, 16:24, 24:32])
