"""What the network is shown: images beside their augmented views."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxcl.plot import style

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def views_sheet(
    images: Any, views: Sequence[Any], *, captions: Sequence[Sequence[str]] | None = None, cell: float = 1.35
) -> Figure:
    """One row an image: the image as it is, then each of its views.

    images    uint8 [n, h, w, c] (or float in [0, 1]); c is 1 or 3. n rows are drawn, so pass the eight you want.
    views     one array [n, h', w', c] a view, float in [0, 1] as the network receives them; values outside are
              clipped. Views may differ in size.
    captions  captions[i][v] is printed under view v of image i, for example the augmentation parameters drawn for
              it. Long lines are broken; line breaks are kept.
    cell      width of an image in inches.

    Raises ValueError where shapes or numbers of rows do not agree.
    """
    images = style.check_images("images", images, 4)
    views = [style.check_images(f"views[{v}]", view, 4) for v, view in enumerate(views)]
    n = len(images)
    for v, view in enumerate(views):
        style.check_rows(f"views[{v}]", view, n, "images")
    if captions is not None:
        style.check_rows("captions", captions, n, "images")
        for i, line in enumerate(captions):
            if len(line) != len(views):
                raise ValueError(
                    f"captions[{i}] must have one text for each of {len(views)} views; got {len(line)}."
                )
    texts = [[style.wrap(text, cell) for text in row] for row in captions] if captions is not None else []
    under = [max((len(lines) for lines in row), default=0) for row in texts] or [0] * n

    figure, grid = style.sheet(n, 1 + len(views), cell=cell, under=under)
    for i, row in enumerate(grid):
        style.show(row[0], images[i])
        for v, view in enumerate(views):
            # float32 first: bfloat16 views are welcome, matplotlib does not know the type.
            style.show(row[1 + v], view[i] if view.dtype == np.uint8 else view[i].astype(np.float32))
            if texts:
                style.caption_under(row[1 + v], texts[i][v])
    if grid:
        style.head(grid[0][0], "image")
        for v in range(len(views)):
            style.head(grid[0][1 + v], f"view {v + 1}")
    return figure
