"""A finished run that goes on for longer: `--epochs 8` on a run of 4.

It is allowed if only --epochs differs, and is larger, and the run has made its last step. In the middle of a run it is
refused: the curve would then mix two schedules, and nothing would show it. Schedules that depend on the number of steps
(a cosine's learning rate, BYOL's decay) are from then on those of the longer run; the steps already made stay.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

from jaxcl.config import CommonKnobs, changed_knobs, knobs_to_json, recipe_of
from jaxcl.records import read_json, write_whole
from jaxcl.train import checkpoint
from jaxcl.typing import About


class Longer(NamedTuple):
    """From which length, in epochs and training steps, to which; and the learning rate of the last step made and of the
    next."""

    epochs: tuple[float, float]
    steps: tuple[int, int]
    rates: tuple[float, float]


def longer(run_dir: str | Path, config: ModuleType, knobs: CommonKnobs, about: About) -> Longer | None:
    """What a run with a checkpoint in `run_dir` is to go on with, where --epochs is all that differs; otherwise None.

    Raises ValueError where the run is not finished, or where it is to be shorter.
    """
    run_dir, checkpoints = Path(run_dir), Path(run_dir) / "checkpoints"
    newest = checkpoint.latest(checkpoints) if (run_dir / "knobs.json").exists() else None
    if newest is None:
        return None
    saved = read_json(run_dir / "knobs.json")
    try:
        # A run that was extended, but ended before its next checkpoint, still counts as the shorter one.
        kept = (checkpoint.beside(checkpoints, newest).get("identity") or {}).get("knobs")
    except (ValueError, AttributeError):  # damaged, which is told where it is restored
        kept = None
    saved = dict(kept) if isinstance(kept, Mapping) else saved
    before = saved.get("epochs")
    if before == knobs.epochs or changed_knobs({**saved, "epochs": knobs.epochs}, knobs):
        return None
    if not isinstance(before, int | float) or isinstance(before, bool):
        return None
    old = recipe_of(config, dataclasses.replace(knobs, epochs=before), about)
    new = recipe_of(config, knobs, about)
    if new.steps <= old.steps:
        raise ValueError(
            f"{run_dir} holds a run of {before:g} epochs, {old.steps} steps; {knobs.epochs:g} would be {new.steps}. A"
            " run can be made longer, not shorter: give --epochs of it, or another --run-dir."
        )
    if newest != old.steps:
        raise ValueError(
            f"{run_dir} holds a run of {before:g} epochs that is at step {newest} of {old.steps}. Only a finished run"
            f" can be made longer: first finish it, with --epochs {before:g}."
        )
    last, following = float(old.learning_rate(newest - 1)), float(new.learning_rate(newest))
    return Longer((before, knobs.epochs), (old.steps, new.steps), (last, following))


def said(more: Longer) -> str:
    """What is to be known of it.

    >>> said(Longer((4, 8), (100, 200), (0.0, 0.05)))
    'The run of 4 epochs ended with step 100 and goes on to 8, step 200. What follows from its length is now that of 8
    epochs: the learning rate was 0 in its last step, and is 0.05 in the next.'
    """
    (epochs, to), (steps, until), (last, following) = more
    return (
        f"The run of {epochs:g} epochs ended with step {steps} and goes on to {to:g}, step {until}. What follows from"
        f" its length is now that of {to:g} epochs: the learning rate was {last:.3g} in its last step, and is"
        f" {following:.3g} in the next."
    )


def record(run_dir: str | Path, knobs: CommonKnobs, more: Longer) -> None:
    """Writes the run's new length into knobs.json, and when it got it into run.json, under "longer"."""
    run_dir = Path(run_dir)
    about = read_json(run_dir / "run.json")
    entry = {
        "epochs": list(more.epochs),
        "from_step": more.steps[0],
        "at": time.strftime("%Y-%m-%d %H:%M:%S"),
    }
    # A second start before the first checkpoint replaces the first's.
    others = [one for one in about.get("longer", []) if one["from_step"] != more.steps[0]]
    about["longer"] = [*others, entry]
    for name, text in {
        "run.json": json.dumps(about, indent=2) + "\n",
        "knobs.json": knobs_to_json(knobs),
    }.items():
        write_whole(run_dir / name, text)
