"""Top-5, the mean over classes and every class by itself, in every protocol that asks for the class."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcl.evaluate import PROTOCOLS, Subject, figures, hits, knn_ranked, online_knn, ranked
from jaxcl.tables import classes_table
from jaxcl.typing import Images

NAMES = tuple("abcdefg")


def data(n, seed, labels=None):
    """Images of four numbers, drawn around a center of their class."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, len(NAMES), n) if labels is None else labels
    centers = np.random.default_rng(5).integers(60, 190, (len(NAMES), 2, 2, 1))
    images = np.clip(centers[labels] + rng.normal(0, 35, (n, 2, 2, 1)), 0, 255).astype(np.uint8)
    return Images("numbers", images, labels, NAMES)


def flat(x):
    return x.reshape(len(x), -1)


def as_is(key, batch):
    return (jnp.asarray(batch["image"], jnp.float32) / 255,)


SHORT = {
    "linear_sgd": {"epochs": 3},
    "mlp": {"epochs": 3, "hidden": 8},
    "deep": {"blocks": 1, "epochs": 2, "batch_size": 64},
    "finetune1": {"views": as_is, "epochs": 3},
    "finetune10": {"views": as_is, "epochs": 3},
    "finetune100": {"views": as_is, "epochs": 1},
    "finetune_grid": {"views": as_is, "steps": 3, "learning_rates": [0.05], "weight_decays": [0.0]},
    "linear_moco": {"augmentation": "none", "epochs": 2},
    "fewshot5": {"draws": 2, "steps": 30},
    "fewshot10": {"draws": 2, "steps": 30},
    "corruption": {"images": 60, "names": ["brightness"]},
    "linear": {"l2": (1e-3,)},
    "transfer": {"l2": (1e-3,)},
}
OF_CLASS = [name for name in PROTOCOLS if name not in ("rotation", "hue")]
TRAIN, TEST = data(210, 0), data(90, 1)


@functools.cache
def result(name):
    return PROTOCOLS[name](jax.random.key(0), Subject(flat, TRAIN, TEST), **SHORT.get(name, {}))


def test_top_5_is_that_fewer_than_five_classes_score_higher():
    rng, classes = np.random.default_rng(0), np.array([2, 3, 5, 7, 11, 13, 17, 19])
    scores = rng.integers(0, 6, (50, 8)).astype(float)  # many ties
    labels = classes[rng.integers(0, 8, 50)]
    found = hits(ranked(scores, classes), labels, len(classes))
    for i, (row, label) in enumerate(zip(scores, labels, strict=True)):
        own = list(classes).index(label)
        ahead = sum(row[j] > row[own] or (row[j] == row[own] and j < own) for j in range(8))
        assert (found.first[i], found.five[i]) == (ahead == 0, ahead < 5)


def test_a_constant_answer_about_90_to_10_images_is_half_right_by_class():
    labels = np.array([0] * 90 + [1] * 10)
    found = figures(hits(np.zeros((100, 1), int), labels, 2), labels)
    assert found == {"top5_accuracy": None, "mean_class_accuracy": 50.0, "by_class": {"0": 100.0, "1": 0.0}}


@pytest.mark.parametrize("name", ["knn", "linear"])
def test_encoders_of_nothing_score_90_and_50_on_90_to_10_images(name):
    rng, labels = np.random.default_rng(0), np.array([0] * 180 + [1] * 20)
    x, z = rng.normal(size=(200, 3)), rng.normal(size=(200, 3))
    found = PROTOCOLS[name](None, Subject.of_features(x, labels, z, labels))
    assert found["accuracy"] >= 85
    assert abs(found["mean_class_accuracy"] - 50) < 6
    assert found["top5_accuracy"] is None


# Of protocols that are one but for their settings one is tried; that each has the figures is held in test_protocols.py.
ALIKE = ("knn200", "transfer", "linear_moco", "fewshot10", "finetune1", "finetune100")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name in ALIKE else name for name in OF_CLASS]
)
def test_every_protocol_that_asks_for_the_class_has_the_figures(name):
    found = result(name)
    assert list(found["by_class"]) == list(NAMES)
    assert found["mean_class_accuracy"] == pytest.approx(np.mean(list(found["by_class"].values())))
    # A class's accuracy weighs as many images as it has: together they are the accuracy.
    if name != "corruption":  # which shows a part of the test images
        weights = np.bincount(TEST.labels) / len(TEST.labels)
        assert weights @ list(found["by_class"].values()) == pytest.approx(found["accuracy"])
    assert found["accuracy"] <= found["top5_accuracy"] <= 100


def test_top_5_of_a_classifier_that_guesses_is_five_of_seven():
    labels = np.random.default_rng(3).integers(0, 7, 700)
    rng = np.random.default_rng(4)
    # As many training images and features as those above have: by the same program.
    bank, queries = rng.normal(size=(len(TRAIN.labels), 4)), rng.normal(size=(700, 4))
    subject = Subject.of_features(bank, TRAIN.labels, queries, labels)
    found = PROTOCOLS["linear"](None, subject, l2=(1.0,))
    assert abs(found["top5_accuracy"] - 500 / 7) < 8


def test_knn_ranks_classes_by_their_votes():
    rng = np.random.default_rng(6)
    bank, queries, labels = rng.normal(size=(60, 3)), rng.normal(size=(20, 3)), rng.integers(0, 9, 60)
    unit = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in (bank, queries)]
    best = knn_ranked(bank, labels, queries, k=8, vote="weighted", temperature=0.3)
    for row, query in zip(best, unit[1], strict=True):
        votes = np.zeros(9)
        for i in np.argsort(-(unit[0] @ query), kind="stable")[:8]:
            votes[labels[i]] += np.exp(unit[0][i] @ query / 0.3)
        wanted = [c for c in np.argsort(-votes, kind="stable") if votes[c] > 0][:5]
        assert [c for c in row if c >= 0] == wanted


def test_a_class_that_is_not_in_training_is_never_right():
    found = hits(np.array([[0, 1, 2, 3, 4]]), np.array([9]), 6)
    assert (found.first[0], found.five[0]) == (0, 0)


def test_equal_names_are_told_apart_by_their_labels():
    labels = np.array([0, 1])
    assert list(figures(hits(labels[:, None], labels, 2), labels, names=("crane", "crane"))["by_class"]) == [
        "0",
        "1",
    ]


def test_online_knn_logs_them_too():
    evaluate = online_knn(lambda params, state, x: flat(x), TRAIN, TEST)
    found = evaluate(0, {}, {})
    assert found["knn_accuracy"] == result("knn")["accuracy"]
    assert found["knn_mean_class_accuracy"] == result("knn")["mean_class_accuracy"]
    assert found["knn_top5_accuracy"] == result("knn")["top5_accuracy"]


def test_the_table_names_the_least_known_class():
    _, (row,) = classes_table([{"encoder": "mine", **result("knn")}])
    name, value = row[-1].split(": ")
    assert float(value) == pytest.approx(min(result("knn")["by_class"].values()), abs=0.05)
    assert name in NAMES
