"""Transfer by fine-tuning: rate and decay chosen on held-out training images, then all of them are learnt from."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxcl import data
from jaxcl.evaluate.checks import check_sets
from jaxcl.evaluate.finetune import FineTuned, finetune
from jaxcl.evaluate.probe import hold_out
from jaxcl.evaluate.progress import Progress, stage
from jaxcl.evaluate.sgd import Diverged
from jaxcl.evaluate.subject import Subject
from jaxcl.typing import Array, Views

# SimCLR's appendix B.8: seven values each, evenly spaced in their logarithm, and no decay.
RATES = tuple(float(x) for x in np.logspace(-4, -1, 7))
DECAYS = (0.0, *(float(x) for x in np.logspace(-6, -3, 7)))


def finetune_grid(
    key: Array,
    subject: Subject,
    *,
    learning_rates: Sequence[float] = RATES,
    weight_decays: Sequence[float] = DECAYS,
    steps: int = 20_000,
    batch_size: int = 256,
    decay_over_rate: bool = True,
    held_out: float = 0.1,
    views: Views | None = None,
    rate_rule: str = "linear",
    optimizer: str = "sgd",
    momentum: float = 0.9,
    nesterov: bool | None = None,
    trust_coefficient: float = 0.001,
    schedule: str = "cosine",
    progress: Progress | None = None,
) -> FineTuned:
    """`finetune` for every pair of a rate and a decay on part of the training images; the best pair again on all.

    As SimCLR's transfer by fine-tuning (Chen et al. 2020, arXiv:2002.05709, appendix B.8): 20,000 steps of 256 images,
    Nesterov momentum 0.9, 7 learning rates from 1e-4 to 0.1, 7 weight decays from 1e-6 to 1e-3 and none, chosen on a
    validation set. That is 57 trainings: name fewer values where that is too long. Ours, where the appendix says
    nothing or something else: a tenth of every class is held out, the rate falls along a cosine, and batch
    normalization keeps the statistics of pretraining (there: its momentum is max(1 - 10 / s, 0.9), with s steps an
    epoch).

    learning_rates, weight_decays
        as in `finetune`; the rates are those of a batch of 256.
    decay_over_rate
        each training gets the decay divided by its rate, as in the appendix: what a step takes off a weight is then the
        same at all rates. False: the decay as it is named. (A rate of 0 changes nothing, and divides nothing.)
    rate_rule, optimizer, momentum, nesterov, trust_coefficient, schedule
        as in `finetune`; SimCLR's grid is of SGD's rates.
    steps
        of each training: as many whole epochs as come nearest, at least one.
    held_out
        the fraction of every class that is held out, the same images at every call (`hold_out`).

    The test images are looked at once, at the end. Where pairs are right equally often, the smallest rate is taken, and
    of those the largest decay. A pair whose loss is no longer finite counts as 0. `details` also holds "learning_rate"
    and "weight_decay" (the chosen ones, as they are named), "decay_over_rate", "learning_rates", "weight_decays",
    "held_out_images", and "held_out_accuracies": one list a rate of one number a decay, in percent, None where the
    training diverged.

    Raises ValueError where labels are missing, a grid is empty, a number is out of its range, or every training
    diverged.
    """
    labels, _ = check_sets("Fine-tuning", subject.train, subject.test)
    grids = {"learning_rates": learning_rates, "weight_decays": weight_decays}
    for name, grid in grids.items():
        values = np.asarray(grid)
        if values.ndim != 1 or not values.size or values.dtype.kind not in "iuf" or not (values >= 0).all():
            raise ValueError(f"{name} is a list of at least one number, none of them negative; got {grid}.")
        if not np.isfinite(values).all():
            raise ValueError(f"{name} are finite numbers; got {grid}.")
    if steps < 1 or batch_size < 1:
        raise ValueError(f"steps and batch_size must be at least 1; got {steps} and {batch_size}.")
    fitted, held = hold_out(labels, held_out)
    part = Subject(subject.encoder, data.take(subject.train, fitted), data.take(subject.train, held))
    settings: dict[str, Any] = {"views": views, "momentum": momentum, "nesterov": nesterov}
    settings |= {"fraction": 1.0, "batch_size": batch_size, "schedule": schedule, "rate_rule": rate_rule}
    settings |= {"optimizer": optimizer, "trust_coefficient": trust_coefficient}

    def trained(on: Subject, rate: float, decay: float, progress: Progress | None = None) -> FineTuned:
        steps_an_epoch = max(1, len(on.train.images) // batch_size)
        epochs = max(1, round(steps / steps_an_epoch))
        decay = decay / rate if decay_over_rate and rate > 0 else decay
        return finetune(
            key, on, learning_rate=rate, weight_decay=decay, epochs=epochs, progress=progress, **settings
        )

    tell = stage(progress, "choosing rate and decay")
    pairs = list(itertools.product(learning_rates, weight_decays))
    scores: dict[tuple[float, float], float | None] = {}
    for done, (rate, decay) in enumerate(pairs):
        tell(done / len(pairs))
        try:
            scores[rate, decay] = 100 * trained(part, rate, decay).accuracy
        except Diverged:
            scores[rate, decay] = None
    tell(1.0)
    best = max(score for score in [*scores.values(), -1.0] if score is not None)
    if best < 0:
        raise ValueError(
            f"Fine-tuning diverged at each of the learning rates {tuple(learning_rates)}. Set lower ones: --set"
            " learning_rates=[...]."
        )
    rate = min(rate for (rate, _), score in scores.items() if score == best)
    decay = max(decay for (own, decay), score in scores.items() if own == rate and score == best)
    tuned = trained(subject, rate, decay, progress)
    found = {
        "learning_rate": rate,
        "weight_decay": decay,
        "decay_over_rate": decay_over_rate,
        "learning_rates": [float(value) for value in learning_rates],
        "weight_decays": [float(value) for value in weight_decays],
        "held_out_images": len(held),
        "held_out_accuracies": [[scores[rate, decay] for decay in weight_decays] for rate in learning_rates],
    }
    return tuned._replace(details={**tuned.details, **found})
