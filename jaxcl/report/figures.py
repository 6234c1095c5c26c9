"""What the runs of a study came to, as panels: accuracy against knobs, curves of training, scores. Numbers alone; they
are drawn by `jaxcl.plot`, and by plotly."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxcl.plot.curves import PANELS, epochs_of, series, smooth
from jaxcl.plot.panels import Dot, GridPanel, Line, LinePanel
from jaxcl.plot.scores import HISTOGRAMS
from jaxcl.report.gather import Member, Study, in_order, number, setting_of
from jaxcl.runs import BASELINES
from jaxcl.statistics import mean_interval
from jaxcl.tables import column, mean_and_interval

MOST_LINES = 8  # in one panel
MOST_PANELS = 12  # of one kind
MOST_POINTS = 200  # of one curve; fewer where there are many
LARGEST = 1e30  # beyond, a metric is as good as not finite, and no axis holds it

Setting = tuple[str, ...]


class Panels(NamedTuple):
    """Panels of one kind, and what is left out of them, a sentence each."""

    panels: list[LinePanel | GridPanel]
    said: list[str]


def words_of(names: Sequence[str], values: Sequence[str]) -> str:
    """
    >>> words_of(("temperature", "loss"), ("0.1", "swd"))
    'temperature=0.1, loss=swd'
    """
    return ", ".join(f"{name}={value}" for name, value in zip(names, values, strict=True))


def spread_of(study: Study, *, encoder: str = "trained") -> dict[str, dict[Setting, dict[str, list[Any]]]]:
    """Protocol -> setting -> the runs' names and their accuracies, in percent."""
    found: dict[str, dict[Setting, dict[str, list[Any]]]] = {}
    for member in study.members:
        at = setting_of(member, study.varying)
        for row in member.results:
            if row["encoder"] == encoder:
                here = found.setdefault(column(row), {}).setdefault(at, {"who": [], "accuracy": []})
                here["who"].append(member.name)
                here["accuracy"].append(float(row["accuracy"]))
    return found


def accuracy_panels(study: Study) -> Panels:
    """Accuracy against each knob that varies, for each protocol: a point the mean over seeds, a band its 95 % interval,
    a line a combination of the other knobs; the untrained encoder as a broken line. Where the knob's values are words,
    bars beside each other."""
    made: list[LinePanel | GridPanel] = []
    said = []
    untrained = spread_of(study, encoder=BASELINES[1])
    for protocol, found in spread_of(study).items():
        for k, knob in enumerate(study.varying):
            values = in_order([at[k] for at in found])
            if len(values) < 2:
                continue
            where, log = positions(values)
            apart = not all(math.isfinite(number(value)) for value in values)
            others = [name for name in study.varying if name != knob]
            lines: dict[Setting, list[tuple[str, Setting]]] = {}
            for at in found:
                lines.setdefault((*at[:k], *at[k + 1 :]), []).append((at[k], at))
            chosen = _highest(lines, lambda at, found=found: float(np.mean(found[at]["accuracy"])))
            if len(chosen) < len(lines):
                said.append(
                    f"{protocol} against {knob}: {len(chosen)} of {len(lines)} combinations of {', '.join(others)} are"
                    " drawn, those that reach highest."
                )
            drawn = []
            for i, (rest, points) in enumerate(chosen.items()):
                beside = 0.09 * (i - (len(chosen) - 1) / 2) if apart else 0.0
                moved = {value: at + beside for value, at in where.items()}
                in_turn = sorted(points, key=lambda point: values.index(point[0]))
                drawn.append(_line(words_of(others, rest) or "mean", i, in_turn, moved, found))
            if protocol in untrained:
                drawn.append(_reference(BASELINES[1], k, values, where, untrained[protocol]))
            made.append(
                LinePanel(
                    title=protocol,
                    x=knob,
                    y="accuracy, %",
                    lines=drawn,
                    groups=[words_of(others, rest) for rest in chosen],
                    ticks=[(where[value], value) for value in values],
                    log_x=log,
                    apart=apart,
                )
            )
    return _at_most(made, said, "of accuracy against a knob")


