"""Part 1, an image as patches, each changed by itself."""

from __future__ import annotations

import jax

from jaxcl.augment.op import Op
from jaxcl.images import patches


def each_patch(op: Op, size: int, stride: int) -> Op:
    """Cut an image into `patches` and do `op` to each, drawn anew: [h, w, c] -> [rows, columns, size, size, c].

    The last op of a recipe: CPC v2 changes an image as a whole, and then each patch by itself. `describe` leaves
    out what is drawn for patches; look at the views themselves, by `mosaic`.
    """

    def grid(shape):
        h, w, _ = shape
        return (h - size) // stride + 1, (w - size) // stride + 1

    def sample(key, shape):
        rows, columns = grid(shape)
        keys = jax.random.split(key, (rows, columns))
        one = lambda key: op.sample(key, (size, size, shape[2]))  # noqa: E731
        return {"patches": jax.vmap(jax.vmap(one))(keys)}

    def apply(params, image):
        return jax.vmap(jax.vmap(op.apply))(params["patches"], patches(image, size, stride))

    return Op("each_patch", sample, apply, (("op", op), ("size", size), ("stride", stride)))
