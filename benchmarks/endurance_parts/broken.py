"""A run that is broken off several times, and gone on with to its end."""

from __future__ import annotations

import random
import re
import shutil
from collections.abc import Callable
from pathlib import Path

from endurance_parts import lives
from endurance_parts.lives import Life
from endurance_parts.world import Emit, Row, World

# (which time, the run's directory, a file for what is said, what draws) -> what came of it; None where the run came to
# its end before.
Break = Callable[[int, Path, Path, random.Random], Row | None]


def run(world: World, kind: str, number: int, emit: Emit, times: int, once: Break) -> None:
    """Breaks one run off so many times. What came of each is told when the run has come to its end."""
    draw = random.Random(f"{kind}s {world.processes} {number}")
    folder = world.work / f"{kind}s-{world.processes}-{number}"
    shutil.rmtree(folder, ignore_errors=True)
    run_dir, rows = folder / "run", []
    for k in range(times):
        row = once(k, run_dir, folder / f"said-{k}", draw)
        if row is None:
            break  # it was at its end before
        rows.append({"kind": kind, "processes": world.processes, "run": number, kind: k, **row})
    why = finish(world, run_dir, folder / "said-end")
    for row in rows:
        row["why"] = row["why"] or why
        emit(row | {"passed": not row["why"]})
    if not any(row["why"] for row in rows):
        shutil.rmtree(folder)


def goes_on(life: Life, saved: list[int], *, killed: bool = False) -> str:
    """What is wrong with how a life began; nothing where it was killed before it could say."""
    found = re.search(r"^Goes on from step (\d+) of|^Step (\d+) was the last", life.said(), re.M)
    if found is None:
        return "" if killed or not saved else f"it did not go on from {saved[-1]}: {life.said()[-300:]}"
    step = int(found[1] or found[2])
    return "" if saved and step == saved[-1] else f"it went on from step {step}, and saved are {saved}"


def finish(world: World, run_dir: Path, file: Path) -> str:
    """Goes on with a run to its end, and says how that differs from the unbroken one's; "" if in nothing."""
    saved = lives.steps_saved(run_dir)
    started = lives.several(world.words(run_dir), processes=world.processes, file=file)
    statuses = [life.wait() for life in started]
    if any(statuses):
        return f"the last life ended with {statuses}: {started[0].said()[-300:]}"
    try:
        return goes_on(started[0], saved) or lives.end_of(run_dir, world.work).differs(world.unbroken)
    except ValueError as error:
        return str(error)