def _highest(
    lines: Mapping[Setting, list[tuple[str, Setting]]], mean_of: Any
) -> dict[Setting, list[tuple[str, Setting]]]:
    """At most so many lines as a panel holds, those with the highest points, in their order."""
    if len(lines) <= MOST_LINES:
        return dict(lines)
    best = sorted(lines, key=lambda rest: -max(mean_of(at) for _, at in lines[rest]))[:MOST_LINES]
    return {rest: points for rest, points in lines.items() if rest in best}


def _line(
    name: str,
    group: int,
    points: Sequence[tuple[str, Setting]],
    where: Mapping[str, float],
    found: Mapping[Setting, Mapping[str, list[Any]]],
) -> Line:
    estimates = [mean_interval(found[at]["accuracy"]) for _, at in points]
    dots = [
        Dot(where[value], accuracy, who)
        for value, at in points
        for who, accuracy in zip(found[at]["who"], found[at]["accuracy"], strict=True)
    ]
    x = [where[value] for value, _ in points]
    return Line(name, group, x, [one.mean for one in estimates], [one.half for one in estimates], dots)


def _reference(
    name: str,
    k: int,
    values: Sequence[str],
    where: Mapping[str, float],
    found: Mapping[Setting, Mapping[str, list[Any]]],
) -> Line:
    """The mean over all runs of each value of knob k."""
    by_value: dict[str, list[float]] = {}
    for at, here in found.items():
        by_value.setdefault(at[k], []).extend(here["accuracy"])
    there = [value for value in values if value in by_value]
    means = [mean_interval(by_value[value]).mean for value in there]
    return Line(name, -1, [where[value] for value in there], means)


def positions(values: Sequence[str]) -> tuple[dict[str, float], bool]:
    """Where a knob's values stand on an axis, and whether it is a logarithmic one: numbers at themselves (where they
    are positive and the largest is eight times the smallest, by their logarithm), words one after the other.

    >>> positions(["0.1", "0.2", "1.0"]), positions(["nt_xent", "swd"])
    (({'0.1': 0.1, '0.2': 0.2, '1.0': 1.0}, True), ({'nt_xent': 0.0, 'swd': 1.0}, False))
    """
    numbers = [number(value) for value in values]
    if not all(map(math.isfinite, numbers)) or len(set(numbers)) < len(numbers):
        return {value: float(i) for i, value in enumerate(values)}, False
    return dict(zip(values, numbers, strict=True)), min(numbers) > 0 and max(numbers) >= 8 * min(numbers)


def heat_maps(study: Study) -> Panels:
    """Mean accuracy over seeds for each pair of knobs that vary, each protocol, and each combination of the rest."""
    made: list[LinePanel | GridPanel] = []
    for protocol, found in spread_of(study).items():
        for a, b in itertools.combinations(range(len(study.varying)), 2):
            columns, rows = (in_order([at[k] for at in found]) for k in (a, b))
            if len(columns) < 2 or len(rows) < 2:
                continue
            rest = [k for k in range(len(study.varying)) if k not in (a, b)]
            for fixed in dict.fromkeys(tuple(at[k] for k in rest) for at in found):
                here = {
                    (at[b], at[a]): spread["accuracy"]
                    for at, spread in found.items()
                    if tuple(at[k] for k in rest) == fixed
                }
                cells = [[here.get((row, c), []) for c in columns] for row in rows]
                also = words_of([study.varying[k] for k in rest], fixed)
                made.append(
                    GridPanel(
                        title=f"{protocol}, %" + (f" ({also})" if also else ""),
                        x=study.varying[a],
                        y=study.varying[b],
                        columns=columns,
                        rows=rows,
                        values=[[mean_interval(c).mean if c else math.nan for c in row] for row in cells],
                        words=[[mean_and_interval(c) or "none" for c in row] for row in cells],
                    )
                )
    return _at_most(made, [], "of two knobs")


