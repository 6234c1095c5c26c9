"""Splits: what they are called, and which files belong to which where a source has none."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Mapping, Sequence

KINDS_OF_SPLITS: Mapping[str, tuple[str, ...]] = {
    "train": ("train", "training", "trn"),
    "test": ("test", "testing", "tst"),
    "val": ("val", "valid", "validation", "validate", "dev", "eval", "evaluation", "holdout"),
}
_BESIDE = r"(images?|imgs?|pictures?|photos?|set|data|split)"


def kind_of(name: str) -> str | None:
    """Which kind of split a folder or a word names: "train", "test", "val", or None.

    >>> kind_of("Training"), kind_of("test_images"), kind_of("DEV"), kind_of("cats")
    ('train', 'test', 'val', None)
    """
    name = name.strip().casefold()
    name = re.sub(rf"[ _-]?{_BESIDE}$|^{_BESIDE}[ _-]", "", name)
    return next((kind for kind, names in KINDS_OF_SPLITS.items() if name in names), None)


def share(name: str) -> float:
    """A number in [0, 1) that follows from a file's name alone: the same on every machine, whatever lies beside it."""
    name = unicodedata.normalize("NFC", name)
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "big") / 2**64


def held_out_by_name(names: Sequence[str], classes: Sequence[str | None], *, every: int) -> list[bool]:
    """Which files are held out, where a folder has no split: those whose `share` is below 1 / every.

    A file stays where it is when others come. Two exceptions: of a class of `every` or more at least one is held out,
    and one is always left to train on; only a class without a file on the right side is ever changed by them.
    """
    shares = [share(name) for name in names]
    out = [one < 1 / every for one in shares]
    groups: dict[str | None, list[int]] = {}
    for i, name in enumerate(classes):
        groups.setdefault(name, []).append(i)
    for members in groups.values():
        if all(out[i] for i in members):
            out[max(members, key=shares.__getitem__)] = False
        elif len(members) >= every and not any(out[i] for i in members):
            out[min(members, key=shares.__getitem__)] = True
    return out


def check_split(kind: str, spec: str, split: str) -> None:
    """Raises ValueError for a word that names no split of such a source."""
    if kind == "folder" and kind_of(split) is None:
        raise ValueError(
            f"a split of {spec} is one of its folders, as train, test, val; {split!r} names no split."
        )
    if kind not in ("folder", "tfds") and split not in ("train", "test"):
        raise ValueError(f'split must be "train" or "test" for {spec}; got {split!r}.')
