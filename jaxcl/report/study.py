"""One page of many runs: what they differ in, what that makes out, how sure it is, and what ran where.

It reads what stands in the directories and nothing else (`gather`); the statistics are those of `jaxcl.statistics`.
"""

from __future__ import annotations

import importlib.util
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jaxcl import plot
from jaxcl.plot.panels import WIDTH, GridPanel, LinePanel, color_of
from jaxcl.records import fits, in_utf8
from jaxcl.report import html
from jaxcl.report.figures import (
    accuracy_panels,
    curve_panels,
    first_of_each,
    heat_maps,
    score_panels,
    spread_of,
    words_of,
)
from jaxcl.report.gather import Member, Study, gather, results_of, setting_of
from jaxcl.report.live import live, programs
from jaxcl.report.pictures import DPI
from jaxcl.report.ran import device_of, runs_tables, trained_for
from jaxcl.report.run import Report
from jaxcl.runs import BASELINES
from jaxcl.tables import (
    FEW_SEEDS,
    accuracy_table,
    averages_table,
    classes_table,
    column,
    differences_table,
    fewest_seeds,
    mean_and_interval,
    robustness_table,
    steps_table,
    sweep_table,
)

MOST_PICTURES = 24
MOST_NAMES = 40  # of settings beside their colors
MOST_WARNINGS = 10  # of training
LARGEST_PICTURE = 4_000_000  # bytes

INTERVALS = (
    "a ± b (n=k): the mean over k runs that differ in their seed alone, and half the width of its 95 % confidence"
    " interval, t(k - 1) s / sqrt(k) by Student's t. It covers what the seed decides: initial weights, the order of the"
    " images, their views. It does not cover the choice of test images, which are the same in all runs."
)
PAIRS = (
    "Differences are taken seed by seed, as runs of one seed share their order of images and what the seed draws: the"
    " mean of the differences, half the width of its 95 % interval, and the p value of the paired t test of no"
    " difference, corrected by Holm's method for all cells of its table that have one: of one seed there is none, nor"
    " where all seeds differ by the same. n is how many seeds both settings have. What is averaged over the other knobs"
    " is so within each seed, before seeds are compared."
)
HIGHEST = (
    "The highest of several means is chosen on the test images that measure it, so it is a little too high."
)


def report_runs(
    directories: Sequence[str | Path],
    *,
    out: str | Path | None = None,
    interactive: bool | None = None,
) -> Report:
    """Writes one page about the runs in some directories, each of a run or of a sweep; returns where it is.

    out
        the page; report.html in the directory if it is one, here if there are several.
    interactive
        whether plotly is embedded (5 MB), so that panels can be pointed at; if not said, where it is installed. The
        drawn pictures are in the page in any case, and are what is printed.

    No config is executed, no image is opened: what is not in the directories is not on the page, which says so.

    Raises FileNotFoundError where a directory holds no run, ValueError where none can be read, ImportError where it
    is to be interactive and plotly is not installed.
    """
    study = gather(directories)
    if interactive is None:
        interactive = importlib.util.find_spec("plotly") is not None
    names = [in_utf8(Path(directory).resolve().name) for directory in directories]
    said = list(study.said)
    shown: list[dict[str, Any]] = []
    pieces = [
        f"<h1>{html.text(', '.join(names))}</h1>",
        *_head(study),
        *_results(study),
        *_panels(study, shown, said),
        *_pictures(study, said),
        *runs_tables(study),
        *_knobs(study),
        _notes(study, said),
    ]
    data = {"panels": shown} if interactive else None
    if out is None:
        out = Path(directories[0]) / "report.html" if len(directories) == 1 else Path("report.html")
    path = Path(out)
    path.parent.mkdir(parents=True, exist_ok=True)
    scripts = programs(interactive=interactive and bool(shown))
    path.write_text(
        html.page(", ".join(names), pieces, scripts=scripts, data=data), encoding="utf-8", newline="\n"
    )
    return Report(path, tuple(said))


