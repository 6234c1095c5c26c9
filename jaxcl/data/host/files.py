"""Encoded images as tensors: a box of a file is decoded, damaged files are found and replaced."""

from __future__ import annotations

import os
import warnings
from typing import Any

import numpy as np

from jaxcl.data.decode import ToBytes, first, full_range, read_rgb, reason, within
from jaxcl.data.stream import Encoded, read_bytes


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


def verdict(tf, source: Encoded, rows: dict[str, np.ndarray], at: int) -> tuple[bool, str]:
    """How an image of some rows of `where` is decoded: whether as a plain JPEG, or by Pillow; and why it cannot be, ""
    where it can. It follows from the file and the box alone, whatever was seen of it before."""
    i = int(rows["index"][at])
    if source.plain[i]:
        known = ("path", "span", "range", "plain", "size", "box", "blocks")
        try:
            decoded(tf, {name: tf.convert_to_tensor(rows[name][at]) for name in known if name in rows})
            return True, ""
        except Exception:
            pass  # Pillow may know better
    try:
        value_range = rows["range"][at] if "range" in rows else None
        read_box(source.content(i), rows["box"][at], rows["size"][at], value_range)
    except Exception as error:  # whatever is wrong with it
        return False, reason(error)
    return False, ""


def told_of_damage(source: Encoded, i: int, why: str, tolerate: float) -> None:
    """Notes that an image is damaged, with a warning. Raises ValueError where there are too many."""
    source.damaged[i] = why
    warnings.warn(
        f"{source.where(i)} is damaged and left out: {why}. ({len(source.damaged)} of {len(source.paths)} so far)",
        stacklevel=2,
    )
    check_damage(source, tolerate)


def check_damage(source: Encoded, tolerate: float) -> None:
    """Raises ValueError where more images are damaged than are tolerated."""
    if len(source.damaged) > tolerate * len(source.paths):
        names = [f"{source.where(i)}: {reason}" for i, reason in sorted(source.damaged.items())]
        raise ValueError(
            f"{len(names)} of the {len(source.paths)} images of {source.name} are damaged, more than the fraction of"
            f" {tolerate:g} that is tolerated: {first(names)} Mend or remove them, or raise tolerate."
        )
