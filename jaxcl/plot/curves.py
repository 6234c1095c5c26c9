"""How a run went: one small panel a metric."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from jaxcl.plot import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


class Panel(NamedTuple):
    """How a metric is shown: `unit` goes after the title, values are multiplied by `scale`."""

    key: str
    title: str
    unit: str = ""
    scale: float = 1.0
    log: bool = False
    sparse: bool = False  # measured now and then: marks joined by a line, not smoothed
    smooth: bool = True


PANELS = (
    Panel("loss", "Loss"),
    Panel("knn_accuracy", "kNN accuracy", "%", sparse=True),
    Panel("contrast_accuracy", "Contrastive accuracy", "%", 100),
    Panel("contrast_entropy", "Contrastive entropy", "nats"),
    Panel("alignment", "Alignment", "squared distance"),
    Panel("uniformity", "Uniformity", "log mean potential"),
    Panel("effective_rank", "Effective rank of h", "dimensions"),
    Panel("grad_norm", "Gradient norm", "log scale", log=True),
    Panel("learning_rate", "Learning rate", smooth=False),
    Panel("images_per_second", "Speed", "images/s"),
)

Records = Sequence[Mapping[str, Any]]


def training_curves(
    records: Records | Mapping[str, Records],
    *,
    keys: Iterable[str] | None = None,
    columns: int | None = None,
    panels: Sequence[Panel] = PANELS,
) -> Figure:
    """The metrics of a run in a grid of small panels: the raw values faint, a smoothed line over them.

    records  the lines of a run's metrics.jsonl, each a dict with "step" and any of the metrics; or a dict
             {name: records} to lay several runs over each other. A metric may be missing from some records (an
             evaluation now and then) or from all of them, and then has no panel. Where a step was logged twice (a
             run that was resumed), the later record counts.
    keys     which metrics, and in which order; by default those that a training run is known to log. A key that is
             not among them gets a panel under its own name.
    columns  panels a row; by default three, or as fills the last row better
    panels   how known metrics are shown, and which are if `keys` does not say

    "knn_accuracy" is in percent; "contrast_accuracy" is a fraction in [0, 1], drawn as percent. The x axis is the epoch
    where the records say it, else the step. The number at the upper right of a panel is the last smoothed value.
    Smoothing is a moving average over a thirtieth of the run, weights falling off like a Gaussian; values that are not
    finite are left out of it, leave a gap in the line and a red mark at the foot of the panel.

    Raises ValueError when there is nothing to draw.
    """
    runs: dict[str, Records] = dict(records) if isinstance(records, Mapping) else {"": list(records)}
    known = {panel.key: panel for panel in panels}
    wanted = panels if keys is None else [known.get(key) or Panel(key, key.replace("_", " ")) for key in keys]
    panels = [p for p in wanted if any(p.key in record for run in runs.values() for record in run)]
    if not panels:
        names = ", ".join(p.key for p in wanted)
        raise ValueError(f"None of the records has any of the metrics {names}; there is nothing to draw.")

    if columns is None:
        columns = {1: 1, 2: 2, 4: 2}.get(len(panels), 4 if len(panels) % 3 == 1 else 3)
    columns = max(1, min(columns, len(panels)))
    rows = math.ceil(len(panels) / columns)
    legend_room = 0.3 if len(runs) > 1 else 0.0
    figure = style.new_figure(2.75 * columns + 0.15, 1.75 * rows + 0.1 + legend_room, layout=None)
    figure.set_layout_engine("constrained", w_pad=0.07, h_pad=0.05, wspace=0.04, hspace=0.04)
    grid = figure.subplots(rows, columns, squeeze=False)
    epochs = all(epochs_of(run) is not None for run in runs.values() if len(run))

    drawn: dict[str, list[np.ndarray]] = {panel.key: [] for panel in panels}
    end = 0.0
    for number, ax in enumerate(grid.flat):
        if number >= len(panels):
            ax.remove()
            continue
        panel = panels[number]
        style.tidy(ax)
        for color, (name, run) in zip(_colors(len(runs)), runs.items(), strict=True):
            x, values = _draw(ax, panel, run, color=color, label=name, epochs=epochs, last=len(runs) == 1)
            end = max(end, float(np.max(x, initial=0.0)))
            drawn[panel.key].append(values[np.isfinite(values)])
    for panel, ax in zip(panels, figure.axes, strict=True):
        # One x range for all, so that panels can be compared.
        _dress(ax, panel, np.concatenate(drawn[panel.key]), end)
    figure.supxlabel("epoch" if epochs else "step", fontsize=style.LABEL, color=style.GRAY)
    if len(runs) > 1:
        from matplotlib.lines import Line2D

        handles = [Line2D([], [], color=color, linewidth=2) for color in _colors(len(runs))]
        legend = figure.legend(
            handles,
            list(runs),
            loc="outside upper left",
            ncols=min(len(runs), 2 * columns),
            frameon=False,
            fontsize=style.LABEL,
            labelcolor=style.INK,
        )
        style.plain(legend.get_texts())
    return figure


def smooth(values: np.ndarray, width: float) -> np.ndarray:
    """A Gaussian-weighted moving average [n] -> [n], `width` its standard deviation in samples, over finite values.

    Near the ends the weights that fall outside are dropped, so a constant stays that constant.

    >>> smooth(np.array([2.0, np.nan, 2.0, 2.0]), 1.0).tolist()
    [2.0, nan, 2.0, 2.0]
    """
    finite = np.isfinite(values)
    reach = max(1, math.ceil(3 * width))
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / width) ** 2)
    total = np.convolve(np.where(finite, values, 0.0), weights, "full")[reach : reach + len(values)]
    weight = np.convolve(finite.astype(float), weights, "full")[reach : reach + len(values)]
    return np.where(finite, total / np.maximum(weight, 1e-30), np.nan)


def series(run: Records, key: str) -> tuple[np.ndarray, np.ndarray]:
    """(steps [m], values [m]) of one metric, by step, the later record where a step was logged twice.

    None, and text that is no number, count as not a number.
    """
    found = {int(record["step"]): _number(record[key]) for record in run if key in record}
    steps = np.array(sorted(found), dtype=float)
    return steps, np.array([found[int(step)] for step in steps], dtype=float)


def _number(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        return math.nan


def epochs_of(run: Records) -> tuple[np.ndarray, np.ndarray] | None:
    """(steps, epochs) if the epoch grows with the step; whole epochs repeated for many steps are no use as an axis."""
    steps, epochs = series(run, "epoch")
    usable = len(steps) > 0 and bool(np.all(np.isfinite(epochs)) and np.all(np.diff(epochs) > 0))
    return (steps, epochs) if usable else None


def _colors(runs: int) -> list[str]:
    return [style.BLUE] if runs == 1 else [style.COLORS[i % len(style.COLORS)] for i in range(runs)]


def _draw(
    ax: Axes, panel: Panel, run: Records, *, color: str, label: str, epochs: bool, last: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Draws one run's metric; returns its x and its values as drawn."""
    steps, values = series(run, panel.key)
    if not len(steps):
        return steps, values
    x, values = steps, values * panel.scale
    known = epochs_of(run) if epochs else None
    if known is not None:
        # An evaluation is logged without its epoch; a single record gives the ratio.
        anchor_steps, anchor_epochs = np.append(0.0, known[0]), np.append(0.0, known[1])
        x = np.interp(steps, anchor_steps, anchor_epochs)
    if panel.log:
        values = np.where(values > 0, values, np.nan)
    finite = np.isfinite(values)

    smoothed = values
    if panel.sparse or not panel.smooth or len(values) < 12:
        marker = "o" if panel.sparse or len(values) < 12 else None
        ax.plot(x, values, color=color, linewidth=1.4, marker=marker, markersize=3, label=label)
    else:
        width = max(1.0, len(values) / 60)  # two standard deviations: a thirtieth of the run
        smoothed = np.exp(smooth(np.log(values), width)) if panel.log else smooth(values, width)
        ax.plot(x, values, color=color, linewidth=0.7, alpha=0.3)
        ax.plot(x, smoothed, color=color, linewidth=1.6, label=label, solid_capstyle="round")
    if not finite.all():
        ax.plot(
            x[~finite],
            np.zeros(int(np.sum(~finite))),
            linestyle="none",
            marker="|",
            markersize=7,
            markeredgewidth=1.2,
            color=style.OTHER,
            transform=ax.get_xaxis_transform(),
            clip_on=False,
        )
    if last and finite.any():
        value = smoothed[finite][-1]
        ax.set_title(
            _short(value).replace("-", "\N{MINUS SIGN}"),
            loc="right",
            fontsize=style.LABEL,
            color=color,
            pad=5,
        )
    return x, values


