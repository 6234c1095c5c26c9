"""The protocol of a residual classifier on a grid of features."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from jaxcl.evaluate.checks import check_sets
from jaxcl.evaluate.deep import deep_probe
from jaxcl.evaluate.fewshot import labelled_count
from jaxcl.evaluate.progress import Progress
from jaxcl.evaluate.protocols.augmentation import chosen, of_augmentation
from jaxcl.evaluate.protocols.results import Result, figures_of, of_schedule, result, seed_of
from jaxcl.evaluate.subject import Subject
from jaxcl.typing import Array, Views


def deep_result(
    key: Array,
    subject: Subject,
    *,
    views: Views | None = None,
    side: int = 1,
    fraction: float = 1.0,
    blocks: int = 11,
    inner: int | None = None,
    epochs: int = 60,
    batch_size: int = 256,
    learning_rate: float = 0.1,
    momentum: float = 0.9,
    nesterov: bool = True,
    schedule: str = "cosine",
    drops: Sequence[float] = (0.6, 0.8),
    drop_factor: float = 0.1,
    weight_decay: float = 1e-4,
    augmentation: str = "recipe",
    progress: Progress | None = None,
) -> Result:
    """`deep_probe`: CPC's classifier on the grid. Fewer labelled images than the batch are one batch; the augmentation
    as for "linear_sgd"."""
    labels, _ = check_sets("deep", subject.train, subject.test)
    start = time.perf_counter()
    views = chosen(augmentation, views, subject)
    settings: dict[str, Any] = {
        "side": side,
        "fraction": fraction,
        "blocks": blocks,
        "inner": inner,
        "epochs": epochs,
        "batch_size": min(batch_size, labelled_count(labels, fraction)),
        "learning_rate": learning_rate,
        "momentum": momentum,
        "nesterov": nesterov,
        "schedule": schedule,
        "drops": [float(drop) for drop in drops],
        "drop_factor": drop_factor,
        "weight_decay": weight_decay,
    }
    probe = deep_probe(key, subject, views=views, progress=progress, **settings)
    settings = {
        "optimizer": "SGD",
        **of_augmentation(augmentation, views),
        "seed": seed_of(key),
        **of_schedule(settings),
    }
    seconds = time.perf_counter() - start
    return {
        **result("deep", subject, probe.accuracy, settings, seconds),
        "labelled_images": len(probe.rows),
        "features": int(subject.test_features().shape[1]),
        **figures_of(probe.hits, subject),
        **probe.details,
    }
