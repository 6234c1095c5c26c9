"""How a folder of images is read: from its tree to its splits and classes."""

from __future__ import annotations

from pathlib import Path

from jaxcl.data.layout.classes import classes_of, untested, with_labels
from jaxcl.data.layout.parts import Layout, Part
from jaxcl.data.layout.splits import (
    held_out,
    in_classes,
    in_deepest,
    parts_of,
    split_folders,
    splits_inside,
)
from jaxcl.data.layout.words import listed, sentence, shown
from jaxcl.data.splits import kind_of
from jaxcl.data.tree import Node, tree

LAYOUTS = ("auto", "splits", "classes", "deepest")


def layout_of(path: Path, *, labels: str | None = None, layout: str = "auto") -> Layout:
    """How a folder of images is read.

    labels
        a file that says the classes, FILE or FILE:COLUMN; relative to the folder or to where the command is given.
    layout
        "splits": folders called train, test, val, ... are splits; "classes": they are classes as any others; "deepest":
        all folders that images lie in are classes, however deep; "auto": as they look, and an error where that leaves a
        doubt.
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
    if deepest:
        parts = {"": Part(path, *in_deepest(node))}
    elif folders:
        parts = parts_of(folders)
        if inside:  # no folder is a split's alone
            parts = {name: part._replace(folder=path) for name, part in parts.items()}
    else:
        files, skipped = in_classes(node if layout == "classes" else node.through())
        parts = {"": Part(path, files, skipped)}
    tables = [table for one in ancestors(root, node) for table in one.tables]
    parts, said, found = with_labels(path, parts, tables, labels)
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
    found += untested(parts, classes, said)
    if layout == "auto" and not folders and not said:
        found += deeper(node)
    left = [one.path.name for one in node.folders if folders and not inside and one not in folders.values()]
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
