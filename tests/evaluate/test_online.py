"""Online kNN: the accuracy of the features, computed by one program however often it is asked for."""

import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcl.evaluate import embed, knn_accuracy, online_knn
from jaxcl.evaluate import features as evaluate_features
from jaxcl.typing import Images


def squares(n, seed):
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % 3
    images = rng.integers(0, 150, (n, 4, 4, 1)) + 50 * labels[:, None, None, None]
    return Images("squares", images.astype(np.uint8), labels)


# `jaxcl.evaluate.knn` is the function; this is its file.
evaluate_knn = importlib.import_module("jaxcl.evaluate.knn")
TRAIN, TEST = squares(90, 0), squares(31, 1)


def weights(seed):
    return {"w": jax.random.normal(jax.random.key(seed), (16, 5))}


def features(params, state, images):
    return (images - state["mean"]).reshape(len(images), -1) @ params["w"]


def test_it_is_the_knn_accuracy_of_the_features_in_percent():
    params, state = weights(0), {"mean": jnp.float32(0.3)}
    bank, queries = (embed(lambda x: features(params, state, x), s.images) for s in (TRAIN, TEST))
    found = online_knn(features, TRAIN, TEST)(7, params, state)
    assert found["knn_accuracy"] == 100 * knn_accuracy(bank, TRAIN.labels, queries, TEST.labels, k=10)
    weighted = online_knn(features, TRAIN, TEST, k=90, vote="weighted")(7, params, state)
    settings = {"k": 90, "vote": "weighted"}
    assert weighted["knn_accuracy"] == 100 * knn_accuracy(
        bank, TRAIN.labels, queries, TEST.labels, **settings
    )


def test_asking_twice_traces_the_encoder_once_and_sees_the_new_parameters():
    traced = []

    def counted(params, state, images):
        traced.append(images.shape)
        return features(params, state, images)

    evaluate = online_knn(counted, TRAIN, TEST)
    state = {"mean": jnp.float32(0.3)}
    first = evaluate(1, weights(0), state)
    assert len(traced) == 1  # one shape: both sets are cut into batches of one size
    programs = [f._cache_size() for f in (evaluate_features._forward, evaluate_knn._nearest)]
    again = evaluate(2, weights(0), state)
    blind = evaluate(3, {"w": jnp.ones((16, 5))}, state)
    assert len(traced) == 1
    assert programs == [f._cache_size() for f in (evaluate_features._forward, evaluate_knn._nearest)]
    assert again == first
    assert blind != first


def test_missing_labels_are_an_error_before_any_training():
    with pytest.raises(ValueError, match=r"Online kNN on 'squares' needs labels.*--knn-every 0"):
        online_knn(features, TRAIN, TEST._replace(labels=None))


def test_a_bank_of_fewer_images_than_neighbors_is_used_whole():
    small = squares(6, 0)
    params, state = weights(0), {"mean": jnp.float32(0.3)}
    assert online_knn(features, small, TEST)(0, params, state) == online_knn(features, small, TEST, k=6)(
        0, params, state
    )
