"""How every picture looks. Nothing global: colors and sizes are given to each artist, rcParams stay as they are."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK = "#1f2328"
GRAY = "#6b7280"
RULE = "#e3e5e8"
BLUE = "#2563a8"
SAME = "#1a9850"
OTHER = "#d73027"

# Ten colors that stay apart on white, also in small points, then ten lighter ones of the same hues.
COLORS = (
    *(
        "#1f77b4",
        "#e8710a",
        "#2a9d3a",
        "#d62728",
        "#8e5bc0",
        "#8c564b",
        "#e15fb4",
        "#7a7a7a",
        "#b5a800",
        "#12b3c7",
    ),
    *(
        "#9cc5e8",
        "#ffc285",
        "#98dfa0",
        "#ff9f9b",
        "#cdb5e4",
        "#c9a49c",
        "#f9bfe0",
        "#c9c9c9",
        "#dedb87",
        "#a3e2ea",
    ),
)

TITLE, LABEL, SMALL = 9.0, 8.0, 6.5  # font sizes in points
TITLE_ROOM = 0.32  # inches above a sheet of images for a title, or below it for a note


def new_figure(
    width: float, height: float, *, layout: Literal["constrained"] | None = "constrained"
) -> Figure:
    """An empty white figure, width and height in inches, that pyplot knows nothing of."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError('Pictures need matplotlib: pip install "jaxcl[plot]".') from error
    return Figure(figsize=(width, height), layout=layout, facecolor="white", edgecolor="white", dpi=100)


def tidy(ax: Axes) -> Axes:
    """Two thin axis lines, a faint grid behind the data, small gray ticks."""
    ax.set_facecolor("white")
    for side, spine in ax.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color("#9aa0a6")
        spine.set_linewidth(0.7)
    # Given in full: ticks are made when the figure is drawn, and take what is missing from the rcParams of that moment.
    ax.tick_params(
        which="both",
        direction="out",
        color="#9aa0a6",
        labelcolor=GRAY,
        labelsize=LABEL - 1,
        width=0.7,
        length=3,
        pad=3,
        top=False,
        right=False,
    )
    ax.tick_params(which="minor", length=0)
    ax.grid(True, which="major", color=RULE, linewidth=0.6, linestyle="-", alpha=1.0)
    ax.set_axisbelow(True)
    return ax


def bare(ax: Axes) -> Axes:
    """An axes for an image: no ticks, no grid, a hairline around it."""
    ax.grid(False)
    ax.set_xticks([])
    ax.set_yticks([])
    frame(ax, "#c4c8cd", 0.6)
    return ax


def frame(ax: Axes, color: str, width: float, *, line: str = "-") -> None:
    """Draws the border of `ax` in a color, `width` in points."""
    for spine in ax.spines.values():
        spine.set(visible=True, color=color, linewidth=width, linestyle=line)


def show(ax: Axes, image: np.ndarray) -> None:
    """One image [h, w, c] or [h, w], every pixel a square; uint8, or float in [0, 1] (clipped)."""
    image = np.asarray(image)
    if image.dtype != np.uint8:
        image = np.clip(np.nan_to_num(image.astype(np.float32)), 0, 1)
    if image.ndim == 3 and image.shape[-1] == 1:
        image = image[..., 0]
    top = 255 if image.dtype == np.uint8 else 1
    # Small images enlarged stay squares; large ones made small are averaged, or they would flicker.
    interpolation = "nearest" if max(image.shape[:2]) <= 128 else "antialiased"
    ax.imshow(
        image, cmap="gray", vmin=0, vmax=top, interpolation=interpolation, origin="upper", aspect="equal"
    )
    bare(ax)


def check_images(name: str, images: Any, ndim: int) -> np.ndarray:
    """`images` as an array of `ndim` axes, the last of them 1 (gray) or 3 (RGB) channels; ValueError otherwise."""
    images = np.asarray(images)
    if images.ndim != ndim or images.shape[-1] not in (1, 3):
        axes = "[n, h, w, c]" if ndim == 4 else "[n, k, h, w, c]"
        raise ValueError(f"{name} must be {axes} with c = 1 or 3; got shape {images.shape}.")
    return images


def check_rows(name: str, rows: Any, n: int, of: str) -> None:
    """ValueError if `rows` is not as long as there are images."""
    if len(rows) != n:
        raise ValueError(f"{name} must have one row for each of the {n} {of}; got {len(rows)}.")


def wrap(caption: str, width: float) -> list[str]:
    """The lines of a caption, broken to fit `width` inches at the small size; its own line breaks are kept."""
    fits = max(6, int(width * 72 / (0.56 * SMALL)))  # 0.56 em: the mean letter of the default font
    lines: list[str] = []
    for line in str(caption).split("\n"):
        lines += textwrap.wrap(line, fits) or [""]
    return lines


def class_name(label: Any, classes: Any = ()) -> str:
    """The name of a class, or its number where it has none."""
    return str(classes[int(label)]) if 0 <= int(label) < len(classes) else str(int(label))


def sheet(
    rows: int,
    columns: int,
    *,
    cell: float,
    under: list[int],
    first_gap: float = 0.12,
    top: float = TITLE_ROOM,
    bottom: float = 0.08,
) -> tuple[Figure, list[list[Axes]]]:
    """A figure of rows x columns square cells, `cell` inches wide; under[r] lines of small text fit below row r.

    Placed by hand, in inches: an automatic layout of a hundred little axes is slow, and no two rows come out alike.
    `first_gap` is added between the first column and the rest.
    """
    gap, margin, line = 0.07, 0.12, SMALL * 1.28 / 72
    width = 2 * margin + columns * cell + (columns - 1) * gap + (first_gap if columns > 1 else 0)
    heights = [cell + (lines * line + 0.05 if lines else 0.0) + gap for lines in under]
    height = top + sum(heights) + bottom
    figure = new_figure(width, height, layout=None)
    grid, y = [], height - top
    for r in range(rows):
        row = []
        for c in range(columns):
            x = margin + c * (cell + gap) + (first_gap if c else 0)
            row.append(figure.add_axes((x / width, (y - cell) / height, cell / width, cell / height)))
        grid.append(row)
        y -= heights[r]
    return figure, grid


def caption_under(ax: Axes, lines: list[str], *, color: str = GRAY) -> None:
    """Small centered text just below an axes."""
    ax.annotate(
        "\n".join(lines),
        (0.5, 0),
        xycoords="axes fraction",
        xytext=(0, -3),
        textcoords="offset points",
        ha="center",
        va="top",
        fontsize=SMALL,
        color=color,
        linespacing=1.2,
        parse_math=False,
        annotation_clip=False,
    )


def head(ax: Axes, text: str) -> None:
    """The title of a column of images."""
    ax.set_title(text, fontsize=LABEL, color=INK, pad=4, parse_math=False)


def plain(texts: Iterable[Any]) -> None:
    """Texts as they are, with the dollars in them."""
    for text in texts:
        text.set_parse_math(False)
