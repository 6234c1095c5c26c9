"""One page that shows what a run came to: a single HTML file that can be sent by mail."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jaxcl.encoder import encoder_of
from jaxcl.report import html
from jaxcl.report.pictures import (
    DPI,
    Figure,
    picture_of_regions,
    picture_of_views,
    pictures_of_embedding,
    pictures_of_scores,
)
from jaxcl.runs import evaluations, open_run, other_images
from jaxcl.tables import accuracy_table, classes_table

FIGURES = "figures.json"  # beside the pictures: the file and the caption of each


class Report(NamedTuple):
    page: Path
    left_out: tuple[str, ...]  # what could not be drawn, a sentence each


def plot_run(
    run_dir: str | Path,
    *,
    points: int = 1000,
    data: str | None = None,
    data_dir: str | None = None,
    trust: bool = False,
    **how: Any,
) -> Report:
    """Draws views, curves, a map of the embedding and nearest neighbors into run_dir/plots, and a page of them.

    points
        how many test images the maps show.
    data, data_dir, how
        other images to show than the run's own, or where these lie now, as for `evaluate_run`; `how` they are read,
        as labels, layout and value_range.
    trust
        execute the run's config whoever made it (`open_run`).

    Where the run's images cannot be read, the curves and tables are drawn all the same, and the page says what is
    left out.
    """
    from jaxcl import plot
    from jaxcl.train.log import read_metrics

    run = open_run(run_dir, trust=trust)
    trained = encoder_of(run, run.recipe.method.embed)
    figures: list[tuple[Any, ...]] = []
    left_out = []
    train, test = None, None
    try:
        if data is None:
            own = run.data(data_dir)
            train = own.train
            test = own.test
        else:
            train, test = other_images(run, data, data_dir, **how)
    except (FileNotFoundError, ValueError) as error:
        if data is not None:
            raise
        what = "Views, map" if train is None else "Map"
        left_out.append(
            f"{what} and nearest neighbors are left out: the images cannot be read ({error}) `jaxcl plot"
            f" {run_dir} --data SPEC` shows others."
        )
    if train is not None:
        caption = "Views: an image, and what the method is asked to find the same."
        figures.append((caption, picture_of_views(run.recipe, train, seed=run.knobs.seed)))
    if records := read_metrics(run_dir):
        caption = "Training: the raw values, and smoothed over them."
        figures.append((caption, plot.training_curves(records), plot.training_curves(records, columns=1)))
        if any("positive_histogram" in record for record in records):
            figures += pictures_of_scores(records)
    if train is not None and test is not None:
        figures += pictures_of_embedding(run, trained, train, test, points, left_out)
        try:
            figures.append(picture_of_regions(run, test))
        except ValueError as error:
            left_out.append(f"The picture of local features is left out: {error}")
    summary = [
        ("config", run.record["config"]),
        ("steps", str(trained.step)),
        ("device", run.record["device"]),
    ]
    tables: list[tuple[str, Sequence[str], Sequence[Sequence[str]]]] = []
    if results := evaluations(run_dir):
        named = [row | {"encoder": "this run"} if row["encoder"] == run.dir.name else row for row in results]
        tables.append(("Accuracy on test images, percent", *html.narrow(*accuracy_table(named))))
        if (by_class := classes_table(named))[1]:
            tables.append(("The same by class, percent", *by_class))
    knobs = [(name, str(value)) for name, value in vars(run.knobs).items()]
    page = write_report(
        run.dir / "plots",
        title=run.dir.name,
        summary=summary,
        tables=tables,
        figures=figures,
        last=[("Knobs", ("knob", "value"), knobs)],
        notes=left_out,
    )
    return Report(page, tuple(left_out))


def write_report(
    folder: str | Path,
    *,
    title: str,
    summary: Sequence[tuple[str, Any]] = (),
    tables: Sequence[tuple[str, Sequence[Any], Sequence[Sequence[Any]]]] = (),
    figures: Sequence[tuple[str, Figure] | tuple[str, Figure, Figure]] = (),
    last: Sequence[tuple[str, Sequence[Any], Sequence[Sequence[Any]]]] = (),
    notes: str | Sequence[str] = (),
) -> Path:
    """Writes folder/report.html, each figure as a PNG beside it, and figures.json with their captions; returns the path
    of the page.

    summary  (name, value) pairs: the headline numbers, at the top of the page
    tables   (caption, header, rows); a row has as many cells as the header. Columns of numbers are set right.
    figures  (caption, Figure); a caption is a sentence that says how to read the picture. A third, if given, is the
             Figure for narrow screens, where the letters of a wide one are too small
    last     tables that stand after the figures, as what was set
    notes    paragraphs at the end: how the numbers were made, what they do not show

    Text is escaped and taken as it is. A float is printed with four significant digits, an int with commas, None and
    nan as a dash; give a string to print it otherwise. The pictures are inside the page as well, so it needs no other
    file and no network. The folder is made if it is not there; files of the same name are overwritten.

    Raises ValueError when a row has another number of cells than its header.
    """
    folder = Path(folder)
    for caption, header, rows in (*tables, *last):
        for number, row in enumerate(rows):
            if len(row) != len(header):
                raise ValueError(
                    f"Row {number} of the table {caption!r} has {len(row)} cells, its header has {len(header)}."
                )
    folder.mkdir(parents=True, exist_ok=True)

    parts = [f"<h1>{html.text(title)}</h1>"]
    if summary:
        parts.append(html.summary_table(summary))
    parts += [html.table(caption, header, rows) for caption, header, rows in tables]
    listed = []
    for number, (caption, figure, *other) in enumerate(figures, start=1):
        png, name = _png(figure), _file_name(number, caption)
        (folder / name).write_bytes(png)
        listed.append({"file": name, "caption": caption})
        phone = _png(other[0]) if other else None
        width = round(figure.get_figwidth() * 100)
        parts.append(
            html.figure(html.image(png, alt=caption, width=width, phone=phone), caption, number=number)
        )
    parts += [html.table(caption, header, rows) for caption, header, rows in last]
    (folder / FIGURES).write_text(json.dumps(listed, indent=2) + "\n", encoding="utf-8")
    paragraphs = [notes] if isinstance(notes, str) else list(notes)
    if paragraphs:
        parts.append(f"<section class='notes'><h2>Notes</h2>{html.paragraphs(paragraphs)}</section>")

    page = folder / "report.html"
    page.write_text(html.page(title, parts), encoding="utf-8")
    return page


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    # No version of matplotlib inside: the same picture is the same file.
    figure.savefig(buffer, format="png", dpi=DPI, facecolor="white", metadata={"Software": None})
    return buffer.getvalue()


def _file_name(number: int, caption: str) -> str:
    """ "The loss falls, then stays." -> "figure-1-the-loss-falls-then.png" """
    words = re.findall(r"[a-z0-9]+", caption.lower())[:4]
    return "-".join(["figure", str(number), *words])[:60] + ".png"
