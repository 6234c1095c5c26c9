"""A data set too large for memory, as an experiment needs it: its images are decoded when they are asked for."""

from __future__ import annotations

import io
import os
from typing import Any, NamedTuple

import numpy as np

from jaxcl.augment.ops import Op
from jaxcl.augment.pipelines import from_host, n_views
from jaxcl.data import sources
from jaxcl.data.files import Encoded, find_images
from jaxcl.data.tf_host import Input, host_images, host_views
from jaxcl.typing import Images, Views


class Streamed(NamedTuple):
    """`train` and `test` to evaluate on, `input` for `Experiment.input`, and `views` for the method that gets it."""

    train: Images
    test: Images
    input: Input
    views: Views


def streamed(
    spec: str,
    recipe: Op,
    *,
    size: int,
    input: str,
    n: int = 2,
    stored: int | None = None,
    data_dir: str | os.PathLike | None = None,
) -> Streamed:
    """The images of "folder:PATH", "tfds:NAME" or "tfrecord:PATTERN" (`find_images`), and n views of each by `recipe`.

    input
        "host": the host decodes what a view shows and makes the views, sent as bytes (`host_views`). "images": the
        host only decodes, the centre square of `stored` pixels (by default size * 8 / 7: 256 for 224), and the device
        makes the views of that (`host_images`): a fraction of the host's work, and crops from the square only.
    size
        side in pixels of the images that are evaluated: the centre square of the training images, and of the test
        images the 7/8 of it in the middle, as the papers evaluate on ImageNet.
    """
    if input not in ("host", "images"):
        raise ValueError(f'input must be "host" or "images"; got {input!r}.')
    train, test = (find_images(spec, split, data_dir=data_dir) for split in ("train", "test"))
    return Streamed(
        as_images(train, size),
        as_images(test, size, share=7 / 8),
        host_views(train, recipe, n=n, dtype="uint8")
        if input == "host"
        else host_images(train, stored or size * 8 // 7),
        from_host(n) if input == "host" else n_views(recipe, n),
    )


def as_images(source: Encoded, size: int, *, share: float = 1.0) -> Images:
    """Encoded images as if they were in memory: `Images` of [n, size, size, 3] whose pixels are decoded when a part of
    them is asked for, by Pillow, on all cores. What is asked for twice is decoded twice.

    share
        of the centre square that is kept and resized.

    Asking for an image that is damaged raises ValueError that names it.
    """
    if size < 1 or not 0 < share <= 1:
        raise ValueError(f"expected size >= 1 and 0 < share <= 1; got size={size}, share={share}.")
    pixels: Any = Pixels(source, size, share)
    return Images(source.name, pixels, source.labels, source.classes, source.skipped)


class Pixels:
    """What `as_images` makes: looked at like an array uint8 [n, size, size, 3]."""

    dtype, ndim = np.dtype(np.uint8), 4

    def __init__(self, source: Encoded, size: int, share: float):
        self.source, self.share = source, share
        self.shape = (len(source.paths), size, size, 3)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, which: Any) -> np.ndarray:
        first, *rest = which if isinstance(which, tuple) else (which,)
        numbers = np.arange(len(self))[first]
        out = np.empty((numbers.size, *self.shape[1:]), np.uint8)
        formats = sources.readable_formats()

        def decode(k):
            i = int(numbers.flat[k])
            try:
                content = io.BytesIO(self.source.content(i))
                out[k] = sources._read(content, formats, self.shape[1], self.share)
            except Exception as error:
                reason = sources._reason(error)
                raise ValueError(
                    f"{self.source.where(i)} is damaged: {reason}. Mend or remove it."
                ) from error

        sources._in_parallel(decode, numbers.size, chunk=4)
        return out.reshape(*numbers.shape, *self.shape[1:])[(slice(None),) * numbers.ndim + tuple(rest)]

    def __array__(self, dtype=None, copy=None) -> np.ndarray:
        return np.asarray(self[:], dtype)
