"""How losses differ at the same vectors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from jaxcl.plot import style

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def loss_comparison(found: Any, *, bins: int = 20) -> Figure:
    """What `compare_losses` found: cosines between gradients, and the weight that negatives get by their similarity.

    The curves are a bin's fraction of a loss's weight divided by its fraction of the negatives, so 1 is a loss that
    weighs all negatives alike. Empty bins are left out.
    """
    if bins < 1:
        raise ValueError(f"loss_comparison needs one bin or more; got {bins}.")
    count = len(found.names)
    figure = style.new_figure(7.2, 3.2)
    left, right = figure.subplots(1, 2, width_ratios=(1, 1.4))

    left.imshow(found.agreement, vmin=-1, vmax=1, cmap="RdBu_r")
    for i, j in np.ndindex(count, count):
        cosine = found.agreement[i, j]
        color = "white" if abs(cosine) > 0.6 else style.INK
        left.text(j, i, f"{cosine:.2f}", ha="center", va="center", fontsize=style.SMALL, color=color)
    left.set_xticks(
        range(count), found.names, rotation=45, ha="right", fontsize=style.LABEL - 1, color=style.INK
    )
    left.set_yticks(range(count), found.names, fontsize=style.LABEL - 1, color=style.INK)
    left.tick_params(length=0)
    left.set_title("Cosine between gradients", loc="left", fontsize=style.TITLE, color=style.INK)

    style.tidy(right)
    edges = np.linspace(found.similarity.min(), found.similarity.max(), bins + 1)
    bin_of = np.clip(np.digitize(found.similarity, edges) - 1, 0, bins - 1)
    fraction = np.bincount(bin_of, minlength=bins) / len(bin_of)
    seen = fraction > 0
    middle = (edges[:-1] + edges[1:]) / 2
    for number, (name, weights) in enumerate(zip(found.names, found.weights, strict=True)):
        relative = np.bincount(bin_of, weights, bins)[seen] / fraction[seen]
        color = style.COLORS[number % len(style.COLORS)]
        right.plot(middle[seen], relative, color=color, linewidth=1.4, label=name)
    right.set_title("Weight of a negative", loc="left", fontsize=style.TITLE, color=style.INK)
    right.set_xlabel("similarity", fontsize=style.LABEL, color=style.INK)
    right.set_ylabel("times the average", fontsize=style.LABEL, color=style.INK)
    right.legend(frameon=False, fontsize=style.LABEL - 1, labelcolor=style.INK)
    return figure
