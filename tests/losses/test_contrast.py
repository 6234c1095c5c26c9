"""The contrastive losses against loops in float64, identities, symmetries and bad input."""

import functools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxcl.losses import (
    alignment_uniformity,
    barlow_twins,
    compare_losses,
    cross_view_nt_xent,
    dcl,
    decoupled_nt_xent,
    log_sum_exp,
    margin_triplet,
    nt_logistic,
    nt_xent,
    queue_nce,
    supervised_contrastive,
    vicreg,
)
from jaxcl.similarity import cosine, dot, normalize

N, D = 12, 6
LABELS = np.array([3, 3, 7, 7, 7, 1, 0, 0, 3, -5, 9, 9])


def unit(z):
    return z / np.linalg.norm(z, axis=1, keepdims=True)


# --- slow truths: float64, one term at a time -----------------------------------------------------------------------


def loop_nt_xent(*views, temperature, leave_out_positives=False, labels=None, similarity=np.dot):
    """Every row of every view is an anchor; labels say which rows are positives (the image, if None)."""
    labels = np.arange(len(views[0])) if labels is None else labels
    rows = [
        (y, i, v, z)
        for v, view in enumerate(views)
        for i, (y, z) in enumerate(zip(labels, view, strict=True))
    ]
    terms = []
    for y, i, v, z in rows:
        others = [r for r in rows if r[1:3] != (i, v)]
        positives = [similarity(z, r[3]) / temperature for r in others if r[0] == y]
        kept = [r for r in others if not (leave_out_positives and r[0] == y)]
        log_z = np.log(sum(np.exp(similarity(z, r[3]) / temperature) for r in kept))
        if positives:
            terms.append(np.mean([log_z - s for s in positives]))
    return np.mean(terms)


def loop_queue(q, k, queue, *, temperature):
    terms = []
    for a, b in zip(q, k, strict=True):
        positive = np.exp(a @ b / temperature)
        terms.append(-np.log(positive / (positive + sum(np.exp(a @ c / temperature) for c in queue))))
    return np.mean(terms)


def loop_pairs(z1, z2, term, semi_hard=False, sides=1):
    """Means over anchors of term(positive) + mean or semi-hard pick of term(positive, negative)."""
    views, total = (unit(z1), unit(z2)), []
    for v in (0, 1):
        for i, z in enumerate(views[v]):
            s = z @ views[1 - v][i]
            seen = (1 - v,) if sides == 1 else (0, 1)
            negatives = [z @ r for w in seen for j, r in enumerate(views[w]) if j != i]
            if semi_hard:
                closer = [x for x in negatives if x < s]
                pushes = [term(s, max(closer))] if closer else [0.0]
            else:
                pushes = [term(s, x) for x in negatives]
            total.append(term(s) + np.mean(pushes))
    return np.mean(total)


def logistic(s, negative=None, temperature=0.3):
    return np.log1p(np.exp((-s if negative is None else negative) / temperature))


def hinge(s, negative=None, margin=0.6):
    return 0.0 if negative is None else max(negative - s + margin, 0.0)


QUEUE = np.random.default_rng(5).normal(size=(17, D))


def loop_cross_view(z1, z2):
    """Each row among all rows of the other view, at temperature 0.2; the means of both directions are added."""
    total = 0.0
    for anchors, others in ((unit(z1), unit(z2)), (unit(z2), unit(z1))):
        for i, anchor in enumerate(anchors):
            scores = [anchor @ other / 0.2 for other in others]
            total += (np.log(sum(np.exp(s) for s in scores)) - scores[i]) / len(anchors)
    return total


