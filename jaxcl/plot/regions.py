"""Which regions of images a representation takes for alike: clusters of local features, drawn over the images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxcl.plot import style

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def regions_sheet(
    images: Any, clusters: Mapping[str, Any], *, cell: float = 1.2, cover: float = 0.65
) -> Figure:
    """One row an image: the image at the left, then, for every map, its clusters in colors over the image in gray.

    images     [n, h, w, c], uint8 or float in [0, 1]
    clusters   name of a map -> int [n, h', w'], as `evaluate.regions` gives them; h' and w' are the map's own
    cell       width of an image in inches
    cover      how much of the image the colors hide, in [0, 1]

    A color is the same cluster in all rows of a column (where they were clustered together), and nothing across
    columns. Beyond twenty clusters colors repeat. Raises ValueError where numbers of rows do not agree.
    """
    from matplotlib.colors import to_rgb

    images = style.check_images("images", images, 4)
    if not clusters:
        raise ValueError("regions_sheet draws the clusters of one map at least; got none.")
    if not 0 <= cover <= 1:
        raise ValueError(f"cover is a fraction, from 0 to 1; got {cover}.")
    palette = np.array([to_rgb(color) for color in style.COLORS])
    columns = {}
    for name, labels in clusters.items():
        labels = np.asarray(labels)
        if labels.ndim != 3 or len(labels) != len(images):
            raise ValueError(
                f"The clusters of {name!r} must be [{len(images)}, height, width], one map an image; got"
                f" {labels.shape}."
            )
        columns[name] = labels
    figure, grid = style.sheet(
        len(images), 1 + len(columns), cell=cell, under=[0] * len(images), first_gap=0.1
    )
    for row, image, *maps in zip(grid, images, *columns.values(), strict=True):
        style.show(row[0], image)
        shown = image / 255 if image.dtype == np.uint8 else image
        gray = shown.mean(axis=2, keepdims=True)
        for axes, labels in zip(row[1:], maps, strict=True):
            down, across = (
                np.arange(gray.shape[axis]) * labels.shape[axis] // gray.shape[axis] for axis in (0, 1)
            )
            colors = palette[labels[np.ix_(down, across)] % len(palette)]
            style.show(axes, (1 - cover) * gray + cover * colors)
    if grid:
        style.head(grid[0][0], "image")
        for axes, name in zip(grid[0][1:], columns, strict=True):
            style.head(axes, name)
    return figure
