"""A representation seen in two dimensions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxcl.plot import style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

AT_MOST = 2000  # points; t-SNE takes minutes beyond, and the eye gains nothing
LEGEND_AT_MOST = 20  # classes: so many colors the eye tells apart
NAMES_AT_MOST = 120  # classes whose names are written among their points


def embedding_map(
    features: Any, labels: Any, *, method: str = "tsne", classes: Sequence[str] = (), seed: int = 0
) -> Figure:
    """Every image a point, alike features near each other, colored by class.

    features  [n, d]. Of more than 2,000 rows a random 2,000 are drawn; the title says so. They are taken as they are:
              normalize them first if what you use is the cosine.
    labels    int [n], or None for one color. Negative: unlabeled, gray.
    method    "tsne": t-SNE (van der Maaten & Hinton 2008) by scikit-learn, from the 50 first principal components and
              started at the first two. Neighborhoods mean something; distances between groups and the sizes of
              groups do not, so its axes have no numbers.
              "pca": the first two principal components, on equal scales.
    classes   the names of the classes; numbers where there are none. Of more than 20 the names stand among their points
              in place of a legend, in a darker tone of their color: at the median of each, or as near as there is room,
              with a line to it. Of more than 120 they are left out.
    seed      of the choice of points and of t-SNE; the same seed gives the same picture.

    Raises ValueError for features that are not [n, d] with n >= 4, not finite, or all alike; labels of another length;
    or an unknown method.
    """
    features = np.asarray(features, dtype=np.float32)
    if features.ndim != 2 or features.shape[0] < 4 or features.shape[1] < 2:
        raise ValueError(
            f"features must be [n, d] with n at least 4 and d at least 2; got shape {features.shape}."
        )
    if not np.isfinite(features).all():
        bad = int(np.sum(~np.isfinite(features).all(axis=1)))
        raise ValueError(
            f"{bad} of {len(features)} rows of features are not finite; leave them out or mend the model."
        )
    spread, size = float(np.ptp(features, axis=0).max()), float(np.abs(features).max())
    if spread <= 1e-6 * size:  # the rounding of float32; t-SNE would divide by it
        raise ValueError(
            f"All {len(features)} rows of features are alike (they differ by {spread:.2g} at most, and are as large as"
            f" {size:.2g}), so there is nothing to draw: the representation has collapsed."
        )
    if method not in ("tsne", "pca"):
        raise ValueError(f'method must be "tsne" or "pca"; got {method!r}.')
    if labels is not None:
        labels = np.asarray(labels)
        style.check_rows("labels", labels, len(features), "rows of features")

    total = len(features)
    # The order is random even where all points are drawn: no class may lie on top of the others for being the last.
    chosen = np.random.default_rng(seed).permutation(total)[:AT_MOST]
    features, labels = features[chosen], None if labels is None else labels[chosen].astype(int)

    components, fractions = principal_components(features, 2 if method == "pca" else 50)
    points = components[:, :2] if method == "pca" else _tsne(components, seed)
    return _draw(points, labels, method=method, classes=classes, fractions=fractions, total=total)


def principal_components(features: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """([n, min(k, n, d)] coordinates along the first principal axes, their fractions of the variance).

    An axis points to where its largest loading is positive, so that the picture does not flip between machines.

    >>> points, fractions = principal_components(np.array([[0.0, 3.0], [0.0, -3.0], [1.0, 0.0], [-1.0, 0.0]]), 2)
    >>> (points + 0.0).round(3).tolist(), fractions.round(3).tolist()
    ([[3.0, 0.0], [-3.0, 0.0], [0.0, 1.0], [0.0, -1.0]], [0.9, 0.1])
    """
    centered = features - features.mean(axis=0)
    _, sizes, axes = np.linalg.svd(centered, full_matrices=False)
    signs = np.sign(axes[np.arange(len(axes)), np.abs(axes).argmax(axis=1)])
    fractions = sizes**2 / max(float(np.sum(sizes**2)), 1e-30)
    return centered @ (axes * signs[:, None])[:k].T, fractions[:k]


def _tsne(points: np.ndarray, seed: int) -> np.ndarray:
    try:
        from sklearn.manifold import TSNE
        from threadpoolctl import threadpool_limits  # comes with scikit-learn
    except ImportError as error:
        raise ImportError(
            't-SNE needs scikit-learn: pip install scikit-learn, or use method="pca".'
        ) from error
    perplexity = min(30.0, (len(points) - 1) / 3)
    model = TSNE(perplexity=perplexity, init="pca", learning_rate="auto", random_state=seed)
    # One thread: sums in a fixed order, and on a busy machine ten times faster than threads that wait for each other.
    with threadpool_limits(1):
        return model.fit_transform(points)


def _draw(
    points: np.ndarray,
    labels: np.ndarray | None,
    *,
    method: str,
    classes: Sequence[str],
    fractions: np.ndarray,
    total: int,
) -> Figure:
    from matplotlib.lines import Line2D
    from matplotlib.patheffects import withStroke

    present = [] if labels is None else [int(c) for c in np.unique(labels)]
    named = [c for c in present if c >= 0]
    order = named + [c for c in present if c < 0]
    names = [style.class_name(c, classes) if c >= 0 else "unlabeled" for c in order]
    names = [name if len(name) <= 28 else name[:27] + "\N{HORIZONTAL ELLIPSIS}" for name in names]
    legend_columns = 0 if len(order) > LEGEND_AT_MOST else math.ceil(len(order) / 20)

    # The legend gets its own room, about 0.075 inches a letter, and the map stays square.
    width = 5.2 + legend_columns * (0.35 + 0.075 * max(map(len, names), default=0))
    figure = style.new_figure(width, 5.2)
    ax = figure.add_subplot()
    size = float(np.clip(9000 / len(points), 7, 30))
    colors = dict(zip(named, class_colors(len(named)), strict=True)) | {
        c: "#c9ccd1" for c in present if c < 0
    }
    color: Any = style.BLUE if labels is None else [colors[int(c)] for c in labels]
    ax.scatter(points[:, 0], points[:, 1], s=size, c=color, alpha=0.8, linewidths=0.25, edgecolors="white")

    style.tidy(ax)
    if method == "pca":
        ax.set_aspect("equal", adjustable="datalim")
        for axis, name, fraction in zip((ax.xaxis, ax.yaxis), ("First", "Second"), fractions, strict=True):
            axis.set_label_text(
                f"{name} principal component, {fraction:.0%} of the variance",
                fontsize=style.LABEL,
                color=style.GRAY,
            )
    else:
        style.bare(ax)
        ax.set_aspect("equal", adjustable="datalim")
    title = {"tsne": "t-SNE", "pca": "Principal components"}[method]
    count = f"{total:,} images" if len(points) == total else f"{len(points):,} of {total:,} images"
    ax.set_title(f"{title} of {count}", loc="left", fontsize=style.TITLE + 1, color=style.INK, pad=8)

    if LEGEND_AT_MOST < len(order) <= NAMES_AT_MOST:
        assert labels is not None
        middles = np.array([np.median(points[labels == c], axis=0) for c in order])
        texts = [
            ax.text(
                x, y, name, fontsize=5.5, ha="center", va="center", parse_math=False, color=darker(colors[c])
            )
            for (x, y), c, name in zip(middles, order, names, strict=True)
        ]
        figure.draw_without_rendering()  # from here on it is known how large a name is
        boxes = np.array([text.get_window_extent().size for text in texts])
        within, to_data = ax.get_window_extent(), ax.transData.inverted()
        places = apart(ax.transData.transform(middles), boxes, corners=(within.min, within.max))
        for text, middle, place, box in zip(texts, middles, to_data.transform(places), boxes, strict=True):
            text.set_path_effects([withStroke(linewidth=1.5, foreground="white")])
            text.set_position(place)
            moved = ax.transData.transform(place) - ax.transData.transform(middle)
            if (np.abs(moved) > 0.6 * box).any():
                line = Line2D(*zip(middle, place, strict=True), color=text.get_color(), lw=0.4, alpha=0.6)
                ax.add_artist(line)
    if legend_columns:
        marks = [Line2D([], [], linestyle="none", marker="o", markersize=6, color=colors[c]) for c in order]
        legend = figure.legend(
            marks,
            names,
            loc="outside right center",
            ncols=legend_columns,
            frameon=False,
            fontsize=style.LABEL,
            labelcolor=style.INK,
            handletextpad=0.2,
            labelspacing=0.6,
        )
        for text in legend.get_texts():
            text.set_parse_math(False)
    return figure


def apart(places: np.ndarray, sizes: np.ndarray, *, corners: Any) -> np.ndarray:
    """The centers [n, 2] of boxes of `sizes` [n, 2], one after the other as near to its place as none of the former is
    and nothing reaches beyond `corners`; where there is no room, at its place.

    >>> apart(np.zeros((3, 2)), np.full((3, 2), 2.0), corners=(-9, 9)).tolist()
    [[0.0, 0.0], [0.0, -2.0], [-2.0, 0.0]]
    """
    steps = np.stack(np.meshgrid(np.arange(-8, 9) / 4, np.arange(-40, 41) / 2), axis=-1).reshape(-1, 2)
    found = np.array(places, float)
    for k, (place, size) in enumerate(zip(places, sizes, strict=True)):
        tried = steps * size
        tried = place + tried[np.argsort(np.sum(tried**2, axis=1), kind="stable")]
        room = np.abs(tried[:, None] - found[:k]) >= (size + sizes[:k]) / 2 - 1e-6
        inside = ((tried >= corners[0] + size / 2) & (tried <= corners[1] - size / 2)).all(axis=1)
        free = np.flatnonzero(inside & room.any(axis=-1).all(axis=1))
        if len(free):
            found[k] = tried[free[0]]
    return found


def darker(color: Any) -> Any:
    """A color in which words can be read on white."""
    from matplotlib.colors import to_rgb

    return tuple(0.55 * x for x in to_rgb(color))


def class_colors(n: int) -> list[Any]:
    """n colors: the fixed twenty, or hues around the circle in three strengths where there are more classes."""
    if n <= len(style.COLORS):
        return list(style.COLORS[:n])
    from matplotlib.colors import hsv_to_rgb

    strengths = ((0.85, 0.8), (0.45, 0.95), (0.9, 0.5))
    return [tuple(hsv_to_rgb((i / n, *strengths[i % 3]))) for i in range(n)]