# name -> (loss of (z1, z2), the same in loops)
TRUTHS = {
    "nt_xent": (
        partial(nt_xent, temperature=0.2),
        lambda a, b: loop_nt_xent(unit(a), unit(b), temperature=0.2),
    ),
    "nt_xent blockwise": (
        partial(nt_xent, temperature=0.2, block_size=5),
        lambda a, b: loop_nt_xent(unit(a), unit(b), temperature=0.2),
    ),
    "nt_xent, three views": (
        lambda a, b: nt_xent(a, b, a - b, temperature=0.2),
        lambda a, b: loop_nt_xent(unit(a), unit(b), unit(a - b), temperature=0.2),
    ),
    "nt_xent blockwise, three views": (
        lambda a, b: nt_xent(a, b, a - b, temperature=0.2, block_size=8),
        lambda a, b: loop_nt_xent(unit(a), unit(b), unit(a - b), temperature=0.2),
    ),
    "nt_xent of products": (
        partial(nt_xent, temperature=2.0, similarity=dot, block_size=8),
        lambda a, b: loop_nt_xent(a, b, temperature=2.0),
    ),
    "nt_xent, another similarity, three views": (
        lambda a, b: nt_xent(a, b, a - b, temperature=0.2, similarity=lambda q, k: jnp.tanh(q @ k.T)),
        lambda a, b: loop_nt_xent(a, b, a - b, temperature=0.2, similarity=lambda x, y: np.tanh(x @ y)),
    ),
    "dcl": (
        partial(dcl, temperature=0.2),
        lambda a, b: loop_nt_xent(unit(a), unit(b), temperature=0.2, leave_out_positives=True),
    ),
    "dcl blockwise": (
        partial(dcl, temperature=0.2, block_size=5),
        lambda a, b: loop_nt_xent(unit(a), unit(b), temperature=0.2, leave_out_positives=True),
    ),
    "supervised_contrastive": (
        partial(supervised_contrastive, LABELS, temperature=0.2),
        lambda a, b: loop_nt_xent(unit(a), unit(b), temperature=0.2, labels=LABELS),
    ),
    "supervised_contrastive, one view, some without positives": (
        lambda a, b: supervised_contrastive(LABELS, a + 0 * b, temperature=0.2, block_size=5),
        lambda a, b: loop_nt_xent(unit(a), temperature=0.2, labels=LABELS),
    ),
    "supervised_contrastive, another similarity": (
        partial(supervised_contrastive, LABELS, temperature=0.2, similarity=lambda q, k: q @ k.T / 3),
        lambda a, b: loop_nt_xent(a, b, temperature=0.6, labels=LABELS),
    ),
    "queue_nce": (
        lambda a, b: queue_nce(a, b, QUEUE, temperature=2.0),
        lambda a, b: loop_queue(a, b, QUEUE, temperature=2.0),
    ),
    "queue_nce blockwise": (
        lambda a, b: queue_nce(a, b, QUEUE, temperature=2.0, block_size=5),
        lambda a, b: loop_queue(a, b, QUEUE, temperature=2.0),
    ),
    "queue_nce of cosines": (
        lambda a, b: queue_nce(a, b, QUEUE, similarity=cosine, block_size=5),
        lambda a, b: loop_queue(unit(a), unit(b), unit(QUEUE), temperature=0.2),
    ),
    "queue_nce, another similarity": (
        lambda a, b: queue_nce(a, b, QUEUE, similarity=lambda q, k: q @ k.T / 10),
        lambda a, b: loop_queue(a, b, QUEUE, temperature=2.0),
    ),
    "cross_view_nt_xent": (partial(cross_view_nt_xent, temperature=0.2), loop_cross_view),
    "nt_logistic": (partial(nt_logistic, temperature=0.3), lambda a, b: loop_pairs(a, b, logistic)),
    "nt_logistic, negatives of both sides": (
        partial(nt_logistic, temperature=0.3, sides=2),
        lambda a, b: loop_pairs(a, b, logistic, sides=2),
    ),
    "margin_triplet, semi-hard, of both sides": (
        partial(margin_triplet, margin=0.6, sides=2, semi_hard=True),
        lambda a, b: loop_pairs(a, b, hinge, True, sides=2),
    ),
    "margin_triplet, no margin": (
        partial(margin_triplet, margin=0.0),
        lambda a, b: loop_pairs(a, b, lambda s, x=None: 0.0 if x is None else max(x - s, 0.0)),
    ),
    "nt_logistic, semi-hard": (
        partial(nt_logistic, temperature=0.3, semi_hard=True),
        lambda a, b: loop_pairs(a, b, logistic, True),
    ),
    "margin_triplet": (partial(margin_triplet, margin=0.6), lambda a, b: loop_pairs(a, b, hinge)),
    "margin_triplet, semi-hard": (
        partial(margin_triplet, margin=0.6, semi_hard=True),
        lambda a, b: loop_pairs(a, b, hinge, True),
    ),
}


