"""The protocol of a classifier with one hidden layer."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from jaxcl.evaluate.checks import check_sets
from jaxcl.evaluate.mlp import mlp_probe
from jaxcl.evaluate.progress import Progress, stage
from jaxcl.evaluate.protocols.augmentation import chosen, of_augmentation
from jaxcl.evaluate.protocols.results import Result, figures_of, result, seed_of
from jaxcl.evaluate.subject import Subject
from jaxcl.typing import Array, Views


def mlp_result(
    key: Array,
    subject: Subject,
    *,
    views: Views | None = None,
    hidden: int = 1024,
    dropout: float = 0.2,
    epochs: int = 120,
    batch_size: int = 256,
    learning_rate: float = 2e-4,
    drops: Sequence[float] = (80 / 120, 110 / 120),
    weight_decay: float = 1e-5,
    augmentation: str = "recipe",
    min_area: float = 0.08,
    progress: Progress | None = None,
) -> Result:
    """`mlp_probe`; a training set of fewer images than the batch is one batch. hidden=0 is AMDIM's linear classifier.
    The augmentation as for "linear_sgd"."""
    check_sets("mlp", subject.train, subject.test)
    start = time.perf_counter()
    views = chosen(augmentation, views, subject, min_area=min_area)
    settings: dict[str, Any] = {
        "hidden": hidden,
        "dropout": dropout,
        "epochs": epochs,
        "batch_size": min(batch_size, len(subject.train.images)),
        "learning_rate": learning_rate,
        "drops": list(drops),
        "weight_decay": weight_decay,
    }
    probe = mlp_probe(key, subject, views=views, progress=stage(progress, "training"), **settings)
    settings = {
        "optimizer": "Adam, b1 = 0.8",
        **of_augmentation(augmentation, views, min_area),
        "seed": seed_of(key),
        **settings,
    }
    seconds = time.perf_counter() - start
    return {
        **result("mlp", subject, probe.accuracy, settings, seconds),
        "features": len(probe.params["hidden" if hidden else "weights"]),
        **figures_of(probe.hits, subject),
        **probe.details,
    }
