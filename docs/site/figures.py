"""The pictures of the pages on methods, drawn by jaxcl itself when the site is built: seconds each, and none is kept
with the source. A page shows docs/figures/NAME.png where NAME is a row of FIGURES. Longer than other files: a table of
pictures, a function each.

    python docs/site/figures.py NAME ...       draws these alone (all without a name)
"""

import sys
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxcl import augment, data, feature_transform, losses, memory, nets
from jaxcl.images import patches
from jaxcl.plot import style, views_sheet
from jaxcl.similarity import normalize

KEY = jax.random.key(0)
PULLED, PUSHED, NOTHING = "#2a9d3a", "#e8710a", "#f1f2f4"


def digits(count):
    """Embedded digits with less clutter than those of training, so that one sees what is done to them."""
    found = data.scattered_digits(
        "test", n=64, clutter=0.2, colors=0.5, contrast=(0.45, 0.5), scale=(3.2, 3.6)
    )
    return {"image": found.images[:count], "index": np.arange(count, dtype=np.int32)}


def sheet(views, count=3):
    batch = digits(count)
    return views_sheet(
        batch["image"], views(KEY, batch), captions=augment.captions(KEY, views, batch), cell=1.5
    )


# --- views -------------------------------------------------------------------------------------------------------


def simclr():
    return sheet(augment.two_views(augment.simclr(32, strength=0.5, blur=False)))


def byol():
    return sheet(augment.each_view(augment.byol(32)))


def yadim():
    return sheet(augment.two_views(augment.compose(augment.flip(), augment.amdim(32))))


def looc():
    figure = sheet(leave_one_out().views, 3)
    names = ("image", "query", "key 0: all drawn anew", "key 1: the query's color", "key 2: its rotation")
    for ax, name in zip(figure.axes, names, strict=False):
        style.head(ax, name)
    return figure


def leave_one_out():
    color = augment.compose(augment.color_jitter(0.4, 0.4, 0.4, 0.1), augment.grayscale())
    crop = augment.random_resized_crop(32, area=(0.4, 1.0))
    return augment.leave_one_out(
        {"color": color, "rotation": augment.rotate90()}, before=crop, after=augment.clip()
    )


def cmc():
    batch = digits(3)
    lab = augment.split_channels(augment.color_space("lab"), (1, 2))(jnp.asarray(batch["image"]) / 255)
    channels = np.asarray(jnp.concatenate(lab, axis=-1))
    figure = style.new_figure(5.2, 4.0)
    axes = figure.subplots(3, 4)
    for row, image, parts in zip(axes, batch["image"], channels, strict=True):
        style.show(row[0], image)
        for c in range(3):
            # [-1, 1] is the whole range that the authors' code standardizes by.
            style.show(row[1 + c], np.clip(parts[..., c : c + 1] / 2 + 0.5, 0, 1))
    for ax, name in zip(axes[0], ("image", "view 1: L", "view 2: a", "view 2: b"), strict=True):
        style.head(ax, name)
    return figure


# --- who is pulled, and who is pushed ----------------------------------------------------------------------------


def pull_and_push(ax, slopes, rows, columns, *, lines=()):
    """Cells colored by the derivative of the loss by a score: below 0 the pair is pulled together, above 0 pushed
    apart, and 0 is no pair of this loss. The darker, the more, row by row."""
    for r, row in enumerate(np.asarray(slopes)):
        for c, slope in enumerate(row):
            color, of = (PULLED, row[row < 0]) if slope < 0 else (PUSHED, row[row > 0])
            strength = 0.35 + 0.65 * abs(slope) / np.max(np.abs(of)) if abs(slope) > 1e-9 else 0
            face = color if strength else NOTHING
            cell = {"facecolor": face, "alpha": max(strength, 0.35) if strength else 1, "edgecolor": "white"}
            ax.add_patch(patch("Rectangle", (c, r), 1, 1, linewidth=1.2, **cell))
    ax.set(xlim=(0, len(columns)), ylim=(len(rows), 0), aspect="equal")
    ax.set_xticks(np.arange(len(columns)) + 0.5, columns, fontsize=7, color=style.INK, parse_math=False)
    ax.set_yticks(np.arange(len(rows)) + 0.5, rows, fontsize=7, color=style.INK, parse_math=False)
    ax.tick_params(length=0, top=False, labeltop=True, bottom=False, labelbottom=False)
    for x in lines:
        ax.axvline(x, color=style.INK, linewidth=0.8)
    for spine in ax.spines.values():
        spine.set_visible(False)


