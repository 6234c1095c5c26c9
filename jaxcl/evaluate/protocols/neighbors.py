"""The protocols by k nearest neighbors."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxcl.evaluate.checks import check_sets
from jaxcl.evaluate.figures import hits
from jaxcl.evaluate.knn import knn_ranked, knn_ranked_each
from jaxcl.evaluate.progress import Progress, stage
from jaxcl.evaluate.protocols.results import Result, figures_of, of_features
from jaxcl.evaluate.subject import Subject
from jaxcl.typing import Array, Views


def knn_result(
    protocol: str,
    key: Array | None,
    subject: Subject,
    *,
    k: int,
    vote: str,
    temperature: float = 0.1,
    views: Views | None = None,
    progress: Progress | None = None,
) -> Result:
    """`knn`. A small data set has fewer neighbors than 200; the k that was used is in the settings."""
    return knn_results(protocol, [subject], k=k, vote=vote, temperature=temperature, progress=progress)[0]


def knn_results(
    protocol: str,
    subjects: Sequence[Subject],
    *,
    k: int,
    vote: str,
    temperature: float = 0.1,
    progress: Progress | None = None,
) -> list[Result]:
    """ "knn" of subjects that differ in the encoder alone: several in one program."""
    labels, test_labels = check_sets(protocol, subjects[0].train, subjects[0].test)
    banks = [subject.train_features(progress) for subject in subjects]
    queries = [subject.test_features(progress) for subject in subjects]
    stage(progress, "fitting")(0.0)
    start = time.perf_counter()
    k = min(k, len(labels))
    how: dict[str, Any] = {"k": k, "vote": vote, "temperature": temperature}
    if len(subjects) == 1:
        ranks = [knn_ranked(banks[0], labels, queries[0], **how)]
    else:
        ranks = list(knn_ranked_each(np.stack(banks), labels, np.stack(queries), **how))
    weighted = {"temperature": temperature} if vote == "weighted" else {}
    settings = {"k": k, "vote": vote, "similarity": "cosine", **weighted}
    seconds = (time.perf_counter() - start) / len(subjects)
    made = []
    for subject, best in zip(subjects, ranks, strict=True):
        found = hits(best, test_labels, len(np.unique(labels)))
        more = figures_of(found, subject)
        made.append(of_features(protocol, subject, float(found.first.mean()), settings, seconds, more))
    return made
