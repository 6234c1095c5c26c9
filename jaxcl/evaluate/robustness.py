"""Robustness: the accuracy of a classifier of clean images on corrupted ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import jax
import numpy as np

from jaxcl import keys
from jaxcl.evaluate.checks import check_numbers, check_sets
from jaxcl.evaluate.corruptions import CORRUPTIONS, SEVERITIES, corrupt
from jaxcl.evaluate.features import embed
from jaxcl.evaluate.figures import Hits, hits, ranked
from jaxcl.evaluate.probe import L2, LinearProbe, linear_probe
from jaxcl.evaluate.progress import Progress, stage
from jaxcl.evaluate.subject import Subject
from jaxcl.typing import Array


class Robustness(NamedTuple):
    """The accuracy, in [0, 1], of a classifier that has never seen a corrupted image."""

    clean: float
    accuracies: dict[str, np.ndarray]  # corruption -> [5], a severity each
    groups: dict[str, float]  # the means of "noise", "blur", "weather", "digital"
    mean: float  # over all 75
    severe: float  # over severities 3 to 5
    standard_error: float  # of the mean, over the draw of the test images
    probe: LinearProbe
    hits: Hits  # of every corrupted test image, the mean over corruptions and severities
    labels: np.ndarray  # of these images


class _Corrupted:
    """Images with a corruption, made when they are asked for: of several processes each makes those that it embeds."""

    dtype = np.dtype(np.uint8)

    def __init__(self, key: Array, name: str, images: np.ndarray, severity: int):
        self.key, self.name, self.images, self.severity = key, name, images, severity
        self.shape = images.shape

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice) -> np.ndarray:
        return corrupt(self.key, self.name, self.images[rows], self.severity, start=rows.start)


def robustness(
    key: Array,
    subject: Subject,
    *,
    images: int | None = None,
    names: Sequence[str] = tuple(CORRUPTIONS),
    l2: Sequence[float] = L2,
    progress: Progress | None = None,
    **probe_settings: Any,
) -> Robustness:
    """How often a linear classifier, fitted on clean features, is right about corrupted test images.

    As LooC reports it (Xiao et al. 2020, arXiv:2008.05659, table 3): the classifier of the clean task, unchanged; the
    mean accuracy in each group, over all, and over severities 3 to 5. (Hendrycks and Dietterich report errors, and
    divide each corruption's by AlexNet's; that is not done here.) The classifier is `linear_probe`.

    images
        how many test images, chosen by the key, are corrupted; all if not given. They are embedded 75 times.
    names
        some of CORRUPTIONS, if not all.
    l2, probe_settings
        of `linear_probe`.
    """
    labels, wanted = check_sets("Robustness", subject.train, subject.test)
    encoder, shown = subject.encoder_for("Robustness"), subject.test.images
    if not names or not set(names) <= set(CORRUPTIONS):
        raise ValueError(f"names must be some of {', '.join(CORRUPTIONS)}; got {', '.join(names) or 'none'}.")
    if shown.shape[3] not in (1, 3):  # before minutes of fitting
        raise ValueError(
            f"Corruptions are of gray images or of three colors, one channel or three; those of {subject.test.name!r}"
            f" have {shown.shape[3]}. Leave corruption out for an encoder of such images."
        )
    check_numbers(images=images)
    subset_key, noise_key = keys.of_protocol(key, 2)
    some = images is not None and images < len(shown)
    if some:
        rows = np.sort(np.asarray(jax.random.permutation(subset_key, len(shown)))[:images])
        shown, wanted = shown[rows], wanted[rows]
    features = subject.train_features(progress)
    if some:
        clean = embed(encoder, shown, progress=stage(progress, "embedding test images"))
    else:
        clean = subject.test_features(progress)
    stage(progress, "fitting")(0.0)
    how = {"l2": l2, "progress": progress} | probe_settings
    probe = linear_probe(features, labels, clean, wanted, **how)

    total, accuracies = len(names) * len(SEVERITIES), {}
    right, five = np.zeros(len(shown)), np.zeros(len(shown))
    for i, name in enumerate(names):
        scores = []
        for severity in SEVERITIES:
            stage(progress, name.replace("_", " "))((i * len(SEVERITIES) + severity - 1) / total)
            seen = embed(encoder, cast(np.ndarray, _Corrupted(noise_key, name, shown, severity)))
            best = ranked(seen @ probe.weights + probe.bias, probe.classes)
            found = hits(best, wanted, len(probe.classes))
            scores.append(found.first.mean())
            right += found.first / total
            five += 0 if found.five is None else found.five / total
        accuracies[name] = np.asarray(scores)
    by_group: dict[str, list[np.ndarray]] = {}
    for name in names:
        by_group.setdefault(CORRUPTIONS[name].group, []).append(accuracies[name])
    every = np.stack(list(accuracies.values()))
    return Robustness(
        clean=probe.accuracy,
        accuracies=accuracies,
        groups={group: float(np.mean(members)) for group, members in by_group.items()},
        mean=float(every.mean()),
        severe=float(every[:, 2:].mean()),
        standard_error=float(right.std() / np.sqrt(len(right))),
        probe=probe,
        hits=Hits(right, None if found.five is None else five),
        labels=wanted,
    )
