"""CMC: who is scored against what, and what is remembered."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy.special import logsumexp

from jaxcl import nets
from jaxcl.extract import last, pool
from jaxcl.losses import binary_nce, keyless, softmax_nce
from jaxcl.methods import cmc
from jaxcl.methods.cmc import with_negatives
from jaxcl.similarity import normalize

B, K, IMAGES, D, T = 6, 10, 20, 5, 0.5
ENCODER = nets.small_convnet(features=(4, 4), norm=nets.batch_norm())
HEAD = nets.mlp_head(norm=nets.no_norm(), hidden=(), out=D)


def channels(images):
    return images[..., :1], images[..., 1:]


nce, softmax = keyless(binary_nce, images=IMAGES), keyless(softmax_nce)


def method(loss, negatives=K):
    return cmc(
        views=lambda key, batch: channels(jnp.asarray(batch["image"], jnp.float32) / 255),
        channels=channels,
        encoders=(ENCODER, ENCODER),
        heads=(HEAD, HEAD),
        images=IMAGES,
        negatives=negatives,
        temperature=T,
        loss=loss,
    )


@pytest.fixture(scope="module")
def batch():
    image = np.random.default_rng(0).integers(0, 256, (B, 8, 8, 3), np.uint8)
    return {"image": image, "index": np.int32([3, 0, 19, 7, 8, 11])}


@pytest.fixture(scope="module")
def begun(batch, drawn):
    return drawn(method(nce).init, jax.random.key(0), batch)


@pytest.fixture(scope="module")
def features(batch, begun):
    """f of both parts, put together by hand."""

    @jax.jit
    def by_hand(params, state, image):
        made = []
        for i, x in enumerate(channels(jnp.asarray(image, jnp.float32) / 255)):
            p, s = params[f"part_{i}"], state[f"part_{i}"]
            maps, _ = ENCODER.apply(p["encoder"], s["encoder"], x, train=True)
            made.append(normalize(HEAD.apply(p["head"], s["head"], pool(maps), train=True)[0]))
        return made

    return np.asarray(by_hand(*begun, batch["image"]), np.float64)


@pytest.fixture(scope="module")
def stepped(batch, begun):
    return {loss: jax.jit(method(loss).loss)(*begun, jax.random.key(1), batch) for loss in (nce, softmax)}


def scores_of(batch, begun, features):
    """[part, image, 1 + K], by loops."""
    negatives_key = jax.random.split(jax.random.key(1), 4)[1]
    rows = np.asarray(with_negatives(negatives_key, jnp.asarray(batch["index"]), K, IMAGES))
    assert rows[:, 0].tolist() == batch["index"].tolist()
    scores = np.zeros((2, B, 1 + K))
    for part in (0, 1):
        bank = np.asarray(begun[1][f"bank_{1 - part}"].rows, np.float64)
        for i in range(B):
            for k in range(1 + K):
                scores[part, i, k] = features[part, i] @ bank[rows[i, k]] / T
    return scores


def test_each_part_is_scored_against_the_others_bank_by_nce(batch, begun, features, stepped):
    scores, total = scores_of(batch, begun, features), 0.0
    value, (new, _) = stepped[nce]
    for part in (0, 1):
        z = np.exp(scores[part]).mean() * IMAGES
        np.testing.assert_allclose(new["partition"][part], z, rtol=1e-4)
        for row in np.exp(scores[part]) / z:
            total -= (np.log(row[0] / (row[0] + K / IMAGES + 1e-7))) / B
            total -= sum(np.log(K / IMAGES / (p + K / IMAGES + 1e-7)) for p in row[1:]) / B
    np.testing.assert_allclose(value, total, rtol=1e-4)


def test_or_by_softmax(batch, begun, features, stepped):
    scores = scores_of(batch, begun, features)
    total = sum(-np.log(np.exp(row[0]) / np.exp(row).sum()) for part in scores for row in part) / B
    np.testing.assert_allclose(stepped[softmax][0], total, rtol=1e-4)


def test_without_a_bank_the_rest_of_the_batch_is_told_from_and_both_parts_learn(
    batch, begun, features, drawn
):
    products = features[0] @ features[1].T / T
    total = 0.0
    for row in (*products, *products.T):
        total += np.log(np.exp(row).sum()) / B
    total -= 2 * np.trace(products) / B
    alone = method(softmax, "batch")
    params, state = drawn(alone.init, jax.random.key(0), batch)
    assert not any("bank" in name for name in state)
    take = jax.jit(jax.value_and_grad(alone.loss, has_aux=True))
    (value, (new, _)), got = take(params, state, jax.random.key(1), batch)
    np.testing.assert_allclose(value, total, rtol=1e-4)
    assert jax.tree.structure(new) == jax.tree.structure(state)

    def by_hand(params):
        f = []
        for i, x in enumerate(channels(jnp.asarray(batch["image"], jnp.float32) / 255)):
            p, s = params[f"part_{i}"], state[f"part_{i}"]
            maps, _ = ENCODER.apply(p["encoder"], s["encoder"], x, train=True)
            f.append(normalize(HEAD.apply(p["head"], s["head"], pool(maps), train=True)[0]))
        z = f[0] @ f[1].T / T
        return jnp.mean(logsumexp(z, axis=0) + logsumexp(z, axis=1) - 2 * jnp.diagonal(z))

    want = jax.jit(jax.grad(by_hand))(params)
    jax.tree.map(lambda g, w: np.testing.assert_allclose(g, w, rtol=1e-3, atol=1e-5), got, want)
    with pytest.raises(ValueError, match='1 or more, or takes the "batch"; got 0'):
        method(nce, 0).init(jax.random.key(0), batch)


def three(pairs, negatives="batch"):
    def cut(images):
        return images[..., :1], images[..., 1:2], images[..., 2:]

    return cmc(
        views=lambda key, batch: cut(jnp.asarray(batch["image"], jnp.float32) / 255),
        channels=cut,
        encoders=(ENCODER,) * 3,
        heads=(HEAD,) * 3,
        images=IMAGES,
        pairs=pairs,
        negatives=negatives,
        temperature=T,
        loss=softmax,
    )


@pytest.mark.parametrize(("pairs", "wanted"), [("all", [(0, 1), (0, 2), (1, 2)]), ("core", [(0, 1), (0, 2)])])
def test_of_three_parts_the_losses_of_all_pairs_or_of_the_cores_are_added(batch, pairs, wanted):
    """Section 3.2: the full graph is the sum over i < j of L(V_i, V_j), the core view that over j of L(V_1, V_j)."""
    method = three(pairs)
    params, state = jax.jit(method.init)(jax.random.key(0), batch)
    f = []
    for i in range(3):
        x = jnp.asarray(batch["image"][..., i : i + 1], jnp.float32) / 255
        p, s = params[f"part_{i}"], state[f"part_{i}"]
        maps, _ = ENCODER.apply(p["encoder"], s["encoder"], x, train=True)
        f.append(
            np.asarray(normalize(HEAD.apply(p["head"], s["head"], pool(maps), train=True)[0]), np.float64)
        )
    total = 0.0
    for i, j in wanted:
        products = f[i] @ f[j].T / T
        for row in (*products, *products.T):
            total += np.log(np.exp(row).sum()) / B
        total -= 2 * np.trace(products) / B
    value, (new, _) = jax.jit(method.loss)(params, state, jax.random.key(1), batch)
    np.testing.assert_allclose(value, total, rtol=1e-4)
    assert jax.tree.structure(new) == jax.tree.structure(state)
    assert method.embed(params, state, jnp.zeros((2, 8, 8, 3))).shape == (2, 12)


def test_three_parts_have_three_banks_and_each_direction_its_partition(batch):
    method = three("all", K)
    params, state = jax.eval_shape(method.init, jax.random.key(0), batch)
    assert sum("bank" in name for name in state) == 3
    assert state["partition"].shape == (6,)
    assert jax.eval_shape(three("core", K).init, jax.random.key(0), batch)[1]["partition"].shape == (4,)
    value, (new, _) = jax.eval_shape(method.loss, params, state, jax.random.key(1), batch)
    assert value.shape == ()
    assert jax.tree.structure(new) == jax.tree.structure(state)
    with pytest.raises(ValueError, match="got 3 encoders and pairs='some'"):
        three("some")


def test_the_partition_is_that_of_the_first_batch_for_good(batch, begun, stepped):
    params, state = begun
    first = stepped[nce][1][0]
    later, (second, _) = jax.jit(method(nce).loss)(params, first, jax.random.key(2), batch)
    np.testing.assert_array_equal(second["partition"], first["partition"])
    assert jnp.isfinite(later)


def test_banks_are_blended_after_the_loss_and_only_where_the_batch_is(batch, begun, features, stepped):
    _, (new, _) = stepped[nce]
    for part in (0, 1):
        old = np.asarray(begun[1][f"bank_{part}"].rows, np.float64)
        want = old.copy()
        for i, image in enumerate(batch["index"]):
            row = 0.5 * old[image] + 0.5 * features[part, i]
            want[image] = row / np.linalg.norm(row)
        np.testing.assert_allclose(new[f"bank_{part}"].rows, want, rtol=1e-4, atol=1e-5)


def test_an_images_negatives_hang_on_its_number_alone():
    key, index = jax.random.key(0), jnp.array([3, 9, 4])
    rows = with_negatives(key, index, 2000, 20)
    np.testing.assert_array_equal(with_negatives(key, index[::-1], 2000, 20), rows[::-1])
    assert set(np.asarray(rows).ravel().tolist()) == set(range(20))


def test_parts_that_do_not_fit_are_told(batch):
    given = {"encoders": (ENCODER, ENCODER), "heads": (HEAD, HEAD), "images": IMAGES, "loss": nce}

    def begin(**changes):
        cut = {
            "views": lambda key, batch: channels(jnp.asarray(batch["image"], jnp.float32)),
            "channels": channels,
        }
        return jax.eval_shape(cmc(**(given | cut | changes)).init, jax.random.key(0), batch)

    with pytest.raises(ValueError, match=r"one view of an image in two parts, .* made 1"):
        begin(views=lambda key, batch: (jnp.asarray(batch["image"], jnp.float32),))
    with pytest.raises(ValueError, match=r"parts of \[1, 2\] channels and its `channels` into \[2, 1\]"):
        begin(channels=lambda images: (images[..., :2], images[..., 2:]))
    rgb = nets.standardized(ENCODER, mean=(0.5,) * 3, std=(0.25,) * 3)
    with pytest.raises(ValueError, match="means of 3 channels, and the images have 1"):
        begin(encoders=(rgb, rgb))
    with pytest.raises(ValueError, match="cmc needs an `extract` that makes one vector"):
        begin(extract=last)


def test_features_are_both_parts_beside_each_other(batch, begun):
    features = jax.eval_shape(method(nce).embed, *begun, batch["image"] / np.float32(255))
    assert features.shape == (B, 8)
