"""Labels that stand in a text file beside the images: which file is of which class, and of which split."""

from __future__ import annotations

import csv
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence, Set
from pathlib import Path
from typing import NamedTuple

from jaxcl.data.splits import kind_of

# What the column of the classes is called, without what is between its words, the likeliest first.
LABEL_NAMES = (
    "label labels class classname category target y breed species diagnosis classid labelid categoryid labelname"
    " categoryname"
).split()
SPLIT_NAMES = ("split", "set", "subset", "partition", "dataset", "fold", "phase", "usage")
# 1 or true in a column of this name is the split, 0 or false the training images; or the other way round.
FLAGS = {"istrain": "train", "istraining": "train", "istest": "test", "isval": "val", "isvalid": "val"}
YES, NO = ("1", "1.0", "true", "yes"), ("0", "0.0", "false", "no")
MOST_BYTES = 2**28


class Table(NamedTuple):
    """A text file of rows: names of files, and what is known of each."""

    path: Path
    rows: list[list[str]]


class Labels(NamedTuple):
    """What a table says of files: their numbers in the list that was asked about -> class, and -> kind of split."""

    classes: dict[int, str]
    splits: dict[int, str]
    column: str  # "": several of 0 and 1
    matched: float  # the fraction of the table's rows that name one of the files

    @property
    def where(self) -> str:
        return f"column {self.column}" if self.column else "the columns of 0 and 1"

    @property
    def tells(self) -> bool:
        """Whether classes are shared by images: what differs in nearly each is a description, or a number."""
        return len(set(self.classes.values())) <= len(self.classes) / 2 or len(self.classes) < 10


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
        return cls({spelled(name): number for name, number in unique.items()})

    def find(self, word: str) -> int | None:
        word = spelled(word.strip().replace("\\", "/").removeprefix("./"))
        name = word.rpartition("/")[2]
        stem, dot, ending = name.rpartition(".")
        # Images that were converted have another ending than in their table.
        converted = stem if dot and ending.isalnum() and not ending.isdecimal() else word
        for spelling in (word, name, converted):
            if spelling in self.numbers:
                return self.numbers[spelling]
        return None


def spelled(name: str) -> str:
    """A name in one spelling: macOS writes é as two characters, others as one."""
    return unicodedata.normalize("NFC", name)


