"""Pictures of a run, and one page that shows what it came to: a single HTML file that can be sent by mail."""

from __future__ import annotations

import base64
import html
import io
import math
import numbers
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxcl.config import Recipe, load_config, open_data, recipe_of
from jaxcl.data.host import ends_in_a_space
from jaxcl.encoder import Encoder, encoder_of, maps_of
from jaxcl.runs import Run, evaluations, open_run, other_images
from jaxcl.tables import accuracy_table, classes_table
from jaxcl.typing import Images

# A matplotlib Figure; only the room of pictures imports matplotlib.
Figure = Any

DPI = 160


class Report(NamedTuple):
    page: Path
    left_out: tuple[str, ...]  # what could not be drawn, a sentence each


# --- pictures of a run -------------------------------------------------------------------------------------------


def plot_run(
    run_dir: str | Path,
    *,
    points: int = 1000,
    data: str | None = None,
    data_dir: str | None = None,
    trust: bool = False,
) -> Report:
    """Draws views, curves, a map of the embedding and nearest neighbors into run_dir/plots, and a page of them.

    points
        how many test images the maps show.
    data, data_dir
        other images to show than the run's own, as for `evaluate_run`.
    trust
        execute the run's config whoever made it (`open_run`).

    Where the run's images cannot be read, the curves and tables are drawn all the same, and the page says what is
    left out.
    """
    from jaxcl import plot
    from jaxcl.train.log import read_metrics

    run = open_run(run_dir, trust=trust)
    trained = encoder_of(run, run.recipe.method.embed)
    figures: list[tuple[str, Any]] = []
    left_out = []
    train, test = None, None
    try:
        if data is None:
            own = run.data()
            train, test = own.train, own.test
        else:
            train, test = other_images(run, data, data_dir)
    except (FileNotFoundError, ValueError) as error:
        if data is not None:
            raise
        left_out.append(
            f"Views, map and nearest neighbors are left out: the images cannot be read ({error}) `jaxcl plot"
            f" {run_dir} --data SPEC` shows others."
        )
    if train is not None:
        caption = "Views: an image, and what the method is asked to find the same."
        figures.append((caption, picture_of_views(run.recipe, train, seed=run.knobs.seed)))
    if records := read_metrics(run_dir):
        figures.append(("Training: the raw values, and smoothed over them.", plot.training_curves(records)))
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
    tables: list[tuple[str, Sequence[str], Sequence[Sequence[str]]]] = [
        ("Knobs", ("knob", "value"), [(name, str(value)) for name, value in vars(run.knobs).items()])
    ]
    if results := evaluations(run_dir):
        tables.insert(0, ("Accuracy on test images, percent", *accuracy_table(results)))
        if (by_class := classes_table(results))[1]:
            tables.insert(1, ("The same by class, percent", *by_class))
    page = write_report(
        run.dir / "plots", title=run.dir.name, summary=summary, tables=tables, figures=figures, notes=left_out
    )
    return Report(page, tuple(left_out))


def sample(images: Images, n: int, *, seed: int) -> np.ndarray:
    """The numbers of `n` images from all over a data set, in random order, its classes in turn: many data sets are
    sorted by class, and their first images show one or two.

    >>> sorted_by_class = Images("two", np.zeros((6, 1, 1, 1), np.uint8), np.array([0, 0, 0, 0, 1, 1]))
    >>> sorted(sorted_by_class.labels[sample(sorted_by_class, 4, seed=0)].tolist())
    [0, 0, 1, 1]
    """
    order = np.random.default_rng(seed).permutation(len(images.images))
    if images.labels is None:
        return order[:n]
    labels = np.asarray(images.labels)[order]
    turn = np.empty(len(order), int)
    for c in np.unique(labels):
        own = labels == c
        turn[own] = np.arange(own.sum())
    return order[np.argsort(turn, kind="stable")][:n]