def slope(truth, z1, z2, along):
    """The loops' derivative along a direction, by central differences in float64."""
    h = 1e-5
    return (truth(z1 + h * along[0], z2 + h * along[1]) - truth(z1 - h * along[0], z2 - h * along[1])) / (
        2 * h
    )


@pytest.fixture(scope="module")
def views():
    rng = np.random.default_rng(0)
    z1 = rng.normal(size=(N, D))
    return z1, z1 + 0.7 * rng.normal(size=(N, D))


def together(losses):
    """Values and gradients of many losses, (z1, z2) -> {name: (value, gradient)}: one program, as they have much in
    common."""

    @jax.jit
    def made(z1, z2):
        return {name: jax.value_and_grad(loss, (0, 1))(z1, z2) for name, loss in losses.items()}

    return lambda z1, z2: jax.device_get(made(z1, z2))


@pytest.fixture(scope="module")
def ours(views):
    return together({name: loss for name, (loss, _) in TRUTHS.items()})(*(np.float32(z) for z in views))


@pytest.mark.parametrize("name", TRUTHS)
def test_value_and_gradient_are_those_of_loops_in_float64(name, ours, views):
    truth, (value, gradient) = TRUTHS[name][1], ours[name]
    np.testing.assert_allclose(value, truth(*views), rtol=1e-5)
    along = np.random.default_rng(1).normal(size=(2, N, D))
    got = sum(np.sum(np.asarray(g, np.float64) * u) for g, u in zip(gradient, along, strict=True))
    np.testing.assert_allclose(got, slope(truth, *views, along), rtol=1e-4, atol=1e-6)


# --- identities -------------------------------------------------------------------------------------------------


@jax.jit
def several_forms(z1, z2):
    decoupled = decoupled_nt_xent(z1, z2, temperature=0.2, weight=0.2)
    instances = supervised_contrastive(jnp.arange(N), z1, z2, temperature=0.2)
    base, without = nt_xent(z1, z2, temperature=0.2), dcl(z1, z2, temperature=0.2)
    # With every view as the queue, an anchor meets itself and its positive there; two unit rows by two others.
    q, k = normalize(z1), normalize(z2)
    queued = (queue_nce(q, k, k) + queue_nce(k, q, q)) / 2
    across = q @ k.T / 0.2
    return decoupled, instances, base, without, queued, across


def test_two_forms_of_one_loss_agree(views):
    decoupled, instances, base, without, queued, across = several_forms(
        *(z.astype(np.float32) for z in views)
    )
    close = partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6)
    close(decoupled, 0.2 * base)
    close(instances, base)
    # The other view as the queue: the softmax over the other view alone, with the positive counted twice.
    across = np.asarray(across, np.float64)
    own = np.exp(np.diagonal(across))
    twice = [np.mean(np.log((np.exp(s).sum(axis=1) + own) / own)) for s in (across, across.T)]
    close(queued, np.mean(twice))
    # The positive in the denominator only adds to it, at most as much as where it is the nearest row.
    assert without < base


def test_of_two_images_nt_xent_is_the_softplus_of_dcl():
    # Alike rows: each anchor has the same two negatives, so the mean over anchors is any anchor's number.
    both = jax.jit(lambda z: (nt_xent(z, z, temperature=0.2), dcl(z, z, temperature=0.2)))
    whole, without = both(np.eye(2, D, dtype=np.float32))
    np.testing.assert_allclose(whole, np.log1p(np.exp(without)), rtol=1e-4)