def patch(kind, *arguments, **settings):
    import matplotlib.patches

    return getattr(matplotlib.patches, kind)(*arguments, **settings)


def key_of_colors(figure):
    from matplotlib.lines import Line2D

    marks = [
        Line2D([], [], marker="s", linestyle="", markersize=8, color=color, label=label)
        for color, label in (
            (PULLED, "pulled together"),
            (PUSHED, "pushed apart, by softmax"),
            ("#d5d8dc", "not compared"),
        )
    ]
    figure.legend(handles=marks, loc="outside lower center", ncols=3, fontsize=7, frameon=False)


def two_views_of(images, width=8, seed=0):
    keys = jax.random.split(jax.random.key(seed), 2)
    center = jax.random.normal(keys[0], (images, 1, width))
    return jnp.moveaxis(normalize(center + 0.5 * jax.random.normal(keys[1], (images, 2, width))), 1, 0)


def names_of(images):
    return [f"{image}{view}" for image in "ABCDEFGH"[:images] for view in (1, 2)]


def simclr_pairs():
    figure, names = style.new_figure(4.4, 4.4), names_of(4)
    pull_and_push(figure.subplots(), in_batch(*two_views_of(4), temperature=0.5), names, names)
    key_of_colors(figure)
    return figure


def in_batch(z1, z2, *, temperature, queue=None):
    """NT-Xent's derivative by every score, [2n, 2n] or [2n, 2n + m]: it is `info_nce` of the scores of a batch."""
    positive, scores = feature_transform.batch_scores(KEY, z1, z2, positives=None, negatives=None)
    if queue is not None:
        remembered = jnp.stack([z1, z2], axis=1).reshape(len(scores), -1) @ queue.T
        scores = jnp.concatenate([scores, remembered], axis=1)
    loss = partial(losses.info_nce, temperature=temperature)
    by_positive, by_negative = jax.grad(loss, argnums=(0, 1))(positive, scores)
    rows = np.arange(len(scores))
    slopes = np.array(jnp.nan_to_num(by_negative))
    slopes[rows, rows ^ 1] = by_positive
    return slopes


def simclr_v2():
    queue = normalize(jax.random.normal(jax.random.key(5), (6, 8)))
    slopes = in_batch(*two_views_of(3), temperature=0.1, queue=queue)
    figure, names = style.new_figure(5.2, 3.2), names_of(3)
    pull_and_push(figure.subplots(), slopes, names, [*names, *(f"m{i}" for i in range(1, 7))], lines=(6,))
    key_of_colors(figure)
    return figure


def moco():
    """Three steps of a queue of six keys, a batch of two: what the loss of each step sees."""
    queue, figure = memory.random_queue(KEY, 6, 8), style.new_figure(6.6, 1.6)
    names = ["–"] * 6
    axes = figure.subplots(1, 3)
    for step, ax in enumerate(axes):
        q, k = two_views_of(2, seed=step)
        positive, negatives = jnp.sum(q * k, axis=1), q @ queue.keys.T
        slopes = jax.grad(partial(losses.info_nce, temperature=0.2), argnums=(0, 1))(positive, negatives)
        own = ["AB", "CD", "EF"][step]
        table = np.concatenate([np.asarray(slopes[0])[:, None], np.asarray(slopes[1])], axis=1)
        pull_and_push(ax, table, [f"q{x}" for x in own], ["own", *names], lines=(1,))
        ax.set_xlabel(f"step {step + 1}", fontsize=8, color=style.INK)
        at = int(queue.oldest)
        queue = memory.push(queue, k)
        for i, x in enumerate(own):
            names[(at + i) % 6] = f"k{x}"
    key_of_colors(figure)
    return figure