def picture_of_views(recipe: Recipe, images: Images, *, seed: int, n: int = 8, drawn: bool = False) -> Figure:
    """`n` images (`sample`) beside their views; `drawn`: with what was drawn for each, where the views say it."""
    from jaxcl import augment, plot

    views = recipe.views
    shown = sample(images, n, seed=seed)
    batch = {"image": images.images[shown], "index": shown.astype(np.int32)}
    key = jax.random.key(seed)
    made = jax.device_get(jax.jit(lambda batch: views(key, batch))(batch))
    if any(map(ends_in_a_space, getattr(views, "recipes", ()))):
        made = tuple(((x + 1) / 2).clip(0, 1) for x in made)  # color spaces are within about [-1, 1]
    captions = augment.captions(key, views, batch) if drawn else None
    return plot.views_sheet(visible(batch["image"]), tuple(map(visible, made)), captions=captions)


def draw_views(config: str | Path, knobs: Any, out: str | Path, *, n: int = 8) -> Path:
    """A picture in the file `out`: n training images and the views that a config makes of them, with what was drawn."""
    module, out = load_config(config), Path(out)
    data = open_data(module, knobs)
    recipe = recipe_of(module, knobs, data.about)
    figure = picture_of_views(recipe, data.train, seed=knobs.seed, n=n, drawn=True)
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=DPI, facecolor="white")
    return out


def pictures_of_scores(records: Sequence[dict[str, Any]]) -> list[tuple[str, Any]]:
    from jaxcl import plot

    return [
        ("Scores of positives and negatives, before the temperature.", plot.score_curves(records)),
        ("How the scores are distributed, over the run.", plot.score_distributions(records)),
    ]


def pictures_of_embedding(
    run: Run, trained: Encoder, train: Images, test: Images, points: int, left_out: list[str]
) -> list[tuple[str, Any]]:
    """Captions and figures: a map before and after training, and test images with their nearest training images. A map
    that cannot be drawn is a sentence more in `left_out`."""
    from jaxcl import evaluate, plot

    chosen, classes = sample(test, points, seed=run.knobs.seed), test.classes
    images, labels = test.images[chosen], None if test.labels is None else test.labels[chosen]
    colored = "" if labels is None else ", colored by class"
    untrained = encoder_of(run, trained.apply, untrained=True)
    figures = []
    for name, encoder in (("untrained", untrained), ("trained", trained)):
        features = evaluate.embed(encoder.embed, images)
        caption = f"{len(features)} test images as the {name} encoder places them (t-SNE){colored}."
        try:
            drawn = plot.embedding_map(features, labels, classes=classes, seed=run.knobs.seed)
        except ValueError as error:
            left_out.append(f"The map of the {name} encoder is left out. {error}")
        else:
            figures.append((caption, drawn))
    bank = evaluate.embed(trained.embed, train.images)
    queries = slice(0, 10)
    index, similarities = evaluate.nearest(bank, features[queries], 8)
    sheet = plot.neighbors_sheet(
        visible(images[queries]),
        visible(train.images[index]),
        query_labels=None if labels is None else labels[queries],
        neighbor_labels=None if train.labels is None else train.labels[index],
        similarities=similarities,
        classes=classes,
        query_names=[test.files[i] for i in chosen[queries]] if test.files else None,
        neighbor_names=[[train.files[i] for i in row] for row in index] if train.files else None,
    )
    judged = "; green: of the same class" if labels is not None and train.labels is not None else ""
    figures.append((f"Ten test images, and the training images nearest to them{judged}.", sheet))
    return figures