def read_table(path: Path) -> Table:
    """A CSV, TSV or text file: commas, tabs, semicolons or blanks are between its cells, as in its first row."""
    if path.stat().st_size > MOST_BYTES:
        raise ValueError(f"{path} has more than {MOST_BYTES >> 20} MiB, which is no table of labels.")
    with path.open("rb") as file:
        start = file.read(2)
    try:
        text = path.read_text(encoding="utf-16" if start in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")
    except UnicodeDecodeError:
        text = path.read_text(encoding="latin-1")
    lines = [line for line in text.splitlines() if line.strip()]
    between = next((mark for mark in (",", "\t", ";") if lines and mark in lines[0]), None)
    if between is None:
        return Table(path, [line.split() for line in lines])
    rows = csv.reader(lines, delimiter=between)
    return Table(path, [[cell.strip() for cell in row] for row in rows])


def labels_in(
    table: Table, names: Names, column: str | None = None, *, known: Set[str] = frozenset()
) -> Labels:
    """What a table says of the files.

    Files are in the column that holds the most of their names. Classes are in `column` (a name, or a number counted
    from 1) if it is given. Otherwise they are in the only column whose words are all among the `known` classes, or
    begin with one (ImageNet's "n01440764 85 1 499 272"); or in the only other column; or in one that is called label,
    class, category, ...; or, in a table without a header, in the column after the files; or in several columns of 0 and
    1 with a single 1 in each row (one-hot).

    Raises ValueError where that does not decide, and where images have several classes.
    """
    width = max(map(len, table.rows), default=0)
    rows = [row + [""] * (width - len(row)) for row in table.rows]
    # Some rows tell which column it is; all, where they tell nothing.
    for some in (rows[:: -(-len(rows) // 1000) or 1], rows):
        hits = [sum(names.find(row[c]) is not None for row in some) for c in range(width)]
        if any(hits):
            break
    else:
        first = ", ".join(rows[0]) if rows else "nothing"
        raise ValueError(f"{table.path} names none of the images; its first row is: {first[:120]}.")
    of_files = hits.index(max(hits))
    numbers = [names.find(row[of_files]) for row in rows]
    headed = numbers[0] is None and len(rows) > 1
    header = [plain(cell) for cell in rows[0]] if headed else [str(c + 1) for c in range(width)]
    shown = rows[0] if headed else header
    body = list(zip(numbers, rows, strict=True))[int(headed) :]
    others = [c for c in range(width) if c != of_files]
    of_splits = None
    if headed:
        kinds = {c: [split_in(header[c], row[c]) for _, row in body] for c in others}
        named = [c for c, found in kinds.items() if all(found)]
        of_splits = named[0] if named else None
    others = [c for c in others if c != of_splits]
    hot = len(others) > 1 and all(one_hot([row[c] for c in others]) for _, row in body)

    def among_known(c: int) -> bool:
        return all(
            row[c] in known or row[c].split(" ")[0] in known for number, row in body if number is not None
        )

    if column is not None:
        numbered = [str(c + 1) for c in range(width)]
        called = [cell.lower() for cell in shown]
        found_in = called if column.lower() in called else numbered
        if column.lower() not in found_in:
            raise ValueError(f"{table.path} has no column {column!r}; it has {', '.join(shown)}.")
        chosen, hot = found_in.index(column.lower()), False
    elif known and len(fitting := [c for c in others if among_known(c)]) == 1:
        chosen, hot = fitting[0], False
    elif hot:
        chosen = -1
    else:
        chosen = column_of_classes(table, header, shown, others, of_files, headed, body)
    classes: dict[int, str] = {}
    splits: dict[int, str] = {}
    twice: dict[int, str] = {}
    for number, row in body:
        if number is None:
            continue
        name = next(shown[c] for c in others if float(row[c]) == 1) if hot else row[chosen]
        if known and name not in known and name.split(" ")[0] in known:
            name = name.split(" ")[0]
        if name:
            if classes.setdefault(number, spelled(name)) != spelled(name):
                twice.setdefault(number, f"{row[of_files]}, {classes[number]} and {name}")
        if of_splits is not None:
            splits[number] = str(split_in(header[of_splits], row[of_splits]))
    matched = sum(number is not None for number in numbers) / max(1, len(body))
    if twice:
        raise ValueError(
            f"{table.path} gives {len(twice)} of the images several classes, as {next(iter(twice.values()))}. Keep one"
            " row an image, or name another column: --labels FILE:COLUMN"
        )
    return Labels(classes, splits, "" if hot else shown[chosen], matched)


def plain(cell: str) -> str:
    """The name of a column without what is between its words: Class ID, class_id and ClassId are the same."""
    return re.sub(r"[\W_]+", "", cell).lower()


def split_in(header: str, cell: str) -> str | None:
    """The kind of split that a cell names in a column of this name."""
    if header in FLAGS:
        own = FLAGS[header]
        other = "test" if own == "train" else "train"
        return own if cell.lower() in YES else other if cell.lower() in NO else None
    return kind_of(cell) if header in SPLIT_NAMES else None


def column_of_classes(table, header, shown, others, of_files, headed, body) -> int:
    if len(others) == 1:
        return others[0]
    called = [c for name in LABEL_NAMES for c in others if headed and header[c] == name]
    if called and all(same_classes(body, called[0], c) for c in called):
        words = [c for c in called if not all(row[c].isdecimal() for _, row in body)]
        return (words or called)[0]
    if not headed and of_files + 1 in others:
        return of_files + 1
    if not others:
        raise ValueError(f"{table.path} names images and nothing beside them.")
    names = ", ".join(shown[c] for c in (called or others))
    raise ValueError(
        f"{table.path} has several columns that may be the class: {names}. Say which:"
        f" --labels {table.path}:{shown[(called or others)[0]]}"
    )


def same_classes(body: Sequence[tuple[int | None, list[str]]], a: int, b: int) -> bool:
    """Whether two columns tell the same images apart, as a class's number and its name do."""
    pairs = {(row[a], row[b]) for number, row in body if number is not None}
    return len(pairs) == len({one for one, _ in pairs}) == len({one for _, one in pairs})


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
