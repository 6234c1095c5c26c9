"""What `five_parts.py robustness` exchanges, and the tables and the picture of what its runs reached."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from typing import Any, NamedTuple

from jaxcl.statistics import Difference, holm, paired_difference
from jaxcl.tables import difference_words, mean_and_interval, mean_and_spread

PROTOCOLS = ("knn", "linear")

# What is exchanged, one at a time; the first of each is the method's own. Every map that is compared goes through a
# network, AMDIM's vector too, so that no encoder is compared with fewer (this is not AMDIM's, and is named so). All
# choices of an exchange compare other maps: of AMDIM's encoder YADIM's `average` is `last`, so it is not among them.
# 1,640 training steps.
SAME = {"features": "16", "out": "128", "batch_size": "64", "epochs": "2.1"}
ENCODERS = ("amdim", "convnet", "conv_n", "small_resnet18")
ROBUSTNESS = {
    "AMDIM, vector embedded": (
        "amdim",
        SAME | {"embed_vector": "True"},
        {"encoder": ENCODERS, "extraction": ("scales", "global_small", "local", "last")},
    ),
    "YADIM": ("yadim", SAME, {"encoder": ENCODERS, "extraction": ("last", "larger", "random")}),
}

# What is evaluated is one map whatever is compared, and one that each choice trains. Of encoders it is the average of
# the last map. Where the extraction is exchanged it is that of the 5 x 5 map of AMDIM's encoder: `local` compares this
# one and trains nothing above it, `larger` the one above; what stands higher would stay as it is drawn.
EVALUATED = {"encoder": {}, "extraction": {"evaluated_width": "5"}}

At = tuple[str, str, str]  # method, exchanged, choice


class Cell(NamedTuple):
    """The runs of one choice."""

    seeds: tuple[str, ...]  # all that are asked for
    kept: Mapping[
        str, Mapping[str, Any]
    ]  # of those that are there: seed -> {"results": [...], "diverged": why}
    features: int  # how many are evaluated


def settings(name: str) -> dict[At, dict[str, str]]:
    """(method, exchanged, choice) -> knobs, of every choice of a method."""
    _, knobs, exchanges = ROBUSTNESS[name]
    usual = {part: values[0] for part, values in exchanges.items()}
    return {
        (name, part, value): knobs | usual | EVALUATED[part] | {part: value}
        for part, values in exchanges.items()
        for value in values
    }


def tables_of(cells: Mapping[At, Cell]) -> list[str]:
    """The tables as far as they are measured, and what is missing or diverged in words.

    What is asked is in the second, of two methods and once nothing is missing: whether one loses less than the other.
    """
    tables = [table_of(*each_choice(cells)), CORRECTED]
    if missing := missing_of(cells):
        tables.append("Missing: " + "; ".join(missing) + ".")
    elif len({name for name, _, _ in cells}) == 2:
        tables.append(table_of(*beside_each_other(cells)))
    if unfinished := unfinished_of(cells):
        tables.append(
            "The linear classifier of these trained encoders had not converged when it was stopped, after 500"
            f" iterations: {'; '.join(unfinished)}."
        )
    diverged = [
        f"{' '.join(at)} with seed {seed} ({kept['diverged']})"
        for at, cell in cells.items()
        for seed, kept in cell.kept.items()
        if "diverged" in kept
    ]
    if diverged:
        tables.append(
            "Diverged, and left out of means; of the second table the whole seed: " + "; ".join(diverged)
        )
    return tables


CORRECTED = (
    "Differences are taken seed by seed, between runs on the same kind of device, with 95 % intervals; p is that of a"
    " paired t test, corrected for all differences of its table (Holm)."
)


def missing_of(cells: Mapping[At, Cell]) -> list[str]:
    return [
        f"{' '.join(at)}: {len(cell.seeds) - len(cell.kept)} of {len(cell.seeds)} seeds"
        for at, cell in cells.items()
        if len(cell.kept) < len(cell.seeds)
    ]


def unfinished_of(cells: Mapping[At, Cell]) -> list[str]:
    """The choices, and their seeds, whose linear classifier had not converged."""
    seeds = {
        at: [
            seed
            for seed, kept in cell.kept.items()
            for row in rows_of(kept, "linear", "trained")
            if row.get("converged") is False
        ]
        for at, cell in cells.items()
    }
    return [f"{' '.join(at)} (seed {', '.join(found)})" for at, found in seeds.items() if found]


def each_choice(cells: Mapping[At, Cell]) -> tuple[list[str], list[list[str]]]:
    """Header and rows: what each choice reached, and how much less that is than the method's own."""
    differences = {
        (at, protocol): paired_difference(by_pair(cells, own(at), protocol), by_pair(cells, at, protocol))
        for at in cells
        for protocol in PROTOCOLS
        if at != own(at)
    }
    said, rows = in_words(differences), []
    for at, cell in cells.items():
        row = [*at, str(cell.features)]
        diverged = sum("diverged" in kept for kept in cell.kept.values())
        for protocol in PROTOCOLS:
            reached = mean_and_interval(list(by_seed(cells, at, protocol).values()))
            untrained = [x for kept in cell.kept.values() for x in accuracies(kept, protocol, UNTRAINED)]
            row.append(", ".join(filter(None, [reached, f"{diverged} diverged" if diverged else ""])))
            row += [mean_and_spread(untrained), said.get((at, protocol), "")]
        rows.append(row)
    header = ["method", "exchanged", "choice", "features"]
    for protocol in PROTOCOLS:
        header += [protocol, "untrained", "less its own, by seed"]
    return header, rows


