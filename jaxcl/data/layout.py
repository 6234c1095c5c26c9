"""What the files of a folder are: which split each belongs to, of which class it is, and how that was read."""

from __future__ import annotations

import difflib
import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence, Set, Sized
from pathlib import Path
from typing import NamedTuple

from jaxcl.data.arrays import HOLD_OUT_EVERY
from jaxcl.data.labels import Labels, Names, Table, in_order, labels_in, read_table, spelled
from jaxcl.data.splits import KINDS_OF_SPLITS, held_out_by_name, kind_of, kind_within, kinds_among
from jaxcl.data.tree import Node, tree

LAYOUTS = ("auto", "splits", "classes", "flat")
# Names of folders that say which part of the images lies in them, and not what these show: images_001, part_2.
_PIECE = re.compile(
    r"(.*[\W_])?(part|fold|batch|chunk|shard|image|img|picture|photo|folder|dir|set|subset|archive|disk|vol|volume)s?"
    r"[\W_]?\d+",
    re.IGNORECASE,
)
# Files that are compared with a table, and the largest table, where folders say the classes already.
COMPARED, MOST_COMPARED_BYTES = 2000, 2**24


class Part(NamedTuple):
    """One split: the folder it lies in, (class or None, file) in the order of the paths, (what is no image, why), and
    the text files that lie between its folder and its images."""

    folder: Path
    files: list[tuple[str | None, Path]]
    skipped: list[tuple[Path, str]]
    tables: tuple[Path, ...] = ()

    @property
    def labelled(self) -> bool:
        return any(name is not None for name, _ in self.files)


class Layout(NamedTuple):
    """A folder, understood: its splits by the names they were given ("train", "Testing", "val"), its classes in the
    order of their numbers, and a sentence or two that say how it was read."""

    root: Path
    splits: dict[str, Part]
    classes: tuple[str, ...]
    own_splits: (
        bool  # whether it has folders or a column for them; otherwise files are held out by their names
    )
    says: str

    def name_of(self, split: str) -> str:
        """Which of `splits` is asked for: by its own name or its kind. "test" is a validation split where there is no
        other, or where the test images have no labels and those of the validation split do."""
        exact = [name for name in self.splits if name.casefold() == split.casefold()]
        if exact and not (split == "test" and self._secret(exact[0])):
            return exact[0]
        kind = kind_within(split)
        named = [name for name in self.splits if kind is not None and kind_within(name) == kind]
        if split == "test" and (not named or all(map(self._secret, named))):
            named = [
                name for name in self.splits if kind_within(name) == "val" and not self._secret(name)
            ] or named
        if len(named) == 1:
            return named[0]
        there = ", ".join(self.splits)
        if named:
            raise ValueError(
                f"{self.root} has several splits that {split!r} may mean: {', '.join(named)}. Say which:"
                f" --evaluate-on {named[0]}"
            )
        if split == "test":
            raise ValueError(
                f"{self.root} has a folder {there} and none for testing; expected test or val beside it. To hold out"
                f" one image in {HOLD_OUT_EVERY} instead, give --data folder:{self.splits[there].folder}"
                if len(self.splits) == 1
                else f"{self.root} has the splits {there}; got 'test'."
            )
        if split == "train" and len(self.splits) == 1:
            raise ValueError(
                f"{self.root} has a folder {there} and none to train on. Put one called train beside it; or give"
                f" --data folder:{self.splits[there].folder}, of which one image in {HOLD_OUT_EVERY} is held out"
            )
        raise ValueError(f"{self.root} has the splits {there}; got {split!r}.")

    def _secret(self, name: str) -> bool:
        return bool(self.classes) and not self.splits[name].labelled

    def part(self, split: str) -> Part:
        return self.splits[self.name_of(split)]

    def notes(self, split: str) -> list[str]:
        """How the folder was read, and which split another stands in for."""
        own = self.name_of(split)
        if kind_within(own) in (None, kind_within(split)):
            return [self.says]
        return [self.says, f"{own}/ stands in for {split}, of which there are no images with labels."]


