"""Many runs in small panels: what a panel shows as plain numbers, and the panel drawn.

A panel is as wide as a phone, so that its letters can be read there and two fit on a page.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from jaxcl.plot import style
from jaxcl.plot.curves import tick_of
from jaxcl.plot.scores import fading

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH = 4.3  # inches
LEGEND_AT_MOST = 12  # lines that a legend names


class Dot(NamedTuple):
    """One run, at x and y; `who` it is."""

    x: float
    y: float
    who: str


class Line(NamedTuple):
    """y over x; nan is a gap. `half` is half the width of a band around each y, nan where there is none; `group` says
    which color it has and which name in the legend, -1 a reference (gray, broken); `who` what it is."""

    who: str
    group: int
    x: Sequence[float]
    y: Sequence[float]
    half: Sequence[float] = ()
    dots: Sequence[Dot] = ()


class LinePanel(NamedTuple):
    """Lines over a common x; `groups` are the names of their colors, `ticks` where x is marked and how. Where the
    places on x are words, points stand `apart`: no line joins them, and a bar takes the place of the band. `legend`:
    whether the groups are named in the picture."""

    title: str
    x: str
    y: str
    lines: Sequence[Line]
    groups: Sequence[str]
    ticks: Sequence[tuple[float, str]] = ()
    log_x: bool = False
    log_y: bool = False
    apart: bool = False
    legend: bool = True


class GridPanel(NamedTuple):
    """A value for each column and row, [rows][columns]; nan where there is none. `words` are written in the cells."""

    title: str
    x: str
    y: str
    columns: Sequence[str]
    rows: Sequence[str]
    values: Sequence[Sequence[float]]
    words: Sequence[Sequence[str]]


def draw_panel(shown: LinePanel | GridPanel) -> Figure:
    """A panel drawn, about 4.3 inches wide."""
    return _grid(shown) if isinstance(shown, GridPanel) else _lines(shown)


def svg(figure: Figure) -> bytes:
    """A figure as SVG: letters are outlines, nothing refers to elsewhere, and the same figure is the same bytes."""
    import matplotlib

    buffer = io.BytesIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    with matplotlib.rc_context({"svg.hashsalt": "jaxcl", "svg.fonttype": "path"}):
        figure.savefig(buffer, format="svg", facecolor="white", metadata=nothing)
    return buffer.getvalue()


def shortened(words: str, most: int) -> str:
    """Words of at most so many letters, the middle left out of longer ones: names often differ at their ends.

    >>> shortened("nt_xent", 9), shortened("a_very_long_name_0", 9)
    ('nt_xent', 'a_ver…e_0')
    """
    if len(words) <= most:
        return words
    end = (most - 1) * 2 // 5
    return f"{words[: most - 1 - end]}…{words[len(words) - end :]}"


def tick_names(names: Sequence[str]) -> list[str]:
    """The names beneath an axis as wide as a phone."""
    return [shortened(name, max(8, min(24, 70 // max(len(names), 1)))) for name in names]


def color_of(group: int) -> str:
    """The color of a group; gray for -1, a reference."""
    return style.GRAY if group < 0 else style.COLORS[group % len(style.COLORS)]


def _lines(shown: LinePanel) -> Figure:
    named = [g for g in range(len(shown.groups)) if any(line.group == g for line in shown.lines)]
    named = named if shown.legend and 1 < len(named) <= LEGEND_AT_MOST else []
    references = list(dict.fromkeys(line.who for line in shown.lines if line.group < 0))
    columns = 2 if len(named) > 3 and max(len(shown.groups[g]) for g in named) <= 24 else 1
    figure = style.new_figure(WIDTH, 2.9 + 0.17 * math.ceil((len(named) + len(references)) / columns))
    ax = style.tidy(figure.add_subplot())
    many = sum(1 for line in shown.lines) > 3 * max(len(shown.groups), 1)
    for line in shown.lines:
        color = color_of(line.group)
        x, y = np.asarray(line.x, float), np.asarray(line.y, float)
        half = np.asarray(line.half, float)
        if shown.apart and len(half):
            ax.errorbar(x, y, half, color=color, linestyle="none", elinewidth=1.2, capsize=3)
        elif np.isfinite(half).any():
            ax.fill_between(x, y - half, y + half, color=color, alpha=0.15, linewidth=0)
        marker = "o" if len(line.half) or len(x) < 12 else None
        marker = marker if line.group >= 0 else "_" if shown.apart else None
        ax.plot(
            x,
            y,
            color=color,
            linestyle="none" if shown.apart else "-" if line.group >= 0 else (0, (4, 3)),
            linewidth=0.8 if many else 1.3,
            alpha=0.7 if many else 1.0,
            marker=marker,
            markersize=3.5 if line.group >= 0 else 9,
        )
        if line.dots:
            ax.plot(
                [dot.x for dot in line.dots],
                [dot.y for dot in line.dots],
                ".",
                color=color,
                alpha=0.55,
                markersize=5,
                markeredgewidth=0,
            )
    _axes(ax, shown)
    if named or references:
        from matplotlib.lines import Line2D

        lines = [Line2D([], [], color=color_of(g), linewidth=2) for g in named]
        lines += [Line2D([], [], color=color_of(-1), linestyle=(0, (4, 3))) for _ in references]
        legend = figure.legend(
            lines,
            [shortened(name, 60) for name in (*(shown.groups[g] for g in named), *references)],
            loc="outside lower left",
            ncols=columns,
            frameon=False,
            fontsize=style.LABEL,
            labelcolor=style.INK,
        )
        style.plain(legend.get_texts())
    return figure


def _axes(ax: Axes, shown: LinePanel) -> None:
    from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullFormatter, NullLocator

    if shown.log_x:
        ax.set_xscale("log")
    if shown.log_y:
        ax.set_yscale("log")
        ax.yaxis.set_minor_formatter(NullFormatter())
    else:
        ax.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
        ax.yaxis.set_major_formatter(
            FuncFormatter(lambda value, _: tick_of(value, ax.yaxis.get_majorticklocs()))
        )
    if shown.ticks:
        ax.xaxis.set_major_locator(FixedLocator([at for at, _ in shown.ticks]))
        ax.xaxis.set_minor_locator(NullLocator())
        names = tick_names([name for _, name in shown.ticks])
        long = max(map(len, names)) * len(names) > 45
        ax.set_xticklabels(
            names,
            rotation=30 if long else 0,
            ha="right" if long else "center",
            parse_math=False,
        )
        if shown.apart:
            ax.set_xlim(shown.ticks[0][0] - 0.5, shown.ticks[-1][0] + 0.5)
    ax.set_xlabel(shortened(shown.x, 50), fontsize=style.LABEL, color=style.GRAY, parse_math=False)
    ax.set_ylabel(shortened(shown.y, 30), fontsize=style.LABEL, color=style.GRAY, parse_math=False)
    ax.set_title(
        shortened(shown.title, 60), loc="left", fontsize=style.TITLE, color=style.INK, pad=6, parse_math=False
    )


def _grid(shown: GridPanel) -> Figure:
    values = np.asarray(shown.values, float)
    rows, columns = values.shape
    figure = style.new_figure(WIDTH, 1.0 + min(0.45 * rows, 4.0))
    ax = figure.add_subplot()
    finite = values[np.isfinite(values)]
    low, high = (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 1.0)
    ax.imshow(
        values, cmap=fading(style.BLUE), vmin=low, vmax=high + 1e-9, aspect="auto", interpolation="nearest"
    )
    style.bare(ax)
    room = 1.15 * WIDTH * 72 / (columns + 1) / (0.56 * style.SMALL)  # letters that fit into a cell
    for r in range(rows):
        for c in range(columns):
            words = shown.words[r][c]
            dark = math.isfinite(values[r, c]) and values[r, c] > low + 0.6 * (high - low)
            if len(words) > room:
                words = words.split(" ")[0]
            ax.text(
                c,
                r,
                words,
                ha="center",
                va="center",
                fontsize=style.SMALL if columns > 3 else style.LABEL,
                color="white" if dark else style.INK,
                parse_math=False,
            )
    for axis, full in ((ax.xaxis, shown.columns), (ax.yaxis, shown.rows)):
        names = tick_names(full)
        axis.set_ticks(range(len(names)))
        long = axis is ax.xaxis and sum(map(len, names)) > 45
        axis.set_ticklabels(
            list(names),
            rotation=30 if long else 0,
            ha="right" if long or axis is ax.yaxis else "center",
            parse_math=False,
        )
    ax.tick_params(length=0, labelsize=style.LABEL - 1, labelcolor=style.GRAY, pad=3)
    ax.set_xlabel(shortened(shown.x, 50), fontsize=style.LABEL, color=style.GRAY, parse_math=False)
    ax.set_ylabel(shortened(shown.y, 30), fontsize=style.LABEL, color=style.GRAY, parse_math=False)
    ax.set_title(
        shortened(shown.title, 60), loc="left", fontsize=style.TITLE, color=style.INK, pad=6, parse_math=False
    )
    return figure
