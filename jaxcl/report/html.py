"""The pieces of a page: text, tables and pictures as HTML, and the page around them.

A page is one file. Its content security policy lets it load nothing from elsewhere and run no script but those whose
hash it names, so that what slips through the escaping is not executed.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import math
import numbers
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

Header = Sequence[Any]
Rows = Sequence[Sequence[Any]]

STYLE = Path(__file__).with_name("page.css")

PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<main>
{body}
</main>
{scripts}</body>
</html>
"""


def page(title: str, body: Sequence[str], *, scripts: Sequence[str] = (), data: Any = None) -> str:
    """A whole page of pieces that are HTML already; the title is text.

    scripts  programs that it carries and executes, in this order
    data     what they read: JSON in the element "data"
    """
    made = "" if data is None else f"<script type='application/json' id='data'>{inert_json(data)}</script>\n"
    made += "".join(f"<script>{script}</script>\n" for script in scripts)
    hashes = " ".join(f"'sha256-{_sha256(script)}'" for script in scripts) or "'none'"
    policy = (
        f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src {hashes};"
        " base-uri 'none'; form-action 'none'"
    )
    style = STYLE.read_text(encoding="utf-8")
    return PAGE.format(title=text(title), policy=policy, style=style, body="\n".join(body), scripts=made)


def _sha256(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")


def inert_json(value: Any) -> str:
    """JSON that ends no element of a page and begins none; what is not finite is null.

    >>> inert_json(["</script>", math.nan])
    '["\\\\u003c/script\\\\u003e", null]'
    """
    written = json.dumps(_finite(value), allow_nan=False)
    return written.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(name): _finite(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(one) for one in value]
    return value


def text(value: Any) -> str:
    """A value as escaped text: a float with four significant digits, an int with commas, None and nan as a dash.

    >>> text("<b>"), text(93.123456), text(20_000), text(math.nan)
    ('&lt;b&gt;', '93.12', '20,000', '–')
    """
    if hasattr(value, "item") and getattr(value, "ndim", None) == 0:
        value = value.item()
    if value is None or isinstance(value, float) and math.isnan(value):
        return "\N{EN DASH}"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 10_000 and math.isfinite(value) else f"{value:.4g}"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return html.escape(str(value), quote=True)


def paragraphs(sentences: Sequence[str], *, kind: str = "") -> str:
    """Each a paragraph, in a box of a kind ("warning", "notes"); "" without any."""
    inside = "".join(f"<p>{text(sentence)}</p>" for sentence in sentences)
    return f"<div class='{kind}'>{inside}</div>" if kind and inside else inside


def summary_table(entries: Sequence[tuple[str, Any]]) -> str:
    """(name, value) pairs, without a header."""
    rows = "".join(
        f"<tr><th scope='row'>{text(name)}</th><td>{text(value)}</td></tr>" for name, value in entries
    )
    return f"<table class='summary'><tbody>{rows}</tbody></table>"


def table(caption: str, header: Header, rows: Rows, *, kinds: str = "") -> str:
    """A table in a box of its own, in which it scrolls where it is wider than the page. Columns of numbers are set
    right. `kinds`: "sort" (by a click on a header), "filter" (rows by a word), or both."""
    right = [bool(rows) and all(is_number(row[c]) for row in rows) for c in range(len(header))]
    classes = [" class='number'" if r else "" for r in right]
    head = "".join(f"<th scope='col'{k}>{text(cell)}</th>" for k, cell in zip(classes, header, strict=True))
    body = "".join(
        "<tr>" + "".join(f"<td{k}>{text(cell)}</td>" for k, cell in zip(classes, row, strict=True)) + "</tr>"
        for row in rows
    )
    kept = kinds.split()
    kept += ["first"] if len(header) > 3 else ["words"] if len(header) < 3 else []  # see page.css
    kind = f" class='{' '.join(kept)}'" if kept else ""
    # The caption stands before the box, in which it would scroll away.
    return (
        f"<p class='caption'>{text(caption)}</p>"
        f"<div class='scroll' tabindex='0'><table{kind} aria-label='{text(caption)}'>"
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def narrow(
    header: Sequence[str], rows: Sequence[Sequence[str]]
) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """The table, or its transpose where that has fewer columns: many protocols and few encoders fit on a phone.

    >>> narrow(("encoder", "knn", "linear", "fewshot5"), [("run", "1", "2", "3")])
    (('', 'run'), [('knn', '1'), ('linear', '2'), ('fewshot5', '3')])
    """
    if len(header) <= len(rows) + 1:
        return tuple(header), [tuple(row) for row in rows]
    turned = list(zip(*rows, strict=True))
    names = turned[0] if turned else ()
    return ("", *names), [(name, *cells) for name, cells in zip(header[1:], turned[1:], strict=True)]


def is_number(cell: Any) -> bool:
    """Whether a cell reads as a number: also "91.2 ± 0.3", "93.1%" and a dash."""
    if cell is None or isinstance(cell, numbers.Number) and not isinstance(cell, bool):
        return True
    return hasattr(cell, "dtype") or bool(
        re.match(r"\s*([-+\u2212]?[\d.,]+\b|[-\u2013\u2014]?\s*$)", str(cell))
    )


def inline(picture: bytes) -> str:
    """A PNG or SVG as the address of an image."""
    kind = "png" if picture.startswith(b"\x89PNG") else "svg+xml"
    return f"data:image/{kind};base64,{base64.b64encode(picture).decode('ascii')}"


def image(picture: bytes, *, alt: str, width: int, phone: bytes | None = None) -> str:
    """An image on white paper, at most `width` CSS pixels wide and never wider than the page. `phone`: another for
    narrow screens, on which the letters of a wide one are too small."""
    shown = f"<img width='{width}' alt='{text(alt)}' src='{inline(picture)}'>"
    if phone is not None:
        shown = f"<picture><source media='screen and (max-width: 34rem)' srcset='{inline(phone)}'>{shown}</picture>"
    return f"<div class='paper'>{shown}</div>"


def legend(names: Sequence[str], colors: Sequence[str]) -> str:
    """Names beside a line of their color, for several pictures at once; a click on one shows that group alone."""
    items = "".join(
        f"<li data-group='{group}'><span style='border-color: {text(color)}'></span>{text(name)}</li>"
        for group, (name, color) in enumerate(zip(names, colors, strict=True))
    )
    return f"<ul class='legend'>{items}</ul>"


def figure(inside: str, caption: str, *, number: int, kind: str = "") -> str:
    """What is inside, with its number and caption below it."""
    opened = f"<figure class='{kind}'>" if kind else "<figure>"
    return f"{opened}{inside}<figcaption><b>Figure {number}.</b> {text(caption)}</figcaption></figure>"