def beside_each_other(cells: Mapping[At, Cell]) -> tuple[list[str], list[list[str]]]:
    """Header and rows: what each of two methods loses on average by an exchange, and the difference, by seed."""
    one, two = dict.fromkeys(name for name, _, _ in cells)
    header = ["exchanged"]
    for protocol in PROTOCOLS:
        header += [f"{protocol}, {name}: mean of all others less its own" for name in (one, two)]
        header += [f"{protocol}, {two} - {one}"]
    asked = [(part, protocol) for part in EVALUATED for protocol in PROTOCOLS]
    falls = {
        (name, *at): others_less_own(cells, name, *at) for at in asked for name in (one, two)
    }  # {seed: points}
    said = in_words({at: paired_difference(falls[one, *at], falls[two, *at]) for at in asked})
    rows = []
    for part in EVALUATED:
        row = [part]
        for protocol in PROTOCOLS:
            means = [mean_and_interval(list(falls[name, part, protocol].values())) for name in (one, two)]
            row += [*means, said[part, protocol]]
        rows.append(row)
    return header, rows


def others_less_own(cells: Mapping[At, Cell], name: str, part: str, protocol: str) -> dict[str, float]:
    """{"seed device": the mean accuracy of the other choices less that of the method's own}, in points, of the seeds
    with which no choice diverged, all on one kind of device."""
    usual, *others = (
        by_pair(cells, at, protocol) for at in cells if at[:2] == (name, part)
    )  # the own is first
    return {
        pair: statistics.mean(other[pair] for other in others) - accuracy
        for pair, accuracy in usual.items()
        if all(pair in other for other in others)
    }


def in_words(differences: Mapping[Any, Difference | None]) -> dict[Any, str]:
    """Of a table's differences, corrected for all of them (Holm)."""
    corrected = holm([math.nan if one is None else one.p for one in differences.values()])
    return {at: difference_words(one, p) for (at, one), p in zip(differences.items(), corrected, strict=True)}


def own(at: At) -> At:
    """The method's own choice of what is exchanged."""
    name, part, _ = at
    return name, part, ROBUSTNESS[name][2][part][0]


def by_seed(cells: Mapping[At, Cell], at: At, protocol: str) -> dict[str, float]:
    """{seed: accuracy} of the trained encoders."""
    return {
        seed: accuracy
        for seed, kept in cells[at].kept.items()
        for accuracy in accuracies(kept, protocol, "trained")
    }


def by_pair(cells: Mapping[At, Cell], at: At, protocol: str) -> dict[str, float]:
    """{"seed device": accuracy}: by what runs must share to be subtracted."""
    return {
        f"{seed} {cells[at].kept[seed]['device']}": accuracy
        for seed, accuracy in by_seed(cells, at, protocol).items()
    }


UNTRAINED = "untrained encoder"


def accuracies(kept: Mapping[str, Any], protocol: str, encoder: str) -> list[float]:
    return [row["accuracy"] for row in rows_of(kept, protocol, encoder)]


def rows_of(kept: Mapping[str, Any], protocol: str, encoder: str) -> list[Mapping[str, Any]]:
    return [row for row in kept["results"] if (row["protocol"], row["encoder"]) == (protocol, encoder)]


def table_of(header: list[str], rows: list[list[str]]) -> str:
    rule = ["---"] + ["---:"] * (len(header) - 1)
    return "\n".join("| " + " | ".join(row) + " |" for row in (header, rule, *rows))


def picture(cells: Mapping[At, Cell]):
    """A column a choice, first those of one method, then the other's; a dot a seed. Above kNN, below linear."""
    from jaxcl.plot import style

    figure = style.new_figure(8.6, 5.6)
    axes = figure.subplots(len(PROTOCOLS), len(EVALUATED), sharey="row", sharex="col")
    names = list(dict.fromkeys(name for name, _, _ in cells))
    for protocol, row in zip(PROTOCOLS, axes, strict=True):
        for ax, part in zip(row, EVALUATED, strict=True):
            style.tidy(ax)
            shown = [at for at in cells if at[1] == part]
            for number, name in enumerate(names):
                dots = [
                    (x, accuracy)
                    for x, at in enumerate(shown)
                    if at[0] == name
                    for accuracy in by_seed(cells, at, protocol).values()
                ]
                places, heights = [x for x, _ in dots], [accuracy for _, accuracy in dots]
                ax.plot(places, heights, "o", color=style.COLORS[number], markersize=5, label=name)
            labels = [value.replace("_", " ") for _, _, value in shown]
            ax.set_xticks(range(len(labels)), labels, rotation=40, ha="right", fontsize=style.SMALL)
        row[0].set_ylabel(f"{protocol} accuracy, %", fontsize=style.LABEL, color=style.GRAY)
    for ax, part in zip(axes[0], EVALUATED, strict=True):
        ax.set_title(f"Exchanged: {part}", loc="left", fontsize=style.TITLE, color=style.INK)
    axes[0][0].legend(frameon=False, fontsize=style.SMALL)
    return figure
