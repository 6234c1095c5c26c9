"""How a run stands, also while it trains: read from its directory alone, without its config, its images or a device."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from jaxcl import owner
from jaxcl.records import knobs_file, read_json
from jaxcl.train.checkpoint import steps as saved_steps
from jaxcl.train.log import read_metrics, read_warnings
from jaxcl.train.saved import DIVERGED

SILENT = 600.0  # seconds without a line, after which a run that trains is said to be silent


class Status(NamedTuple):
    """The state of a run, as its directory shows it. A field is None if it is not known.

    state            "training", "done", "stopped", "diverged" or "not begun"
    where            host and process that train in it
    step, steps      the newest in its log, and how many it is to make
    loss, images_per_second, input_wait     of the newest record that has them
    seconds_left     at that pace
    saved            the newest checkpoint's step
    seconds_silent   since the newest line of the log
    knn              the newest online kNN accuracy, percent
    warnings         what the run was warned of, each with its step
    """

    name: str
    state: str
    where: str | None
    step: int | None
    steps: int | None
    loss: float | None
    images_per_second: float | None
    input_wait: float | None
    seconds_left: float | None
    saved: int | None
    seconds_silent: float | None
    knn: float | None
    warnings: tuple[tuple[int, str], ...] = ()


def status(run_dir: str | Path, *, now: float | None = None) -> Status:
    """How the run in a directory stands. Raises FileNotFoundError where there is none, ValueError where a file of it is
    damaged. `now`, seconds since 1970, is the present unless given."""
    run_dir = Path(run_dir)
    knobs, who = read_json(knobs_file(run_dir)), owner.owner(run_dir)
    records = read_metrics(run_dir)
    newest: dict[str, Any] = {}
    for record in records[-50:]:
        newest |= record
    step = records[-1]["step"] if records else None
    steps = _steps(knobs, newest)
    saved = max(saved_steps(run_dir / "checkpoints"), default=None)
    speed, batch = newest.get("images_per_second"), knobs.get("batch_size")
    left = None
    if steps and step and speed and batch:
        left = (steps - step) * batch / speed
    if (run_dir / DIVERGED).exists():
        state = "diverged"
    elif who is not None:
        state = "training"
    elif step is None and saved is None:
        state = "not begun"
    else:
        state = "done" if steps is not None and saved is not None and saved >= steps else "stopped"
    written = records[-1].get("time") if records else None
    return Status(
        name=run_dir.name,
        state=state,
        where=None if who is None else f"{who.get('host')}, process {who.get('process')}",
        step=None if step is None else int(step),
        steps=steps,
        loss=newest.get("loss"),
        images_per_second=speed,
        input_wait=newest.get("input_wait"),
        seconds_left=left if state in ("training", "stopped") else None,
        saved=saved,
        seconds_silent=None if written is None else max(0.0, (time.time() if now is None else now) - written),
        knn=newest.get("knn_accuracy"),
        warnings=tuple(read_warnings(run_dir)),
    )


def _steps(knobs: Mapping[str, Any], record: Mapping[str, Any]) -> int | None:
    """How many steps the run is to make: so many as its epochs are, at the rate of the log."""
    epoch, step, epochs = record.get("epoch"), record.get("step"), knobs.get("epochs")
    if not (epoch and step and epochs) or not math.isfinite(epoch):
        return None
    # An epoch in the log counts images, one of --epochs whole batches: where the last of an epoch is incomplete it is
    # left out. So it is whole batches an epoch, times the epochs.
    batches = step / epoch
    whole = math.floor(batches + 1e-6)
    return max(int(step), round(epochs * whole)) if whole else None


def runs_in(directory: str | Path) -> list[Path]:
    """The directory itself where it is a run's; else the run directories in it, as a sweep leaves them."""
    directory = Path(directory)
    if (directory / "knobs.json").exists():
        return [directory]
    found = sorted(path.parent for path in directory.glob("*/knobs.json"))
    if not found:
        raise FileNotFoundError(
            f"{directory} is neither a run directory nor that of a sweep: no knobs.json is in it or in a folder of it."
        )
    return found


def lines(one: Status) -> list[str]:
    """A status in words: a line, and one for each warning."""
    at = "no step yet" if one.step is None else f"step {one.step}" + (f" of {one.steps}" if one.steps else "")
    said = [f"{one.name}: {one.state}" + (f" on {one.where}" if one.where else "") + f", {at}"]
    if one.loss is not None:
        parts = [f"loss {one.loss:.4f}"]
        parts += [] if one.knn is None else [f"online kNN {one.knn:.1f} %"]
        parts += [] if one.images_per_second is None else [f"{one.images_per_second:,.0f} images/s"]
        parts += [] if one.input_wait is None else [f"{one.input_wait:.1%} waiting for input"]
        parts += [] if one.seconds_left is None else [f"{duration(one.seconds_left)} left at this pace"]
        said.append(f"  {', '.join(parts)}")
    saved = "nothing saved" if one.saved is None else f"saved at step {one.saved}"
    ago = "" if one.seconds_silent is None else f", last line {duration(one.seconds_silent)} ago"
    said.append(f"  {saved}{ago}")
    if one.state == "training" and (one.seconds_silent or 0) > SILENT:
        said.append(
            "  Warning: it has written nothing for long; slow steps, a stuck input, or a process that hangs."
        )
    said += [f"  Warning, at step {step}: {sentence}" for step, sentence in one.warnings[-3:]]
    if one.loss is not None and not math.isfinite(one.loss):
        said.append("  Warning: the loss is not finite; `jaxcl replay` says where that began.")
    return said


def duration(seconds: float) -> str:
    """Seconds in words.

    >>> duration(5), duration(125), duration(7300), duration(200000)
    ('5 s', '2 min', '2 h 1 min', '2 days 7 h')
    """
    minutes = int(seconds // 60)
    if minutes < 1:
        return f"{seconds:.0f} s"
    if minutes < 60:
        return f"{minutes} min"
    hours = minutes // 60
    return f"{hours} h {minutes % 60} min" if hours < 48 else f"{hours // 24} days {hours % 24} h"