def _head(study: Study) -> list[str]:
    """What this is, what is wrong with it, and what it came to."""
    seeds = list(dict.fromkeys(member.knobs["seed"] for member in study.members if "seed" in member.knobs))
    alone, settings = len(study.members) == 1, len(first_of_each(study))
    if alone:
        entries = [("state", _stand(study.members[0]))]
    else:
        counts = Counter(member.status.state for member in study.members)
        stand = ", ".join(f"{n} {state}" for state, n in counts.items())
        entries = [("runs", f"{len(study.members)}: {stand}")]
        entries += [("settings", str(settings))] if study.varying else []
        entries.append(("what differs", ", ".join(_with_others(study)) or "the seed"))
    entries += [
        ("seed" if alone else "seeds", ", ".join(seeds)),
        *((name, study.constant[name]) for name in ("config", "data") if name in study.constant),
        ("device", "; ".join(dict.fromkeys(device_of(member) for member in study.members))),
        ("trained for", trained_for(study.members)),
    ]
    results = results_of(study)
    warnings = []
    if len(study.members) > 1 and results and fewest_seeds(results) < 3:
        warnings.append(FEW_SEEDS)
    warnings += missing(study)
    pieces = [html.summary_table(entries), html.paragraphs(warnings, kind="warning")]
    sentences = []
    if len(study.members) > 1:
        untrained = spread_of(study, encoder=BASELINES[1])
        for protocol, found in spread_of(study).items():
            best = max(found, key=lambda at: sum(found[at]["accuracy"]) / len(found[at]["accuracy"]))
            where = f" at {words_of(study.varying, best)}" if study.varying else ""
            which = "Highest mean accuracy" if len(found) > 1 else "Mean accuracy"
            sentence = f"{which} by {protocol}: {mean_and_interval(found[best]['accuracy'])} %{where}"
            if floor := untrained.get(protocol, {}).get(best):
                sentence += f"; the untrained encoder there: {mean_and_interval(floor['accuracy'])} %"
            sentences.append(f"{sentence}.")
        if settings > 1 and sentences:
            sentences.append(HIGHEST)
    return [*pieces, html.paragraphs(sentences, kind="lead")]


def _with_others(study: Study) -> list[str]:
    """The knobs that vary, each with how many differ along with it."""
    counts = {name: sum(kept == name for kept, _ in study.along.values()) for name in study.varying}
    return [f"{name} (and {n} along with it)" if n else name for name, n in counts.items()]


def missing(study: Study) -> list[str]:
    """What is not there yet, or not as it should be: a sentence each."""
    sentences = []
    protocols = list(spread_of(study))
    bare = [member for member in study.members if not member.results and member.diverged is None]
    if bare:
        sentences.append(
            f"{_count(bare)} no results yet: {_listed([f'{m.name} ({_stand(m)})' for m in bare])}."
            " `jaxcl evaluate` makes them."
        )
    for protocol in protocols:
        without = [
            member.name
            for member in study.members
            if member.results
            and member.diverged is None
            and protocol not in {column(row) for row in member.results if row["encoder"] == "trained"}
        ]
        if without:
            sentences.append(f"No result by {protocol} of: {_listed(without)}.")
    if diverged := [f"{m.name} ({m.diverged})" for m in study.members if m.diverged is not None]:
        sentences.append(f"Diverged, and not among the means: {_listed(diverged)}.")
    old = [
        f"{member.name} ({column(row)} of step {row['step']}, now {member.status.saved})"
        for member in study.members
        for row in member.results
        if row["encoder"] == "trained" and "step" in row and (member.status.saved or 0) > row["step"]
    ]
    if old:
        sentences.append(f"Results from before the run was continued: {_listed(old)}.")
    told: dict[str, list[str]] = {}
    for member in study.members:
        for step, warning in member.status.warnings:
            told.setdefault(in_utf8(warning), []).append(f"{member.name} at step {step}")
    warned = [f"Warned of {_listed(who)}: {warning}" for warning, who in told.items()]
    return sentences + warned[:MOST_WARNINGS]


def _count(members: Sequence[Member]) -> str:
    return "1 run has" if len(members) == 1 else f"{len(members)} runs have"


def _listed(names: Sequence[str], *, most: int = 10) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _stand(member: Member) -> str:
    stands = member.status
    if stands.step is None:
        return stands.state
    return f"{stands.state}, step {stands.step}" + (f" of {stands.steps}" if stands.steps else "")


