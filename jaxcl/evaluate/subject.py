"""The subject of an evaluation: an encoder with training and test images, whose features are computed once."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping, Sequence

import numpy as np

from jaxcl.evaluate.features import EncoderFn, embed, embed_each
from jaxcl.evaluate.progress import Progress, stage
from jaxcl.typing import Images


@dataclasses.dataclass(eq=False)
class Subject:
    """What the protocols evaluate. All of them share one subject, and with it the features of its images.

    encoder
        float images [b, h, w, c] in [0, 1] -> features [b, d], as for `embed`; None where only features are known.
    train, test
        the images that a classifier is fitted to, and those that it is scored on.

    Features are those of the images as they are, without augmentation. They are computed when they are first asked
    for, and kept as long as the subject is: n d 4 bytes.

    >>> images = Images("two", np.array([0, 255], np.uint8).reshape(2, 1, 1, 1), np.array([0, 1]))
    >>> subject = Subject(lambda x: x.reshape(len(x), -1), images, images)
    >>> subject.train_features().tolist(), subject.train_features() is subject.train_features()
    ([[0.0], [1.0]], True)
    """

    encoder: EncoderFn | None
    train: Images
    test: Images
    # "training" and "test" -> features, seconds; subjects that differ in labels alone hold the same dict.
    _known: dict[str, tuple[np.ndarray, float]] = dataclasses.field(default_factory=dict, repr=False)

    @classmethod
    def of_features(
        cls,
        train_features: np.ndarray,
        train_labels: np.ndarray | None,
        test_features: np.ndarray,
        test_labels: np.ndarray | None,
    ) -> Subject:
        """The subject whose features [n, d], [m, d] were computed elsewhere, for the protocols that need no encoder.

        >>> from jaxcl.evaluate import PROTOCOLS
        >>> x, y = np.array([[1.0, 0.1], [1.0, -0.1], [0.1, 1.0], [-0.1, 1.0]] * 3), np.array([0, 0, 1, 1] * 3)
        >>> result = PROTOCOLS["knn"](None, Subject.of_features(x, y, x, y))        # kNN draws nothing: no key
        >>> result["accuracy"], result["settings"]["k"]
        (100.0, 10)
        """
        given = {"training": (train_features, train_labels), "test": (test_features, test_labels)}
        train, test = (
            Images(f"{name} features", np.empty((len(features), 0, 0, 0), np.uint8), labels)
            for name, (features, labels) in given.items()
        )
        return cls(
            None, train, test, {name: (np.asarray(features), 0.0) for name, (features, _) in given.items()}
        )

    def train_features(self, progress: Progress | None = None) -> np.ndarray:
        """The features [n, d] of the training images; float32 where this subject computes them."""
        return self._features("training", self.train, progress)

    def test_features(self, progress: Progress | None = None) -> np.ndarray:
        """The features [m, d] of the test images."""
        return self._features("test", self.test, progress)

    @property
    def embed_seconds(self) -> float:
        """What the features that are known by now took to compute, in seconds."""
        return sum(seconds for _, seconds in self._known.values())

    def encoder_for(self, protocol: str) -> EncoderFn:
        """The encoder, or an error that says which protocol cannot do without it."""
        if self.encoder is None:
            raise ValueError(
                f"{protocol} needs the encoder itself, and this subject was made of features alone: give it"
                " Subject(encoder, train, test)."
            )
        return self.encoder

    def relabelled(self, train_labels: np.ndarray | None, test_labels: np.ndarray | None) -> Subject:
        """The same images and encoder with other labels; both subjects share what features either computes."""
        return dataclasses.replace(
            self,
            train=self.train._replace(labels=train_labels),
            test=self.test._replace(labels=test_labels),
        )

    def _features(self, name: str, images: Images, progress: Progress | None) -> np.ndarray:
        if name not in self._known:
            start = time.perf_counter()
            encoder = self.encoder_for(f"Embedding {name} images")
            features = embed(encoder, images.images, progress=stage(progress, f"embedding {name} images"))
            self._known[name] = features, time.perf_counter() - start
        return self._known[name][0]


def subjects(encoder: EncoderFn, sets: Mapping[str, tuple[Images, Images]]) -> dict[str, Subject]:
    """One subject for every kind of labels; kinds that label the very same arrays of images share their features.

    sets
        kind of labels -> training and test images that carry it.
    """
    made: dict[str, Subject] = {}
    for kind, (train, test) in sets.items():
        made[kind] = Subject(encoder, train, test)
        for other in made.values():
            if other.train.images is train.images and other.test.images is test.images:
                made[kind] = dataclasses.replace(other, train=train, test=test)
                break
    return made


def embed_together(members: Sequence[Subject], *, progress: Progress | None = None) -> None:
    """Computes the features of subjects that differ in the encoder alone by one program (`embed_each`), for all
    protocols that ask for them afterwards. Their seconds are a member's share."""
    for name, images in (("training", members[0].train), ("test", members[0].test)):
        if all(name in subject._known for subject in members):
            continue
        start = time.perf_counter()
        encoders = [subject.encoder_for(f"Embedding {name} images") for subject in members]
        features = embed_each(encoders, images.images, progress=stage(progress, f"embedding {name} images"))
        seconds = (time.perf_counter() - start) / len(members)
        for subject, own in zip(members, features, strict=True):
            subject._known[name] = np.ascontiguousarray(own), seconds
