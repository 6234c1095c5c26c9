"""The grid of fine-tuning: chosen on held-out training images alone, then trained on all of them."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcl.evaluate import PROTOCOLS, FineTuned, Subject, finetune, finetune_grid, grid, hold_out
from jaxcl.typing import Images

KEY = jax.random.key(0)


def squares(n, seed):
    """Whether the left half is brighter than the right."""
    labels = np.arange(n) % 2
    images = np.random.default_rng(seed).integers(80, 120, (n, 4, 4, 1))
    images[:, :, :2] += 30 * labels[:, None, None, None]
    return Images("squares", images.astype(np.uint8), labels)


TRAIN, TEST = squares(100, 0), squares(40, 1)
RATES, DECAYS = (0.0, 8.0, 1e30), (0.0, 0.01)
SETTINGS = {"steps": 9, "batch_size": 30}


def as_is(key, batch):
    return (jnp.asarray(batch["image"], jnp.float32) / 255,)


def network(params, images):
    return (images - 0.4).reshape(len(images), -1) @ params["kernel"]


def encoder():
    kernel = np.random.default_rng(0).normal(size=(16, 4)) / 4
    return functools.partial(network, {"kernel": jnp.asarray(kernel, jnp.float32)})


def chosen(train=TRAIN, test=TEST, *, rates=RATES, decays=DECAYS, **settings):
    return finetune_grid(
        KEY,
        Subject(encoder(), train, test),
        views=as_is,
        learning_rates=rates,
        weight_decays=decays,
        **{**SETTINGS, **settings},
    )


def alone(train, test, rate, decay, epochs):
    settings = {"fraction": 1.0, "views": as_is, "batch_size": 30, "epochs": epochs}
    return finetune(KEY, Subject(encoder(), train, test), learning_rate=rate, weight_decay=decay, **settings)


@functools.cache
def found():
    return chosen()


def test_each_pair_scores_as_it_does_alone_on_the_images_held_out():
    fitted, held = hold_out(TRAIN.labels, 0.1)
    assert len(held) == found().details["held_out_images"] == 10
    part = TRAIN._replace(images=TRAIN.images[fitted], labels=TRAIN.labels[fitted])
    rest = TRAIN._replace(images=TRAIN.images[held], labels=TRAIN.labels[held])
    scores = found().details["held_out_accuracies"]
    assert len(scores) == len(RATES)
    for rate, row in zip(RATES[:2], scores, strict=False):
        # Nine steps of 30 of the 90 images that are left are three epochs.
        true = [100 * alone(part, rest, rate, decay / (rate or 1), epochs=3).accuracy for decay in DECAYS]
        assert row == true


@pytest.mark.parametrize(("over", "given"), [(True, 1e-2), (False, 1e-4)])
def test_decays_are_divided_by_the_rate_as_in_the_appendix_unless_told_otherwise(monkeypatch, over, given):
    # B.8: "We divide these values of weight decay by the learning rate": 1e-4 / 1e-2.
    seen = []

    def finetune(key, subject, *, learning_rate, weight_decay, **rest):
        seen.append((learning_rate, weight_decay))
        return FineTuned(*(0.5 if name == "accuracy" else {} for name in FineTuned._fields))

    monkeypatch.setattr(grid, "finetune", finetune)
    details = chosen(rates=(1e-2,), decays=(1e-4, 0.0), decay_over_rate=over).details
    pairs = [(1e-2, given), (1e-2, 0.0), (1e-2, given)]  # and the better one again, on all images
    np.testing.assert_allclose(seen, pairs, rtol=1e-12)
    assert (details["weight_decay"], details["decay_over_rate"]) == (1e-4, over)


def test_a_rate_that_diverges_is_told_and_not_chosen():
    assert found().details["held_out_accuracies"][2] == [None, None]
    assert found().details["learning_rate"] == 8.0
    with pytest.raises(ValueError, match="diverged at each of the learning rates"):
        chosen(rates=(1e30,), decays=(0.0,))


def test_the_chosen_pair_is_trained_on_all_images():
    decay = found().details["weight_decay"] / 8.0
    again = alone(TRAIN, TEST, 8.0, decay, epochs=3)
    np.testing.assert_array_equal(found().weights, again.weights)
    assert found().accuracy == again.accuracy
    assert len(found().rows) == 100


def test_of_pairs_that_are_right_equally_often_the_least_rate_and_the_most_decay_is_taken():
    # At rates this small no answer changes.
    details = chosen(rates=(1e-7, 1e-8), decays=(0.0, 1e-5, 1e-6)).details
    assert len({score for row in details["held_out_accuracies"] for score in row}) == 1
    assert (details["learning_rate"], details["weight_decay"]) == (1e-8, 1e-5)


def test_the_test_images_choose_nothing():
    shuffled = TEST._replace(labels=1 - TEST.labels)
    other = chosen(test=shuffled)
    assert other.accuracy == pytest.approx(1 - found().accuracy)
    drop = ("losses",)
    assert {k: v for k, v in other.details.items() if k not in drop} == {
        k: v for k, v in found().details.items() if k not in drop
    }


def test_a_protocol_tells_what_was_chosen():
    subject = Subject(encoder(), TRAIN, TEST)
    given = {"learning_rates": RATES, "weight_decays": DECAYS, "augmentation": "none"}
    result = PROTOCOLS["finetune_grid"](KEY, subject, **given, **SETTINGS)
    assert result["settings"]["learning_rate"] == result["learning_rate"] == 8.0
    assert result["settings"]["steps"] == 9
    assert result["accuracy"] == 100 * found().accuracy


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"rates": ()}, "learning_rates is a list of at least one number"),
        ({"decays": (-1.0,)}, "weight_decays is a list"),
        ({"rates": (float("nan"),)}, "learning_rates"),
        ({"rates": 0.1}, "learning_rates is a list .* got 0.1"),
        ({"rates": ("high",)}, "learning_rates is a list"),
        ({"rates": (float("inf"),)}, "learning_rates are finite numbers"),
        ({"steps": 0}, "steps and batch_size must be at least 1"),
        ({"batch_size": 0}, "steps and batch_size must be at least 1"),
        ({"held_out": 1.5}, "fraction held out"),
    ],
)
def test_mistakes_are_answered_with_a_sentence(wrong, says):
    with pytest.raises(ValueError, match=says):
        chosen(**wrong)
