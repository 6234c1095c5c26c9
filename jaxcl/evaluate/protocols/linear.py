"""The protocols of linear classifiers: by L-BFGS on features, and by SGD on augmented images."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxcl.evaluate.checks import check_sets
from jaxcl.evaluate.probe import linear_probe, linear_probe_each
from jaxcl.evaluate.progress import Progress, stage
from jaxcl.evaluate.protocols.augmentation import chosen, of_augmentation
from jaxcl.evaluate.protocols.results import Result, of_features, of_linear, of_schedule, result
from jaxcl.evaluate.sgd import linear_sgd
from jaxcl.evaluate.subject import Subject
from jaxcl.typing import Array, Views

# SimCLR's appendix B.8 and Kornblith et al. (2019): 45 values, evenly spaced in their logarithm.
TRANSFER_L2 = tuple(float(x) for x in np.logspace(-6, 5, 45))

MOCO: dict[str, Any] = {
    "epochs": 100,
    "batch_size": 256,
    "learning_rate": 30.0,
    "nesterov": False,
    "schedule": "steps",
    "start_std": 0.01,
    "augmentation": "torchvision",
}


def linear_result(
    protocol: str,
    key: Array | None,
    subject: Subject,
    *,
    l2: Sequence[float],
    held_out: float = 0.1,
    standardize: bool = True,
    tolerance: float = 1e-5,
    iterations: int = 500,
    views: Views | None = None,
    progress: Progress | None = None,
) -> Result:
    """`linear_probe`: "l2", "l2_path", "held_out_accuracies" and whether the fits converged come with the result.

    "transfer" is as in SimCLR's appendix B.8: features as they are, no augmentation, 45 values of l2 from 1e-6 to 1e5.
    l2 is chosen on held-out training images, then the classifier is fitted to all of them. l2 counts against the mean
    cross-entropy (ours: the paper does not say whether against mean or sum). Images keep their size or are resized when
    they are loaded. The paper reports "mean_class_accuracy" for some data sets.
    """
    how: dict[str, Any] = {
        "held_out": held_out,
        "standardize": standardize,
        "tolerance": tolerance,
        "iterations": iterations,
    }
    return linear_results(protocol, [subject], l2=l2, progress=progress, **how)[0]


def linear_results(
    protocol: str,
    subjects: Sequence[Subject],
    *,
    l2: Sequence[float],
    held_out: float = 0.1,
    standardize: bool = True,
    tolerance: float = 1e-5,
    iterations: int = 500,
    progress: Progress | None = None,
) -> list[Result]:
    """ "linear" of subjects that differ in the encoder alone: several by one minimizer."""
    labels, test_labels = check_sets(protocol, subjects[0].train, subjects[0].test)
    train_features = [subject.train_features(progress) for subject in subjects]
    test_features = [subject.test_features(progress) for subject in subjects]
    stage(progress, "fitting")(0.0)
    start = time.perf_counter()
    settings: dict[str, Any] = {
        "held_out": held_out,
        "standardize": standardize,
        "tolerance": tolerance,
        "iterations": iterations,
    }
    if len(subjects) == 1:
        given = train_features[0], labels, test_features[0], test_labels
        probes = [linear_probe(*given, l2=l2, progress=progress, **settings)]
    else:
        stacked = np.stack(train_features), labels, np.stack(test_features), test_labels
        probes = linear_probe_each(*stacked, l2=l2, **settings)
    seconds = (time.perf_counter() - start) / len(subjects)
    settings = {"optimizer": "L-BFGS", **settings}
    return [
        of_features(
            protocol,
            subject,
            probe.accuracy,
            settings,
            seconds,
            dict(probe.details) | of_linear(probe, subject),
        )
        for subject, probe in zip(subjects, probes, strict=True)
    ]


def sgd_result(
    protocol: str,
    key: Array,
    subject: Subject,
    *,
    views: Views | None = None,
    epochs: int = 100,
    batch_size: int = 512,
    learning_rate: float = 0.1,
    momentum: float = 0.9,
    nesterov: bool = True,
    weight_decay: float = 0.0,
    schedule: str = "cosine",
    drops: Sequence[float] = (0.6, 0.8),
    drop_factor: float = 0.1,
    start_std: float = 0.0,
    augmentation: str = "recipe",
    min_area: float = 0.08,
    progress: Progress | None = None,
) -> Result:
    """`linear_sgd`. The augmentation is that of the recipe ("recipe": its `probe_views`), crop and flip by
    "tensorflow" (SimCLR's) or by "torchvision" (MoCo's), whose crops keep a fraction of `min_area` at least, or "none":
    features of the images as they are.

    "linear_moco" is the protocol of MoCo's code (main_lincls.py), by which LooC and feature transformation are
    evaluated as well: 100 epochs (LooC on ImageNet-100: 200), batches of 256, learning rate 30, times 0.1 at 3/5 and
    4/5 of the epochs, momentum 0.9 without Nesterov, no weight decay, weights from N(0, 0.01^2). Its accuracy is that
    after the last epoch. (The code also keeps the best over test accuracies of all epochs.)
    """
    check_sets(protocol, subject.train, subject.test)
    start = time.perf_counter()
    views = chosen(augmentation, views, subject, min_area=min_area)
    settings: dict[str, Any] = {
        "epochs": epochs,
        "batch_size": min(batch_size, len(subject.train.images)),
        "learning_rate": learning_rate,
        "momentum": momentum,
        "nesterov": nesterov,
        "weight_decay": weight_decay,
        "schedule": schedule,
        "drops": [float(drop) for drop in drops],
        "drop_factor": drop_factor,
        "start_std": start_std,
    }
    probe = linear_sgd(key, subject, views=views, progress=stage(progress, "training"), **settings)
    settings = {
        "optimizer": "SGD",
        **of_augmentation(augmentation, views, min_area),
        **of_schedule(settings),
    }
    seconds = time.perf_counter() - start
    return {
        **result(protocol, subject, probe.accuracy, settings, seconds),
        "features": len(probe.weights),
        **of_linear(probe, subject),
        **probe.details,
    }
