"""The files of a folder and of all folders below it, listed once."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from jaxcl.data.decode import reason

# By their names no images; a name that says nothing is opened.
NO_IMAGES = frozenset(
    ".csv .tsv .txt .json .jsonl .xml .yaml .yml .md .rst .html .htm .pdf .py .ipynb .zip .gz .tar .tgz .bz2 .7z .rar"
    " .npy .npz .mat .h5 .hdf5 .pkl .db .ini .log .doc .docx .xls .xlsx .mp4 .avi .mov".split()
)
# What operating systems leave behind.
LITTER = frozenset(
    (
        "__macosx",
        "thumbs.db",
        "desktop.ini",
        "$recycle.bin",
        "system volume information",
        "lost+found",
        "@eadir",
    )
)


class Node(NamedTuple):
    """A folder: `inside`, in the order of the names, holds folders (Node) and images (Path); `tables` those files that
    may say what the images are; `skipped` what is no image, (path, why)."""

    path: Path
    inside: tuple[Node | Path, ...]
    tables: tuple[Path, ...]
    skipped: tuple[tuple[Path, str], ...]

    @property
    def folders(self) -> list[Node]:
        """Those with images in them or further down."""
        return [one for one in self.inside if isinstance(one, Node) and one.holds_images]

    @property
    def images(self) -> list[Path]:
        """Those that lie in the folder itself."""
        return [one for one in self.inside if isinstance(one, Path)]

    @property
    def holds_images(self) -> bool:
        return any(isinstance(one, Path) or one.holds_images for one in self.inside)

    def files(self) -> Iterator[Path]:
        """All images, depth first in the order of the names."""
        for one in self.inside:
            if isinstance(one, Path):
                yield one
            else:
                yield from one.files()

    def left_out(self) -> Iterator[tuple[Path, str]]:
        """All that is no image."""
        yield from self.skipped
        for one in self.inside:
            if isinstance(one, Node):
                yield from one.left_out()

    def through(self) -> Node:
        """The folder that matters: where one holds a single folder and no image beside it, that one."""
        node = self
        while len(node.folders) == 1 and not node.images:
            node = node.folders[0]
        return node


def tree(folder: Path, above: tuple[str, ...] = ()) -> Node:
    """All below a folder; hidden files are not seen. Links are followed, but not in a circle."""
    real = os.path.realpath(folder)
    if real in above:
        return Node(folder, (), (), ((folder, "a link to a folder above it"),))
    try:
        with os.scandir(folder) as listed:
            entries = sorted(
                (e for e in listed if not e.name.startswith(".") and e.name.lower() not in LITTER),
                key=lambda e: e.name,
            )
    except OSError as error:
        if not above:
            raise
        return Node(folder, (), (), ((folder, reason(error)),))
    inside: list[Node | Path] = []
    tables, skipped = [], []
    for entry in entries:
        path = Path(entry.path)
        suffix = os.path.splitext(entry.name)[1].lower()
        shown = os.fsencode(entry.name).decode("utf-8", "backslashreplace")
        if shown != entry.name:  # what is written of a run could not name it
            skipped.append((folder / shown, "its name is not UTF-8; rename it"))
            continue
        try:
            is_folder, is_file = entry.is_dir(), entry.is_file()
        except OSError as error:  # a link to where we may not look
            skipped.append((path, reason(error)))
            continue
        if is_folder:
            inside.append(tree(path, (*above, real)))
        elif not is_file:
            skipped.append((path, "a broken link, or no regular file"))
        elif suffix in NO_IMAGES:
            skipped.append((path, "no image in a known format"))
            if suffix in (".csv", ".tsv", ".txt"):
                tables.append(path)
        else:
            inside.append(path)
    return Node(folder, tuple(inside), tuple(tables), tuple(skipped))