def test_the_known_values():
    same, one = jnp.ones((N, D)), jnp.ones((1, D))
    values = jax.jit(
        lambda: (
            nt_xent(same, same, temperature=0.1),
            dcl(same, same, temperature=0.1),
            nt_xent(one, -one),
            supervised_contrastive(jnp.arange(N), same),
        )
    )()
    # Nothing to tell apart in a batch of one; no anchor with a positive among single views of single classes.
    np.testing.assert_allclose(values, [np.log(2 * N - 1), np.log(2 * N - 2), 0, 0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("block_size", [0, 4])
def test_a_learnt_temperature_has_its_gradient(block_size, views):
    z1, z2 = (np.float32(z) for z in views)
    got = jax.jit(jax.grad(lambda t: nt_xent(z1, z2, temperature=t, block_size=block_size)))(0.3)
    a, b = map(unit, views)
    want = (loop_nt_xent(a, b, temperature=0.3 + 1e-5) - loop_nt_xent(a, b, temperature=0.3 - 1e-5)) / 2e-5
    np.testing.assert_allclose(got, want, rtol=1e-4)


# --- numbers that are hard to represent ---------------------------------------------------------------------------

OF_VIEWS = {
    "nt_xent": partial(nt_xent, temperature=0.01),
    "nt_xent blockwise": partial(nt_xent, temperature=0.01, block_size=4),
    "dcl": partial(dcl, temperature=0.01),
    "supervised_contrastive": partial(supervised_contrastive, LABELS, temperature=0.01),
    "queue_nce": lambda a, b: queue_nce(a, b, b[::-1], temperature=0.01, block_size=4),
    "nt_logistic": partial(nt_logistic, temperature=0.01),
    "margin_triplet": partial(margin_triplet, semi_hard=True),
    "decoupled_nt_xent": partial(decoupled_nt_xent, temperature=0.01),
    "alignment_uniformity": alignment_uniformity,
    "vicreg": vicreg,
    "barlow_twins": barlow_twins,
}


@pytest.fixture(scope="module")
def of_half_precision(views):
    """dtype -> of every loss the value and the gradient, where a row is zero; and the same with a nan."""

    of_all = together(OF_VIEWS)

    @functools.cache
    def made(dtype):
        z1, z2 = np.stack(views).astype(dtype)
        z1[3] = z2[3] = 0
        with_nan = z1.copy()
        with_nan[0, 0] = np.nan

        return [of_all(z, z2) for z in (z1, with_nan)]

    return made


@pytest.mark.parametrize("name", OF_VIEWS)
def test_bfloat16_zero_rows_and_a_cold_temperature_stay_finite_in_float32(name, of_half_precision):
    made, of_nan = of_half_precision(jnp.bfloat16)
    value, gradient = made[name]
    assert value.dtype == jnp.float32
    assert gradient[0].dtype == jnp.bfloat16
    assert np.isfinite(value)
    assert all(np.all(np.isfinite(g)) for g in gradient)
    assert np.isnan(of_nan[name][0])


@pytest.mark.parametrize("name", OF_VIEWS)
def test_a_zero_row_in_float16_has_a_finite_gradient(name, of_half_precision):
    gradient = of_half_precision(jnp.float16)[0][name][1]
    assert gradient[0].dtype == jnp.float16
    assert all(np.all(np.isfinite(g)) for g in gradient)


def test_rows_far_from_all_others_do_not_sum_to_zero():
    crowd = jnp.broadcast_to(jnp.eye(1, D), (N, D))
    lonely = crowd.at[0].set(-crowd[0])
    temperatures = (
        0.1,
        0.026,
        0.02,
    )  # by a constant shift, by one at the edge of what it can do, by a running maximum

    @jax.jit
    def values(z):
        return [[nt_xent(z, z, temperature=t, block_size=b) for t in temperatures] for b in (4, 0)]

    np.testing.assert_allclose(*values(lonely), rtol=1e-5)


def test_float64_stays(views):
    with jax.enable_x64(True):
        z1, z2 = (jnp.asarray(z, jnp.float64) for z in views)
        for block_size in (0, 5):
            value = jax.jit(partial(nt_xent, temperature=0.2, block_size=block_size))(z1, z2)
            assert value.dtype == jnp.float64
            np.testing.assert_allclose(value, TRUTHS["nt_xent"][1](*views), rtol=1e-12)


# --- symmetries -------------------------------------------------------------------------------------------------

SYMMETRIC = {
    "nt_xent": nt_xent,
    "nt_xent blockwise": partial(nt_xent, block_size=5),
    "dcl": dcl,
    "nt_logistic": partial(nt_logistic, semi_hard=True),
    "margin_triplet": margin_triplet,
    "decoupled_nt_xent": decoupled_nt_xent,
    "alignment_uniformity": alignment_uniformity,
}


@pytest.fixture(scope="module")
def compiled():
    return jax.jit(lambda a, b: {name: loss(a, b) for name, loss in SYMMETRIC.items()})


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**31), scale=st.floats(0.01, 100))
def test_order_rotation_length_and_the_views_names_change_nothing(compiled, seed, scale):
    rng = np.random.default_rng(seed)
    z1, z2 = rng.normal(size=(2, N, D)).astype(np.float32)
    rotation = np.linalg.qr(rng.normal(size=(D, D)))[0].astype(np.float32)
    order = rng.permutation(N)
    want = compiled(z1, z2)
    for what, other in {
        "the order": compiled(z1[order], z2[order]),
        "a rotation": compiled(z1 @ rotation, z2 @ rotation),
        "the views' names": compiled(z2, z1),
        "the length": compiled(z1 * np.float32(scale), z2),
    }.items():
        for name in want:
            np.testing.assert_allclose(
                other[name], want[name], rtol=2e-4, atol=1e-5, err_msg=f"{name}, {what}"
            )


