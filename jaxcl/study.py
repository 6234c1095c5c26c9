"""A study: a named question, the runs that answer it, and the page of their answer.

A study is a small Python file with a docstring, which says what is asked and where a paper answers it, and a `STUDY`.
Those that come with jaxcl are configs/studies/*.py; `jaxcl study NAME` makes the runs of one by `sweep`, goes on where
it was stopped, and leaves the page beside them: NAME.md and NAME.png. Which settings are compared with which is in the
file, so it is decided before there are results; all comparisons of a study are corrected together (Holm).

Here is what a study is and what it compares; its runs and its page are made by `jaxcl.answer`.
"""

from __future__ import annotations

import ast
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jaxcl.config import executed
from jaxcl.records import read_text
from jaxcl.shipped import found
from jaxcl.statistics import Difference, contrast, holm
from jaxcl.sweep import combinations
from jaxcl.tables import Table, column, difference_words, mean_and_interval, word

Setting = Mapping[str, str]  # knob -> value as a word of the command line, "" where the knob is not named


class Compare(NamedTuple):
    """Values of a knob, each with one of them, where all other knobs are the same; seed by seed.

    A setting that does not name a knob, as a loss without a temperature, is compared with all values of that.
    """

    knob: str
    minus: Any = None  # with which the others are compared; None: the first
    values: Sequence[Any] = ()  # which are compared with it; (): all others
    where: Mapping[str, Any] = {}  # knobs that both settings must have
    across: str | None = None  # how that difference differs between this knob's values and its first


class Published(NamedTuple):
    """Figures to stand beside: those of `where`, under the name of `what`."""

    what: str  # the column's title: the quantity and its source
    figures: Sequence[
        tuple[Mapping[str, Any], Any]
    ]  # (knobs that a setting must have, what is published of it)


class Study(NamedTuple):
    """The runs of a study, and what is made of them. Values of knobs are as in Python: 0.1, True, (16, 32).

    config      the name of a config that comes with jaxcl, or the path of one, from the study's own folder
    grid        knob -> its values; or several of those, for knobs that matter in a part of the runs alone
    seeds       all of them for each setting, so that differences are taken seed by seed
    fixed       knobs that all runs share
    protocols   what is evaluated, as for `jaxcl evaluate`
    compare     which settings are compared
    published   figures of papers to stand beside
    picture     how accuracy is drawn: what `sweep.plot_sweep` takes
    """

    config: str
    grid: Mapping[str, Sequence[Any]] | Sequence[Mapping[str, Sequence[Any]]]
    seeds: Sequence[int]
    fixed: Mapping[str, Any] = {}
    protocols: Sequence[str] = ("knn", "linear")
    baselines: Sequence[str] = ()
    compare: Sequence[Compare] = ()
    published: Published | None = None
    picture: Mapping[str, Any] = {}


