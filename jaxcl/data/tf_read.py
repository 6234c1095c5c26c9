"""What TensorFlow reads: prepared TensorFlow data sets, and the checksums of TFRecords.

TensorFlow is imported here and nowhere else, and only when one of these functions is called."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np


def read(
    folder: Path,
    split: str,
    *,
    size: int | None,
    allocate: Callable[[tuple[int, ...]], np.ndarray],
    unlabelled: bool = False,
) -> tuple[np.ndarray, np.ndarray | None, tuple[str, ...]] | None:
    """One split of the data set prepared in `folder`: images uint8 [n, h, w, c], labels [n] or None, class names.

    The order is that of the files, one shard after the other, whatever the number of threads. `size` as in
    `data.load`; `allocate` makes the array that is filled. Where all labels are -1, which says that there are none,
    `unlabelled` tells whether that is wanted: then there are no labels and no classes, else the answer is None.

    Raises ValueError where there is no image of one or three channels and 8 bits, where the images' sizes differ and
    no size is given, and where the files are damaged.
    """
    tf, tfds = _tensorflow()
    builder = tfds.builder_from_directory(str(folder))
    image_key, label_key = _keys(builder.info.features, tfds)
    feature = builder.info.features[image_key]
    height, width, channels = feature.shape
    if feature.np_dtype != np.uint8 or channels not in (1, 3):
        raise ValueError(
            f"{builder.info.name}: expected images of 8 bits and 1 or 3 channels; its {image_key!r} has"
            f" {np.dtype(feature.np_dtype)} and {channels} channels."
        )
    if size is None and (height is None or width is None):
        raise ValueError(
            f"the images of {builder.info.name} are not all of one size. --size N (size=N) makes them all N x N."
        )
    height, width = (size, size) if size else (height, width)

    def prepare_one(example):
        image = example[image_key]
        if size:
            image = square(tf, image, size)
        return image, example[label_key] if label_key else tf.constant(0, tf.int64)

    # One shard after the other: the order then depends on the files alone, not on defaults of the library.
    config = tfds.ReadConfig(interleave_cycle_length=1, try_autocache=False, add_tfds_id=False)
    keys = {image_key: True, **({label_key: True} if label_key else {})}
    examples = builder.as_dataset(
        split=split,
        shuffle_files=False,
        read_config=config,
        decoders=tfds.decode.PartialDecoding(keys),
    )
    batched = examples.map(prepare_one, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    batched = batched.batch(256).prefetch(2)
    n = builder.info.splits[split].num_examples
    images, labels, filled = allocate((n, height, width, channels)), np.empty(n, np.int64), 0
    try:
        for some, their_labels in batched.as_numpy_iterator():
            if label_key and not unlabelled and filled == 0 and np.all(their_labels == -1):
                return None
            if filled + len(some) > n:
                raise ValueError(f"{folder} holds more than the {n} images that its metadata says.")
            images[filled : filled + len(some)] = some
            labels[filled : filled + len(some)] = their_labels
            filled += len(some)
    except tf.errors.OpError as error:
        text = " ".join(error.message.split())
        raise ValueError(
            f"{folder}, split {split}, is damaged after image {filled}: {text[:200]}. Remove the folder and prepare"
            " the data set again."
        ) from error
    if filled < n:
        raise ValueError(
            f"{folder}, split {split}, holds {filled} of {n} images. Prepare the data set again."
        )
    if not label_key or np.all(labels == -1):
        return images, None, ()
    return images, labels, tuple(builder.info.features[label_key].names)


def shards(folder: Path, split: str) -> tuple[list[str], list[int], tuple[str, str | None], tuple[str, ...]]:
    """Of one split of the data set prepared in `folder`: its TFRecord files in order, how many records each should
    have, the features that are the image and the label (or None), and the names of the classes.

    Raises ValueError where there is no image of 8 bits, or the files are no TFRecords.
    """
    _, tfds = _tensorflow()
    info = tfds.builder_from_directory(str(folder)).info
    if info.file_format.value != "tfrecord":
        raise ValueError(
            f"{folder} is prepared as {info.file_format.value}, whose images cannot be read one by one."
            " Prepare it with file_format='tfrecord'."
        )
    image, label = _keys(info.features, tfds)
    if info.features[image].np_dtype != np.uint8:
        raise ValueError(
            f"{info.name}: expected images of 8 bits; its {image!r} has {np.dtype(info.features[image].np_dtype)}."
        )
    paths = [os.fspath(path) for path in info.splits[split].filepaths]
    classes = tuple(info.features[label].names) if label else ()
    return paths, list(info.splits[split].shard_lengths), (image, label), classes


def check_records(paths: Sequence[str]) -> None:
    """Reads TFRecord files and compares all checksums; raises ValueError that names the first file with a wrong one."""
    tf = tensorflow()
    for path in paths:
        try:
            tf.data.TFRecordDataset(path).reduce(0, lambda n, _: n + 1)
        except tf.errors.OpError as error:
            text = error.message.split("}} ")[-1].split(" [Op:")[
                0
            ]  # without the position in TensorFlow's graph
            raise ValueError(f"{path} is damaged: {text}. Copy or prepare it again.") from error


def prepare(name: str, root: Path) -> Path:
    """Download a data set and prepare it under `root`; the folder it lies in."""
    _, tfds = _tensorflow()
    try:
        builder = tfds.builder(name, data_dir=str(root))
    except tfds.core.registered.DatasetNotFoundError as error:
        # The library's own message lists a thousand names.
        raise ValueError(f"TensorFlow Datasets knows no data set {name!r}.") from error
    try:
        builder.download_and_prepare()
    except OSError as error:  # ConnectionError and its like
        raise ConnectionError(f"tfds:{name} could not be downloaded: {error}") from error
    return Path(str(builder.data_dir))


def tensorflow() -> Any:
    """The module, set to leave accelerators alone; imported when it is first asked for."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if "tensorflow" not in sys.modules:
        with _no_announcements():
            import tensorflow  # noqa: F401
    import tensorflow as tf

    # TensorFlow would take all of an accelerator's memory. Once it has begun to work this can no longer be set.
    with contextlib.suppress(RuntimeError):
        tf.config.set_visible_devices([], "GPU")
        tf.config.set_visible_devices([], "TPU")
    return tf


