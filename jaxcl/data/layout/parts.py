"""What was found in a folder of images: its splits and its classes."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from jaxcl.data.arrays import HOLD_OUT_EVERY
from jaxcl.data.splits import kind_within


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
    order of their numbers, and a sentence or two that say how it was read; `labels_by` those about files of labels.
    `exact`: no split stands in for another."""

    root: Path
    splits: dict[str, Part]
    classes: tuple[str, ...]
    own_splits: (
        bool  # whether it has folders or a column for them; otherwise files are held out by their names
    )
    says: str
    labels_by: tuple[str, ...] = ()
    exact: bool = False

    def name_of(self, split: str) -> str:
        """Which of `splits` is asked for: by its own name or its kind. "test" is a validation split where there is no
        other, or where the test images have no labels and those of the validation split do."""
        exact = [name for name in self.splits if name.casefold() == split.casefold()]
        if exact and (self.exact or not (split == "test" and self._secret(exact[0]))):
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
        return [self.says, f"{own}/ is used as {split}, which has no labelled images."]
