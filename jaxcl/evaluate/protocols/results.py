"""What every protocol returns, and the settings and figures in it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from jaxcl.evaluate.figures import Hits, figures, hits, ranked
from jaxcl.evaluate.probe import LinearProbe
from jaxcl.evaluate.subject import Subject
from jaxcl.typing import Array

# What a protocol returns: numbers, strings, lists and dicts, which json.dump takes as they are.
Result = dict[str, Any]


def of_linear(probe: LinearProbe, subject: Subject) -> Result:
    """The figures of a linear classifier on the test images."""
    features = subject.test_features().astype(probe.weights.dtype, copy=False)
    best = ranked(features @ probe.weights + probe.bias, probe.classes)
    return figures_of(hits(best, np.asarray(subject.test.labels), len(probe.classes)), subject)


def figures_of(found: Hits, subject: Subject) -> Result:
    """`figures` of the test images."""
    return figures(found, np.asarray(subject.test.labels), names=subject.test.classes)


def seed_of(key: Array) -> list[int]:
    """The key that all draws are a function of, as numbers."""
    return np.asarray(jax.random.key_data(key)).tolist()


def of_features(protocol, subject: Subject, accuracy, settings, seconds: float, more: Mapping) -> Result:
    """What the protocols that read features return; `seconds` are those of the fit."""
    return {
        **result(protocol, subject, accuracy, settings, seconds + subject.embed_seconds),
        "features": int(subject.train_features().shape[1]),
        **more,
        "embed_seconds": subject.embed_seconds,
    }


def result(protocol: str, subject: Subject, accuracy: float, settings, seconds: float) -> Result:
    """What every protocol returns; `accuracy` is a fraction, `settings` go in as they are."""
    test_images = len(subject.test.images)
    return {
        "protocol": protocol,
        "accuracy": 100 * accuracy,
        "standard_error": 100 * float(np.sqrt(accuracy * (1 - accuracy) / test_images)),
        "train_images": len(subject.train.images),
        "test_images": test_images,
        "settings": settings,
        "seconds": seconds,
    }


def of_schedule(settings: dict[str, Any]) -> dict[str, Any]:
    """Without what has no use: drops where the schedule does not fall in steps, LARS's coefficient where it is SGD."""
    unused = [] if settings["schedule"] == "steps" else ["drops", "drop_factor"]
    unused += ["trust_coefficient"] if settings.get("optimizer") == "sgd" else []
    return {name: value for name, value in settings.items() if name not in unused}
