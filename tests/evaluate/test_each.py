"""Several encoders of one architecture are evaluated at once as they are one by one."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcl import evaluate, nets
from jaxcl.typing import Images

CLASSES = 3


@pytest.fixture(scope="module")
def world():
    """Three encoders, and two sets of images whose classes they tell apart somewhat."""
    net = nets.conv_n(features=(4,), dense=6, norm=nets.batch_norm())
    rng = np.random.default_rng(0)

    def split(n):
        labels = np.arange(n) % CLASSES
        pixels = rng.integers(0, 160, (n, 8, 8, 3)) + 30 * labels[:, None, None, None]
        return Images("noise", pixels.astype(np.uint8), labels, ("a", "b", "c"))

    train, test = split(90), split(40)
    blank = jnp.zeros((2, 8, 8, 3))
    init = jax.jit(lambda key: net.init(key, blank))
    made = [init(jax.random.key(i)) for i in range(3)]

    def embed(params, state, images):
        return net.apply(params, state, images, train=False)[0][-1]

    return [functools.partial(embed, *one) for one in made], train, test


@pytest.fixture(scope="module")
def features(world):
    encoders, train, test = world
    return tuple(
        np.stack([evaluate.embed(encoder, images.images) for encoder in encoders]) for images in (train, test)
    )


def test_features_of_several_encoders_are_those_of_each(world, features):
    encoders, train, test = world
    for images, alone in zip((train, test), features, strict=True):
        together = evaluate.embed_each(encoders, images.images, batch_size=32)
        assert together.shape == alone.shape
        np.testing.assert_allclose(together, alone, rtol=1e-5, atol=1e-5)


def test_encoders_of_two_kinds_are_refused(world):
    encoders, train, _ = world
    other = functools.partial(lambda w, x: w * x.mean(axis=(1, 2)), 1.0)
    with pytest.raises(ValueError, match="2 kinds among 2 encoders"):
        evaluate.embed_each([encoders[0], other], train.images)


@pytest.mark.parametrize(("k", "vote"), [(5, "majority"), (40, "weighted")])
def test_each_encoder_has_its_own_neighbors(world, features, k, vote):
    _, train, test = world
    banks, queries = features
    together = evaluate.knn_ranked_each(banks, train.labels, queries, k=k, vote=vote, block=(16, 32))
    for bank, own, found in zip(banks, queries, together, strict=True):
        alone = evaluate.knn_ranked(bank, train.labels, own, k=k, vote=vote, block=(16, 32))
        np.testing.assert_array_equal(found, alone)
    assert not (together[0] == together[1]).all()
    with pytest.raises(ValueError, match="k must be between"):
        evaluate.knn_ranked_each(banks, train.labels, queries, k=91)
    with pytest.raises(ValueError, match="NaN or infinity in 1 of 90"):
        evaluate.knn_ranked_each(
            np.where(np.arange(90)[:, None] == 3, np.nan, banks), train.labels, queries, k=1
        )


def test_each_classifier_stops_where_it_would_alone(world, features, monkeypatch):
    _, train, test = world
    banks, queries = features
    banks = banks * np.array([1.0, 50.0, 0.02], np.float32)[:, None, None]  # some need more steps
    l2 = (1e-4, 1e-2)
    alone = [evaluate.linear_path(bank, train.labels, l2=l2, standardize=False) for bank in banks]
    strengths = np.tile(l2, (3, 1))
    together = evaluate.linear_path_each(banks, train.labels, l2=strengths, standardize=False)
    assert len({tuple(path.iterations) for path in alone}) > 1
    for mine, one in zip(together, alone, strict=True):
        np.testing.assert_allclose(mine.objective, one.objective, rtol=1e-4)
        assert (mine.gradient <= np.maximum(1e-5, 2 * one.gradient)).all()
        assert (abs(mine.iterations - one.iterations) <= 0.2 * one.iterations + 3).all()
    # Fewer at a time, the last ones again: the same, and the number of classifiers is that of the members.
    monkeypatch.setattr("jaxcl.evaluate.probe.MOST", 2 * 90 * CLASSES * 2)
    parts = evaluate.linear_path_each(banks, train.labels, l2=strengths, standardize=False)
    assert len(parts) == 3
    for mine, one in zip(parts, together, strict=True):
        np.testing.assert_allclose(mine.weights, one.weights, rtol=1e-3, atol=1e-5)


def test_the_protocols_answer_for_each_as_alone(world):
    encoders, train, test = world
    alone = [evaluate.Subject(encoder, train, test) for encoder in encoders]
    together = [evaluate.Subject(encoder, train, test) for encoder in encoders]
    evaluate.embed_together(together)
    key = jax.random.key(0)
    for protocol in ("knn", "linear"):
        results = evaluate.EACH[protocol](together)
        for subject, found in zip(alone, results, strict=True):
            expected = evaluate.PROTOCOLS[protocol](key, subject)
            assert found.keys() == expected.keys()
            assert found["settings"] == expected["settings"]
            assert abs(found["accuracy"] - expected["accuracy"]) <= 100 / len(test.images)
            if protocol == "knn":
                assert found["by_class"] == expected["by_class"]
            else:
                assert found["l2_path"] == expected["l2_path"]
        assert len({result["accuracy"] for result in results}) > 1
