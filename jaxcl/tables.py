"""Numbers in words: results as the header and rows of a table, a data set as one line."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from jaxcl.typing import Images

# Header and rows.
Table = tuple[tuple[str, ...], list[tuple[str, ...]]]


def column(row: Mapping[str, Any]) -> str:
    """The column of a result: its protocol, and which labels or which other data, where that must be said.

    >>> column({"protocol": "knn", "accuracy": 50.0}), column({"protocol": "linear", "labels": "digit"})
    ('knn', 'linear, digit')
    """
    return ", ".join(row[name] for name in ("protocol", "labels", "data") if name in row)


def cell(row: Mapping[str, Any]) -> str:
    """An accuracy in percent, with its confidence interval where a protocol gives one.

    >>> cell({"accuracy": 67.91}), cell({"accuracy": 67.91, "interval": 0.52})
    ('67.9', '67.9 ± 0.5')
    """
    interval = row.get("interval")
    return f"{row['accuracy']:.1f}" + ("" if interval is None else f" ± {interval:.1f}")


def accuracy_table(results: Sequence[Mapping[str, Any]]) -> Table:
    """An encoder a row, a protocol a column."""
    protocols = list(dict.fromkeys(map(column, results)))
    names = list(dict.fromkeys(row["encoder"] for row in results))
    cells = {(row["encoder"], column(row)): cell(row) for row in results}
    return ("encoder", *protocols), [(name, *(cells.get((name, p), "") for p in protocols)) for name in names]


def classes_table(results: Sequence[Mapping[str, Any]]) -> Table:
    """Of every encoder and protocol: top-1, top-5, the mean over classes, and the class that it knows least.

    >>> row = {"encoder": "run", "protocol": "knn", "accuracy": 90.0, "top5_accuracy": None}
    >>> classes_table([row | {"mean_class_accuracy": 50.0, "by_class": {"cat": 100.0, "dog": 0.0}}])[1]
    [('run', 'knn', '90.0', '', '50.0', 'dog: 0.0')]
    """
    rows: list[tuple[str, ...]] = []
    for row in results:
        if "by_class" in row:
            five, worst = row["top5_accuracy"], min(row["by_class"], key=row["by_class"].get)
            rows.append(
                (
                    row["encoder"],
                    column(row),
                    f"{row['accuracy']:.1f}",
                    "" if five is None else f"{five:.1f}",
                    f"{row['mean_class_accuracy']:.1f}",
                    f"{worst}: {row['by_class'][worst]:.1f}",
                )
            )
    return ("encoder", "protocol", "top-1", "top-5", "mean over classes", "least known class"), rows


def robustness_table(results: Sequence[Mapping[str, Any]]) -> Table:
    """What "corruption" found: an encoder a row, a group of corruptions a column; no rows where it was not run."""
    found = [row for row in results if "groups" in row]
    groups = list(found[0]["groups"]) if found else []
    rows = [
        (
            row["encoder"],
            f"{row['clean_accuracy']:.1f}",
            *(f"{row['groups'][group]:.1f}" for group in groups),
            f"{row['accuracy']:.1f}",
            f"{row['severe']:.1f}",
        )
        for row in found
    ]
    return ("encoder", "clean", *groups, "all", "severity 3 to 5"), rows


def sweep_table(results: Sequence[Mapping[str, Any]]) -> Table:
    """Of a sweep, a combination of knobs a row: mean and sample standard deviation over seeds, in percent."""
    protocols = list(dict.fromkeys(map(column, results)))
    knobs = [knob for knob in results[0]["knobs"] if knob != "seed"]
    cells: dict[tuple[str, ...], dict[str, list[float]]] = {}
    for row in results:
        at = (*(row["knobs"][knob] for knob in knobs), row["encoder"])
        cells.setdefault(at, {}).setdefault(column(row), []).append(row["accuracy"])
    rows = [
        (*at, *(mean_and_spread(found.get(protocol, [])) for protocol in protocols))
        for at, found in cells.items()
    ]
    return (*knobs, "encoder", *protocols), rows


def mean_and_spread(values: Sequence[float]) -> str:
    """
    >>> mean_and_spread([1.0, 2.0, 3.0]), mean_and_spread([4.0]), mean_and_spread([])
    ('2.0 ± 1.0 (n=3)', '4.0', '')
    """
    if len(values) < 2:
        return f"{values[0]:.1f}" if values else ""
    return f"{statistics.mean(values):.1f} ± {statistics.stdev(values):.1f} (n={len(values)})"


def describe(images: Images) -> str:
    """One line about a data set."""
    n, h, w, c = images.images.shape
    classes = (
        f", {len(images.classes)} classes"
        if images.classes
        else ", no labels"
        if images.labels is None
        else ""
    )
    skipped = f", {len(images.skipped)} files skipped" if images.skipped else ""
    return f"{images.name}: {n} images of {h} x {w} x {c}{classes}{skipped}"
