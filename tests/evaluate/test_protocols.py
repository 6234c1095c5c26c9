"""Every protocol through one contract: the same signature, a result that JSON takes, a clear word about labels."""

import inspect
import json

import jax
import numpy as np
import pytest

from jaxcl.evaluate import FEATURE_PROTOCOLS, PROTOCOLS, embed, evaluate_features
from jaxcl.typing import Images


def blobs(n, seed, *, shuffled=False):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, n)
    centers = np.random.default_rng(9).integers(60, 196, (3, 4, 4, 1))
    images = (centers[labels] + rng.integers(-40, 40, (n, 4, 4, 1))).astype(np.uint8)
    return Images("blobs", images, rng.permutation(labels) if shuffled else labels)


TRAIN, TEST = blobs(240, 0), blobs(200, 1)


def flat(x):
    return x.reshape(len(x), -1)


@pytest.fixture(scope="module")
def results():
    return {name: run(jax.random.key(0), flat, TRAIN, TEST) for name, run in PROTOCOLS.items()}


def test_the_table_names_the_four_protocols():
    assert list(PROTOCOLS) == ["knn", "knn200", "linear", "linear_sgd"]


@pytest.mark.parametrize("name", PROTOCOLS)
def test_every_protocol_has_the_one_signature(name):
    parameters = inspect.signature(PROTOCOLS[name]).parameters.values()
    given = [p.name for p in parameters if p.default is p.empty]
    assert given == ["key", "embed_fn", "train", "test"]
    assert all(p.kind is p.KEYWORD_ONLY for p in parameters if p.default is not p.empty)
    assert "views" in [p.name for p in parameters]


@pytest.mark.parametrize("name", PROTOCOLS)
def test_every_result_is_json_with_settings_and_an_error_bar(name, results):
    result = results[name]
    assert json.loads(json.dumps(result)) == result
    assert result["protocol"] == name
    assert result["accuracy"] > 90
    part = result["accuracy"] / 100
    assert result["standard_error"] == pytest.approx(100 * np.sqrt(part * (1 - part) / 200))
    assert (result["train_images"], result["test_images"], result["features"]) == (240, 200, 16)
    assert result["settings"]
    assert result["seconds"] > 0


@pytest.mark.parametrize("name", PROTOCOLS)
def test_shuffled_labels_score_as_chance(name):
    result = PROTOCOLS[name](
        jax.random.key(0), flat, blobs(240, 0, shuffled=True), blobs(200, 1, shuffled=True)
    )
    assert abs(result["accuracy"] - 100 / 3) < 4 * 100 * np.sqrt(2 / 9 / 200)


@pytest.mark.parametrize("name", FEATURE_PROTOCOLS)
def test_features_score_as_the_encoder_that_made_them(name, results):
    train, test = embed(flat, TRAIN.images), embed(flat, TEST.images)
    result = evaluate_features(name, train, TRAIN.labels, test, TEST.labels)
    timed = ("seconds", "embed_seconds")
    assert {k: v for k, v in result.items() if k not in timed} == {
        k: v for k, v in results[name].items() if k not in timed
    }


def test_the_settings_tell_what_was_run(results):
    assert results["knn"]["settings"] == {"k": 10, "vote": "majority", "similarity": "cosine"}
    assert results["knn200"]["settings"]["k"] == 200
    assert results["knn200"]["settings"]["temperature"] == 0.1
    assert results["linear"]["l2"] in results["linear"]["l2_path"]
    assert len(results["linear"]["held_out_accuracies"]) == len(results["linear"]["l2_path"])
    assert results["linear_sgd"]["settings"]["augmented"] is False


def test_a_bank_of_fewer_than_200_uses_all_of_it_and_says_so():
    x, y = np.eye(3)[np.arange(30) % 3] + 0.01, np.arange(30) % 3
    result = evaluate_features("knn200", x, y, x, y)
    assert result["settings"]["k"] == 30
    assert result["accuracy"] == 100


@pytest.mark.parametrize("name", PROTOCOLS)
def test_without_labels_every_protocol_says_so_before_it_embeds(name):
    def never(x):
        raise AssertionError("embedded before the labels were looked at")

    with pytest.raises(ValueError, match=f"{name} on 'blobs' needs labels"):
        PROTOCOLS[name](jax.random.key(0), never, TRAIN, TEST._replace(labels=None))


def test_a_protocol_that_needs_the_encoder_is_refused_on_features():
    with pytest.raises(ValueError, match=r"embeds augmented images at every step"):
        evaluate_features("linear_sgd", np.eye(3), np.arange(3), np.eye(3), np.arange(3))
    with pytest.raises(ValueError, match="the protocols on features are knn, knn200, linear"):
        evaluate_features("nearest", np.eye(3), np.arange(3), np.eye(3), np.arange(3))
