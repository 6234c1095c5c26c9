"""CMC: who is scored against what, and what is remembered."""

from functools import partial

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
ENCODER = nets.small_convnet(features=(4,), norm=nets.batch_norm())
HEAD = nets.mlp_head(norm=nets.no_norm(), hidden=(), out=D)


def channels(images):
    return images[..., :1], images[..., 1:]


# (key, index, count, images), one program for all that is drawn for a batch
drawn_negatives = jax.jit(with_negatives, static_argnums=(2, 3))
nce, softmax = keyless(binary_nce, images=IMAGES), keyless(softmax_nce)


def method(loss, negatives=K, transform=None):
    return cmc(
        views=lambda key, batch: channels(jnp.asarray(batch["image"], jnp.float32) / 255),
        channels=channels,
        encoders=(ENCODER, ENCODER),
        heads=(HEAD, HEAD),
        images=IMAGES,
        negatives=negatives,
        temperature=T,
        transform=transform,
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
    def of_both(params, state, image):
        parts = channels(jnp.asarray(image, jnp.float32) / 255)
        return [by_hand(params[f"part_{i}"], state[f"part_{i}"], x) for i, x in enumerate(parts)]

    return np.asarray(of_both(*begun, batch["image"]), np.float64)


def by_hand(params, state, x):
    """f of one part."""
    maps, _ = ENCODER.apply(params["encoder"], state["encoder"], x, train=True)
    return normalize(HEAD.apply(params["head"], state["head"], pool(maps), train=True)[0])


@pytest.fixture(scope="module")
def step(batch):
    """(params, state, number of the key) -> the value and the new state by NCE, and the value by softmax."""

    @jax.jit
    def both(params, state, number):
        made = [method(loss).loss(params, state, jax.random.key(number), batch) for loss in (nce, softmax)]
        (value, (new, _)), (other, _) = made  # metrics would be compiled too
        return value, new, other

    return both


@pytest.fixture(scope="module")
def stepped(begun, step):
    return step(*begun, 1)


def scores_of(batch, begun, features):
    """[part, image, 1 + K], by loops."""
    negatives_key = jax.random.split(jax.random.key(1), 4)[1]
    rows = np.asarray(drawn_negatives(negatives_key, batch["index"], K, IMAGES))
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
    value, new, _ = stepped
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
    np.testing.assert_allclose(stepped[2], total, rtol=1e-4)


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

    @jax.jit
    @partial(jax.value_and_grad, has_aux=True)
    def take(params):
        value, (new, _) = alone.loss(params, state, jax.random.key(1), batch)
        return value, new

    (value, new), got = take(params)
    np.testing.assert_allclose(value, total, rtol=1e-4)
    assert jax.tree.structure(new) == jax.tree.structure(state)

    def loss_by_hand(params):
        parts = channels(jnp.asarray(batch["image"], jnp.float32) / 255)
        f = [by_hand(params[f"part_{i}"], state[f"part_{i}"], x) for i, x in enumerate(parts)]
        z = f[0] @ f[1].T / T
        return jnp.mean(logsumexp(z, axis=0) + logsumexp(z, axis=1) - 2 * jnp.diagonal(z))

    want = jax.jit(jax.grad(loss_by_hand))(params)
    jax.tree.map(lambda g, w: np.testing.assert_allclose(g, w, rtol=1e-3, atol=1e-5), got, want)
    with pytest.raises(ValueError, match='at least 1, or "batch"; got 0'):
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


WANTED = {"all": [(0, 1), (0, 2), (1, 2)], "core": [(0, 1), (0, 2)]}


@pytest.fixture(scope="module")
def of_three(batch, drawn):
    """f of three parts, put together by hand; and the loss of each kind of pairs."""
    params, state = drawn(three("all").init, jax.random.key(0), batch)

    @jax.jit
    def both(params, state):
        image = jnp.asarray(batch["image"], jnp.float32) / 255
        parts = [(f"part_{i}", image[..., i : i + 1]) for i in range(3)]
        f = [by_hand(params[part], state[part], x) for part, x in parts]
        # The kinds differ in how many partitions there are.
        states = {pairs: {**state, "partition": jnp.ones(2 * len(WANTED[pairs]))} for pairs in WANTED}
        losses = {
            pairs: three(pairs).loss(params, states[pairs], jax.random.key(1), batch)[0] for pairs in WANTED
        }
        return jnp.stack(f), losses

    f, losses = both(params, state)
    return np.asarray(f, np.float64), losses


@pytest.mark.parametrize("pairs", WANTED)
def test_of_three_parts_the_losses_of_all_pairs_or_of_the_cores_are_added(batch, of_three, pairs):
    """Section 3.2: the full graph is the sum over i < j of L(V_i, V_j), the core view that over j of L(V_1, V_j)."""
    (f, losses), method, total = of_three, three(pairs), 0.0
    for i, j in WANTED[pairs]:
        products = f[i] @ f[j].T / T
        for row in (*products, *products.T):
            total += np.log(np.exp(row).sum()) / B
        total -= 2 * np.trace(products) / B
    np.testing.assert_allclose(losses[pairs], total, rtol=1e-4)
    params, state = jax.eval_shape(method.init, jax.random.key(0), batch)
    _, (new, _) = jax.eval_shape(method.loss, params, state, jax.random.key(1), batch)
    assert jax.tree.structure(new) == jax.tree.structure(state)
    images = jax.ShapeDtypeStruct((2, 8, 8, 3), jnp.float32)
    assert jax.eval_shape(method.embed, params, state, images).shape == (2, 12)


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


def test_the_partition_is_that_of_the_first_batch_for_good(begun, step, stepped):
    _, first, _ = stepped
    later, second, _ = step(begun[0], first, 2)
    np.testing.assert_array_equal(second["partition"], first["partition"])
    assert jnp.isfinite(later)


def test_banks_are_blended_after_the_loss_and_only_where_the_batch_is(batch, begun, features, stepped):
    _, new, _ = stepped
    for part in (0, 1):
        old = np.asarray(begun[1][f"bank_{part}"].rows, np.float64)
        want = old.copy()
        for i, image in enumerate(batch["index"]):
            row = 0.5 * old[image] + 0.5 * features[part, i]
            want[image] = row / np.linalg.norm(row)
        np.testing.assert_allclose(new[f"bank_{part}"].rows, want, rtol=1e-4, atol=1e-5)


def test_an_images_negatives_hang_on_its_number_alone():
    key, index = jax.random.key(0), np.array([3, 9, 4])
    rows = np.asarray(drawn_negatives(key, index, 2000, 20))
    np.testing.assert_array_equal(drawn_negatives(key, index[::-1], 2000, 20), rows[::-1])
    assert set(rows.ravel().tolist()) == set(range(20))


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


@pytest.mark.parametrize("negatives", [K, "batch"])
def test_mixed_pairs_are_extrapolated_and_mixed_negatives_stand_against_them(
    batch, begun, features, negatives
):
    """With factors that are known: l = 1.5 for the pairs, and negatives mixed half and half with the next ones."""

    def transform(key, q, k, scored, *, axis_name=None):
        q, k = 1.5 * q - 0.5 * k, 1.5 * k - 0.5 * q
        others = scored(q)[:, 1:]
        positive = jnp.sum(q * k, axis=1, keepdims=True)
        return jnp.concatenate([positive, (others + jnp.roll(others, 1, axis=1)) / 2], axis=1)

    seen = []

    def watched(key, scores, partition, axis_name=None):
        seen.append(T * np.asarray(scores, np.float64))
        return jnp.zeros(())

    params, state = begun
    for made in (method(watched, negatives, transform), method(watched, negatives)):
        made.loss(params, state, jax.random.key(1), batch)
    for i, j in ((0, 1), (1, 0)):
        mixed, plain = seen[i], seen[2 + i]
        bank = np.asarray(state[f"bank_{j}"].rows, np.float64)
        own = features[j] if negatives == "batch" else bank[batch["index"]]
        known = features[j] if negatives == "batch" else bank
        for n, f in enumerate(features[i]):
            q, k = 1.5 * f - 0.5 * own[n], 1.5 * own[n] - 0.5 * f
            np.testing.assert_allclose(mixed[n, 0], q @ k, rtol=1e-4, atol=1e-5)
            # Which negatives these are, the scores of the method without mixing tell.
            rows = [known[np.argmin(np.abs(known @ f - score))] for score in plain[n, 1:]]
            for c, row in enumerate(rows):
                np.testing.assert_allclose(mixed[n, 1 + c], q @ (row + rows[c - 1]) / 2, rtol=1e-3, atol=1e-4)
