"""Images that the host decodes alone."""

from __future__ import annotations

import numpy as np

from jaxcl.data.host.files import decoded, where
from jaxcl.data.host.pipeline import Input, run
from jaxcl.data.stream import Encoded
from jaxcl.data.tf_read import square, tensorflow


def host_images(source: Encoded, size: int, *, threads: int | None = None, tolerate: float = 0.01) -> Input:
    """An input that only decodes: {"image": uint8 [b, size, size, 3], "index": int32 [b]}.

    The shorter side is resized to `size` (bicubic, antialiased) and the centre square kept, as by `data.load`; the
    device makes the views, from images that are larger than its crops. `threads` and `tolerate` as in `host_views`.
    """

    def start(**order):
        tf = tensorflow()

        def made(step, index):
            sides = source.sizes[index]
            side = sides.min(axis=1, keepdims=True)
            low = (sides - side) // 2  # where a half pixel is cut off, both halves are kept for the resize
            box = np.concatenate([low, sides - 2 * low], axis=1).astype(np.int32)
            return None, {"index": index, **where(source, index, box)}

        def one(tree, row):
            return {"image": square(tf, decoded(tf, row), size), "index": row["index"]}

        return run(tf, source, made, one, threads, tolerate, **order)

    return start
