"""The folders of a sweep: which run lies where, which are done, and whether they are of the program asked for."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from jaxcl import neighbors
from jaxcl.config import (
    MAY_CHANGE,
    CommonKnobs,
    changed_knobs,
    knobs_from_json,
    knobs_to_json,
    recipe_of,
    resolved,
)
from jaxcl.records import read_json, read_text
from jaxcl.runs.directory import nothing_learnt, program_of, recorded_about
from jaxcl.runs.marks import evaluated
from jaxcl.train.saved import DIVERGED
from jaxcl.typing import About


def name_of(combination: Mapping[str, str]) -> str:
    """A combination in words."""
    return ",".join(f"{knob}={value}" for knob, value in combination.items())


def folder_name(combination: Mapping[str, str]) -> str:
    """How the folder of a combination is called."""
    return name_of(combination).replace("/", "_")


def folders_of(
    sweep_dir: Path, config: str | Path, all_of: Sequence[Mapping[str, str]], knobs: Sequence[CommonKnobs]
) -> list[Path]:
    """The folder of every combination, sweep_dir/knob=value,...; or one that is there with just these knobs of the same
    program, whatever its name: knobs in another order, 0.10 for 0.1, a seed that was not named. Combinations that come
    to the same knobs are one run."""
    named = [sweep_dir / folder_name(combination) for combination in all_of]
    there = [file.parent for file in sorted(sweep_dir.glob("*/knobs.json"))]
    known: dict[Any, Path] = {}
    if any(folder not in there for folder in named):
        defaults = _defaults(knobs[0])
        for folder in there:
            try:
                if neighbors.same_program(program_of(folder), _program_now(folder, config)):
                    known.setdefault(knobs_key(defaults | read_json(folder / "knobs.json")), folder)
            except (ValueError, FileNotFoundError):  # damaged: not one to go on with
                continue
    return [
        folder
        if folder in there
        else known.setdefault(knobs_key(json.loads(knobs_to_json(resolved(own)))), folder)
        for folder, own in zip(named, knobs, strict=True)
    ]


def is_done(folder: Path, config: ModuleType, protocols: Sequence[str], baselines: Sequence[str]) -> bool:
    """Whether nothing is left to do for a run: all is evaluated, completely and after its last step, or it diverged."""
    if (folder / DIVERGED).exists():
        return True
    wanted = {(protocol, encoder) for protocol in protocols for encoder in (folder.name, *baselines)}
    return wanted <= evaluated(folder, step=last_step(folder, config))


def last_step(folder: Path, config: ModuleType) -> int | None:
    """The training step that a run ends with, by its own knobs and what it recorded of its images; None where these do
    not fit the config, or are damaged, which is told where the run is gone on with."""
    try:
        text, about = read_text(folder / "knobs.json"), recorded_about(folder)
    except (ValueError, OSError):
        return None
    return _last_step(config, text, about)


@functools.lru_cache(maxsize=4096)  # asked after every run of a sweep, of all of them
def _last_step(config: ModuleType, knobs: str, about: About) -> int | None:
    try:
        return recipe_of(config, knobs_from_json(config, knobs), about).steps
    except Exception:  # whatever a program may raise
        return None


def check_is_of(folder: Path, config: str | Path, knobs: CommonKnobs, *, done: bool) -> None:
    """Raises ValueError where the run in a folder is of other knobs or another program than are asked for, so that its
    results would stand among those of others. One that is not done may get more epochs, as by `train_run`.

    Images are not opened. Where TFDS has its data sets may differ.
    """
    if not (folder / "knobs.json").exists() or (not done and nothing_learnt(folder)):
        return
    # A knob that the run does not have came with a later jaxcl, or config; its default is what was before.
    had = _defaults(knobs) | read_json(folder / "knobs.json")
    changes = changed_knobs(had, resolved(knobs), besides=() if done else {"epochs"})
    if changes:
        raise ValueError(
            f"{folder} holds a run with other knobs:\n  "
            + "\n  ".join(changes)
            + "\nGive the knobs of that run, or choose another --run-dir."
        )
    if not neighbors.same_program(program_of(folder), _program_now(folder, config)):
        raise ValueError(
            f"{folder} holds a run of another version of {config}, or of what that imports, so its results are not of"
            f" the same program. Choose another --run-dir; or go on with that run's own config,"
            f" {folder / 'config.py'}, in place of {config}."
        )


def _program_now(folder: Path, config: str | Path) -> str:
    """A config with those files beside it that the run in a folder kept, as they are now."""
    beside = neighbors.folder_of(Path(config))
    names = [name for name in neighbors.kept(folder) if (beside / name).is_file()]
    return neighbors.program(read_text(config), {name: read_text(beside / name) for name in names})


def _defaults(knobs: CommonKnobs) -> dict[str, Any]:
    return json.loads(knobs_to_json(resolved(type(knobs)())))


def knobs_key(values: Mapping[str, Any]) -> Any:
    """Equal for equal knobs, but for those that a run may change. Another data_dir may have other images."""
    changing = MAY_CHANGE - {"data_dir"}
    return frozenset((name, _hashable(value)) for name, value in values.items() if name not in changing)


def _hashable(value: Any) -> Any:
    if isinstance(value, dict):
        return frozenset((name, _hashable(one)) for name, one in value.items())
    return tuple(map(_hashable, value)) if isinstance(value, list) else value
