"""Views that share some of their parameters, as LooC asks for (arXiv:2008.05659), and an augmentation of texture.

made = leave_one_out(
    {"color": compose(color_jitter(0.4, 0.4, 0.4, 0.1), grayscale()), "rotation": rotate90()},
    before=compose(random_resized_crop(32), flip()),
    after=clip(),
)
query, key0, key1, key2 = made.views(key, batch)     # key1 has the query's colors, key2 its rotation
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import reduce
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxcl.augment import ops, pipelines
from jaxcl.augment.ops import Op
from jaxcl.typing import Array, Batch, PyTree


class LeaveOneOut(NamedTuple):
    """What `leave_one_out` makes: two pure functions of (key, batch) that agree with each other.

    views        -> query, key 0, ..., key n, each [b, h, w, c]
    collisions   -> bool [n + 1, n + 1, b]: for i >= 1, whether key j's i-th augmentation did what the query's did
    names        of the n augmentations, in the order of the spaces 1 to n
    """

    views: pipelines.RecipeViews
    collisions: Callable[[Array, Batch], Array]
    names: tuple[str, ...]


def leave_one_out(
    augmentations: Mapping[str, Op],
    *,
    before: Op | None = None,
    after: Op | None = None,
    dtype: Any = jnp.float32,
    chunk: int | None = None,
) -> LeaveOneOut:
    """A query, a key drawn on its own, and for each of n named augmentations a key that shares it with the query.

    augmentations
        name -> op, done in this order. An op that is composed is shared as a whole, as the paper does with color
        jitter and grayscale.
    before, after
        what every view draws anew, and no space is made for: crop, flip, blur.

    Key i repeats *all* that the query drew for augmentation i, its coin included (whether it is done at all), and
    draws everything else anew. So two keys may agree by chance: with `rotate90()`, which turns half of the images, a
    key has the query's angle with probability 1/4 + 3/36 = 1/3. `collisions` tells where.

    What is drawn for a view is a function of (key, the image's index, the view's number, and the op's place).
    """
    if not augmentations:
        raise ValueError(
            "leave_one_out needs at least one named augmentation; for none there is two_views(recipe)."
        )
    steps = tuple(op for op in (before, *augmentations.values(), after) if op is not None)
    first = 0 if before is None else 1  # the place of augmentation 1 among the steps
    n = len(augmentations)
    # Which view's key an op is drawn with: its own, but for the augmentation that a key shares with the query.
    source = np.tile(np.arange(n + 2)[:, None], (1, len(steps)))
    for i in range(n):
        source[2 + i, first + i] = 0

    def sample(key, index, shape):
        """Each step's parameters, every field [n + 2, ...]."""
        of_view = pipelines.view_keys(key, index, jnp.arange(n + 2))
        keys = jax.vmap(lambda key: jax.random.split(key, len(steps)))(of_view)
        keys = keys[source, np.arange(len(steps))]
        drawn = []
        for place, step in enumerate(steps):
            params = jax.vmap(lambda key, step=step, shape=shape: step.sample(key, shape))(keys[:, place])
            drawn.append(params)
            shape = pipelines.shape_after(step, jax.tree.map(lambda x: x[0], params), shape)
        return drawn

    def apply(drawn, image):
        return reduce(
            lambda image, step: step[0].apply(step[1], image), zip(steps, drawn, strict=True), image
        )

    def views(key: Array, batch: Batch) -> tuple[Array, ...]:
        image, index = pipelines.checked(batch)

        def of_image(image, index):
            image = pipelines.as_float(image)
            drawn = sample(key, index, image.shape)
            return jax.vmap(lambda drawn: apply(drawn, image).astype(dtype))(drawn)

        made = pipelines.chunked(of_image, chunk, image, index)
        return tuple(made[:, view] for view in range(n + 2))

    def collisions(key: Array, batch: Batch) -> Array:
        image, index = pipelines.checked(batch)

        def of_image(index):
            drawn = sample(key, index, image.shape[1:])
            rows = [jnp.zeros(n + 1, bool)]
            rows += [jax.vmap(same_effect, (None, 0))(*query_and_keys(drawn[first + i])) for i in range(n)]
            return jnp.stack(rows)

        return jnp.moveaxis(jax.vmap(of_image)(index), 0, 2)

    def sample_views(key, index, shape):
        drawn = tuple(sample(key, index, shape))
        return tuple(jax.tree.map(lambda x, view=view: x[view], drawn) for view in range(n + 2))

    recipes = (pipelines.compose(*steps),) * (n + 2)
    made = pipelines.RecipeViews(views, recipes, sample_views)
    return LeaveOneOut(made, collisions, tuple(augmentations))


def query_and_keys(params: PyTree) -> tuple[PyTree, PyTree]:
    return jax.tree.map(lambda x: x[0], params), jax.tree.map(lambda x: x[1:], params)


def same_effect(a: PyTree, b: PyTree) -> Array:
    """Whether two draws of an op do the same: all parameters agree, or the coins of both fell against it."""

    def same(x, y):
        rest = [jnp.all(u == v) for name, u, v in zip(x._fields, x, y, strict=True) if name != "on"]
        agree = reduce(jnp.logical_and, rest, jnp.asarray(True))
        return (x.on == y.on) & (~x.on | agree) if hasattr(x, "on") else agree

    pairs = zip(pipelines.leaves(a), pipelines.leaves(b), strict=True)
    return reduce(jnp.logical_and, [same(x, y) for x, y in pairs], jnp.asarray(True))


# ---------------------------------------------------------------------------------------------- texture


class Texture(NamedTuple):
    """`angle` in radians and `period` in pixels of a grating, its `phase` and `warp` in radians; `amount` is a factor
    on the image's own local contrast."""

    on: Array
    angle: Array
    period: Array
    phase: Array
    warp: Array
    amount: Array


def texture(*, probability: float = 0.5) -> Op:
    """Replace the fine texture of an image by a random one, and keep its shapes and colors.

    LooC's texture augmentation shows stylized copies of the images, made by style transfer (Gatys et al. 2016, as in
    Geirhos et al. 2019), which takes a pretrained network and a collection of paintings. This op is a *stand-in of
    our own* that takes neither: it serves to study an augmentation of texture, not to repeat the paper's numbers. With
    a Gaussian of 1/24 of the image's height (1.3 pixels of 32),

        low = blur(x),   contrast = sqrt(blur(mean over channels of (x - low)^2)),
        pattern = cos(2 pi u / period + phase + warp sin(v / period)),
        x' = clip(low + amount sqrt(2) contrast pattern),

    with (u, v) the pixel's place, turned by `angle`. So what is coarser than the Gaussian stays, and where the image
    was rough it is rough again, with another pattern. Angle and phase are any, the period is 2 to 8 pixels of 32
    (and grows with the image), warp 0 to 4, amount 0.7 to 1.5.
    """

    def sample(key, shape):
        u = ops.uniform(key, (6,))
        pixels = shape[0] / 32
        return Texture(
            on=u[0] < probability,
            angle=ops.between(u[1], 0, np.pi),
            period=ops.between(u[2], 2 * pixels, 8 * pixels),
            phase=ops.between(u[3], 0, 2 * np.pi),
            warp=ops.between(u[4], 0, 4),
            amount=ops.between(u[5], 0.7, 1.5),
        )

    def apply(params, image):
        h, w, _ = image.shape
        rows, columns = gaussian_matrix(h, h / 24), gaussian_matrix(w, h / 24)
        low = ops.resample(rows, columns, image)
        rough = jnp.mean(jnp.square(image - low), axis=2, keepdims=True)
        contrast = jnp.sqrt(jnp.maximum(ops.resample(rows, columns, rough), 0) + 1e-12)
        y, x = jnp.arange(h, dtype=jnp.float32)[:, None], jnp.arange(w, dtype=jnp.float32)
        sine, cosine = jnp.sin(params.angle), jnp.cos(params.angle)
        u, v = cosine * x + sine * y, cosine * y - sine * x
        bend = params.warp * jnp.sin(v / params.period)
        pattern = jnp.cos(2 * np.pi * u / params.period + params.phase + bend)[:, :, None]
        changed = jnp.clip(low + params.amount * np.sqrt(2) * contrast * pattern, 0, 1)
        return jnp.where(params.on, changed, image)

    return Op("texture", sample, apply, (("probability", probability),), ops.same_shape)


def gaussian_matrix(n: int, sigma: float) -> Array:
    """The matrix [n, n] that blurs a line of n pixels; at the ends the weights are those inside, made to sum to 1."""
    place = np.arange(n)
    weights = np.exp(-(((place[:, None] - place) / sigma) ** 2) / 2)
    return jnp.asarray(weights / weights.sum(axis=1, keepdims=True), jnp.float32)
