"""Which folders are splits, and which file belongs to which."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from jaxcl.data.arrays import HOLD_OUT_EVERY
from jaxcl.data.labels import spelled
from jaxcl.data.layout.parts import Part
from jaxcl.data.layout.words import counted, listed
from jaxcl.data.splits import KINDS_OF_SPLITS, held_out_by_name, kind_of, kind_within, kinds_among
from jaxcl.data.tree import Node

# Names of folders that say which part of the images lies in them, and not what these show: images_001, part_2.
_PIECE = re.compile(
    r"(.*[\W_])?(part|fold|batch|chunk|shard|image|img|picture|photo|folder|dir|set|subset|archive|disk|vol|volume)s?"
    r"[\W_]?\d+",
    re.IGNORECASE,
)


def split_folders(node: Node, layout: str) -> dict[str, Node]:
    """The folders that are splits, by their names; none where all are classes.

    Raises ValueError where both can be meant.
    """
    folders = {one.path.name: one for one in node.folders}
    of = kinds_among(folders)
    named = {name: folders[name] for name in of}
    kinds = Counter(of.values())
    others = [name for name in folders if name not in named]
    if layout == "classes" or not named:
        if layout == "splits":
            raise ValueError(
                f"{node.path} has no folders that are named as splits (train, test, val, ...); it has"
                f" {listed(others) or 'none'}."
            )
        return {}
    if kinds["train"] > 1:
        twice = [name for name in named if of[name] == "train"]
        raise ValueError(
            f"{node.path} has several folders for training, {listed(twice)}. Either one of them is meant, then"
            " rename or move the others; or they are classes: --layout classes"
        )
    held = len(named) > kinds["train"]
    if layout == "flat":
        return named if kinds["train"] and held else {}
    deep = all(one.through().folders for name, one in named.items() if of[name] == "train")
    flat_others = [name for name in others if not folders[name].folders]
    if layout == "auto" and not kinds["train"]:
        if len(named) == 1 and others:
            return {}  # a class that happens to be called so
        if len(named) == 1:
            return named  # which features can be computed of, if nothing can be learnt from it
        raise_ambiguous(node, named, others)
    if layout == "auto" and others and not held:
        if not deep:
            return {}  # a class with pictures of trains
        raise_ambiguous(node, named, others)
    if layout == "auto" and flat_others and not deep and held:
        raise_ambiguous(node, named, others)
    return named


def splits_inside(node: Node, layout: str) -> dict[str, Node]:
    """The splits where each class has its own, CLASS/train/*.png and CLASS/test/*.png: every split as a folder of the
    classes. None where it is not so.

    Raises ValueError where only some of the folders look like that.
    """
    if layout == "classes" or len(node.folders) < 2 or any(kind_of(one.path.name) for one in node.folders):
        return {}

    def kinds(one: Node) -> set[str | None]:
        return {kind_of(inner.path.name) for inner in one.folders}

    both = [one for one in node.folders if "train" in kinds(one) and len(kinds(one) - {None}) > 1]
    if not both:
        return {}
    names = [one.path.name for one in node.folders]
    plain = all(None not in kinds(one) and "train" in kinds(one) and not one.images for one in node.folders)
    if layout == "auto" and not plain:
        odd = next(one for one in node.folders if one not in both or None in kinds(one) or one.images)
        raise ValueError(
            f"{node.path} can be read in two ways: as {len(names)} classes, {listed(names)}, with the splits inside"
            f" them, as {both[0].path.name}/{both[0].folders[0].path.name}, where {odd.path.name} differs and"
            " files in no split are left out; or as these classes with all files below them, of which one in"
            f" {HOLD_OUT_EVERY} is held out. Say which: --layout splits or --layout classes"
        )
    found: dict[str, list[Node]] = {}
    called: dict[str, str] = {}
    for one in node.folders:
        for inner in one.folders:
            kind = kind_of(inner.path.name)
            if kind is not None:
                name = called.setdefault(kind, inner.path.name)
                found.setdefault(name, []).append(Node(one.path, inner.inside, (), inner.skipped))
    return {name: Node(node.path, tuple(classes), (), ()) for name, classes in found.items()}


def raise_ambiguous(node: Node, named: dict[str, Node], others: Sequence[str]) -> None:
    names = [*named, *others]
    rest = f", and {listed(others)} left out" if others else ""
    without = "" if any(kind_within(name) == "train" for name in named) else " (without one to train on)"
    raise ValueError(
        f"{node.path} can be read in two ways: as the splits {listed(list(named))}{without}{rest}; or as"
        f" {counted(names)}, {listed(names)}. Say which: --layout splits or --layout classes"
    )


def in_pieces(node: Node) -> bool:
    """Whether the folders are so named that they hold parts of the same images, as images_001 and images_002."""
    names = [one.path.name for one in node.folders]
    stems = {re.sub(r"\d+$", "", name).casefold() for name in names}
    return len(names) > 1 and len(stems) == 1 and all(map(_PIECE.fullmatch, names))


def raise_pieces(node: Node, found: Sequence[str]) -> None:
    names = [one.path.name for one in node.folders]
    more = "".join(f" {one.rstrip('.')}." for one in found)
    raise ValueError(
        f"{node.path} can be read in two ways: as {counted(names)}, {listed(names)}; or as one folder in"
        f" {len(names)} pieces, whose names say nothing of the images. Say which: --layout classes or --layout"
        f" flat.{more}"
    )


def without_images(node: Node) -> list[str]:
    """The folders beside those of the classes in which there is no image."""
    inner = node.through()
    empty = [one.path.name for one in inner.inside if isinstance(one, Node) and not one.holds_images]
    return empty if inner.folders else []


def parts_of(folders: dict[str, Node], *, flat: bool = False) -> dict[str, Part]:
    """The splits with their classes. A folder that is the only one of its split is a class only if the training images
    have it among several."""
    train = next((name for name in folders if kind_within(name) == "train"), None)
    known: set[str] = set()
    if train is not None:
        known = {spelled(one.path.name) for one in folders[train].through().folders}
        chain = names_on_the_way(folders[train])
        if (
            not known
            and chain
            and any(
                chain[-1] in [spelled(one.path.name) for one in other.through().folders]
                for other in folders.values()
            )
        ):
            known = {chain[-1]}  # the one class of which there are training images
    parts = {}
    for name, node in folders.items():
        inner, beside = node, node.tables
        # A wrapping folder (images/) is looked through, a class is not.
        while (
            len(inner.folders) == 1 and not inner.images and spelled(inner.folders[0].path.name) not in known
        ):
            inner = inner.folders[0]
            beside += inner.tables
        files, skipped = in_classes(inner, keep=known, flat=flat)
        parts[name] = Part(node.path, files, skipped, beside)
    order = list(KINDS_OF_SPLITS)
    return dict(sorted(parts.items(), key=lambda item: order.index(str(kind_within(item[0])))))


def names_on_the_way(node: Node) -> list[str]:
    names = []
    while len(node.folders) == 1 and not node.images:
        node = node.folders[0]
        names.append(spelled(node.path.name))
    return names


def in_classes(
    node: Node, keep: Iterable[str] = (), *, flat: bool = False
) -> tuple[list[tuple[str | None, Path]], list[tuple[Path, str]]]:
    """(class or None, file) of a folder, and what is left out: its folders are classes if there are several (or if the
    only one is a class to `keep`)."""
    folders, skipped = node.folders, list(node.left_out())
    if flat or (len(folders) < 2 and not {spelled(one.path.name) for one in folders} & set(keep)):
        return [(None, file) for file in node.files()], skipped
    files: list[tuple[str | None, Path]] = []
    for one in folders:
        files += [(spelled(one.path.name), file) for file in one.files()]
    skipped += [(path, "lies beside the folders of the classes, so it has no label") for path in node.images]
    return files, skipped


def in_deepest(root: Node) -> tuple[list[tuple[str | None, Path]], list[tuple[Path, str]]]:
    """The same where every folder that images lie in is a class, however deep, as Birds/202 and Fungi/7 of iNaturalist:
    called by its own name (202) where that is the only one, otherwise by its path (Birds/202)."""

    def walked(node: Node) -> Iterator[Node]:
        if node.images:
            yield node
        for one in node.folders:
            yield from walked(one)

    found = [node for node in walked(root) if node.path != root.path]
    times = Counter(node.path.name for node in found)
    files: list[tuple[str | None, Path]] = []
    for node in found:
        path = node.path.relative_to(root.path).as_posix()
        files += [
            (spelled(node.path.name if times[node.path.name] == 1 else path), file) for file in node.images
        ]
    beside = [(path, "lies beside the folders of the classes, so it has no label") for path in root.images]
    return files, [*root.left_out(), *beside]


def held_out(node: Node, part: Part) -> dict[str, Part]:
    """A folder without splits as "train" and "test"."""
    inner = node.through() if not any(name is not None for name, _ in part.files) else node
    start = len(str(inner.path)) + 1
    names = [str(file)[start:].replace(os.sep, "/") for _, file in part.files]
    out = held_out_by_name(names, [name for name, _ in part.files], every=HOLD_OUT_EVERY)
    train = [one for one, held in zip(part.files, out, strict=True) if not held]
    test = [one for one, held in zip(part.files, out, strict=True) if held]
    return {"train": part._replace(files=train), "test": part._replace(files=test)}
