"""How accuracy follows a knob, over the runs of a sweep."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from jaxcl.plot import style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# In which results may differ, beside knobs.
KINDS = ("protocol", "labels", "data", "variant", "encoder")

Results = Sequence[Mapping[str, Any]]


def sweep_curves(
    results: Results,
    *,
    knob: str,
    lines: str | Sequence[str] | None = None,
    where: Mapping[str, Any] | None = None,
    chance: float | None = None,
) -> Figure:
    """Accuracy in percent against a knob, one line for every value of something else.

    results  what `jaxcl sweep` leaves in sweep.json: a list of dicts with "knobs" (name -> value), "protocol",
             "encoder", "accuracy", and "labels" where several kinds of them were asked for; "data" and "variant" of
             what was evaluated on other images, or asked otherwise
    knob     the knob on the x axis; numbers are spaced as numbers, words evenly
    lines    what distinguishes the lines: another knob ("loss"), or "labels", "data", "protocol" or "encoder";
             several of them; one line if None
    where    which results are shown, by knob or by those names, as {"protocol": "linear", "loss": "swd"}; the
             encoder is "trained" unless said otherwise here or by `lines`
    chance   the accuracy of guessing, in percent, as a dashed line

    A point is the mean over seeds, a bar its sample standard deviation; the runs themselves are the small dots. The
    number of seeds is in the legend where it is the same for all points.

    Raises ValueError where nothing is left to draw, or where results that differ in more than the seed would be
    averaged.
    """
    wanted = dict(where or {})
    told = () if lines is None else (lines,) if isinstance(lines, str) else tuple(lines)
    if "encoder" not in told:
        wanted.setdefault("encoder", "trained")
    chosen = [row for row in results if knob in row["knobs"]]
    chosen = [row for row in chosen if all(_value(row, name) == str(value) for name, value in wanted.items())]
    if not chosen:
        raise ValueError(
            f"None of the {len(results)} results has a knob {knob!r} and {wanted}; there is nothing to draw."
        )
    names = dict.fromkeys([*KINDS, *(name for row in chosen for name in row["knobs"])])
    for name in names:
        values = list(dict.fromkeys(_value(row, name) for row in chosen))
        if name not in (knob, *told, "seed") and len(values) > 1:
            raise ValueError(
                f"The results differ in {name} ({', '.join(values)}) and are not to be averaged over it: choose one"
                f" with where={{{name!r}: {values[0]!r}}}, or make lines of them with lines={name!r}."
            )

    # A result that has no value of the knob, as a loss without a temperature, is the same all along the axis.
    all_along = [row for row in chosen if row["knobs"][knob] == ""]
    chosen = [row for row in chosen if row["knobs"][knob] != ""] or all_along
    positions = _positions([row["knobs"][knob] for row in chosen])
    own = {_line(row, told) for row in chosen}
    chosen = chosen + [
        {**row, "knobs": {**row["knobs"], knob: at}}
        for row in all_along
        if row not in chosen and _line(row, told) not in own
        for at in positions
    ]
    groups: dict[str, dict[float, list[float]]] = {}
    for row in chosen:
        at = positions[str(row["knobs"][knob])]
        groups.setdefault(_line(row, told), {}).setdefault(at, []).append(float(row["accuracy"]))

    figure = style.new_figure(4.6, 3.0)
    ax = style.tidy(figure.add_subplot())
    # Lines beside each other, so that their bars do not hide each other.
    span = max(positions.values()) - min(positions.values()) or 1.0
    for number, (name, points) in enumerate(groups.items()):
        color = style.BLUE if len(groups) == 1 else style.COLORS[number % len(style.COLORS)]
        shift = 0.006 * span * (number - (len(groups) - 1) / 2)
        x = [float(at + shift) for at in sorted(points)]
        runs = [points[at] for at in sorted(points)]
        for at, reached in zip(x, runs, strict=True):
            if len(reached) > 1:  # a little to the left, where the bar does not hide them
                beside = [at - 0.012 * span] * len(reached)
                ax.plot(beside, reached, ".", color=color, alpha=0.5, markersize=5, markeredgewidth=0)
        counts = {len(reached) for reached in runs}
        label = f"{name} (n = {min(counts)})" if len(counts) == 1 and max(counts) > 1 else name
        ax.errorbar(
            x,
            [statistics.mean(values) for values in runs],
            [statistics.stdev(values) if len(values) > 1 else math.nan for values in runs],
            color=color,
            linewidth=1.5,
            marker="o",
            markersize=4,
            capsize=2.5,
            elinewidth=1.0,
            label=label or None,
        )
    if chance is not None:
        ax.axhline(chance, color=style.GRAY, linewidth=0.9, linestyle=(0, (4, 3)))
        ax.annotate(
            "chance",
            (1, chance),
            xycoords=("axes fraction", "data"),
            xytext=(4, 0),
            textcoords="offset points",
            ha="left",
            va="center",
            fontsize=style.SMALL,
            color=style.GRAY,
        )
    ax.set_xticks(list(positions.values()), list(positions), parse_math=False)
    ax.set_xlabel(knob.replace("_", " "), fontsize=style.LABEL, color=style.GRAY, parse_math=False)
    ax.set_ylabel("accuracy, %", fontsize=style.LABEL, color=style.GRAY)
    title = "" if "protocol" in told else f"Protocol: {chosen[0]['protocol']}"
    ax.set_title(title, loc="left", fontsize=style.TITLE, color=style.INK, pad=6, parse_math=False)
    low, high = ax.get_ylim()
    ax.set_ylim(max(low, 0) if low > -5 else low, min(high, 101))
    if any(groups):
        legend = ax.legend(
            title=", ".join(told).replace("_", " ") or None,
            frameon=False,
            fontsize=style.LABEL,
            labelcolor=style.INK,
            title_fontsize=style.LABEL,
            loc="center left",
            bbox_to_anchor=(1.0, 0.5),
        )
        style.plain([*legend.get_texts(), legend.get_title()])
        legend.get_title().set_color(style.GRAY)
    return figure


def _line(row: Mapping[str, Any], told: Sequence[str]) -> str:
    """What a result's line is called."""
    return " ".join(value for value in (_value(row, name) for name in told) if value)