@contextlib.contextmanager
def _no_announcements():
    """Without what TensorFlow's libraries write to the standard error's file while they are loaded.

    oneDNN announces itself there before any log level holds. Without oneDNN, crops and matrix products take twice as
    long. What goes wrong is an exception, and is seen.
    """
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with open(os.devnull, "wb") as nothing:
            os.dup2(nothing.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def _tensorflow() -> tuple[Any, Any]:
    tf = tensorflow()
    import tensorflow_datasets as tfds
    from absl import logging

    logging.set_verbosity(logging.ERROR)  # TFDS warns of its own deprecations, which a user cannot mend
    tfds.disable_progress_bar()
    return tf, tfds


def _keys(features, tfds) -> tuple[str, str | None]:
    """The names of the image and of the label: "image" and "label", or the only ones of their kind."""

    def the(kind, name):
        keys = [key for key, feature in features.items() if isinstance(feature, kind)]
        return name if name in keys else keys[0] if len(keys) == 1 else None

    image = the(tfds.features.Image, "image")
    if image is None:
        raise ValueError(f"expected one feature that is an image; the data set has {', '.join(features)}.")
    return image, the(tfds.features.ClassLabel, "label")


def square(tf, image, size: int):
    """The shorter side to `size`, the centre square of the other; uint8 [size, size, c].

    In one step, as for folders: a long and thin image is never enlarged as a whole.
    """
    sides = tf.shape(image)[:2]
    side = tf.reduce_min(sides)
    scale = tf.cast(size / side, tf.float32)
    corner = tf.cast(sides - side, tf.float32) / 2
    resized = tf.raw_ops.ScaleAndTranslate(
        images=image[None],
        size=(size, size),
        scale=tf.stack([scale, scale]),
        translation=-corner * scale,
        kernel_type="keyscubic",
        antialias=True,
    )[0]
    return tf.cast(tf.clip_by_value(tf.round(resized), 0, 255), tf.uint8)
