"""The protocols with a few labelled images a class."""

from __future__ import annotations

import time
from typing import Any

from jaxcl.evaluate.checks import check_sets
from jaxcl.evaluate.fewshot import few_shot
from jaxcl.evaluate.progress import Progress, stage
from jaxcl.evaluate.protocols.results import Result, figures_of, result, seed_of
from jaxcl.evaluate.subject import Subject
from jaxcl.typing import Array, Views


def few_shot_result(
    protocol: str,
    key: Array,
    subject: Subject,
    *,
    shots: int,
    views: Views | None = None,
    draws: int = 10,
    steps: int = 250,
    learning_rate: float = 0.03,
    standardize: bool = True,
    progress: Progress | None = None,
) -> Result:
    """`few_shot`: "accuracy" is the mean over draws, "interval" half the width of its 95 % confidence
    interval, both in percent."""
    labels, test_labels = check_sets(protocol, subject.train, subject.test)
    settings: dict[str, Any] = {
        "shots": shots,
        "draws": draws,
        "steps": steps,
        "learning_rate": learning_rate,
        "standardize": standardize,
    }
    train_features, test_features = subject.train_features(progress), subject.test_features(progress)
    stage(progress, "fitting")(0.0)
    start = time.perf_counter()
    names = subject.train.classes
    score = few_shot(key, train_features, labels, test_features, test_labels, names=names, **settings)
    settings = {"optimizer": "Adam", "seed": seed_of(key), **settings}
    seconds = time.perf_counter() - start + subject.embed_seconds
    return {
        **result(protocol, subject, score.mean, settings, seconds),
        "interval": None if draws == 1 else 100 * score.interval,
        "accuracies": [100 * float(accuracy) for accuracy in score.accuracies],
        "features": int(train_features.shape[1]),
        **figures_of(score.hits, subject),
    }