def _results(study: Study) -> list[str]:
    results = results_of(study)
    if not results:
        return ["<h2>Results</h2>", html.paragraphs(["There are no results yet."])]
    # The trained encoders first, then what they are measured by.
    results.sort(key=lambda row: row["encoder"] != "trained")
    if len(study.members) == 1:
        return ["<h2>Results</h2>", *_of_one(study.members[0])]
    pieces = ["<h2>Results</h2>"]
    # Those that vary among the runs, which may be more than vary among the results so far.
    header, rows = sweep_table(results, knobs=study.varying)
    place = len(study.varying)
    for encoder in dict.fromkeys(row[place] for row in rows):
        of = "" if encoder == "trained" else f": {encoder}"
        own_header, own = _without(place, header, [row for row in rows if row[place] == encoder])
        n, own = common_count(place, own)
        pieces.append(
            html.table(f"Accuracy on test images, percent{of}{n}", own_header, own, kinds="sort filter")
        )
    pieces.append(html.paragraphs([INTERVALS], kind="soft"))
    header, rows = averages_table(results)
    averaged = []
    if rows:
        n, rows = common_count(1, rows)
        caption = f"Averaged over the other knobs, difference in accuracy, percentage points{n}"
        averaged = [html.table(caption, header, rows, kinds="sort")]
    header, rows = steps_table(results, knobs=study.varying)
    if not rows:  # no two differ in one knob alone
        header, rows = differences_table(results, knobs=study.varying)
    if rows:
        n, rows = common_count(2, rows)
        if not any(row[1] for row in rows):
            header, rows = _without(1, header, rows)
        pieces += [
            "<h2>Differences</h2>",
            *averaged,
            html.table(f"Difference in accuracy, percentage points{n}", header, rows, kinds="sort filter"),
            html.paragraphs([PAIRS], kind="soft"),
        ]
    return pieces


def common_count(first: int, rows: Sequence[Sequence[str]]) -> tuple[str, list[tuple[str, ...]]]:
    """What all cells of a table, from the column `first` on, say of how many seeds they have is said once, and left out
    of them.

    >>> common_count(1, [("0.1", "1.0 ± 0.2 (n=3)", "2.0 ± 0.1 (n=3)")])
    ('; n=3 in all cells', [('0.1', '1.0 ± 0.2', '2.0 ± 0.1')])
    >>> common_count(1, [("0.1", "1.0 ± 0.2 (n=3)", "2.0")])
    ('', [('0.1', '1.0 ± 0.2 (n=3)', '2.0')])
    """
    kept = [tuple(row) for row in rows]
    cells = [cell for row in kept for cell in row[first:] if cell]
    counts = {found[1] if (found := re.search(r" \((n=\d+)\)$", cell)) else "" for cell in cells}
    if len(counts) != 1 or "" in counts:
        return "", kept
    n = counts.pop()
    said = f"; {n} in all cells"
    return said, [(*row[:first], *(cell.removesuffix(f" ({n})") for cell in row[first:])) for row in kept]


def _without(column: int, header: Sequence[str], rows: Sequence[Sequence[str]]) -> Any:
    return (
        (*header[:column], *header[column + 1 :]),
        [(*row[:column], *row[column + 1 :]) for row in rows],
    )


def _of_one(member: Member) -> list[str]:
    results = member.results
    pieces = [html.table("Accuracy on test images, percent", *html.narrow(*accuracy_table(results)))]
    if (by_class := classes_table(results))[1]:
        pieces.append(html.table("The same by class, percent", *by_class))
    if (robustness := robustness_table(results))[1]:
        pieces.append(html.table("With corrupted images, percent", *robustness))
    errors = [
        f"{column(row)} ± {row['standard_error']:.1f}"
        for row in results
        if row["encoder"] == "trained" and fits(row.get("standard_error"), float)
    ]
    sentences = ["This is one run, of one seed: what another seed would give is not known."]
    if errors:
        sentences.append(
            f"By the draw of the test images alone, one standard error in points: {', '.join(errors)}."
        )
    return [*pieces, html.paragraphs(sentences, kind="soft")]