def load_study(path: str | Path, *, small: bool = False) -> Study:
    """The study in a file; `small`: the smaller one that it has for a laptop, its SMALL.

    Raises ValueError where the file is no study, or has no small one.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"There is no study {path}; `jaxcl study` lists those that come with jaxcl.")
    module = executed(path, what="a study")
    name = "SMALL" if small else "STUDY"
    study = getattr(module, name, None)
    if not isinstance(study, Study):
        raise ValueError(f"{path} has no {name}: a study's file says `{name} = Study(...)`.")
    config = path.parent / study.config
    return study._replace(config=str(config if config.is_file() else found(study.config)))


def question(path: str | Path) -> tuple[str, str]:
    """The title of a study and what it asks: the first line of its docstring, and the rest."""
    text = ast.get_docstring(ast.parse(read_text(path))) or ""
    title, _, rest = text.partition("\n")
    return title, rest.strip()


def grids(study: Study) -> list[dict[str, list[str]]]:
    """The study's grids in words, of one seed after the other: one that is stopped has all settings, of fewer seeds.

    >>> grids(Study("config", {"layers": [2, 3]}, seeds=(0, 1)))
    [{'seed': ['0'], 'layers': ['2', '3']}, {'seed': ['1'], 'layers': ['2', '3']}]
    """
    return [
        {"seed": [str(seed)], **{knob: [word(value) for value in values] for knob, values in grid.items()}}
        for seed in study.seeds
        for grid in ([study.grid] if isinstance(study.grid, Mapping) else study.grid)
    ]


def settings(study: Study) -> list[dict[str, str]]:
    """Every setting of the study, in order, with "" for a knob that its grid does not name."""
    found_there = combinations([{k: v for k, v in grid.items() if k != "seed"} for grid in grids(study)])
    knobs = dict.fromkeys(knob for setting in found_there for knob in setting)
    return [{knob: setting.get(knob, "") for knob in knobs} for setting in found_there]


# --- what is compared --------------------------------------------------------------------------------------------


def comparisons(study: Study) -> list[tuple[str, list[tuple[int, int]]]]:
    """(in words, (number of a setting, its sign) ...) of every comparison: what its signs add up to is estimated.

    >>> asked = Study("c", {"loss": ["a", "b"], "layers": [2, 3]}, (0,), compare=(Compare("loss", across="layers"),))
    >>> comparisons(asked)
    [('loss b - a: layers 3 - 2', [(3, 1), (1, -1), (2, -1), (0, 1)])]
    """
    there = settings(study)
    made: list[tuple[str, list[tuple[int, int]]]] = []
    for asked in study.compare:
        pairs = _pairs(there, asked)
        if asked.across is None:
            made += [(f"{words}{_at(rest)}", [(i, 1), (j, -1)]) for words, rest, i, j in pairs]
            continue
        values = [rest.get(asked.across) for _, rest, _, _ in pairs]
        first = next((value for value in values if value), None)
        if first is None:
            raise ValueError(f"The study compares across {asked.across!r}, which its grid does not vary.")

        def of(words: str, rest: Setting, across: str = asked.across) -> tuple[Any, ...]:
            return words, *((knob, value) for knob, value in rest.items() if knob != across)

        base = {of(words, rest): (i, j) for words, rest, i, j in pairs if rest.get(asked.across) == first}
        for (words, rest, i, j), value in zip(pairs, values, strict=True):
            if value and value != first and of(words, rest) in base:
                k, l = base[of(words, rest)]
                others = {knob: at for knob, at in rest.items() if knob != asked.across}
                said = f"{words}: {asked.across} {value} - {first}{_at(others)}"
                made.append((said, [(i, 1), (j, -1), (k, -1), (l, 1)]))
    return made


def _pairs(there: Sequence[Setting], asked: Compare) -> list[tuple[str, dict[str, str], int, int]]:
    """(in words, the other knobs of both, the one, the other) of all settings that differ in this knob alone, and of
    which the other has the value that is subtracted."""
    values = list(dict.fromkeys(setting[asked.knob] for setting in there if setting.get(asked.knob)))
    if not values:
        raise ValueError(f"The study compares {asked.knob!r}, which its grid does not name.")
    minus = values[0] if asked.minus is None else word(asked.minus)
    chosen = [word(value) for value in asked.values] or [value for value in values if value != minus]
    if strange := [value for value in (minus, *chosen) if value not in values]:
        raise ValueError(
            f"The study compares {asked.knob} {', '.join(strange)}, and its grid has {', '.join(values)}."
        )
    pairs = []
    for i, one in enumerate(there):
        for j, other in enumerate(there):
            rest = {knob: value or other[knob] for knob, value in one.items() if knob != asked.knob}
            alike = all(rest[knob] == (other[knob] or rest[knob]) for knob in rest)
            wanted = all(rest.get(knob) == word(value) for knob, value in asked.where.items())
            if one[asked.knob] in chosen and other[asked.knob] == minus and alike and wanted:
                pairs.append((f"{asked.knob} {one[asked.knob]} - {minus}", rest, i, j))
    return pairs


def _at(rest: Setting) -> str:
    """The other knobs of a comparison, in words."""
    said = ", ".join(f"{knob} {value}" for knob, value in rest.items() if value)
    return f" at {said}" if said else ""


def compared_table(study: Study, results: Sequence[Mapping[str, Any]]) -> Table:
    """A comparison a row: the mean over seeds with its 95 % interval and p value (paired t test; Holm's correction for
    all cells of the table that have one), in points of percent."""
    cells = _contrasts(study, results)
    corrected = holm([math.nan if one is None else one.p for one in cells.values()])
    said = {at: difference_words(one, p) for (at, one), p in zip(cells.items(), corrected, strict=True)}
    rows, protocols = dict.fromkeys(words for words, _ in cells), _columns(study, results)
    return ("difference", *protocols), [(words, *(said[words, one] for one in protocols)) for words in rows]


def tested(study: Study, results: Sequence[Mapping[str, Any]]) -> tuple[int, int]:
    """How many cells of `compared_table` have a p value, for which Holm's method corrects, and how many it has: of one
    seed there is none, nor where all seeds differ by the same."""
    found = _contrasts(study, results).values()
    return sum(one is not None and not math.isnan(one.p) for one in found), len(found)


def _contrasts(
    study: Study, results: Sequence[Mapping[str, Any]]
) -> dict[tuple[str, str], Difference | None]:
    """(a comparison in words, protocol) -> what it comes to."""
    there, by_seed = settings(study), _by_seed(results)
    return {
        (words, protocol): contrast(
            [(by_seed.get((tuple(there[i].items()), protocol), {}), sign) for i, sign in signs]
        )
        for words, signs in comparisons(study)
        for protocol in _columns(study, results)
    }


def settings_table(study: Study, results: Sequence[Mapping[str, Any]]) -> Table:
    """A setting a row: mean and 95 % interval over its seeds, in percent, and what is published of it."""
    protocols = _columns(study, results)
    by_seed, there, rows = _by_seed(results), settings(study), []
    for setting in there:
        reached = [by_seed.get((tuple(setting.items()), protocol), {}) for protocol in protocols]
        row = [*setting.values(), *(mean_and_interval(list(one.values())) for one in reached)]
        rows.append((*row, *([] if study.published is None else [_published(study.published, setting)])))
    more = () if study.published is None else (study.published.what,)
    return (*there[0], *protocols, *more), rows


def _published(published: Published, setting: Setting) -> str:
    for where, figure in published.figures:
        if all(setting.get(knob) == word(value) for knob, value in where.items()):
            return word(figure)
    return ""


def _columns(study: Study, results: Sequence[Mapping[str, Any]]) -> list[str]:
    """What was evaluated, in the order of the study; an online classifier, if there is one, at the end."""
    order = {protocol: i for i, protocol in enumerate(study.protocols)}
    return sorted(
        dict.fromkeys(map(column, results)), key=lambda one: order.get(one.split(", ")[0], len(order))
    )


def _by_seed(results: Sequence[Mapping[str, Any]]) -> dict[Any, dict[str, float]]:
    """(a setting's knobs, protocol) -> seed -> accuracy, of the trained encoders."""
    made: dict[Any, dict[str, float]] = {}
    for row in results:
        if row["encoder"] == "trained":
            setting = tuple((knob, value) for knob, value in row["knobs"].items() if knob != "seed")
            made.setdefault((setting, column(row)), {})[row["knobs"]["seed"]] = row["accuracy"]
    return made