def curve_panels(study: Study) -> Panels:
    """The metrics of training, a line a run, a color a setting; smoothed as `plot.training_curves` does."""
    groups = _groups(study)
    by_epoch = all(epochs_of(member.log) is not None for member in study.members if member.log)
    most = min(MOST_POINTS, max(50, 4000 // len(study.members)))
    made: list[LinePanel | GridPanel] = []
    for shown in PANELS:
        lines = []
        for member in study.members:
            steps, values = series(member.log, shown.key)
            values = np.where(np.abs(values) < LARGEST, values, math.nan)
            if not np.isfinite(values).any():
                continue
            values, x = values * shown.scale, steps
            if by_epoch and (known := epochs_of(member.log)) is not None:
                x = np.interp(steps, np.append(0.0, known[0]), np.append(0.0, known[1]))
            if shown.log:
                values = np.where(values > 0, values, math.nan)
            if not shown.sparse and shown.smooth and len(values) >= 12:
                width = max(1.0, len(values) / 60)
                values = np.exp(smooth(np.log(values), width)) if shown.log else smooth(values, width)
            few = np.unique(np.linspace(0, len(x) - 1, min(len(x), most)).round().astype(int))
            group = groups[setting_of(member, study.varying)]
            lines.append(Line(member.name, group, x[few].tolist(), values[few].tolist()))
        if lines:
            unit = "" if shown.unit in ("", "log scale") else f", {shown.unit}"
            made.append(
                LinePanel(
                    title=shown.title + unit,
                    x="epoch" if by_epoch else "step",
                    y="",
                    lines=lines,
                    groups=[words_of(study.varying, at) for at in groups],
                    log_y=shown.log,
                    legend=False,
                )
            )
    return Panels(made, [])


def score_panels(study: Study) -> Panels:
    """How the scores of positives and negatives are distributed at the end of each run: over the last tenth of what its
    log says of them."""
    groups = _groups(study)
    made: list[LinePanel | GridPanel] = []
    for key in HISTOGRAMS:
        lines = []
        for member in study.members:
            kept = [record[key] for record in member.log if isinstance(record.get(key), list)]
            last = kept[-max(1, len(kept) // 10) :]
            alike = kept and len({len(one) for one in last}) == 1  # or the number of bins was changed
            fractions = (
                np.array([[number(str(x)) for x in one] for one in last]).mean(0) if alike else np.zeros(0)
            )
            if len(fractions) and np.isfinite(fractions).all():
                edges = np.linspace(-1, 1, len(fractions) + 1)
                group = groups[setting_of(member, study.varying)]
                density = fractions / (edges[1] - edges[0])
                lines.append(
                    Line(member.name, group, ((edges[1:] + edges[:-1]) / 2).tolist(), density.tolist())
                )
        if lines:
            title = key.split("_")[0].capitalize() + "s, at the end"
            named = [words_of(study.varying, at) for at in groups]
            made.append(LinePanel(title, "score", "density", lines, named, legend=False))
    return Panels(made, [])


def _groups(study: Study) -> dict[Setting, int]:
    settings: Iterable[Setting] = (setting_of(member, study.varying) for member in study.members)
    return {at: i for i, at in enumerate(dict.fromkeys(settings))}


def _at_most(made: list[LinePanel | GridPanel], said: list[str], which: str) -> Panels:
    if len(made) > MOST_PANELS:
        said.append(f"{MOST_PANELS} of {len(made)} pictures {which} are shown.")
    return Panels(made[:MOST_PANELS], said)


def first_of_each(study: Study) -> list[Member]:
    """The first run of each setting."""
    return list({setting_of(member, study.varying): member for member in reversed(study.members)}.values())[
        ::-1
    ]
