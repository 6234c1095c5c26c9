"""How the scores of positives and negatives move while a method learns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxcl.plot import style
from jaxcl.plot.curves import Panel, Records, epochs_of, series, training_curves

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PANELS = (
    Panel("positive_mean", "Positive scores, mean"),
    Panel("negative_mean", "Negative scores, mean"),
    Panel("positive_variance", "Positive scores, variance"),
    Panel("negative_variance", "Negative scores, variance"),
)
UNMIXED = "unmixed_"
HISTOGRAMS = ("positive_histogram", "negative_histogram")


def score_curves(records: Records | Mapping[str, Records], *, columns: int | None = None) -> Figure:
    """Mean and variance of the scores of positives and negatives over a run, in four panels.

    records  the lines of a run's metrics.jsonl, or a dict {name: records} to lay several runs over each other, as
             Zhu et al. 2021 (arXiv:2108.02982) do with runs of different momentum. A single run whose features were
             mixed is drawn twice: as the loss saw it, and before mixing.
    columns  panels a row; two by default

    The variance of positives is over the batch, that of negatives a query's own over its negatives, averaged over the
    batch: two kinds, not to be compared with each other. Scores are those before the temperature divides them.

    Raises ValueError where no record has scores.
    """
    if not isinstance(records, Mapping) and any(UNMIXED + PANELS[0].key in record for record in records):
        records = {"as the loss sees them": records, "before mixing": unmixed(records)}
    return training_curves(records, panels=PANELS, columns=columns)


def unmixed(records: Records) -> list[dict[str, Any]]:
    """The records with the scores before mixing in place of those after."""
    return [
        {name.removeprefix(UNMIXED): value for name, value in record.items() if name.startswith(UNMIXED)}
        | {name: record[name] for name in ("step", "epoch") if name in record}
        for record in records
    ]


def score_distributions(records: Records, *, columns: int = 2) -> Figure:
    """The distribution of scores over a run, as a picture: time to the right, score upwards, dark where there are many.

    A panel for positives and one for negatives, and a second row for those before mixing where the run mixed. Each
    column of a picture is scaled by its own largest fraction, so that a narrow and a wide distribution are both seen;
    the line is the mean. The lowest and highest rows also hold what lies below -1 and above 1. With one of `columns`
    the panels stand below each other.

    Raises ValueError where no record has histograms.
    """
    prefixes = [p for p in ("", UNMIXED) if any(p + HISTOGRAMS[0] in record for record in records)]
    if not prefixes:
        raise ValueError(
            "None of the records has score histograms; a method makes them if it is given"
            " scores=partial(monitor.score_monitor, temperature=...)."
        )
    known = epochs_of(records)
    rows = 2 * len(prefixes) // columns
    figure = style.new_figure(3.7 * columns, 0.35 + 2.3 * rows)
    grid = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
    for row, prefix in zip(grid.reshape(len(prefixes), 2), prefixes, strict=True):
        for ax, name, color in zip(row, HISTOGRAMS, (style.SAME, style.OTHER), strict=True):
            steps, fractions = histograms(records, prefix + name)
            x = steps if known is None else np.interp(steps, *known)
            edges = np.linspace(-1, 1, fractions.shape[1] + 1)
            ax.pcolormesh(
                between(x),
                edges,
                (fractions / np.maximum(fractions.max(axis=1, keepdims=True), 1e-12)).T,
                cmap=fading(color),
                vmin=0,
                vmax=1,
                rasterized=True,
            )
            mean_steps, means = series(records, prefix + name.replace("histogram", "mean"))
            ax.plot(
                mean_steps if known is None else np.interp(mean_steps, *known),
                means,
                color=style.INK,
                linewidth=1,
            )
            style.tidy(ax).grid(False)
            ax.set_ylim(-1, 1)
            title = name.split("_")[0].capitalize() + "s" + (", before mixing" if prefix else "")
            ax.set_title(title, loc="left", fontsize=style.TITLE, color=style.INK, pad=5)
        for ax in row[: 3 - columns]:
            ax.set_ylabel("score", fontsize=style.LABEL, color=style.GRAY)
    figure.supxlabel("step" if known is None else "epoch", fontsize=style.LABEL, color=style.GRAY)
    return figure


def histograms(records: Records, key: str) -> tuple[np.ndarray, np.ndarray]:
    """(steps [m], fractions [m, bins]) by step, the later record where a step was logged twice."""
    found = {int(record["step"]): record[key] for record in records if key in record}
    steps = sorted(found)
    return np.array(steps, float), np.array([found[step] for step in steps], float)


def between(x: np.ndarray) -> np.ndarray:
    """The borders [m + 1] of cells around the positions x [m]: halfway to the neighbors.

    >>> between(np.array([1.0, 2.0, 4.0])).tolist()
    [0.5, 1.5, 3.0, 5.0]
    """
    if len(x) == 1:
        return np.array([x[0] - 0.5, x[0] + 0.5])
    middle = (x[1:] + x[:-1]) / 2
    return np.concatenate([[2 * x[0] - middle[0]], middle, [2 * x[-1] - middle[-1]]])


def fading(color: str) -> Any:
    """From white to a color."""
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("fading", ["white", color])
