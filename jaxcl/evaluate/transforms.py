"""What was done to this image? A linear classifier predicts from frozen features by which angle an image was
rotated, or how its colors were shifted: what the representation keeps of what an augmentation changes."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple, cast

import jax
import numpy as np

from jaxcl.augment.color import adjust_hue
from jaxcl.evaluate.features import as_partial, embed
from jaxcl.evaluate.probe import L2, LinearProbe, hold_out, linear_probe
from jaxcl.evaluate.progress import Progress, stage
from jaxcl.evaluate.subject import Subject
from jaxcl.typing import Array

ANGLES = (0, 90, 180, 270)  # degrees, counterclockwise
SHIFTS = (0, 90, 180, 270)  # degrees of the color circle


class TransformProbe(NamedTuple):
    """How often a linear classifier recognizes which of t transforms an image went through; chance is 1 / t."""

    accuracy: float  # over all n test images in all t transforms, in [0, 1]
    by_transform: np.ndarray  # [t]
    standard_error: float  # of the accuracy over the draw of the n test images
    train_images: int
    probe: LinearProbe


class _Rotated:
    """Square images rotated by so many quarter turns when they are asked for: those that stay encoded are not all in
    memory."""

    def __init__(self, images: np.ndarray, which: int):
        self.images, self.which = images, which
        self.shape, self.dtype, self.ndim = images.shape, images.dtype, images.ndim

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice) -> np.ndarray:
        return np.rot90(self.images[rows], self.which, axes=(1, 2))


def rotation_probe(
    key: Array,
    subject: Subject,
    *,
    most: int = 10000,
    progress: Progress | None = None,
    **given: Any,
) -> TransformProbe:
    """Predicts from an image's features whether it was rotated by 0, 90, 180 or 270 degrees.

    LooC's rotation task (Xiao et al. 2020, arXiv:2008.05659, table 1): a linear classifier of four classes, on the
    images that the encoder was pretrained on. Rotation is counterclockwise, as `augment.rotate90`. No labels are
    needed. The classifier is `linear_probe`; the paper's optimizer for this task was not found.

    subject
        its images are uint8 [n, h, h, c]. Every test image is shown in all four rotations, and so are `most` training
        images (all, if there are no more), which are chosen by the key. To choose l2, all rotations of an image are
        held out together.
    given
        l2, held_out, standardize, tolerance, iterations of `linear_probe`.
    """
    train_images, test_images = subject.train.images, subject.test.images
    for images in (train_images, test_images):
        if images.shape[1] != images.shape[2]:
            raise ValueError(
                f"The rotation task rotates images by 90 degrees, so they must be square; got {images.shape}."
            )

    encoder = subject.encoder_for("The rotation task")

    def rotated(images: np.ndarray, which: int, progress: Callable[[float], None]) -> np.ndarray:
        return embed(encoder, cast(np.ndarray, _Rotated(images, which)), progress=progress)

    return _transform_probe(key, rotated, len(ANGLES), train_images, test_images, most, progress, **given)


def hue_probe(
    key: Array,
    subject: Subject,
    *,
    most: int = 10000,
    progress: Progress | None = None,
    **given: Any,
) -> TransformProbe:
    """Predicts from an image's features whether its hues were shifted by 0, 90, 180 or 270 degrees of the color circle.

    Our own counterpart of `rotation_probe` for what color jitter changes; it is in no paper. The shift is
    `augment.color.adjust_hue`, which a gray pixel survives unchanged: a data set of gray images scores chance, and one
    channel is an error.
    """
    train_images, test_images = subject.train.images, subject.test.images
    for images in (train_images, test_images):
        if images.shape[3] != 3:
            raise ValueError(
                f"The color task shifts hues, so images need three channels; got {images.shape}."
            )
    frozen = as_partial(subject.encoder_for("The color task"))

    def shifted(images: np.ndarray, which: int, progress: Callable[[float], None]) -> np.ndarray:
        circle = np.float32(SHIFTS[which] / 360)
        return embed(functools.partial(_of_shifted, frozen, circle), images, progress=progress)

    return _transform_probe(key, shifted, len(SHIFTS), train_images, test_images, most, progress, **given)


def _of_shifted(encoder: Any, circle: Any, images: Array) -> Array:
    """Of images whose hues are shifted by this fraction of the color circle."""
    return encoder(jax.vmap(lambda image: adjust_hue(circle, image))(images))


def _transform_probe(
    key,
    features_of,
    transforms,
    train_images,
    test_images,
    most,
    progress,
    *,
    l2=L2,
    held_out=0.1,
    **more,
) -> TransformProbe:
    n = len(train_images)
    if n > most:
        train_images = train_images[np.sort(np.asarray(jax.random.permutation(key, n))[:most])]
    if len(train_images) < 2:
        raise ValueError(f"A classifier needs two training images at least; got {len(train_images)}.")

    def features(images, name):
        """[n t, d]: an image's transforms side by side."""
        part_done = stage(progress, f"embedding {name} images")
        parts = [
            features_of(images, t, lambda fraction, t=t: part_done((t + fraction) / transforms))
            for t in range(transforms)
        ]
        return np.stack(parts, axis=1).reshape(-1, parts[0].shape[1])

    def with_all_transforms(rows):
        return (rows[:, None] * transforms + np.arange(transforms)).ravel()

    train, test = features(train_images, "training"), features(test_images, "test")
    labels = np.tile(np.arange(transforms), len(train_images))
    test_labels = np.tile(np.arange(transforms), len(test_images))
    # An image's other transforms would give away what is held out of it.
    fitted, held = map(with_all_transforms, hold_out(np.zeros(len(train_images), int), held_out))
    stage(progress, "fitting")(0.0)
    how = {"l2": l2, "split": (fitted, held), "progress": progress} | more
    probe = linear_probe(train, labels, test, test_labels, **how)
    right = np.argmax(test @ probe.weights + probe.bias, axis=1) == test_labels
    right = right.reshape(len(test_images), transforms)
    error = right.mean(axis=1).std() / np.sqrt(len(right))
    return TransformProbe(float(right.mean()), right.mean(axis=0), float(error), len(train_images), probe)
