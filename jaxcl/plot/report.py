"""One page that shows what a run came to: a single HTML file that can be sent by mail."""

from __future__ import annotations

import base64
import html
import io
import math
import numbers
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DPI = 160


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
