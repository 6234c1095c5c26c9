"""Panels to be pointed at: the same numbers as figures of plotly, and the programs that show them.

plotly.js (MIT) is embedded into the page, which so needs nothing from elsewhere, now or in ten years. Where plotly is
not installed a page has its drawn pictures alone.
"""

from __future__ import annotations

import math
from html import escape
from pathlib import Path
from typing import Any

from jaxcl.plot import style
from jaxcl.plot.panels import GridPanel, Line, LinePanel, color_of, shortened, tick_names

PROGRAM = Path(__file__).with_name("page.js")


def programs(*, interactive: bool) -> list[str]:
    """The scripts of a page: plotly's, if it is to be interactive, and our own, which sorts tables and chooses panels.

    Raises ImportError where plotly is not installed.
    """
    own = PROGRAM.read_text(encoding="utf-8")
    return [plotly_js(), own] if interactive else [own]


def plotly_js() -> str:
    """The program of plotly.js, 5 MB."""
    from plotly.offline import get_plotlyjs

    # A browser hashes a script with its line ends made "\\n".
    return get_plotlyjs().replace("\r\n", "\n").replace("\r", "\n")


def live(shown: LinePanel | GridPanel) -> dict[str, Any]:
    """A panel as data and layout of a plotly figure."""
    return _grid(shown) if isinstance(shown, GridPanel) else _lines(shown)


def plain(words: str) -> str:
    """Text that plotly is not to read as its own markup (it knows <b>, <br>, <a href=...>).

    >>> plain("<a href='x'>&")
    "&lt;a href='x'&gt;&amp;"
    """
    return escape(words, quote=False)


def pointed_at(words: str) -> str:
    """What is said of a point: a long sentence in several lines, which fit on a phone."""
    return plain(words).replace(",", ",<br>") if len(words) > 36 else plain(words)


def short(value: float) -> float | None:
    """Six significant digits; None for what is not finite."""
    return float(f"{value:.6g}") if math.isfinite(value) else None


def _lines(shown: LinePanel) -> dict[str, Any]:
    data: list[dict[str, Any]] = []
    named: set[int] = set()
    legend = shown.legend and len(shown.groups) > 1 or any(line.group < 0 for line in shown.lines)
    for line in shown.lines:
        color = color_of(line.group)
        if not shown.apart and any(math.isfinite(half) for half in line.half):
            data.append(_band(line, color))
        first = line.group not in named
        named.add(line.group)
        marked = line.group >= 0 and (len(line.half) > 0 or len(line.x) < 12)
        bars = {"error_y": {"type": "data", "array": [short(half) for half in line.half], "color": color}}
        data.append(
            {
                "type": "scatter",
                "mode": "markers" if shown.apart else "lines+markers" if marked else "lines",
                "x": [short(x) for x in line.x],
                "y": [short(y) for y in line.y],
                "line": {
                    "color": color,
                    "width": 2 if len(line.half) else 1.3,
                    "dash": "dash" if line.group < 0 else "solid",
                },
                "marker": {
                    "size": 8,
                    "color": color,
                    "symbol": "circle" if line.group >= 0 else "line-ew-open",
                },
                "name": plain(shortened(shown.groups[line.group] if line.group >= 0 else line.who, 40)),
                "legendgroup": str(line.group),
                "showlegend": legend and first,
                **_said(line),
                **(bars if shown.apart and len(line.half) else {}),
            }
        )
        if line.dots:
            data.append(
                {
                    "type": "scatter",
                    "mode": "markers",
                    "x": [short(dot.x) for dot in line.dots],
                    "y": [short(dot.y) for dot in line.dots],
                    "marker": {"color": color, "size": 6, "opacity": 0.55},
                    "legendgroup": str(line.group),
                    "showlegend": False,
                    "text": [pointed_at(f"{dot.who}: {dot.y:.4g}") for dot in line.dots],
                    "hovertemplate": "%{text}<extra></extra>",
                }
            )
    x_axis = _axis(shown.x)
    if shown.ticks:
        x_axis |= {
            "tickmode": "array",
            "tickvals": [at for at, _ in shown.ticks],
            "ticktext": [plain(name) for name in tick_names([name for _, name in shown.ticks])],
        }
    if shown.apart:
        x_axis |= {"range": [shown.ticks[0][0] - 0.5, shown.ticks[-1][0] + 0.5]}
    if shown.log_x:
        x_axis |= {"type": "log"}
    y_axis = _axis(shown.y) | ({"type": "log"} if shown.log_y else {})
    return {"data": data, "layout": _layout(shown.title, x_axis, y_axis)}


