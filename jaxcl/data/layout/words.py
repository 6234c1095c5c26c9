"""How a folder was read, in words."""

from __future__ import annotations

from collections.abc import Sequence, Sized
from pathlib import Path

from jaxcl.data.arrays import HOLD_OUT_EVERY
from jaxcl.data.layout.parts import Part


def listed(names: Sequence[str], most: int = 5) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def counted(classes: Sized) -> str:
    """How many classes, in words."""
    return f"{len(classes)} {'class' if len(classes) == 1 else 'classes'}"


def shown(file: Path, root: Path) -> str:
    return str(file.relative_to(root)) if root in file.parents else str(file)


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
        classes = {label for label, _ in part.files if label is not None}
        slash = "/" if part.folder != path else ""
        many = counted(classes) if classes else "no labels"
        return f"{name}{slash}: {many}, {len(part.files)} image{'s' * (len(part.files) != 1)}"

    words = [f"{path}: {'; '.join(one(name, part) for name, part in parts.items())}"]
    if not own:
        words.append(f"without folders train and test one file in {HOLD_OUT_EVERY} is held out, by its name")
    words += said
    if left:
        words.append(f"left out: {listed(left)}")
    return "; ".join(word.rstrip(".") for word in words) + "."
