"""The images that a protocol trains on: augmented by name, or as they are."""

from __future__ import annotations

import functools
from typing import Any

from jaxcl import augment
from jaxcl.evaluate.subject import Subject
from jaxcl.images import as_float
from jaxcl.typing import Array, Batch, Views


def for_finetuning(augmentation: str, views: Views | None, subject: Subject) -> tuple[str, Views | None]:
    """Its name and the views, which fine-tuning cannot do without."""
    if augmentation == "recipe" and views is None:
        augmentation = "tensorflow"
    return augmentation, as_they_are if augmentation == "none" else chosen(augmentation, views, subject)


def chosen(
    augmentation: str, views: Views | None, subject: Subject, *, min_area: float = 0.08
) -> Views | None:
    """The views that a classifier is trained on; None where it sees the images as they are.

    min_area
        of crops that are asked for by a library's name: the least fraction of the image that one keeps.
    """
    choices = {"recipe": views, "none": None}
    if augmentation not in (*choices, "tensorflow", "torchvision"):
        raise ValueError(
            f'augmentation must be "recipe", "tensorflow", "torchvision" or "none"; got {augmentation!r}.'
        )
    if augmentation in choices:
        return choices[augmentation]
    subject.encoder_for("A probe on augmented images")
    return probe_views(subject.train.images.shape[1], augmentation, min_area)


def of_augmentation(augmentation: str, views: Views | None, min_area: float | None = None) -> dict[str, Any]:
    """What a result says of it; `min_area` where crops were asked for by a library's name."""
    by_library = augmentation in ("tensorflow", "torchvision") and min_area is not None
    return {
        "augmentation": augmentation,
        "augmented": views is not None,
        **({"min_area": min_area} if by_library else {}),
    }


# The same object at every call, so that the step is compiled once.
@functools.cache
def probe_views(size: int, library: str, min_area: float = 0.08) -> Views:
    return augment.probe_views(size, library=library, min_area=min_area)


def as_they_are(key: Array, batch: Batch) -> tuple[Array, ...]:
    return (as_float(batch["image"]),)
