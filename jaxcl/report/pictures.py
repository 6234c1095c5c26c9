"""Pictures of a run: its views, scores and map, nearest neighbors, local features. They need its images and encoder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxcl import keys
from jaxcl.config import Recipe, load_config, open_data, recipe_of
from jaxcl.data.host import ends_in_a_space
from jaxcl.encoder import Encoder, encoder_of, maps_of
from jaxcl.runs import Run
from jaxcl.typing import Images

# A matplotlib Figure; only the room of pictures imports matplotlib.
Figure = Any

DPI = 160


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
    """`n` images (`sample`) beside the views that a run with this seed would make of them in its first training step;
    `drawn`: with what was drawn for each, where the views say it."""
    from jaxcl import augment, plot

    views = recipe.views
    shown = sample(images, n, seed=seed)
    batch = {"image": images.images[shown], "index": shown.astype(np.int32)}
    key = keys.views_key(keys.step_key(keys.run_key(seed), 0))
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


def pictures_of_scores(records: Sequence[dict[str, Any]]) -> list[tuple[str, Figure, Figure]]:
    """Captions, figures and those for narrow screens."""
    from jaxcl import plot

    curves, distributions = plot.score_curves, plot.score_distributions
    before = "Scores of positives and negatives, before the temperature."
    over = "How the scores are distributed, over the run."
    return [
        (before, curves(records), curves(records, columns=1)),
        (over, distributions(records), distributions(records, columns=1)),
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
    encoders = {"trained": trained}
    try:
        encoders = {"untrained": encoder_of(run, trained.apply, untrained=True), **encoders}
    except FileNotFoundError as error:  # what the run was started from
        left_out.append(f"The map of the untrained encoder is left out. {error}")
    figures = []
    for name, encoder in encoders.items():
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
        found[named] = evaluate.regions(keys.evaluation_key(run.knobs.seed), maps, k=k)
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
