"""Which class each image of a split has: by its folder or by a text file."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path

from jaxcl.data.labels import Labels, Names, Table, in_order, labels_in, read_table
from jaxcl.data.layout.parts import Part
from jaxcl.data.layout.words import listed, shown
from jaxcl.data.splits import kind_of


def classes_of(path: Path, parts: dict[str, Part]) -> list[str]:
    """The classes of the training images, in the order of their numbers; [] where there are fewer than two, which tell
    nothing apart.

    Raises ValueError where another split has a class that never occurs among the training images.
    """
    train = [name for name in parts if kind_of(name) == "train"]
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
) -> tuple[dict[str, Part], list[str], list[str]]:
    """The splits with the classes that a text file gives them; and what was read, and what was found and not used."""
    if labels is not None:
        file, column = label_file(path, labels)
        table = read_table(file)
        given = {name: asked(table, path, part, column) for name, part in parts.items()}
        if all(isinstance(one, str) for one in given.values()):
            raise ValueError(str(next(iter(given.values()))))
        used = {name: one for name, one in given.items() if isinstance(one, Labels)}
        made: dict[str, Part] = {}
        for name, part in parts.items():
            if name in used:
                made |= labelled(name, part, used[name], file)
            else:
                made[name] = part._replace(files=[(None, f) for _, f in part.files])
        return made, [f"classes by {shown(file, path)}, column {next(iter(used.values())).column}"], []
    made = {}
    said: list[str] = []
    notes: list[str] = []
    for name, part in parts.items():
        if part.labelled or not part.files:
            made[name] = part
            continue
        own = [t for t in tables if not name or kind_of(first_word(t)) in (None, kind_of(name))]
        own += [t for t in part.tables if t not in own]
        fitting: list[tuple[Path, Labels]] = []
        for file in own:
            if "submission" in file.name.lower():
                continue
            try:
                one = asked(read_table(file), path, part, None)
            except (OSError, ValueError):  # no table at all
                continue
            if isinstance(one, Labels) and one.matched >= 0.5 and len(set(one.classes.values())) > 1:
                fitting.append((file, one))
            elif isinstance(one, str) and "--labels" in one:
                notes.append(one)
        if len(fitting) > 1:
            files = " and ".join(shown(file, path) for file, _ in fitting)
            raise ValueError(
                f"Several files say the classes of the images in {part.folder}: {files}. Say which: --labels"
                f" {fitting[0][0]}"
            )
        if not fitting:
            made[name] = part
            continue
        ((file, one),) = fitting
        made |= labelled(name, part, one, file)
        said.append(f"{name + '/: ' if name else ''}classes by {shown(file, path)}, column {one.column}")
    return made, said, notes


def asked(table: Table, path: Path, part: Part, column: str | None) -> Labels | str:
    """What a table says of a split, or why it says nothing."""
    files = [file for _, file in part.files]
    folders = {part.folder, path, table.path.parent, *(file.parent for file in files[:1])}
    try:
        return labels_in(table, Names.of(files, folders), column)
    except ValueError as error:
        return str(error)


def labelled(name: str, part: Part, labels: Labels, file: Path) -> dict[str, Part]:
    """A split with classes; a folder without splits may become several, by a column of the table."""
    why = f"{file.name} does not say its class"
    without = [(f, why) for i, (_, f) in enumerate(part.files) if i not in labels.classes]
    skipped = [one for one in part.skipped if one[0] != file] + without
    numbered = sorted(labels.classes)
    if name or not labels.splits:
        files: list[tuple[str | None, Path]] = [(labels.classes[i], part.files[i][1]) for i in numbered]
        return {name: part._replace(files=files, skipped=skipped)}
    made: dict[str, Part] = {}
    for i in numbered:
        one = made.setdefault(labels.splits[i], Part(part.folder, [], []))
        one.files.append((labels.classes[i], part.files[i][1]))
    made[next(iter(made))].skipped.extend(skipped)
    return {split: made[split] for split in ("train", "test", "val") if split in made}


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


def untested(parts: dict[str, Part], classes: Sequence[str], said: Sequence[str]) -> list[str]:
    """What to do where training images have labels and no others do, as in a competition."""
    held = [name for name in parts if kind_of(name) != "train"]
    train = next((part for name, part in parts.items() if kind_of(name) == "train"), None)
    if not classes or not held or train is None or any(parts[name].labelled for name in held):
        return []
    labels = " with --labels FILE" if said else ""
    return [
        f"{', '.join(held)} cannot be evaluated on, having no labels, but a tenth of the training images can: --data"
        f" folder:{train.folder}{labels} holds it out"
    ]
