"""Learning from labels, and from a teacher: the losses that are written down, and who learns."""

from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcl import nets
from jaxcl.methods import Teacher, distill, supervised

N, CLASSES, T = 6, 7, 0.1


def as_is(key, batch):
    return (jnp.asarray(batch["image"], jnp.float32) / 255,)


def parts(**changes):
    """Without norms: in training as in evaluation each image is for itself."""
    norm = nets.no_norm()
    return {
        "views": as_is,
        "encoder": nets.conv_n(features=(3,), dense=5, norm=norm),
        "head": nets.projection_head(layers=2, until=1, width=4, norm=norm),
        "classes": CLASSES,
        "start": 1.0,
    } | changes


def batch():
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (N, 8, 8, 3), dtype=np.uint8)
    return {"image": image, "index": np.arange(N, dtype=np.int32), "label": rng.integers(0, CLASSES, N)}


def distribution(logits, temperature=1.0):
    e = np.exp((logits - logits.max(axis=1, keepdims=True)) / temperature)
    return e / e.sum(axis=1, keepdims=True)


def in_float64(classify, params, state):
    return np.asarray(classify(params, state, as_is(None, batch())[0]), np.float64)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_the_supervised_loss_is_the_cross_entropy_of_its_own_classifier(smoothing):
    method, classify = supervised(**parts(), smoothing=smoothing)
    params, state = method.init(jax.random.key(0), batch())
    value, (_, metrics) = method.loss(params, state, jax.random.key(1), batch())
    p, total, right = distribution(in_float64(classify, params, state)), 0.0, 0
    for i, label in enumerate(batch()["label"]):
        for c in range(CLASSES):
            total -= ((1 - smoothing) * (c == label) + smoothing / CLASSES) * np.log(p[i, c]) / N
        right += p[i].argmax() == label
    np.testing.assert_allclose(value, total, rtol=1e-5)
    assert metrics["accuracy"] == pytest.approx(right / N)


def test_a_classifier_that_is_fine_tuned_starts_without_a_preference():
    method, classify = supervised(**parts(start=0.0))
    params, state = method.init(jax.random.key(0), batch())
    np.testing.assert_array_equal(in_float64(classify, params, state), 0)
    np.testing.assert_allclose(
        method.loss(params, state, jax.random.key(1), batch())[0], np.log(CLASSES), rtol=1e-6
    )


def test_what_is_evaluated_is_what_the_classifier_reads():
    method, classify = supervised(**parts())
    params, state = method.init(jax.random.key(0), batch())
    (x,) = as_is(None, batch())
    h = method.embed(params, state, x)
    assert h.shape == (N, 4)  # the head's first layer
    logits = h @ params["probe"]["kernel"] + params["probe"]["bias"]
    np.testing.assert_allclose(logits, classify(params, state, x), rtol=1e-6)
    np.testing.assert_allclose(method.layers(params, state, x)[-1], h)


def taught(weight=1.0, temperature=T):
    teacher, classify = supervised(**parts())
    method, own = distill(
        **parts(), teacher=Teacher(teacher.init, classify), temperature=temperature, weight=weight
    )
    params, state = method.init(jax.random.key(0), batch())
    return method, own, classify, params, state


@pytest.mark.parametrize("weight", [1.0, 0.3])
def test_the_distilled_loss_is_equation_2_and_with_labels_equation_3(weight):
    method, own, classify, params, state = taught(weight)
    value, (_, metrics) = method.loss(params, state, jax.random.key(1), batch())
    told = in_float64(classify, state["teacher"]["params"], state["teacher"]["state"])
    mine, total, same = in_float64(own, params, state), 0.0, 0
    p, q, plain = distribution(told, T), distribution(mine, T), distribution(mine)
    for i, label in enumerate(batch()["label"]):
        total -= weight * sum(p[i, c] * np.log(q[i, c]) for c in range(CLASSES)) / N
        total -= (1 - weight) * np.log(plain[i, label]) / N
        same += told[i].argmax() == mine[i].argmax()
    np.testing.assert_allclose(value, total, rtol=1e-4)
    assert metrics["teacher_agreement"] == pytest.approx(same / N)


def test_a_student_that_is_its_teacher_has_nothing_to_learn():
    method, _, classify, _, state = taught()
    params = state["teacher"]["params"]
    grads, (_, metrics) = jax.grad(method.loss, has_aux=True)(params, state, jax.random.key(1), batch())
    for gradient in jax.tree.leaves(grads):
        np.testing.assert_allclose(gradient, 0, atol=1e-5)
    p = distribution(in_float64(classify, params, state["teacher"]["state"]), T)
    entropy = -np.sum(p * np.log(np.maximum(p, 1e-300))) / N
    np.testing.assert_allclose(
        method.loss(params, state, jax.random.key(1), batch())[0], entropy, rtol=1e-3, atol=1e-5
    )
    assert metrics["teacher_agreement"] == 1


def test_the_teacher_stays_as_it_is_and_gets_no_gradient():
    method, _, _, params, state = taught()
    _, (new, _) = method.loss(params, state, jax.random.key(1), batch())
    chex.assert_trees_all_equal(new["teacher"], state["teacher"])
    to_teacher = jax.grad(
        lambda p: method.loss(
            params, {**state, "teacher": {**state["teacher"], "params": p}}, jax.random.key(1), batch()
        )[0]
    )(state["teacher"]["params"])
    assert all(not np.any(leaf) for leaf in jax.tree.leaves(to_teacher))


def test_labels_are_asked_for_only_where_they_have_a_weight():
    bare = {name: x for name, x in batch().items() if name != "label"}
    for weight in (1.0, 0.5):
        method, *_, params, state = taught(weight)
        call = partial(method.loss, params, state, jax.random.key(1), bare)
        if weight == 1:
            assert np.isfinite(call()[0])
        else:
            with pytest.raises(ValueError, match='one "label" an image'):
                call()


def test_a_teacher_of_other_classes_is_refused():
    teacher, classify = supervised(**parts(classes=CLASSES + 1))
    method, _ = distill(**parts(), teacher=Teacher(teacher.init, classify))
    params, state = method.init(jax.random.key(0), batch())
    with pytest.raises(ValueError, match="teacher knows 8 classes, and the student has 7"):
        method.loss(params, state, jax.random.key(1), batch())
