"""Numbers in words: results as the header and rows of a table, a data set as one line."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from jaxcl.statistics import Difference, holm, mean_interval, paired_difference
from jaxcl.typing import Images

# Header and rows.
Table = tuple[tuple[str, ...], list[tuple[str, ...]]]


def column(row: Mapping[str, Any]) -> str:
    """The column of a result: its protocol, and which labels, which other data or what was asked otherwise, where that
    must be said.

    >>> column({"protocol": "knn", "accuracy": 50.0}), column({"protocol": "linear", "labels": "digit"})
    ('knn', 'linear, digit')
    >>> column({"protocol": "knn", "variant": "evaluate_on=val, k=1"})
    'knn, evaluate_on=val, k=1'
    """
    found = [row[name] for name in ("protocol", "labels", "data", "variant") if name in row]
    if "evaluated_on" in row and "variant" not in row:  # as an older jaxcl wrote it
        found.append(f"evaluate_on={row['evaluated_on']}")
    return ", ".join(found)


def word(value: Any) -> str:
    """A knob's value as a word of the command line.

    >>> word((16, 32)), word([8]), word(True), word(None), word(0.1), word("swd")
    ('16,32', '8', 'True', 'None', '0.1', 'swd')
    """
    return ",".join(map(word, value)) if isinstance(value, tuple | list) else str(value)


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
    """What "corruption" found: an encoder a row, a group of corruptions a column; no rows where it was not run.

    >>> row = {"encoder": "run", "protocol": "corruption", "accuracy": 50.0, "clean_accuracy": 60.0, "severe": 40.0}
    >>> robustness_table([row | {"groups": {"blur": 50.0}, "variant": "images=10"}])[1]
    [('run, images=10', '60.0', '50.0', '50.0', '40.0')]
    """
    found = [row for row in results if "groups" in row]
    groups = list(found[0]["groups"]) if found else []
    rows = [
        (
            row["encoder"] + column(row).removeprefix(row["protocol"]),
            f"{row['clean_accuracy']:.1f}",
            *(f"{row['groups'][group]:.1f}" for group in groups),
            f"{row['accuracy']:.1f}",
            f"{row['severe']:.1f}",
        )
        for row in found
    ]
    return ("encoder", "clean", *groups, "all", "severity 3 to 5"), rows


def sweep_table(results: Sequence[Mapping[str, Any]], *, knobs: Sequence[str] | None = None) -> Table:
    """Of a sweep, a combination of knobs a row: mean and 95 % confidence interval over seeds, in percent.

    knobs
        that have a column, before that of the encoder; unless given, those in which the results differ.
    """
    protocols = list(dict.fromkeys(map(column, results)))
    knobs = _varying(results) if knobs is None else knobs
    cells: dict[tuple[str, ...], dict[str, list[float]]] = {}
    for row in results:
        at = (*(row["knobs"][knob] for knob in knobs), row["encoder"])
        cells.setdefault(at, {}).setdefault(column(row), []).append(row["accuracy"])
    rows = [
        (*at, *(mean_and_interval(found.get(protocol, [])) for protocol in protocols))
        for at, found in cells.items()
    ]
    return (*knobs, "encoder", *protocols), rows


def differences_table(
    results: Sequence[Mapping[str, Any]], *, most: int = 4, knobs: Sequence[str] | None = None
) -> Table:
    """Of a sweep's trained encoders, two settings a row: their mean difference over the seeds that both have, with its
    95 % confidence interval and p value (paired t test, Holm's correction for all cells of the table).

    All pairs of up to `most` settings; of more, each against the first. No rows with a single setting. `knobs` as for
    `sweep_table`.
    """
    knobs = _varying(results) if knobs is None else knobs
    protocols = list(dict.fromkeys(map(column, results)))
    found = _by_setting(results, knobs)
    settings = list(found)
    pairs = list(itertools.combinations(settings, 2))
    if len(settings) > most:
        pairs = [(settings[0], other) for other in settings[1:]]
    cells = _compared(found, pairs, protocols)
    rows = [
        (", ".join(second), ", ".join(first), *row) for (first, second), row in zip(pairs, cells, strict=True)
    ]
    return (f"{', '.join(knobs)}", "minus", *protocols), rows


def steps_table(results: Sequence[Mapping[str, Any]], *, knobs: Sequence[str] | None = None) -> Table:
    """Of a sweep's trained encoders, what one knob makes out while the others stay: each of its values against its
    first, at every combination of the others. Cells as in `differences_table`. No rows where no two settings differ
    in a single knob. `knobs` as for `sweep_table`.
    """
    knobs = _varying(results) if knobs is None else knobs
    protocols = list(dict.fromkeys(map(column, results)))
    found = _by_setting(results, knobs)
    pairs, at = [], []
    for k, knob in enumerate(knobs):
        first: dict[tuple[str, ...], tuple[str, ...]] = {}
        for setting in found:
            rest = (*setting[:k], *setting[k + 1 :])
            if first.setdefault(rest, setting) != setting:
                pairs.append((first[rest], setting))
                others = [name for name in knobs if name != knob]
                where = ", ".join(f"{name}={value}" for name, value in zip(others, rest, strict=True))
                at.append((f"{knob}: {setting[k]} minus {first[rest][k]}", where))
    cells = _compared(found, pairs, protocols)
    return ("difference", "at", *protocols), [(*a, *row) for a, row in zip(at, cells, strict=True)]


def averages_table(results: Sequence[Mapping[str, Any]]) -> Table:
    """As `steps_table`, averaged over the other knobs: each value of a knob against its first, the mean, seed by seed,
    over all combinations of the others that both have. Seeds that lack one of them are left out. No rows where fewer
    than two knobs vary.
    """
    knobs = _varying(results)
    protocols = list(dict.fromkeys(map(column, results)))
    found = _by_setting(results, knobs)
    means: dict[tuple[str, ...], dict[str, dict[str, float]]] = {}
    pairs, names = [], []
    for k, knob in enumerate(knobs if len(knobs) > 1 else ()):
        first, *others = dict.fromkeys(setting[k] for setting in found)
        for value in others:
            both = [
                (setting, second)
                for setting in found
                if setting[k] == first and (second := (*setting[:k], value, *setting[k + 1 :])) in found
            ]
            if not both:
                continue
            sides = (knob, value, "before"), (knob, value, "after")
            seeds = {
                protocol: _seeds(found, [one for pair in both for one in pair], protocol)
                for protocol in protocols
            }
            for side, settings in zip(sides, zip(*both, strict=True), strict=True):
                means[side] = {
                    protocol: {
                        seed: statistics.mean(found[one][protocol][seed] for one in settings)
                        for seed in there
                    }
                    for protocol, there in seeds.items()
                }
            pairs.append(sides)
            names.append(f"{knob}: {value} minus {first}")
    cells = _compared(means, pairs, protocols)
    return ("difference", *protocols), [(name, *row) for name, row in zip(names, cells, strict=True)]


def _seeds(
    found: Mapping[tuple[str, ...], Mapping[str, Mapping[str, float]]],
    settings: Sequence[tuple[str, ...]],
    protocol: str,
) -> list[str]:
    """The seeds that all of some settings have."""
    by_seed = [found[setting].get(protocol, {}) for setting in settings]
    return [seed for seed in by_seed[0] if all(seed in one for one in by_seed)]


def _by_setting(
    results: Sequence[Mapping[str, Any]], knobs: Sequence[str]
) -> dict[tuple[str, ...], dict[str, dict[str, float]]]:
    """Setting -> protocol -> seed -> accuracy, of the trained encoders."""
    found: dict[tuple[str, ...], dict[str, dict[str, float]]] = {}
    for row in results:
        if row["encoder"] == "trained":
            at = tuple(row["knobs"][knob] for knob in knobs)
            by_seed = found.setdefault(at, {}).setdefault(column(row), {})
            by_seed[row["knobs"].get("seed", "")] = row["accuracy"]
    return found


def _compared(
    found: Mapping[tuple[str, ...], Mapping[str, Mapping[str, float]]],
    pairs: Sequence[tuple[tuple[str, ...], tuple[str, ...]]],
    protocols: Sequence[str],
) -> list[list[str]]:
    """A row of cells for each pair of settings, second minus first, corrected (Holm) for all of them."""
    compared = {
        (pair, protocol): paired_difference(
            found[pair[0]].get(protocol, {}), found[pair[1]].get(protocol, {})
        )
        for pair in pairs
        for protocol in protocols
    }
    corrected = holm([math.nan if one is None else one.p for one in compared.values()])
    said = {at: difference_words(one, p) for (at, one), p in zip(compared.items(), corrected, strict=True)}
    return [[said[pair, protocol] for protocol in protocols] for pair in pairs]


def _varying(results: Sequence[Mapping[str, Any]]) -> list[str]:
    """The knobs that differ, seeds aside."""
    knobs = [knob for knob in results[0]["knobs"] if knob != "seed"]
    return [knob for knob in knobs if len({row["knobs"][knob] for row in results}) > 1]


FEW_SEEDS = (
    "Fewer than three seeds do not tell settings apart: with two, the 95 % interval is the mean ± 9 standard"
    " deviations; with one there is none."
)


def fewest_seeds(results: Sequence[Mapping[str, Any]]) -> int:
    """How many seeds the setting with the fewest has."""
    seeds: dict[tuple[str, ...], set[str]] = {}
    for row in results:
        at = tuple(value for knob, value in row["knobs"].items() if knob != "seed")
        seeds.setdefault(at, set()).add(row["knobs"].get("seed", ""))
    return min(map(len, seeds.values()), default=0)


def mean_and_spread(values: Sequence[float]) -> str:
    """The mean and the sample standard deviation.

    >>> mean_and_spread([1.0, 2.0, 3.0]), mean_and_spread([4.0]), mean_and_spread([])
    ('2.0 ± 1.0 (n=3)', '4.0', '')
    """
    if len(values) < 2:
        return f"{values[0]:.1f}" if values else ""
    return f"{statistics.mean(values):.1f} ± {statistics.stdev(values):.1f} (n={len(values)})"


def mean_and_interval(values: Sequence[float]) -> str:
    """The mean and half its 95 % confidence interval (Student's t).

    >>> mean_and_interval([1.0, 2.0, 3.0]), mean_and_interval([4.0]), mean_and_interval([])
    ('2.0 ± 2.5 (n=3)', '4.0', '')
    """
    if not values:
        return ""
    mean, half, n = mean_interval(values)
    return f"{mean:.1f}" if n == 1 else f"{mean:.1f} ± {half:.1f} (n={n})"


def difference_words(one: Difference | None, p: float) -> str:
    """The mean of differences, half its 95 % interval and the corrected p value, where there is one.

    >>> nan = math.nan
    >>> difference_words(Difference(1.0, 0.5, 3, 0.01), 0.02), difference_words(Difference(1.0, 0.0, 2, nan), nan)
    ('+1.0 ± 0.5, p 0.02 (n=3)', '+1.0 ± 0.0 (n=2)')
    >>> difference_words(Difference(1.0, nan, 1, nan), nan), difference_words(None, nan)
    ('+1.0 (n=1)', '')
    """
    if one is None:
        return ""
    half = "" if math.isnan(one.half) else f" ± {one.half:.1f}"
    tested = "" if math.isnan(p) else f", p {p:.2g}"
    return f"{one.mean:+.1f}{half}{tested} (n={one.n})"


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