def layout_of(path: Path, *, labels: str | None = None, layout: str = "auto") -> Layout:
    """How a folder of images is read.

    labels
        a file that says the classes, FILE or FILE:COLUMN; relative to the folder or to where the command is given.
    layout
        "splits": folders called train, test, val, ... are splits; "classes": they are classes as any others; "flat": no
        folder says a class, of a split or without any; "auto": as they look, and an error where that leaves a doubt.
    """
    check_layout(layout)
    root = tree(path)
    if not root.holds_images and not any(root.left_out()):
        layouts = "PATH/*.png, PATH/CLASS/*.png, or PATH/train/CLASS/*.png and PATH/test/CLASS/*.png"
        raise ValueError(f"there are no files in {path}. Expected images as {layouts}.")
    node = top(root, layout)
    inside = splits_inside(node, layout)
    folders = inside or split_folders(node, layout)
    pieces = False
    if folders:
        parts = parts_of(folders, flat=layout == "flat")
        if inside:  # no folder is a split's alone
            parts = {name: part._replace(folder=path) for name, part in parts.items()}
    else:
        pieces = layout == "auto" and in_pieces(node)
        files, skipped = in_classes(
            node if layout == "classes" else node.through(), flat=layout == "flat" or pieces
        )
        parts = {"": Part(path, files, skipped)}
    tables = [table for one in ancestors(root, node) for table in one.tables]
    parts, by, found = with_labels(path, parts, tables, labels)
    said = classes_by(path, by, labels, len(parts))
    if pieces and labels is None and not any(part.labelled for part in parts.values()):
        raise_pieces(node, found)
    if layout == "auto" and labels is None:
        contradicted(path, parts, tables)
    if inside:
        said = [
            f"the splits lie inside the classes, as {shown(next(iter(parts.values())).files[0][1], path)}",
            *said,
        ]
    own = bool(folders) or "" not in parts
    if not own:
        parts = held_out(node, parts[""])
    classes = classes_of(path, parts)
    if not classes:
        parts = {
            name: part._replace(files=[(None, f) for _, f in part.files]) for name, part in parts.items()
        }
    if own:
        found += untested(parts, classes, by)
    left = [one.path.name for one in node.folders if folders and not inside and one not in folders.values()]
    nodes = {"": node} if inside or not folders else {f"{name}/": one for name, one in folders.items()}
    if bare := [start + name for start, one in nodes.items() for name in without_images(one)]:
        found.append(f"without an image: {listed(bare)}")
    return Layout(path, parts, tuple(classes), own, sentence(path, parts, own, said + found, left))


def check_layout(layout: str) -> None:
    if layout not in LAYOUTS:
        raise ValueError(f"layout must be one of {', '.join(LAYOUTS)}; got {layout!r}.")


def top(root: Node, layout: str) -> Node:
    """The folder that holds the splits or the classes: wrapping folders are looked through."""
    node = root
    while len(node.folders) == 1 and not node.images:
        (only,) = node.folders
        if layout != "classes" and kind_of(only.path.name) is not None:
            break  # a split without others
        if layout == "classes" and only.images:
            break
        node = only
    return node


def ancestors(root: Node, node: Node) -> list[Node]:
    """The folders from the root to a node that was looked through to, both included."""
    found = [root]
    while found[-1].path != node.path:
        found.append(found[-1].folders[0])
    return found


# --- splits ------------------------------------------------------------------------------------------------------


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
            f" them, as {both[0].path.name}/{both[0].folders[0].path.name}, where {odd.path.name} is otherwise and what"
            " is in no split is left out; or as these classes with all that lies below them, of which one file in"
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


def counted(classes: Sized) -> str:
    """How many classes, in words."""
    return f"{len(classes)} {'class' if len(classes) == 1 else 'classes'}"


def listed(names: Sequence[str], most: int = 5) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


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


def without_images(node: Node) -> list[str]:
    """The folders beside those of the classes in which there is no image."""
    inner = node.through()
    empty = [one.path.name for one in inner.inside if isinstance(one, Node) and not one.holds_images]
    return empty if inner.folders else []


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


def held_out(node: Node, part: Part) -> dict[str, Part]:
    """A folder without splits as "train" and "test"."""
    inner = node.through() if not any(name is not None for name, _ in part.files) else node
    start = len(str(inner.path)) + 1
    names = [str(file)[start:].replace(os.sep, "/") for _, file in part.files]
    out = held_out_by_name(names, [name for name, _ in part.files], every=HOLD_OUT_EVERY)
    train = [one for one, held in zip(part.files, out, strict=True) if not held]
    test = [one for one, held in zip(part.files, out, strict=True) if held]
    return {"train": part._replace(files=train), "test": part._replace(files=test)}


# --- classes -----------------------------------------------------------------------------------------------------


