"""The protocols that train the whole encoder."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from jaxcl.evaluate.checks import check_sets
from jaxcl.evaluate.finetune import FineTuned, finetune, has_nesterov
from jaxcl.evaluate.grid import DECAYS, RATES, finetune_grid
from jaxcl.evaluate.progress import Progress
from jaxcl.evaluate.protocols.augmentation import for_finetuning
from jaxcl.evaluate.protocols.results import Result, figures_of, of_schedule, result, seed_of
from jaxcl.evaluate.subject import Subject
from jaxcl.typing import Array, Views


def finetune_result(
    percent: int,
    key: Array,
    subject: Subject,
    *,
    views: Views | None = None,
    epochs: int | None = None,
    batch_size: int = 128,
    learning_rate: float = 0.05,
    rate_rule: str = "linear",
    optimizer: str = "sgd",
    momentum: float = 0.9,
    nesterov: bool | None = None,
    trust_coefficient: float = 0.001,
    schedule: str = "cosine",
    drops: Sequence[float] = (0.6, 0.8),
    drop_factor: float = 0.1,
    weight_decay: float = 0.0,
    augmentation: str = "recipe",
    progress: Progress | None = None,
) -> Result:
    """`finetune` on so many percent of the labels: 60 epochs for 1 %, 30 for more. The augmentation as for
    "linear_sgd", and crop and flip where the recipe has none. SimCLRv2's optimizer is optimizer="lars",
    learning_rate=0.005, rate_rule="sqrt", batch_size=1024."""
    protocol = f"finetune{percent}"
    check_sets(protocol, subject.train, subject.test)
    start = time.perf_counter()
    settings: dict[str, Any] = {
        "fraction": percent / 100,
        "epochs": (60 if percent == 1 else 30) if epochs is None else epochs,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "rate_rule": rate_rule,
        "optimizer": optimizer,
        "momentum": momentum,
        "nesterov": has_nesterov(optimizer, nesterov),
        "trust_coefficient": trust_coefficient,
        "schedule": schedule,
        "drops": [float(drop) for drop in drops],
        "drop_factor": drop_factor,
        "weight_decay": weight_decay,
    }
    augmentation, views = for_finetuning(augmentation, views, subject)
    tuned = finetune(key, subject, views=views, progress=progress, **settings)
    return of_finetuned(protocol, key, subject, tuned, of_schedule(settings), augmentation, start)


def grid_result(
    key: Array,
    subject: Subject,
    *,
    views: Views | None = None,
    learning_rates: Sequence[float] = RATES,
    weight_decays: Sequence[float] = DECAYS,
    decay_over_rate: bool = True,
    steps: int = 20_000,
    batch_size: int = 256,
    held_out: float = 0.1,
    rate_rule: str = "linear",
    optimizer: str = "sgd",
    momentum: float = 0.9,
    nesterov: bool | None = None,
    trust_coefficient: float = 0.001,
    schedule: str = "cosine",
    augmentation: str = "recipe",
    progress: Progress | None = None,
) -> Result:
    """`finetune_grid`: SimCLR's transfer by fine-tuning, 57 trainings unless fewer rates and decays are named. The
    chosen ones and "held_out_accuracies" come with the result. The augmentation as for "finetune100"."""
    check_sets("finetune_grid", subject.train, subject.test)
    start = time.perf_counter()
    settings: dict[str, Any] = {
        "decay_over_rate": decay_over_rate,
        "steps": steps,
        "batch_size": batch_size,
        "held_out": held_out,
        "rate_rule": rate_rule,
        "optimizer": optimizer,
        "momentum": momentum,
        "nesterov": has_nesterov(optimizer, nesterov),
        "trust_coefficient": trust_coefficient,
        "schedule": schedule,
    }
    augmentation, views = for_finetuning(augmentation, views, subject)
    grid: dict[str, Any] = {"learning_rates": learning_rates, "weight_decays": weight_decays}
    tuned = finetune_grid(key, subject, views=views, progress=progress, **grid, **settings)
    settings |= {name: tuned.details[name] for name in ("learning_rate", "weight_decay")}
    return of_finetuned("finetune_grid", key, subject, tuned, of_schedule(settings), augmentation, start)


def of_finetuned(protocol, key, subject: Subject, tuned: FineTuned, settings, augmentation, start) -> Result:
    """What the protocols that fine-tune return; `start` is when they began."""
    told = {"augmentation": augmentation, "batch_statistics": "of pretraining"}
    seconds = time.perf_counter() - start
    return {
        **result(protocol, subject, tuned.accuracy, {**told, "seed": seed_of(key), **settings}, seconds),
        "labelled_images": len(tuned.rows),
        "features": len(tuned.weights),
        **figures_of(tuned.hits, subject),
        **tuned.details,
    }
