"""Which class each image of a split has: by its folder or by a text file."""

from __future__ import annotations

import difflib
from collections.abc import Sequence, Set
from pathlib import Path

from jaxcl.data.labels import Labels, Names, Table, in_order, labels_in, read_table
from jaxcl.data.layout.parts import Part
from jaxcl.data.layout.words import counted, listed, shown
from jaxcl.data.splits import kind_of, kind_within

# Files that are compared with a table, and the largest table, where folders say the classes already.
COMPARED, MOST_COMPARED_BYTES = 2000, 2**24


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
            hint = f" Was {near[0]!r} renamed?" if near else ""
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