def classes_of(path: Path, parts: dict[str, Part]) -> list[str]:
    """The classes of the training images, in the order of their numbers; [] where there are fewer than two, which tell
    nothing apart.

    Raises ValueError where another split has a class that never occurs among the training images.
    """
    train = [name for name in parts if kind_within(name) == "train"]
    if not train:  # nothing can be learnt from it, and what can be is said when it is asked for
        return in_order({name for part in parts.values() for name, _ in part.files if name is not None})
    found = {name for name, _ in parts[train[0]].files if name is not None}
    for split, part in parts.items():
        strange = sorted({name for name, _ in part.files if name is not None} - found)
        if strange and found:
            near = difflib.get_close_matches(strange[0], sorted(found), 1, cutoff=0.7)
            near = near or [name for name in found if name.casefold() == strange[0].casefold()]
            hint = f" Did {near[0]!r} get another name?" if near else ""
            raise ValueError(
                f"{path}: {len(strange)} of the classes of {split}/ never occur in {train[0]}/, as"
                f" {', '.join(map(repr, strange[:3]))}; those of {train[0]}/ are {listed(sorted(found))}.{hint} Every"
                " class needs training images; move those without elsewhere."
            )
    return in_order(found) if len(found) > 1 else []


def with_labels(
    path: Path, parts: dict[str, Part], tables: Sequence[Path], labels: str | None
) -> tuple[dict[str, Part], dict[str, tuple[Path, Labels]], list[str]]:
    """The splits with the classes that a text file gives them; which file that is, by split; and what was found and
    not used. A split that a file named by `labels` says nothing of stays as its folders are."""
    train = next((part for name, part in parts.items() if kind_within(name) == "train"), None)
    known = (
        frozenset(name for name, _ in train.files if name is not None) if train is not None else frozenset()
    )
    if labels is not None:
        file, column = label_file(path, labels)
        table = read_table(file)
        given = {
            name: asked(table, path, part, column, frozenset() if part is train else known)
            for name, part in parts.items()
        }
        said = [one for one in given.values() if isinstance(one, str)]
        unsuited = [one for one in said if not one.startswith(f"{file} names none")]
        if unsuited or len(said) == len(given):
            raise ValueError((unsuited or said)[0])
        named = {name: (file, one) for name, one in given.items() if isinstance(one, Labels)}
        # A split with classes of its own, of which it names a few files by chance, is not the one it is of.
        by = {
            name: (file, one)
            for name, (_, one) in named.items()
            if not parts[name].labelled or len(one.classes) >= len(parts[name].files) / 2
        } or named
        return labelled(parts, by), by, []
    by = {}
    notes: list[str] = []
    for name, part in parts.items():
        if part.labelled or not part.files:
            continue
        own = [t for t in tables if not name or kind_of(first_word(t)) in (None, kind_within(name))]
        own += [t for t in part.tables if t not in own]
        fitting: list[tuple[Path, Labels]] = []
        for file in own:
            if "submission" in file.name.lower():
                continue
            try:
                one = asked(read_table(file), path, part, None, known)
            except (OSError, ValueError):  # no table at all
                continue
            if isinstance(one, str):
                notes += [one] if "--labels" in one else []
            elif one.matched >= 0.5 and len(set(one.classes.values())) > 1:
                if one.tells:
                    fitting.append((file, one))
                else:
                    notes.append(
                        f"{shown(file, path)} has another word for nearly every image, column {one.column}:"
                        f" --labels {file}:COLUMN takes classes from it"
                    )
        if len(fitting) > 1:
            files = " and ".join(shown(file, path) for file, _ in fitting)
            raise ValueError(
                f"Several files say the classes of the images in {part.folder}: {files}. Say which: --labels"
                f" {fitting[0][0]}"
            )
        if fitting:
            by[name] = fitting[0]
    return labelled(parts, by), by, notes


def classes_by(path: Path, by: dict[str, tuple[Path, Labels]], labels: str | None, splits: int) -> list[str]:
    """What was read from text files, in words."""
    said = [
        (
            name + "/: " if name and (labels is None or len(by) < splits) else "",
            f"classes by {shown(file, path)}, {one.where}",
        )
        for name, (file, one) in by.items()
    ]
    return list(dict.fromkeys("".join(words) for words in said))


