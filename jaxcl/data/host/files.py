"""Encoded images as tensors: a box of a file is decoded, damaged files are found and replaced."""

from __future__ import annotations

import os
import warnings
from typing import Any

import numpy as np

from jaxcl.data.decode import ToBytes, first, full_range, read_rgb, reason, within
from jaxcl.data.stream import Encoded, read_bytes
from jaxcl.typing import Images


def where(source: Encoded, index: np.ndarray, box: np.ndarray) -> dict[str, np.ndarray]:
    """What `decoded` needs to know of files, to get a box (top, left, height, width) [b, 4] of each."""
    sizes = source.sizes[index]
    # At the edge of what it decodes, a decoder lacks the neighbors from which it interpolates colors. So it gets a
    # pixel more, in whole blocks (of 32, the largest there are), and the pixels are those of the whole image.
    low = np.maximum(box[:, :2] - 1, 0) // 32 * 32
    high = np.minimum(-(-(box[:, :2] + box[:, 2:] + 1) // 32) * 32, sizes)
    more = {} if source.spans is None else {"span": source.spans[index]}
    if source.value_range is not None:
        more["range"] = np.tile(np.asarray(source.value_range, np.float64), (len(index), 1))
    return {
        "path": np.array([os.fsencode(source.paths[i]) for i in index]),
        **more,
        "plain": source.plain[index],
        "size": sizes,
        "box": box,
        "blocks": np.concatenate([low, high - low], axis=1).astype(np.int32),
    }


def decoded(tf, row: dict[str, Any]) -> Any:
    """The part row["box"] (top, left, height, width) of an encoded image, uint8 [height, width, 3]."""
    box, blocks = row["box"], row["blocks"]
    if "span" in row:
        content = tf.ensure_shape(tf.numpy_function(read_span, [row["path"], row["span"]], tf.string), ())
    else:
        content = tf.io.read_file(row["path"])

    def plain():
        # The accurate transform, as Pillow's: device and host then see the same pixels.
        some = tf.io.decode_and_crop_jpeg(content, blocks, channels=3, dct_method="INTEGER_ACCURATE")
        top, left = box[0] - blocks[0], box[1] - blocks[1]
        return some[top : top + box[2], left : left + box[3]]

    def other():
        ranges = [row["range"]] if "range" in row else []
        return tf.numpy_function(read_box, [content, box, row["size"], *ranges], tf.uint8)

    return tf.ensure_shape(tf.cond(row["plain"], plain, other), (None, None, 3))


def read_span(path: bytes, span: np.ndarray) -> bytes:
    return read_bytes(os.fsdecode(path), *span)


def read_box(
    content: bytes, box: np.ndarray, size: np.ndarray, value_range: np.ndarray | None = None
) -> np.ndarray:
    top, left, height, width = box
    to_bytes = full_range if value_range is None else within((value_range[0], value_range[1]))
    return np.ascontiguousarray(read_whole(content, size, to_bytes)[top : top + height, left : left + width])


def read_whole(content: bytes, size: np.ndarray, to_bytes: ToBytes = full_range) -> np.ndarray:
    image = read_rgb(content, to_bytes)
    if image.shape[:2] != tuple(size):
        raise ValueError(f"its header says {tuple(size)}, and it decodes to {image.shape[:2]}")
    return image


def look_closer(tf, source: Encoded, index: np.ndarray, tolerate: float) -> bool:
    """Decodes these images one by one; tells whether anything was learnt about any of them, and notes it in source."""
    learnt = False
    for i in map(int, np.unique(index)):
        try:
            content = source.content(i)
            if source.plain[i]:
                try:
                    tf.io.decode_jpeg(content, channels=3, dct_method="INTEGER_ACCURATE")
                    continue
                except tf.errors.OpError:
                    source.plain[i], learnt = False, True  # Pillow may know better
            read_whole(content, source.sizes[i], source.to_bytes)
        except Exception as error:  # whatever is wrong with it
            source.damaged[i], learnt = reason(error), True
            warnings.warn(
                f"{source.where(i)} is damaged and left out: {source.damaged[i]}. ({len(source.damaged)} of"
                f" {len(source.paths)} so far)",
                stacklevel=2,
            )
    if len(source.damaged) > tolerate * len(source.paths):
        names = [f"{source.where(i)}: {reason}" for i, reason in sorted(source.damaged.items())]
        raise ValueError(
            f"{len(names)} of the {len(source.paths)} images of {source.name} are damaged, more than the fraction of"
            f" {tolerate:g} that is tolerated: {first(names)} Mend or remove them, or raise tolerate."
        )
    if not learnt and source.plain[index].any():
        # Whole they can be decoded, in part they cannot: let Pillow have them all.
        source.plain[index], learnt = False, True
    return learnt


def stand_in(source: Images | Encoded, index: np.ndarray) -> np.ndarray:
    """The same numbers, but for each damaged file the next good one's."""
    if not (isinstance(source, Encoded) and source.damaged):
        return index
    n = len(source.paths)
    if len(source.damaged) == n:
        raise ValueError(f"all {n} images of {source.name} are damaged.")
    out = index.copy()
    for i in np.flatnonzero(np.isin(index, list(source.damaged))):
        while int(out[i]) in source.damaged:
            out[i] = (out[i] + 1) % n
    return out