def looc_pairs():
    """The derivative by the score of the query with each key, read off the gradient: it is a multiple of the query."""
    rows = normalize(jax.random.normal(jax.random.key(3), (3, 3, 1, 8)) * 0.6 + jnp.ones(8))
    q = normalize(jnp.ones((3, 1, 8)) + 0.3 * jax.random.normal(KEY, (3, 1, 8)))
    queues = normalize(jax.random.normal(jax.random.key(4), (3, 5, 8)))
    by_key, by_queue = jax.grad(partial(losses.looc, temperature=0.2), argnums=(1, 2))(q, rows, queues)
    slopes = [jnp.einsum("sbd,svbd->sv", q, by_key), jnp.einsum("sbd,smd->sm", q, by_queue)]
    figure = style.new_figure(5.6, 2.3)
    pull_and_push(
        figure.subplots(),
        jnp.concatenate(slopes, axis=1),
        ["invariant space", "space of color", "space of rotation"],
        ["key 0", "key 1", "key 2", *(f"m{i}" for i in range(1, 6))],
        lines=(3,),
    )
    key_of_colors(figure)
    return figure


# --- features ----------------------------------------------------------------------------------------------------


def generalized():
    """Points in the plane that were moved by the distribution term alone, 400 steps of Adam."""
    start = 0.3 * jax.random.normal(KEY, (256, 2)) + jnp.array([0.8, 0.3])
    terms = {
        "log-sum-exp\n(NT-Xent's)": losses.keyless(losses.log_sum_exp, temperature=0.2),
        "sliced Wasserstein,\nuniform on the circle": losses.sliced_wasserstein,
        "sliced Wasserstein,\nnormal": partial(losses.sliced_wasserstein, prior=losses.normal),
        "sliced Wasserstein,\nuniform in the square": partial(
            losses.sliced_wasserstein, prior=losses.uniform_cube
        ),
    }
    figure = style.new_figure(8.0, 2.5)
    for ax, (name, term) in zip(figure.subplots(1, 4), terms.items(), strict=True):
        on_circle = "normal" not in name and "square" not in name
        z = spread(start, term, on_circle)
        style.tidy(ax).scatter(*z.T, s=5, color=style.BLUE, linewidths=0, alpha=0.7)
        ax.set(xlim=(-3, 3) if "normal" in name else (-1.35, 1.35), aspect="equal")
        ax.set_ylim(ax.get_xlim())
        ax.set_title(name, fontsize=8, color=style.INK)
    return figure


def spread(start, term, on_circle):
    tx = optax.adam(0.03)

    def loss(z, key):
        return term(key, normalize(z) if on_circle else z)

    @jax.jit
    def step(carry, key):
        z, state = carry
        updates, state = tx.update(jax.grad(loss)(z, key), state)
        return (optax.apply_updates(z, updates), state), None

    (z, _), _ = jax.lax.scan(step, (start, tx.init(start)), jax.random.split(jax.random.key(1), 400))
    return np.asarray(normalize(z) if on_circle else z)


def feature_transformation():
    figure = style.new_figure(7.2, 2.9)
    left, right = figure.subplots(1, 2, width_ratios=(1, 1.5))
    angles = jnp.array([0.62, 1.0]) * jnp.pi / 2
    q, k = (jnp.stack([jnp.cos(a), jnp.sin(a)])[None] for a in angles)
    mixed = feature_transform.extrapolate_positives(jax.random.key(1), q, k)
    style.tidy(left)
    circle = np.linspace(0, np.pi, 100)
    left.plot(np.cos(circle), np.sin(circle), color="#c4c8cd", linewidth=1)
    points = {"q": q, "k": k, "q'": mixed[0], "k'": mixed[1]}
    left.plot(*np.stack([mixed[0][0], mixed[1][0]]).T, color=style.GRAY, linewidth=0.8, linestyle=":")
    for name, point in points.items():
        color = PUSHED if "'" in name else style.BLUE
        left.annotate("", point[0], (0, 0), arrowprops={"arrowstyle": "->", "color": color})
        left.annotate(name, point[0], xytext=(5, 4), textcoords="offset points", fontsize=9, color=color)
    left.set(xlim=(-0.9, 1.25), ylim=(-0.05, 1.35), aspect="equal")
    left.set_title("a positive pair, extrapolated", fontsize=8, color=style.INK)

    centers = normalize(jax.random.normal(jax.random.key(2), (16, 32)))
    noise = jax.random.normal(jax.random.key(3), (4096, 32))
    queue = normalize(centers[jnp.arange(4096) % 16] + 0.12 * noise)
    mixed_queue = feature_transform.interpolate_negatives(jax.random.key(4), queue)
    bins = np.linspace(-0.75, 1.0, 60)
    for name, rows, color in (("queue", queue, style.BLUE), ("interpolated", mixed_queue, PUSHED)):
        style.tidy(right).hist(np.asarray(rows @ centers[0]), bins, histtype="step", color=color, label=name)
    right.set_yscale("log")
    right.set_xlabel("score of a query with negatives of 16 clusters", fontsize=8, color=style.INK)
    right.legend(fontsize=7, frameon=False)
    return figure


