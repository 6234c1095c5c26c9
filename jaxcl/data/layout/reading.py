"""How a folder of images is read: from its tree to its splits and classes."""

from __future__ import annotations

from pathlib import Path

from jaxcl.data.layout.classes import classes_by, classes_of, contradicted, untested, with_labels
from jaxcl.data.layout.parts import Layout, Part
from jaxcl.data.layout.splits import (
    held_out,
    in_classes,
    in_deepest,
    in_pieces,
    parts_of,
    raise_pieces,
    split_folders,
    splits_inside,
    without_images,
)
from jaxcl.data.layout.words import listed, sentence, shown
from jaxcl.data.splits import kind_of
from jaxcl.data.tree import Node, tree

LAYOUTS = ("auto", "splits", "classes", "deepest", "flat")


def layout_of(path: Path, *, labels: str | None = None, layout: str = "auto") -> Layout:
    """How a folder of images is read.

    labels
        a file that says the classes, FILE or FILE:COLUMN; relative to the folder or to where the command is given.
    layout
        "splits": folders called train, test, val, ... are splits; "classes": they are classes as any others; "deepest":
        all folders that images lie in are classes, however deep; "flat": no folder says a class, of a split or without
        any; "auto": as they look, and an error where that leaves a doubt.
    """
    check_layout(layout)
    root = tree(path)
    if not root.holds_images and not any(root.left_out()):
        layouts = "PATH/*.png, PATH/CLASS/*.png, or PATH/train/CLASS/*.png and PATH/test/CLASS/*.png"
        raise ValueError(f"there are no files in {path}. Expected images as {layouts}.")
    node = top(root, layout)
    deepest = layout == "deepest"
    inside = {} if deepest else splits_inside(node, layout)
    folders = {} if deepest else inside or split_folders(node, layout)
    pieces = False
    if deepest:
        parts = {"": Part(path, *in_deepest(node))}
    elif folders:
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
    labels_by = (*said, *found)
    if own:
        found += untested(parts, classes, by)
    if layout == "auto" and not folders and not said:
        found += deeper(node)
    left = [one.path.name for one in node.folders if folders and not inside and one not in folders.values()]
    nodes = {"": node} if inside or not folders else {f"{name}/": one for name, one in folders.items()}
    if bare := [start + name for start, one in nodes.items() for name in without_images(one)]:
        found.append(f"without an image: {listed(bare)}")
    says = sentence(path, parts, own, said + found, left)
    return Layout(path, parts, tuple(classes), own, says, labels_by)


def deeper(node: Node) -> list[str]:
    """Where classes hold several folders each: that these may be meant, as iNaturalist's species in its kingdoms."""
    several = [one for one in node.folders if len(one.through().folders) > 1 and not one.through().images]
    if len(node.folders) < 2 or not several:
        return []
    inner = [one.path.name for one in several[0].through().folders]
    return [
        f"{several[0].path.name} holds {listed(inner, 2)}: --layout deepest makes such folders the classes"
    ]


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