def _dress(ax: Axes, panel: Panel, values: np.ndarray, end: float) -> None:
    """Title, ticks and limits: y holds the finite `values`, x goes from 0 to `end`."""
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

    title = ax.set_title(
        panel.title, loc="left", fontsize=style.TITLE, color=style.INK, pad=5, parse_math=False
    )
    if panel.unit:
        ax.annotate(
            panel.unit,
            (1, 0.5),
            xycoords=title,
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
            fontsize=style.LABEL - 1,
            color=style.GRAY,
        )
    ax.set_xlim(-0.02 * end, 1.02 * end if end > 0 else 1.0)
    ax.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: tick_of(value, ax.xaxis.get_majorticklocs())))

    low, high = float(np.min(values, initial=math.inf)), float(np.max(values, initial=-math.inf))
    if not low <= high:
        low, high = 1.0, 2.0  # nothing finite: any range will do
    if panel.log:
        room = max((high / low) ** 0.08, 1.05)
        ax.set_yscale("log")
        ax.set_ylim(low / room, high * room)
        # A narrow range may lie between 1, 2 and 5.
        wide = high / low > 8
        ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=6) if wide else MaxNLocator(5))
        ax.yaxis.set_minor_formatter(NullFormatter())
        ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: _short(value)))
    else:
        # A constant gets a range too, or its rounding errors would fill the panel.
        room = max(0.08 * (high - low), 0.01 * max(abs(low), abs(high)), 1e-12)
        ax.set_ylim(low - room, high + room)
        ax.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
        ax.yaxis.set_major_formatter(
            FuncFormatter(lambda value, _: tick_of(value, ax.yaxis.get_majorticklocs()))
        )


def tick_of(value: float, ticks: Any) -> str:
    """A tick's number with as many decimals as its neighbors need, so that no two read alike.

    >>> tick_of(3.0, [2.5, 3.0, 3.5]), tick_of(-12000.0, [-12000.0, 0.0]), tick_of(0.0002, [0.0, 0.0002])
    ('3.0', '−12,000', '0.0002')
    """
    step = min((abs(b - a) for a, b in zip(ticks, ticks[1:], strict=False)), default=abs(value)) or 1.0
    decimals = max(0, -math.floor(math.log10(step) + 1e-6))
    if abs(round(step, decimals) - step) > 1e-3 * step:
        decimals += 1  # steps of 0.25
    text = f"{value:,.{decimals}f}" if decimals <= 5 else _short(value)
    return text.replace("-", "\N{MINUS SIGN}")


def _short(value: float) -> str:
    """Three significant digits.

    >>> _short(12345.6), _short(0.4567), _short(0.000125)
    ('12,346', '0.457', '1.25e-4')
    """
    if value == 0:
        return "0"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    if abs(value) < 1e-3:
        mantissa, exponent = f"{value:.2e}".split("e")
        return f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}"
    return f"{value:.3g}"