# --- grids and maps ----------------------------------------------------------------------------------------------


def cpc():
    """What the context at one position has seen, by its derivative, and which patches are predicted from it."""
    image = digits(6)["image"][5:]
    cut = np.asarray(patches(jnp.asarray(image), 8, 4))[0]
    context = nets.masked_context()
    grid = jax.random.normal(KEY, (1, 7, 7, 16))
    params, state = context.init(jax.random.key(1), grid)

    def at(grid):
        return jnp.sum(context.apply(params, state, grid, train=False)[0][0, 2, 3] ** 2)

    # Of random weights: a derivative of exactly 0 is a patch that the context cannot see.
    seen = np.asarray(jnp.sum(jnp.abs(jax.grad(at)(grid)), axis=-1))[0] > 0
    predicted = {2 + below for below in range(2, 5)}
    figure = style.new_figure(4.2, 4.6)
    axes = figure.subplots(7, 7)
    for r in range(7):
        for c in range(7):
            style.show(axes[r, c], cut[r, c])
            mark = (
                (style.BLUE, 2.5)
                if (r, c) == (2, 3)
                else (PULLED, 2.2)
                if c == 3 and r in predicted
                else None
            )
            if seen[r, c]:
                style.frame(axes[r, c], "#12b3c7", 1.6)
            if mark:
                style.frame(axes[r, c], *mark)
            if not seen[r, c] and mark is None:
                axes[r, c].images[0].set_alpha(0.35)
    from matplotlib.lines import Line2D

    names = {"the position": style.BLUE, "its context": "#12b3c7", "predicted": PULLED}
    marks = [Line2D([], [], color=color, linewidth=2.5, label=name) for name, color in names.items()]
    figure.legend(handles=marks, loc="outside lower center", ncols=3, fontsize=8, frameon=False)
    return figure


