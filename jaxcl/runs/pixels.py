"""Raw pixels, the baseline below all encoders: as they are, or projected to fewer numbers where there are very many."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import jax
import numpy as np

from jaxcl.typing import Array, Images

# Numbers of all training images' pixels times the classes, beyond which a linear classifier of them takes many minutes
# on a few cores. CIFAR-10 has 1.5e9.
MOST_WORK = 2_000_000_000


def projection_width(sets: Mapping[str, tuple[Images, Images]], protocols: Sequence[str]) -> int | None:
    """The number of dimensions to which raw pixels are projected. None: no projection; few images, or only kNN."""
    if all(protocol.startswith("knn") for protocol in protocols):
        return None
    width = None
    for train, _ in sets.values():
        n, h, w, c = train.images.shape
        classes = 1 if train.labels is None else len(np.unique(train.labels))
        if n * h * w * c * classes > MOST_WORK:
            width = min(h * w * c, max(64, MOST_WORK // (n * classes)), width or h * w * c)
    return width


def projected_pixels(width: int) -> Callable[[Array], Array]:
    """[b, h, w, c] -> [b, width], by a fixed matrix of independent N(0, 1 / width): distances are kept on average."""

    def project(images: Array) -> Array:
        flat = pixels(images)
        matrix = jax.random.normal(jax.random.key(0), (flat.shape[1], width)) * width**-0.5
        return (flat - 0.5) @ matrix

    return project


def pixels(images: Array) -> Array:
    """The baseline below all encoders: [b, h, w, c] -> [b, h w c]."""
    return images.reshape(len(images), -1)
