"""Which images a representation takes for alike."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxcl.plot import style

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def neighbors_sheet(
    query_images: Any,
    neighbor_images: Any,
    *,
    query_labels: Any = None,
    neighbor_labels: Any = None,
    similarities: Any = None,
    classes: Sequence[str] = (),
    query_names: Sequence[str] | None = None,
    neighbor_names: Sequence[Sequence[str]] | None = None,
    cell: float = 1.0,
) -> Figure:
    """One row a query: the query at the left, its k nearest neighbors to the right, nearest first.

    query_images     [n, h, w, c], uint8 or float in [0, 1]
    neighbor_images  [n, k, h, w, c]
    query_labels     int [n], and neighbor_labels int [n, k]: a neighbor of the query's class gets a solid green
                     frame, one of another class a dashed red frame. Without either there are no frames.
    similarities     float [n, k], printed under each neighbor
    classes          the names of the classes, printed instead of their numbers
    query_names      of the files, and neighbor_names [n][k]; the last part of each path is printed
    cell             width of an image in inches

    The line at the bottom says how many of the neighbors shown are of the query's class.
    Raises ValueError where shapes or numbers of rows do not agree.
    """
    queries = style.check_images("query_images", query_images, 4)
    neighbors = style.check_images("neighbor_images", neighbor_images, 5)
    n, k = neighbors.shape[:2]
    style.check_rows("query_images", queries, n, "rows of neighbor_images")
    query_labels = _checked("query_labels", query_labels, (n,))
    neighbor_labels = _checked("neighbor_labels", neighbor_labels, (n, k))
    similarities = _checked("similarities", similarities, (n, k))
    judged = query_labels is not None and neighbor_labels is not None

    def name(label: Any) -> str:
        return style.class_name(label, classes) if len(classes) else f"class {int(label)}"

    texts = []
    for i in range(n):
        line = [[] if query_labels is None else [name(query_labels[i])]]
        line[0] += [] if query_names is None else [_file(query_names[i])]
        for j in range(k):
            parts = [] if similarities is None else [f"{float(similarities[i, j]):.3f}"]
            if neighbor_labels is not None:
                parts.append(name(neighbor_labels[i, j]))
            line.append([" \N{MIDDLE DOT} ".join(parts)] if parts else [])
            line[-1] += [] if neighbor_names is None else [_file(neighbor_names[i][j])]
        texts.append([[short for text in cells for short in style.wrap(text, cell)] for cells in line])
    under = [max(map(len, line)) for line in texts]

    bottom = 0.24 if judged else 0.08
    figure, grid = style.sheet(n, 1 + k, cell=cell, under=under, first_gap=0.2, bottom=bottom)
    for i, row in enumerate(grid):
        style.show(row[0], queries[i])
        style.caption_under(row[0], texts[i][0], color=style.INK)
        for j in range(k):
            style.show(row[1 + j], neighbors[i, j])
            style.caption_under(row[1 + j], texts[i][1 + j])
            if judged:
                same = query_labels[i] == neighbor_labels[i, j]
                style.frame(row[1 + j], style.SAME if same else style.OTHER, 2.2, line="-" if same else "--")
    if grid:
        style.head(grid[0][0], "query")
        for j in range(k):
            style.head(grid[0][1 + j], "nearest" if j == 0 else f"{j + 1}")
    if judged and n and k:
        same = int(np.sum(query_labels[:, None] == neighbor_labels))
        figure.text(
            0.12 / figure.get_figwidth(),
            0.08 / figure.get_figheight(),
            f"{same} of {n * k} of the query's class (solid green); {n * k - same} of another (dashed red)",
            fontsize=style.LABEL - 0.5,
            color=style.INK,
        )
    return figure


def _file(path: str, at_most: int = 22) -> str:
    """A file's name without its folders, cut in the middle where it is long.

    >>> _file("train/cats/a.png"), len(_file("n01440764/a_very_long_name_of_a_file.jpg"))
    ('a.png', 21)
    """
    name = path.rsplit("/", 1)[-1]
    if len(name) <= at_most:
        return name
    half = (at_most - 1) // 2
    return f"{name[:half]}\N{HORIZONTAL ELLIPSIS}{name[-half:]}"


def _checked(name: str, values: Any, shape: tuple[int, ...]) -> np.ndarray | None:
    if values is None:
        return None
    values = np.asarray(values)
    if values.shape != shape:
        raise ValueError(f"{name} must have shape {shape}, as neighbor_images has; got {values.shape}.")
    return values