def contradicted(path: Path, parts: dict[str, Part], tables: Sequence[Path]) -> None:
    """Raises ValueError where the folders are classes and a table has other classes for the same images."""
    for part in parts.values():
        files = [one for one in part.files if one[0] is not None]
        files = files[:: -(-len(files) // COMPARED) or 1]
        for file in tables if files else ():
            if "submission" in file.name.lower() or file.stat().st_size > MOST_COMPARED_BYTES:
                continue
            try:
                one = asked(read_table(file), path, part._replace(files=files), None)
            except (OSError, ValueError):
                continue
            if isinstance(one, str) or len(one.classes) < len(files) / 2 or not one.tells:
                continue
            pairs = {(files[i][0], name) for i, name in one.classes.items()}
            if not (len(pairs) == len({a for a, _ in pairs}) == len({b for _, b in pairs})):
                folders, words = (sorted({str(pair[k]) for pair in pairs}) for k in (0, 1))
                raise ValueError(
                    f"{path} can be read in two ways: with the folders as {counted(folders)}, {listed(folders)}; or"
                    f" with those of {shown(file, path)}, {one.where}: {listed(words)}. Say which: --layout classes or"
                    f" --labels {file}"
                )


def asked(
    table: Table, path: Path, part: Part, column: str | None, known: Set[str] = frozenset()
) -> Labels | str:
    """What a table says of a split, or why it says nothing."""
    files = [file for _, file in part.files]
    folders = {part.folder, path, table.path.parent, *(file.parent for file in files[:1])}
    try:
        return labels_in(table, Names.of(files, folders), column, known=known)
    except ValueError as error:
        return str(error)


def labelled(parts: dict[str, Part], by: dict[str, tuple[Path, Labels]]) -> dict[str, Part]:
    """The splits with the classes of some of them by tables; a folder without splits may become several, by a column
    of the table."""
    made: dict[str, Part] = {}
    for name, part in parts.items():
        if name not in by:
            made[name] = part
            continue
        file, labels = by[name]
        why = f"{file.name} does not say its class"
        without = [(f, why) for i, (_, f) in enumerate(part.files) if i not in labels.classes]
        skipped = [one for one in part.skipped if one[0] != file] + without
        numbered = sorted(labels.classes)
        if name or not labels.splits:
            files: list[tuple[str | None, Path]] = [(labels.classes[i], part.files[i][1]) for i in numbered]
            made[name] = part._replace(files=files, skipped=skipped)
            continue
        for i in numbered:
            one = made.setdefault(labels.splits[i], Part(part.folder, [], []))
            one.files.append((labels.classes[i], part.files[i][1]))
        made[next(iter(made))].skipped.extend(skipped)
        made = {split: made[split] for split in ("train", "test", "val") if split in made}
    return made


def first_word(file: Path) -> str:
    return file.stem.replace("-", "_").split("_")[0]


def label_file(path: Path, labels: str) -> tuple[Path, str | None]:
    """FILE or FILE:COLUMN, relative to the data or to here."""
    name, _, column = labels.rpartition(":")
    for word, chosen in ((labels, None), (name, column)):
        for file in (Path(word).expanduser(), path / word) if word else ():
            if file.is_file():
                return file, chosen
    raise FileNotFoundError(f"there is no file {labels} of labels, neither here nor in {path}.")


def shown(file: Path, root: Path) -> str:
    return str(file.relative_to(root)) if root in file.parents else str(file)


def untested(parts: dict[str, Part], classes: Sequence[str], by: dict[str, tuple[Path, Labels]]) -> list[str]:
    """What to do where training images have labels and no others do, as in a competition."""
    held = [name for name in parts if kind_within(name) != "train"]
    train = next((name for name in parts if kind_within(name) == "train"), None)
    if not classes or not held or train is None or any(parts[name].labelled for name in held):
        return []
    labels = f" --labels {by[train][0]}" if train in by else ""
    return [
        f"{', '.join(held)} cannot be evaluated on, having no labels, but a tenth of the training images can: --data"
        f" folder:{parts[train].folder}{labels} holds it out"
    ]


# --- in words ----------------------------------------------------------------------------------------------------


def sentence(
    path: Path,
    parts: dict[str, Part],
    own: bool,
    said: Sequence[str],
    left: Sequence[str],
) -> str:
    """How a folder was read, for people to check.

    "train/: 3 classes, 120 images; test/: 3 classes, 30 images"
    """

    def one(name: str, part: Part) -> str:
        n = len({label for label, _ in part.files if label is not None})
        slash = "/" if part.folder != path else ""
        many = f"{n} {'class' if n == 1 else 'classes'}" if n else "no labels"
        return f"{name}{slash}: {many}, {len(part.files)} image{'s' * (len(part.files) != 1)}"

    words = [f"{path}: {'; '.join(one(name, part) for name, part in parts.items())}"]
    if not own:
        words.append(f"without folders train and test one file in {HOLD_OUT_EVERY} is held out, by its name")
    words += said
    if left:
        words.append(f"left out: {listed(left)}")
    return "; ".join(word.rstrip(".") for word in words) + "."
