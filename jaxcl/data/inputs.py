"""Where a run's batches come from: `--input`, resolved in one place, for images in memory and for encoded ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from jaxcl.augment.views import RecipeViews
from jaxcl.data.batches import batches, index_batches
from jaxcl.data.host import ends_in_a_space, host_images, host_views
from jaxcl.data.stream import Encoded, Pixels
from jaxcl.typing import Batch, Images, Views

# Who makes the views, as --input says.
INPUTS = ("device", "resident", "host", "images")


class InputPipeline(NamedTuple):
    """What `input_pipeline` makes.

    batches
        (batch_size, seed, start_step, stop_step, process_index, process_count; all by name) -> an iterator of this
        process's batches, of steps start_step, start_step + 1, ...; its only state is the number of the step.
    resident
        None; or the images uint8 [n, h, w, c] that every device keeps. Then a batch is {"index": int32 [b]} alone,
        and its rows are taken on the device (`train.placement.resident`).
    """

    batches: Callable[..., Iterator[Batch]]
    resident: np.ndarray | None = None

    def first(self, *, batch_size: int, seed: int, rows: int | None = None) -> Batch:
        """The global batch of the first step, with its images or views; or its first `rows`, and then no others are
        read. Two are enough to initialise a method on.

        Raises ValueError where the batch does not fit the images, however few of it are asked for.
        """
        start: Any = partial(self.batches, seed=seed, start_step=0, stop_step=1)
        read = start(batch_size=batch_size)
        # An epoch begins with the same images, however many a batch has.
        if rows is not None and rows < batch_size:
            read.close()
            read = start(batch_size=rows)
        with closing(read):
            batch = next(read)
        return batch if self.resident is None else {"image": self.resident[batch["index"]], **batch}


def input_pipeline(
    kind: str,
    images: Images | Encoded,
    views: Views | None = None,
    *,
    stored: int | None = None,
    threads: int | None = None,
    tolerate: float = 0.01,
) -> InputPipeline:
    """What `--input` asks for. All kinds meet the same images in the same order, and make the same views (of encoded
    images, where the host crops from the whole and the device from the centre square, the same draws).

        opened = data.open("tfds:cifar10")
        views = augment.two_views(augment.simclr(32))
        pipeline = data.input_pipeline("host", opened.train, views)
        for batch in pipeline.batches(batch_size=512, seed=0, start_step=1000, stop_step=2000):
            x1, x2 = views(key, batch)                 # the same line, whatever the kind

    kind
        "device"    the device makes the views, of batches {"image", "index"} that it is sent. Of encoded images the
                    host sends the centre square of `stored` pixels (by default 8/7 of their side, 256 for 224)
        "resident"  as "device", from images that it keeps: batches are {"index"}; in memory only
        "host"      the host makes the views, by tf.data, and sends {"views", "index"}: floats of images in memory,
                    bytes of encoded ones (where views are within [0, 1])
        "images"    "device", for encoded images alone: the host only decodes
    images
        `Data.train`, in memory or encoded (or what `find_images` gives).
    views
        the method's own, for "host": those of `augment.n_views`, `each_view`, `channel_views`, `leave_one_out`.
    threads, tolerate
        of the host: see `host_views`.

    Raises ValueError for a kind that does not fit the images or the views, and says which does.
    """
    if kind not in INPUTS:
        raise ValueError(f"input must be one of {', '.join(INPUTS)}; got {kind!r}.")
    if isinstance(images, Encoded):
        source, side = images, None
    elif isinstance(images.images, Pixels):
        source, side = images.images.source, images.images.shape[1]
    else:
        source, side = None, None
    if kind == "images" and source is None:
        raise ValueError(
            f'input "images" is for images that stay encoded, which the host decodes; those of {images.name} are in'
            ' memory. Take "device" or "resident".'
        )
    if kind == "resident" and source is not None:
        raise ValueError(
            f'input "resident" keeps all images in a device\'s memory, and those of {images.name} stay encoded in'
            ' files. Take "device" or "host", or leave out --encoded (encoded=True) where it was given.'
        )
    if kind == "host":
        if not isinstance(views, RecipeViews):
            raise ValueError(
                'input "host" makes the views from their recipes, so it needs those of augment.n_views, each_view,'
                f" channel_views or leave_one_out; got {getattr(views, '__name__', type(views).__name__)}. Make other"
                ' views on the device: input "device".'
            )
        dtype = "float32" if source is None or any(map(ends_in_a_space, views.recipes)) else "uint8"
        made_of = images if source is None else source
        return InputPipeline(host_views(made_of, views, dtype=dtype, threads=threads, tolerate=tolerate))
    if source is not None:
        if stored is None:
            if side is None:
                raise ValueError(
                    "encoded images have any size: give the side of the images sent to the device, as stored=256."
                )
            stored = side * 8 // 7
        return InputPipeline(host_images(source, stored, threads=threads, tolerate=tolerate))
    assert isinstance(images, Images)
    if kind == "resident":
        return InputPipeline(partial(index_batches, len(images.images)), np.asarray(images.images))
    return InputPipeline(partial(batches, images))