def amdim():
    """Where a position of each map looks, by the derivative of its vector."""
    batch = digits(1)
    views = augment.each_view([augment.amdim(32)] * 2, shared=augment.flip())(KEY, batch)
    encoder = nets.amdim(norm=nets.no_norm(), features=4, out=8, depth=1)
    x = jax.random.uniform(KEY, (1, 32, 32, 3))
    params, state = encoder.init(KEY, x)
    # The last kernels of a block start at 0, which hides what it will see.
    params = jax.tree.map(lambda p: p + 0.1, params)
    widths = (1, 5, 7)

    def middles(x):
        """The middle vector of the last map of each width, as a number."""
        last = {m.shape[1]: m for m in encoder.apply(params, state, x, train=False)[0]}
        return jnp.stack([jnp.sum(last[w][0, w // 2, w // 2] ** 2) for w in widths])

    reach = dict(zip(widths, np.abs(np.asarray(jax.jacrev(middles)(x))[:, 0]).sum(-1) > 0, strict=True))
    figure = style.new_figure(5.4, 2.9)
    left, right = figure.subplots(1, 2)
    style.show(left, np.asarray(views[0][0]))
    style.show(right, np.asarray(views[1][0]))
    for width, color, ax in ((1, "#d62728", left), (5, "#ffffff", right), (7, "#ffc285", right)):
        rows, columns = np.nonzero(reach[width])
        top, left_, size = rows.min(), columns.min(), (np.ptp(columns) + 1, np.ptp(rows) + 1)
        inset = 0.4 if width == 1 else 0
        box = patch(
            "Rectangle",
            (left_ - 0.5 + inset, top - 0.5 + inset),
            size[0] - 2 * inset,
            size[1] - 2 * inset,
            fill=False,
            edgecolor=color,
            linewidth=2,
        )
        ax.add_patch(box)
        label = f"a position of r{width}: {size[0]} x {size[1]} pixels"
        below = {1: -0.06, 5: -0.06, 7: -0.14}[width]
        shown = style.INK if color == "#ffffff" else {"#ffc285": "#b86a12"}.get(color, color)
        ax.annotate(
            label, (0.5, below), xycoords="axes fraction", ha="center", va="top", fontsize=7.5, color=shown
        )
    return figure


# --- diagrams ----------------------------------------------------------------------------------------------------


def boxes(figure, places, arrows, size):
    """Words in boxes, and arrows between them: name -> (x, y, text, color); (from, to, text, color)."""
    ax = figure.add_axes((0, 0, 1, 1))
    ax.set(xlim=(0, size[0]), ylim=(0, size[1]))
    ax.axis("off")
    for x, y, text, color in places.values():
        ax.text(
            x,
            y,
            text,
            ha="center",
            va="center",
            fontsize=8,
            color=style.INK,
            bbox={"boxstyle": "round,pad=0.45", "facecolor": "white", "edgecolor": color, "linewidth": 1.3},
        )
    for start, end, text, color in arrows:
        (x0, y0), (x1, y1) = places[start][:2], places[end][:2]
        room = 24 if x0 != x1 else 14
        line = "--" if text.startswith("moving") else "-"
        ax.annotate(
            "",
            (x1, y1),
            (x0, y0),
            arrowprops={
                "arrowstyle": "->",
                "color": color,
                "shrinkA": room,
                "shrinkB": room,
                "linestyle": line,
            },
        )
        ax.text(
            (x0 + x1) / 2 + (0.08 if x0 == x1 else 0),
            (y0 + y1) / 2 + (0.12 if x0 != x1 else 0),
            text,
            fontsize=7,
            color=color,
            ha="left" if x0 == x1 else "center",
            va="center" if x0 == x1 else "bottom",
        )
    return figure


def byol_networks():
    figure, ink, gray = style.new_figure(7.0, 1.9, layout=None), style.BLUE, style.GRAY
    places = {
        "x": (0.6, 1.4, "view x", ink), "f": (2.0, 1.4, "encoder", ink), "g": (3.5, 1.4, "projector", ink),
        "p": (5.0, 1.4, "predictor", ink), "loss": (6.4, 0.95, "2 – 2 cos", style.SAME),
        "x'": (0.6, 0.5, "view x'", gray), "f'": (2.0, 0.5, "encoder", gray), "g'": (3.5, 0.5, "projector", gray),
    }  # fmt: skip
    arrows = [
        ("x", "f", "", ink), ("f", "g", "h", ink), ("g", "p", "z", ink), ("p", "loss", "p", ink),
        ("x'", "f'", "", gray), ("f'", "g'", "h'", gray), ("g'", "loss", "z' (no gradient)", gray),
        ("f", "f'", "moving average", gray), ("g", "g'", "moving average", gray),
    ]  # fmt: skip
    return boxes(figure, places, arrows, (7.0, 1.9))


FIGURES = {
    figure.__name__: figure
    for figure in (
        simclr,
        simclr_pairs,
        simclr_v2,
        moco,
        looc,
        looc_pairs,
        generalized,
        feature_transformation,
        byol,
        byol_networks,
        cpc,
        amdim,
        cmc,
        yadim,
    )  # fmt: skip
}


def draw_all(folder, names=tuple(FIGURES)):
    """Draws what is not there, or is older than this file."""
    # No fast programs are needed, as each runs once.
    jax.config.update("jax_disable_most_optimizations", True)
    folder = Path(folder)
    folder.mkdir(exist_ok=True)
    for name in names:
        path = folder / f"{name}.png"
        if not path.exists() or path.stat().st_mtime < Path(__file__).stat().st_mtime:
            FIGURES[name]().savefig(path, dpi=130)


if __name__ == "__main__":
    draw_all(Path(__file__).resolve().parent.parent / "figures", sys.argv[1:] or tuple(FIGURES))
