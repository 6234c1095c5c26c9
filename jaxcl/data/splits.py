"""Splits: what they are called, and which files belong to which where a source has none."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence

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


def kind_within(name: str) -> str | None:
    """The same of what is known to be a split, in whose name other words and numbers may stand.

    >>> kind_within("seg_train"), kind_within("val2017"), kind_within("cats")
    ('train', 'val', None)
    """
    return kind_of(name) or _in_words(name)[0]


def kinds_among(names: Iterable[str]) -> dict[str, str]:
    """Which of the folders that lie side by side are splits, and of which kind: those that are called so, and those
    whose names differ in that word (and in numbers) alone.

    >>> kinds_among(["seg_train", "seg_test", "seg_pred"]), kinds_among(["steam_train", "test_tube"])
    ({'seg_train': 'train', 'seg_test': 'test'}, {})
    """
    names = list(names)
    found = {name: kind for name in names if (kind := kind_of(name)) is not None}
    alike: dict[tuple[str, ...], dict[str, str]] = {}
    for name in names:
        kind, others = _in_words(name)
        if kind is not None:
            alike.setdefault(others, {})[name] = kind
    for group in alike.values():
        if "train" in group.values() and len(set(group.values())) > 1:
            found |= group
    return {name: found[name] for name in names if name in found}


def _in_words(name: str) -> tuple[str | None, tuple[str, ...]]:
    """The one word of a name that names a split, and its others without numbers."""
    words = [word for word in re.split(r"[\W_\d]+", name.casefold()) if word]
    kinds = [kind for word in words if (kind := kind_of(word)) is not None]
    others = (word for word in words if kind_of(word) is None)
    rest = tuple(word for word in others if not re.fullmatch(rf"{_BESIDE}|x", word))
    return (kinds[0], rest) if len(kinds) == 1 else (None, rest)


def share(name: str) -> float:
    """A number in [0, 1) that follows from a file's name alone: the same on every machine, whatever lies beside it."""
    name = unicodedata.normalize("NFC", name)
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "big") / 2**64


def held_out_by_name(names: Sequence[str], classes: Sequence[str | None], *, every: int) -> list[bool]:
    """Which files are held out, where a folder has no split: those whose `share` is below 1 / every.

    Files that are added later do not move the others. Exceptions: a class of `every` or more files has at least one
    held out; smaller classes with `every` files together have one; and each class keeps at least one file for training.
    These exceptions act only where a class or folder would otherwise have no file in a split.
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
    if len(names) >= every and not any(out):
        several = [i for members in groups.values() if len(members) > 1 for i in members]
        if several:
            out[min(several, key=shares.__getitem__)] = True
    return out


def check_split(kind: str, spec: str, split: str) -> None:
    """Raises ValueError for a word that names no split of such a source."""
    if kind == "folder" and kind_within(split) is None:
        raise ValueError(
            f"a split of {spec} is one of its folders, as train, test, val; {split!r} names no split."
        )
    known = ("train", "test", "val") if kind == "npz" else ("train", "test")
    if kind not in ("folder", "tfds") and split not in known:
        names = " or ".join(f'"{name}"' for name in known)
        raise ValueError(f"split must be {names} for {spec}; got {split!r}.")
