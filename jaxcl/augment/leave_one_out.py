"""Views that share some of their parameters, as LooC asks for (arXiv:2008.05659).

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
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from jaxcl.augment.composition import compose, leaves, shape_after
from jaxcl.augment.op import Op
from jaxcl.augment.views import RecipeViews, checked, chunked, view_keys
from jaxcl.images import as_float
from jaxcl.typing import Array, Batch, PyTree


class LeaveOneOut(NamedTuple):
    """What `leave_one_out` makes: two pure functions of (key, batch) that agree with each other.

    views        -> query, key 0, ..., key n, each [b, h, w, c]
    collisions   -> bool [n + 1, n + 1, b]: for i >= 1, whether key j's i-th augmentation did what the query's did
    names        of the n augmentations, in the order of the spaces 1 to n
    """

    views: RecipeViews
    collisions: Callable[[Array, Batch], Array]
    names: tuple[str, ...]


def leave_one_out(
    augmentations: Mapping[str, Op],
    *,
    before: Op | None = None,
    after: Op | None = None,
    dtype: DTypeLike = jnp.float32,
    chunk: int | None = None,
) -> LeaveOneOut:
    """A query, a key drawn on its own, and for each of n named augmentations a key that shares it with the query.

    augmentations
        name -> op, done in this order. An op that is composed is shared as a whole, as the paper does with color
        jitter and grayscale.
    before, after
        what every view draws anew, and no space is made for: crop, flip, blur.

    Key i repeats *all* that the query drew for augmentation i, whether it is applied at all included, and
    draws everything else anew. So two keys may agree by chance: with `rotate90()`, which rotates half of the images, a
    key has the query's angle with probability 1/4 + 3/36 = 1/3. `collisions` tells where.

    What is drawn for a view is a function of (key, the image's index, the view's number, and the op's position).
    """
    if not augmentations:
        raise ValueError(
            "leave_one_out needs at least one named augmentation; for none there is two_views(recipe)."
        )
    ops = tuple(op for op in (before, *augmentations.values(), after) if op is not None)
    first = 0 if before is None else 1  # the position of augmentation 1 among the ops
    n = len(augmentations)
    # Which view's key an op is drawn with: its own, but for the augmentation that a key shares with the query.
    source = np.tile(np.arange(n + 2)[:, None], (1, len(ops)))
    for i in range(n):
        source[2 + i, first + i] = 0

    def sample(key, index, shape):
        """Each op's parameters, every field [n + 2, ...]."""
        of_view = view_keys(key, index, jnp.arange(n + 2))
        keys = jax.vmap(lambda key: jax.random.split(key, len(ops)))(of_view)
        keys = keys[source, np.arange(len(ops))]
        drawn = []
        for i, op in enumerate(ops):
            params = jax.vmap(lambda key, op=op, shape=shape: op.sample(key, shape))(keys[:, i])
            drawn.append(params)
            shape = shape_after(op, jax.tree.map(lambda x: x[0], params), shape)
        return drawn

    def apply(drawn, image):
        for op, params in zip(ops, drawn, strict=True):
            image = op.apply(params, image)
        return image

    def views(key: Array, batch: Batch) -> tuple[Array, ...]:
        image, index = checked(batch)

        def of_image(image, index):
            image = as_float(image)
            drawn = sample(key, index, image.shape)
            return jax.vmap(lambda drawn: apply(drawn, image).astype(dtype))(drawn)

        made = chunked(of_image, chunk, image, index)
        return tuple(made[:, view] for view in range(n + 2))

    def collisions(key: Array, batch: Batch) -> Array:
        image, index = checked(batch)

        def of_image(index):
            drawn = sample(key, index, image.shape[1:])
            rows = [jnp.zeros(n + 1, bool)]
            rows += [jax.vmap(same_effect, (None, 0))(*query_and_keys(drawn[first + i])) for i in range(n)]
            return jnp.stack(rows)

        return jnp.moveaxis(jax.vmap(of_image)(index), 0, 2)

    def sample_views(key, index, shape):
        drawn = tuple(sample(key, index, shape))
        return tuple(jax.tree.map(lambda x, view=view: x[view], drawn) for view in range(n + 2))

    recipes = (compose(*ops),) * (n + 2)
    made = RecipeViews(views, recipes, sample_views, dtype)
    return LeaveOneOut(made, collisions, tuple(augmentations))


def query_and_keys(params: PyTree) -> tuple[PyTree, PyTree]:
    return jax.tree.map(lambda x: x[0], params), jax.tree.map(lambda x: x[1:], params)


def same_effect(a: PyTree, b: PyTree) -> Array:
    """Whether two draws of an op do the same: all parameters agree, or neither applies it."""

    def same(x, y):
        rest = [jnp.all(u == v) for name, u, v in zip(x._fields, x, y, strict=True) if name != "on"]
        agree = reduce(jnp.logical_and, rest, jnp.asarray(True))
        return (x.on == y.on) & (~x.on | agree) if hasattr(x, "on") else agree

    pairs = zip(leaves(a), leaves(b), strict=True)
    return reduce(jnp.logical_and, [same(x, y) for x, y in pairs], jnp.asarray(True))