def _panels(study: Study, shown: list[dict[str, Any]], said: list[str]) -> list[str]:
    """The panels of all kinds; as figures of plotly they are appended to `shown`."""
    each = " A line is a run, a color a setting." if len(study.members) > 1 else ""
    kinds = [
        (
            "Accuracy against each knob",
            accuracy_panels(study),
            "A point is a mean over seeds, a band its 95 % interval (none of a single seed), a small dot one run.",
            True,
        ),
        (
            "Two knobs at a time",
            heat_maps(study),
            "Mean over seeds, with its 95 % interval where it fits.",
            True,
        ),
        (
            "Training",
            curve_panels(study),
            f"Smoothed over a thirtieth of the run.{each} Losses of different functions, weights or temperatures are on"
            " different scales.",
            False,
        ),
        (
            "Scores",
            score_panels(study),
            "How similar queries are to their positives and negatives, before the temperature, over the last tenth of"
            f" the log.{each}",
            False,
        ),
    ]
    pieces: list[str] = []
    for title, made, caption, choose in kinds:
        said += made.said
        if made.panels:
            choice = " data-choose='Show'" if choose else ""
            pieces += [f"<h2>{html.text(title)}</h2>", html.paragraphs([caption], kind="soft")]
            pieces += [] if choose else _legend(study)
            pieces.append(f"<div class='panels'{choice}>")
            for panel in made.panels:
                pieces.append(_figure(panel, number=len(shown)))
                shown.append(live(panel))
            pieces.append("</div>")
    if not any(member.log for member in study.members):
        pieces += ["<h2>Training</h2>", html.paragraphs(["There are no metrics yet."])]
    return pieces


def _legend(study: Study) -> list[str]:
    """The colors of the settings, for all pictures of a kind."""
    names = [words_of(study.varying, setting_of(member, study.varying)) for member in first_of_each(study)]
    if len(names) < 2:
        return []
    return [html.legend(names[:MOST_NAMES], [color_of(group) for group in range(len(names))][:MOST_NAMES])]


def _figure(panel: LinePanel | GridPanel, *, number: int) -> str:
    drawn = plot.svg(plot.draw_panel(panel))
    against = f"{panel.title} against {panel.x}" + (f" and {panel.y}" if isinstance(panel, GridPanel) else "")
    still = html.image(drawn, alt=against, width=round(WIDTH * 110))
    return (
        f"<figure data-panel='{number}' data-name='{html.text(against)}'>"
        f"<div class='paper'><div class='live'></div><div class='still'>{still}</div></div></figure>"
    )


def _pictures(study: Study, said: list[str]) -> list[str]:
    """What `jaxcl plot` drew: all of a single run; of many the views and maps of the first of each setting."""
    alone = len(study.members) == 1
    chosen: list[tuple[str, Path]] = []
    for member in first_of_each(study):
        for caption, file in member.pictures:
            if alone:
                chosen.append((caption, file))
            elif caption.startswith(("Views", "figure 1 views")) or "t-SNE" in caption or "as the" in caption:
                chosen.append((f"{member.name}: {caption}", file))
    pieces = []
    for number, (caption, file) in enumerate(chosen[:MOST_PICTURES], start=1):
        picture = file.read_bytes() if file.stat().st_size <= LARGEST_PICTURE else b""
        if not picture.startswith(b"\x89PNG\r\n\x1a\n"):
            whose = in_utf8(file.parent.parent.name)
            said.append(f"{in_utf8(file.name)} of {whose} is left out: it is no PNG, or too large.")
            continue
        width = int.from_bytes(picture[16:20], "big") * 100 // DPI  # of the header
        kind = "whole" if width > 560 else ""
        shown = html.image(picture, alt=caption, width=min(max(width, 100), 900))
        pieces.append(html.figure(shown, caption, number=number, kind=kind))
    if len(chosen) > MOST_PICTURES:
        said.append(f"{MOST_PICTURES} of {len(chosen)} pictures are shown.")
    if not pieces:
        said.append(
            "Views, maps of the embedding and nearest neighbors are not on this page, as they are not drawn:"
            " `jaxcl plot RUN_DIR` draws them for a run, and the next report shows them."
        )
        return []
    return ["<h2>Views and maps</h2>", "<div class='panels'>", *pieces, "</div>"]


def _knobs(study: Study) -> list[str]:
    what = "Knobs" if len(study.members) == 1 else "Knobs that all runs share"
    pieces = ["<h2>Knobs</h2>"]
    for kept in study.varying:
        others = {name: values for name, (one, values) in study.along.items() if one == kept}
        if others:
            at = list(dict.fromkeys(member.knobs[kept] for member in study.members))
            rows = [(name, *(values[value] for value in at)) for name, values in others.items()]
            pieces.append(html.table(f"Knobs that differ along with {kept}", (kept, *at), rows))
    return [*pieces, html.table(what, ("knob", "value"), list(study.constant.items()))]


def _notes(study: Study, said: Sequence[str]) -> str:
    made = "Made by jaxcl report from what these run directories hold, and from nothing else: "
    sentences = [*said, made + _listed([member.name for member in study.members], most=3) + "."]
    return f"<section class='notes'><h2>Notes</h2>{html.paragraphs(sentences)}</section>"
