"""The protocols that ask which rotation or hue shift an image was shown in."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from jaxcl.evaluate import transforms
from jaxcl.evaluate.probe import L2
from jaxcl.evaluate.progress import Progress
from jaxcl.evaluate.protocols.results import Result, result, seed_of
from jaxcl.evaluate.subject import Subject
from jaxcl.typing import Array, Views


def transform_result(
    protocol: str,
    probe_of: Callable[..., transforms.TransformProbe],
    names: tuple[int, ...],
    key: Array,
    subject: Subject,
    *,
    views: Views | None = None,
    most: int = 10000,
    l2: Sequence[float] = L2,
    held_out: float = 0.1,
    standardize: bool = True,
    tolerance: float = 1e-5,
    iterations: int = 500,
    progress: Progress | None = None,
) -> Result:
    """`rotation_probe` or `hue_probe`; the labels of the images are not used."""
    start = time.perf_counter()
    given: dict[str, Any] = {"most": most, "held_out": held_out, "standardize": standardize}
    given |= {"tolerance": tolerance, "iterations": iterations}
    score = probe_of(key, subject, l2=l2, progress=progress, **given)
    settings = {"degrees": list(names), "optimizer": "L-BFGS", "seed": seed_of(key), **given}
    seconds = time.perf_counter() - start
    return {
        **result(protocol, subject, score.accuracy, settings, seconds),
        "train_images": score.train_images,
        "standard_error": 100 * score.standard_error,
        "by_degrees": {str(name): 100 * float(a) for name, a in zip(names, score.by_transform, strict=True)},
        "features": len(score.probe.weights),
        **score.probe.details,
    }