def _band(line: Line, color: str) -> dict[str, Any]:
    """The band of a line: along its upper edge and back along its lower one."""
    there = [
        (x, y, half) for x, y, half in zip(line.x, line.y, line.half, strict=True) if math.isfinite(half)
    ]
    return {
        "type": "scatter",
        "mode": "lines",
        "x": [short(x) for x, _, _ in there] + [short(x) for x, _, _ in reversed(there)],
        "y": [short(y + half) for _, y, half in there] + [short(y - half) for _, y, half in reversed(there)],
        "fill": "toself",
        "fillcolor": color + "26",
        "line": {"width": 0},
        "legendgroup": str(line.group),
        "showlegend": False,
        "hoverinfo": "skip",
    }


def _said(line: Line) -> dict[str, Any]:
    """What the points of a line say when they are pointed at."""
    if not line.half:  # one text for all points of a curve
        return {"text": pointed_at(line.who), "hovertemplate": "%{text}: %{y:.4g}<extra></extra>"}
    counts = [sum(dot.x == x for dot in line.dots) for x in line.x]
    said = [
        f"{line.who}: {y:.2f}" + (f" ± {half:.2f}" if math.isfinite(half) else "") + f" (n={n})"
        for y, half, n in zip(line.y, line.half, counts, strict=True)
    ]
    return {"text": [pointed_at(words) for words in said], "hovertemplate": "%{text}<extra></extra>"}


def _grid(shown: GridPanel) -> dict[str, Any]:
    words = [[plain(word) for word in row] for row in shown.words]
    data = {
        "type": "heatmap",
        "x": list(range(len(shown.columns))),
        "y": list(range(len(shown.rows))),
        "z": [[short(value) for value in row] for row in shown.values],
        "text": words,
        "texttemplate": "%{text}",
        "customdata": [
            [
                pointed_at(f"{shown.x}={column}, {shown.y}={row}: {shown.words[r][c]}")
                for c, column in enumerate(shown.columns)
            ]
            for r, row in enumerate(shown.rows)
        ],
        "hovertemplate": "%{customdata}<extra></extra>",
        "colorscale": [[0, "white"], [1, style.BLUE]],
        "showscale": False,
        "xgap": 2,
        "ygap": 2,
    }
    x_axis, y_axis = (
        _axis(name)
        | {
            "tickmode": "array",
            "tickvals": list(range(len(names))),
            "ticktext": [plain(name) for name in tick_names(names)],
        }
        for name, names in ((shown.x, shown.columns), (shown.y, shown.rows))
    )
    # The first row on top, as in the drawn picture.
    return {"data": [data], "layout": _layout(shown.title, x_axis, y_axis | {"autorange": "reversed"})}


def _axis(title: str) -> dict[str, Any]:
    return {
        "title": {"text": plain(shortened(title, 30)), "standoff": 8},
        "automargin": True,
        "gridcolor": style.RULE,
        "zeroline": False,
        "linecolor": "#9aa0a6",
    }


def _layout(title: str, x_axis: dict[str, Any], y_axis: dict[str, Any]) -> dict[str, Any]:
    return {
        "title": {"text": plain(shortened(title, 50)), "x": 0.02, "font": {"size": 14, "color": style.INK}},
        "font": {"size": 12, "color": style.GRAY},
        "paper_bgcolor": "white",
        "plot_bgcolor": "white",
        "margin": {"l": 8, "r": 8, "t": 40, "b": 8},
        "hovermode": "closest",
        "xaxis": x_axis,
        "yaxis": y_axis,
        "legend": {"orientation": "h", "yref": "container", "y": 0, "yanchor": "bottom", "x": 0},
    }