def picture_of_regions(run: Run, images: Images, *, n: int = 8, clusters: int = 6) -> tuple[str, Figure]:
    """Caption and figure: some images (`sample`), with clusters of the local features of the encoder's last three maps
    of at least four positions.

    Raises ValueError where the method has no single encoder, or its maps are smaller.
    """
    from jaxcl import evaluate, plot

    shown = images.images[sample(images, n, seed=run.knobs.seed)]
    large = [
        (level, apply, shape) for level, (apply, shape) in enumerate(maps_of(run), 1) if min(shape[:2]) > 1
    ]
    if not large:
        raise ValueError("No map of the encoder is larger than one position.")
    found = {}
    for level, apply, shape in large[-3:]:
        maps = evaluate.embed(encoder_of(run, apply).embed, shown).reshape(len(shown), *shape)
        k = min(clusters, maps.size // shape[2])
        named = f"map {level}, {shape[0]} x {shape[1]}"
        found[named] = evaluate.regions(jax.random.key(run.knobs.seed), maps, k=k)
    caption = (
        f"Local features: each position of an encoder's maps, in {clusters} clusters (k-means on unit vectors of all"
        " images shown); a color is the same cluster down a column."
    )
    return caption, plot.regions_sheet(visible(shown), found)


def visible(images: np.ndarray) -> np.ndarray:
    """What can be shown, [n, h, w, c]: all of 1 or 3 channels, else the first alone (further ones may hold a code);
    patches [n, rows, columns, h, w, c] beside each other."""
    if images.ndim == 6:
        n, rows, columns, h, w, c = images.shape
        images = images.swapaxes(2, 3).reshape(n, rows * h, columns * w, c)
    return images if images.shape[-1] in (1, 3) else images[..., :1]


# --- the page ----------------------------------------------------------------------------------------------------


def write_report(
    folder: str | Path,
    *,
    title: str,
    summary: Sequence[tuple[str, Any]] = (),
    tables: Sequence[tuple[str, Sequence[Any], Sequence[Sequence[Any]]]] = (),
    figures: Sequence[tuple[str, Figure]] = (),
    notes: str | Sequence[str] = (),
) -> Path:
    """Writes folder/report.html, and each figure as a PNG beside it; returns the path of the page.

    summary  (name, value) pairs: the headline numbers, at the top of the page
    tables   (caption, header, rows); a row has as many cells as the header. Columns of numbers are set right.
    figures  (caption, Figure); a caption is a sentence that says how to read the picture
    notes    paragraphs at the end: how the numbers were made, what they do not show

    Text is escaped and taken as it is. A float is printed with four significant digits, an int with commas, None and
    nan as a dash; give a string to print it otherwise. The pictures are inside the page as well, so it needs no other
    file and no network. The folder is made if it is not there; files of the same name are overwritten.

    Raises ValueError when a row has another number of cells than its header.
    """
    folder = Path(folder)
    for caption, header, rows in tables:
        for number, row in enumerate(rows):
            if len(row) != len(header):
                raise ValueError(
                    f"Row {number} of the table {caption!r} has {len(row)} cells, its header has {len(header)}."
                )
    folder.mkdir(parents=True, exist_ok=True)

    parts = [f"<h1>{_text(title)}</h1>"]
    if summary:
        entries = "".join(f"<tr><th scope='row'>{_text(n)}</th><td>{_text(v)}</td></tr>" for n, v in summary)
        parts.append(f"<table class='summary'><tbody>{entries}</tbody></table>")
    parts += [_table(caption, header, rows) for caption, header, rows in tables]
    for number, (caption, figure) in enumerate(figures, start=1):
        png = _png(figure)
        (folder / _file_name(number, caption)).write_bytes(png)
        width = round(figure.get_figwidth() * 100)
        wide = " class='wide'" if width > 700 else ""
        parts.append(
            f"<figure><div class='paper'><img{wide} width='{width}' alt='{_text(caption)}'"
            f" src='data:image/png;base64,{base64.b64encode(png).decode('ascii')}'></div>"
            f"<figcaption><b>Figure {number}.</b> {_text(caption)}</figcaption></figure>"
        )
    paragraphs = [notes] if isinstance(notes, str) else list(notes)
    if paragraphs:
        parts.append("<section class='notes'><h2>Notes</h2>")
        parts += [f"<p>{_text(paragraph)}</p>" for paragraph in paragraphs]
        parts.append("</section>")

    page = folder / "report.html"
    page.write_text(PAGE.format(title=_text(title), style=STYLE, body="\n".join(parts)), encoding="utf-8")
    return page


def _table(caption: str, header: Sequence[Any], rows: Sequence[Sequence[Any]]) -> str:
    right = [bool(rows) and all(_is_number(row[c]) for row in rows) for c in range(len(header))]
    kinds = [" class='number'" if r else "" for r in right]
    head = "".join(f"<th scope='col'{k}>{_text(cell)}</th>" for k, cell in zip(kinds, header, strict=True))
    body = "".join(
        "<tr>" + "".join(f"<td{k}>{_text(cell)}</td>" for k, cell in zip(kinds, row, strict=True)) + "</tr>"
        for row in rows
    )
    return (
        f"<div class='scroll'><table><caption>{_text(caption)}</caption>"
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _is_number(cell: Any) -> bool:
    """Whether a cell reads as a number: also "91.2 ± 0.3", "93.1%" and a dash."""
    if cell is None or isinstance(cell, numbers.Number) and not isinstance(cell, bool):
        return True
    return hasattr(cell, "dtype") or bool(
        re.match(r"\s*([-+\u2212]?[\d.,]+\b|[-\u2013\u2014]?\s*$)", str(cell))
    )


def _text(value: Any) -> str:
    """A value as escaped text."""
    if hasattr(value, "item") and getattr(value, "ndim", None) == 0:
        value = value.item()
    if value is None or isinstance(value, float) and math.isnan(value):
        return "\N{EN DASH}"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 10_000 and math.isfinite(value) else f"{value:.4g}"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return html.escape(str(value), quote=True)


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    # No version of matplotlib inside: the same picture is the same file.
    figure.savefig(buffer, format="png", dpi=DPI, facecolor="white", metadata={"Software": None})
    return buffer.getvalue()


def _file_name(number: int, caption: str) -> str:
    """ "The loss falls, then stays." -> "figure-1-the-loss-falls-then.png" """
    words = re.findall(r"[a-z0-9]+", caption.lower())[:4]
    return "-".join(["figure", str(number), *words])[:60] + ".png"


PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<main>
{body}
</main>
</body>
</html>
"""

STYLE = """
:root { color-scheme: light dark; --page: #ffffff; --ink: #1f2328; --soft: #5c636b; --rule: #dfe2e6;
  --band: #f5f6f8; }
@media (prefers-color-scheme: dark) {
  :root { --page: #15181c; --ink: #e4e7ea; --soft: #9aa2ab; --rule: #343a41; --band: #1d2126; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink); line-height: 1.55;
  font-family: system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
main { max-width: 60rem; margin: 0 auto; padding: 2.5rem 1.25rem 4rem; }
h1 { font-size: 1.7rem; line-height: 1.25; font-weight: 650; margin: 0 0 1.5rem; overflow-wrap: anywhere; }
h2 { font-size: 1.1rem; margin: 0 0 .5rem; }
table { border-collapse: collapse; font-size: .93rem; font-variant-numeric: tabular-nums; }
caption { caption-side: top; text-align: left; font-weight: 600; padding-bottom: .5rem; }
th, td { text-align: left; vertical-align: baseline; padding: .4rem 1.1rem .4rem 0;
  border-bottom: 1px solid var(--rule); }
th:last-child, td:last-child { padding-right: .2rem; }
thead th { color: var(--soft); font-weight: 600; border-bottom: 2px solid var(--rule); }
tbody tr:hover { background: var(--band); }
.number { text-align: right; white-space: nowrap; }
.scroll { overflow-x: auto; margin: 2rem 0; }
.summary { width: 100%; max-width: 36rem; border-top: 2px solid var(--ink); }
.summary th { color: var(--soft); font-weight: 400; }
.summary td { text-align: right; font-weight: 600; overflow-wrap: anywhere; }
figure { margin: 2.5rem 0; }
.paper { background: #ffffff; border: 1px solid var(--rule); border-radius: 6px; padding: .6rem; }
.paper img { display: block; max-width: 100%; height: auto; margin: 0 auto; }
figcaption { margin-top: .6rem; max-width: 46rem; color: var(--soft); font-size: .93rem; }
figcaption b { color: var(--ink); }
.notes { margin-top: 3rem; border-top: 1px solid var(--rule); padding-top: 1.5rem; color: var(--soft);
  font-size: .93rem; max-width: 46rem; }
.notes p { margin: 0 0 .7rem; overflow-wrap: anywhere; }
@media (max-width: 34rem) { main { padding: 1.5rem 1rem 3rem; } h1 { font-size: 1.35rem; }
  .paper { padding: .3rem; overflow-x: auto; } .paper .wide { width: 44rem; max-width: none; } }
@media print { .paper { border: none; } figure, tr { break-inside: avoid; } }
"""
