"""The protocol on corrupted images."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from jaxcl.evaluate.checks import check_sets
from jaxcl.evaluate.corruptions import CORRUPTIONS
from jaxcl.evaluate.figures import figures
from jaxcl.evaluate.probe import L2
from jaxcl.evaluate.progress import Progress
from jaxcl.evaluate.protocols.results import Result, result, seed_of
from jaxcl.evaluate.robustness import robustness
from jaxcl.evaluate.subject import Subject
from jaxcl.typing import Array, Views


def corruption_result(
    key: Array,
    subject: Subject,
    *,
    views: Views | None = None,
    images: int | None = None,
    names: Sequence[str] = tuple(CORRUPTIONS),
    l2: Sequence[float] = L2,
    held_out: float = 0.1,
    standardize: bool = True,
    tolerance: float = 1e-5,
    iterations: int = 500,
    progress: Progress | None = None,
) -> Result:
    """`robustness`: "accuracy" is the mean over 15 corruptions and 5 severities; "groups", "severe" (severities 3 to
    5), "clean_accuracy" and "corruptions" (five severities each) beside it, all in percent."""
    check_sets("corruption", subject.train, subject.test)
    start = time.perf_counter()
    given: dict[str, Any] = {"held_out": held_out, "standardize": standardize}
    given |= {"tolerance": tolerance, "iterations": iterations}
    score = robustness(key, subject, images=images, names=names, l2=l2, progress=progress, **given)
    most = len(subject.test.images)
    shown = most if images is None else min(images, most)
    settings = {"names": list(names), "severities": 5, "images": images, "seed": seed_of(key)}
    settings |= {"classifier": "linear, fitted to clean images", **given}
    seconds = time.perf_counter() - start
    return {
        **result("corruption", subject, score.mean, settings, seconds),
        "test_images": shown,
        "standard_error": 100 * score.standard_error,
        "clean_accuracy": 100 * score.clean,
        "severe": 100 * score.severe,
        "groups": {group: 100 * mean for group, mean in score.groups.items()},
        "corruptions": {name: [100 * float(a) for a in five] for name, five in score.accuracies.items()},
        "features": len(score.probe.weights),
        **figures(score.hits, score.labels, names=subject.test.classes),
        **score.probe.details,
    }
