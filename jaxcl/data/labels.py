"""Labels that stand in a text file beside the images: which file is of which class, and of which split."""

from __future__ import annotations

import csv
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from jaxcl.data.splits import kind_of

# What the column of the classes is called, the likeliest first.
LABEL_NAMES = (
    "label labels class class_name classname category target y breed species diagnosis class_id label_id category_id"
    " category_name"
).split()
SPLIT_NAMES = ("split", "set", "subset", "partition")
MOST_BYTES = 2**28


class Table(NamedTuple):
    """A text file of rows: names of files, and what is known of each."""

    path: Path
    rows: list[list[str]]


class Labels(NamedTuple):
    """What a table says of files: their numbers in the list that was asked about -> class, and -> kind of split."""

    classes: dict[int, str]
    splits: dict[int, str]
    column: str
    matched: float  # the fraction of the table's rows that name one of the files


class Names(NamedTuple):
    """Files as a table may name them: by path, by name, by name without its ending."""

    numbers: Mapping[str, int]

    @classmethod
    def of(cls, files: Sequence[Path], roots: Iterable[Path]) -> Names:
        """`roots`: the folders from which a table may write paths."""
        unique: dict[str, int] = {}
        for spell in (lambda f: f.name, lambda f: f.stem):
            counts = Counter(map(spell, files))
            unique |= {spell(f): i for i, f in enumerate(files) if counts[spell(f)] == 1}
        for root in roots:
            start = f"{root}{os.sep}"
            for i, file in enumerate(files):
                if str(file).startswith(start):
                    path = file.relative_to(root)
                    unique[path.as_posix()] = unique[path.with_suffix("").as_posix()] = i
        return cls(unique)

    def find(self, word: str) -> int | None:
        word = word.strip().replace("\\", "/").removeprefix("./")
        for spelling in (word, word.rpartition("/")[2]):
            if spelling in self.numbers:
                return self.numbers[spelling]
        return None


def read_table(path: Path) -> Table:
    """A CSV, TSV or text file: commas, tabs, semicolons or blanks are between its cells, as in its first row."""
    if path.stat().st_size > MOST_BYTES:
        raise ValueError(f"{path} has more than {MOST_BYTES >> 20} MiB, which is no table of labels.")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        text = path.read_text(encoding="latin-1")
    lines = [line for line in text.splitlines() if line.strip()]
    between = next((mark for mark in (",", "\t", ";") if lines and mark in lines[0]), None)
    if between is None:
        return Table(path, [line.split() for line in lines])
    rows = csv.reader(lines, delimiter=between)
    return Table(path, [[cell.strip() for cell in row] for row in rows])


def labels_in(table: Table, names: Names, column: str | None = None) -> Labels:
    """What a table says of the files.

    The column of the files is that with the most of their names. That of the classes is `column` (by its name, or its
    number counted from 1); or the only other one; one that is called label, class, category, ...; of a table without a
    first row of names, the one after the files'; or several of 0 and 1, of which one is 1.

    Raises ValueError where that does not decide.
    """
    width = max(map(len, table.rows), default=0)
    rows = [row + [""] * (width - len(row)) for row in table.rows]
    found = [[names.find(row[c]) for row in rows] for c in range(width)]
    hits = [sum(number is not None for number in numbers) for numbers in found]
    if not width or not max(hits):
        first = ", ".join(rows[0]) if rows else "nothing"
        raise ValueError(f"{table.path} names none of the images; its first row is: {first[:120]}.")
    of_files = hits.index(max(hits))
    headed = found[of_files][0] is None and len(rows) > 1
    header = [cell.lower() for cell in rows[0]] if headed else [str(c + 1) for c in range(width)]
    shown = rows[0] if headed else header
    body = list(zip(found[of_files], rows, strict=True))[int(headed) :]
    others = [c for c in range(width) if c != of_files]
    of_splits = None
    if headed:
        named = [c for c in others if header[c] in SPLIT_NAMES and all(kind_of(row[c]) for _, row in body)]
        of_splits = named[0] if named else None
    others = [c for c in others if c != of_splits]
    hot = len(others) > 1 and all(one_hot([row[c] for c in others]) for _, row in body)
    if column is not None:
        numbered = [str(c + 1) for c in range(width)]
        known = header if column.lower() in header else numbered
        if column.lower() not in known:
            raise ValueError(f"{table.path} has no column {column!r}; it has {', '.join(shown)}.")
        chosen, hot = known.index(column.lower()), False
    elif hot:
        chosen = -1
    else:
        chosen = column_of_classes(table, header, shown, others, of_files, headed)
    classes, splits = {}, {}
    for number, row in body:
        if number is None:
            continue
        name = next(shown[c] for c in others if float(row[c]) == 1) if hot else row[chosen]
        if name:
            classes[number] = name
        if of_splits is not None:
            splits[number] = str(kind_of(row[of_splits]))
    label = "the columns of 0 and 1" if hot else shown[chosen]
    return Labels(classes, splits, label, hits[of_files] / max(1, len(body)))


def column_of_classes(table, header, shown, others, of_files, headed) -> int:
    if len(others) == 1:
        return others[0]
    called = [c for name in LABEL_NAMES for c in others if headed and header[c] == name]
    if len(called) == 1:
        return called[0]
    if not headed and of_files + 1 in others:
        return of_files + 1
    if not others:
        raise ValueError(f"{table.path} names images and nothing beside them.")
    names = ", ".join(shown[c] for c in (called or others))
    raise ValueError(
        f"{table.path} has several columns that may be the class: {names}. Say which:"
        f" --labels {table.path}:{shown[(called or others)[0]]}"
    )


def one_hot(cells: Sequence[str]) -> bool:
    try:
        values = [float(cell) for cell in cells]
    except ValueError:
        return False
    return set(values) <= {0.0, 1.0} and sum(values) == 1


def in_order(classes: Iterable[str]) -> list[str]:
    """Classes in the order of their numbers: alphabetical, or counting where all are whole numbers.

    >>> in_order({"10", "9"}), in_order({"b", "10"})
    (['9', '10'], ['10', 'b'])
    """
    classes = set(classes)
    return sorted(classes, key=int) if all(name.isdecimal() for name in classes) else sorted(classes)