# --- bad input --------------------------------------------------------------------------------------------------


def test_bad_input_is_refused_in_words():
    a, b = jnp.ones((4, 3)), jnp.ones((5, 3))
    with pytest.raises(ValueError, match="gather the other as well"):
        nt_xent(a, b)
    with pytest.raises(ValueError, match="z3"):
        nt_xent(a, a, b)
    with pytest.raises(ValueError, match="Pool or flatten"):
        nt_xent(jnp.ones((4, 2, 2, 3)), jnp.ones((4, 2, 2, 3)))
    with pytest.raises(ValueError, match="n, d > 0"):
        dcl(jnp.ones((0, 3)), jnp.ones((0, 3)))
    with pytest.raises(TypeError, match="floating point"):
        nt_xent(jnp.ones((4, 3), int), jnp.ones((4, 3), int))
    for temperature in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="temperature above 0"):
            nt_xent(a, a, temperature=temperature)
    with pytest.raises(ValueError, match="margin of 0 or more"):
        margin_triplet(a, a, margin=-0.1)
    with pytest.raises(ValueError, match="sides=3"):
        nt_logistic(a, a, sides=3)
    for loss in (dcl, nt_logistic, margin_triplet, vicreg, barlow_twins, alignment_uniformity):
        with pytest.raises(ValueError, match="two images or more"):
            loss(a[:1], a[:1])
    with pytest.raises(ValueError, match="one integer label a sample"):
        supervised_contrastive(jnp.ones(4), a)
    with pytest.raises(ValueError, match="one width"):
        queue_nce(a, a, jnp.ones((7, 2)))
    with pytest.raises(ValueError, match="similarity=cosine or similarity=dot"):
        nt_xent(a, a, similarity=lambda q, k: q @ k.T, block_size=2)
    with pytest.raises(ValueError, match="block_size is None"):
        nt_xent(a, a, block_size=-1)
    with pytest.raises(ValueError, match="temperature above 0"):
        log_sum_exp(a, temperature=0.0)
    with pytest.raises(ValueError, match="empty"):
        compare_losses(a, a, {})