def _value(row: Mapping[str, Any], name: str) -> str:
    """A knob of a result, or one of KINDS; "data" may be both: what it learnt from, and what it was tested on."""
    if name == "data":
        return ", ".join(str(value) for value in (row["knobs"].get(name), row.get(name)) if value)
    return str(row["knobs"].get(name, "")) if name not in KINDS else str(row.get(name, ""))


def _positions(values: Sequence[Any]) -> dict[str, float]:
    """Where the values of a knob stand on the x axis: at their number if all are numbers (at its logarithm where they
    are positive and the largest is eight times the smallest, as in a report), else one after the other.

    >>> _positions(["10", "0", "5"]), _positions(["swd", "nt_xent", "swd"])
    ({'0': 0.0, '5': 5.0, '10': 10.0}, {'swd': 0.0, 'nt_xent': 1.0})
    >>> _positions(["1", "0.1"])
    {'0.1': -1.0, '1': 0.0}
    """
    names = list(dict.fromkeys(str(value) for value in values))
    numbers = [_number(name) for name in names]
    if any(math.isnan(number) for number in numbers):
        return {name: float(position) for position, name in enumerate(names)}
    if min(numbers) > 0 and max(numbers) >= 8 * min(numbers):
        numbers = [math.log10(number) for number in numbers]
    return dict(sorted(zip(names, numbers, strict=True), key=lambda pair: pair[1]))


def _number(name: str) -> float:
    try:
        return float(name)
    except ValueError:
        return math.nan
