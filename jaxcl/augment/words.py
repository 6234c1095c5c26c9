"""Part 1, in words: what was drawn for a view."""

from __future__ import annotations

from typing import Any

import jax

from jaxcl.augment.color import JITTERS, Jitter
from jaxcl.augment.composition import leaves
from jaxcl.augment.geometry import Crop, Rotation, Shift
from jaxcl.augment.pixels import Hole, Noise
from jaxcl.augment.views import RecipeViews, checked
from jaxcl.typing import Array, Batch, PyTree, Views


def captions(key: Array, views: Views, batch: Batch) -> list[list[str]] | None:
    """For each image and view what `views(key, batch)` draws, in words, a line an op; None for views that are not made
    by recipes."""
    if not isinstance(views, RecipeViews):
        return None
    image, index = checked(batch)
    drawn = jax.jit(jax.vmap(lambda index: views.sample(key, index, image.shape[1:])))(index)
    lines = [describe(params) or [[]] * len(index) for params in drawn]
    parts = 1 if views.channels is None else len(views.channels)  # of one picture, drawn once
    return [["\n".join(view[i]) for view in lines for _ in range(parts)] for i in range(len(index))]


def describe(params: PyTree) -> list[list[str]]:
    """What `draw` drew, in words: for each of the b images one line an op; an op that was not applied is not listed.

    >>> import jax.numpy as jnp
    >>> from jaxcl.augment import clip, compose, draw, flip, translate
    >>> batch = {"image": jnp.zeros((1, 8, 8, 3)), "index": jnp.array([7])}
    >>> recipe = compose(translate(0), flip(probability=1.0), clip())
    >>> describe(draw(jax.random.key(0), recipe, batch))
    [['shift down 0, right 0', 'flip']]
    """
    steps = [step for step in leaves(jax.device_get(params)) if step]
    images = len(steps[0][0]) if steps else 0
    lines = [[words(type(step)(*(field[i] for field in step))) for step in steps] for i in range(images)]
    return [[line for line in image if line] for image in lines]


def words(params: Any) -> str:
    """One op's parameters for one image, in words; empty where it was not applied."""
    match params:
        case Crop():
            return f"crop {params.height} x {params.width} at ({params.top}, {params.left})"
        case Jitter():
            names = [JITTERS[i] for i in params.order]
            changes = ", ".join(f"{name} {getattr(params, name):.2f}" for name in names)
            return f"jitter {changes}" if params.on else ""
        case Rotation():
            return f"rotate {90 * params.quarters} degrees" if params.quarters else ""
        case Shift():
            return f"shift down {params.down}, right {params.right}"
        case Hole():
            return f"hole around ({params.row}, {params.column})" if params.on else ""
        case Noise():
            return f"noise {params.scale:.2f}" if params.on else ""
    if not getattr(params, "on", True):
        return ""
    values = [f"{name} {value:.2f}" for name, value in params._asdict().items() if name != "on"]
    return " ".join([type(params).__name__.lower(), *values])
