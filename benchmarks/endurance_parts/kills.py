"""Runs that are killed (SIGKILL) five times each, and gone on with to the end.

A case is a kill. It passes if all that was saved before is there after it, the next life goes on from the newest
checkpoint, and the run ends with the state, the log and the files of the unbroken one, bit for bit. Of two processes
one is killed, and the other must end by itself within a minute and say why; or both are.
"""

from __future__ import annotations

import random
import re
import signal
import time
from pathlib import Path

from endurance_parts import broken, lives
from endurance_parts.broken import goes_on
from endurance_parts.lives import Life
from endurance_parts.world import Emit, Row, World

ALONE = 60.0  # seconds in which the other process must have ended


def run(world: World, number: int, emit: Emit, kills: int) -> None:
    """One run. Its kills are told when it has come to its end."""

    def killed(k: int, run_dir: Path, file: Path, draw: random.Random) -> Row | None:
        aim = ("save", "moment")[(number + k) % 2]
        return one(world, run_dir, file, draw, aim, first=k == 0, kills=kills)

    broken.run(world, "kill", number, emit, kills, killed)


def one(
    world: World, run_dir: Path, file: Path, draw: random.Random, aim: str, *, first: bool, kills: int
) -> Row | None:
    """One life that is killed; None where it came to its end before."""
    before, begun = lives.steps_saved(run_dir), time.monotonic()
    who = 0 if world.processes == 1 else draw.choice([0, 1])
    both = world.processes > 1 and draw.random() < 0.4
    delay = draw.choice([0.0, draw.uniform(0, 0.05)])
    hook, at, mark = None, "", file.with_name(f"{file.name}-mark")
    if aim == "save":
        # Of a life's first save or its second; in a run's first life also what makes its directory.
        save = draw.choice([0, 1, 1, 2, 2, 2] if first else [1, 1, 2])
        event = draw.randint(1, world.saves[save])
        if who:  # the other is killed while process 0 writes
            delay = draw.uniform(0, 0.3)
            hook = lives.told_at(run_dir, save, event, mark)
        else:
            hook = lives.killed_at(run_dir, save, event, delay)
        at = f"event {event} of {world.saves[save]} of save {save}"
    elif draw.random() < 0.25:
        delay = draw.uniform(0, 3.0)
        at = f"{delay:.2f} s after its start"
    else:
        newest = max([0, *before])
        step = newest + draw.randint(1, max(2, 2 * world.steps // (kills + 1)))
        at = f"after step {step}"
    started = lives.several(
        world.words(run_dir),
        processes=world.processes,
        file=file,
        before=lambda process: None if process else hook,
    )
    if aim == "save" and who:
        started[0].until(mark.exists)
    elif at.startswith("after step"):
        started[0].reach(step)
    if aim == "moment" or who:
        time.sleep(delay)
        started[who].send(signal.SIGKILL)
    status = started[who].wait()
    if both and status == -signal.SIGKILL:
        started[1 - who].send(signal.SIGKILL)
    why = "" if status == -signal.SIGKILL else f"it ended with {status}: {started[who].said()[-300:]}"
    row: Row = {"aim": aim, "at": at, "delay": round(delay, 3), "who": "both" if both else who}
    if world.processes > 1:
        killed = time.monotonic()
        other = started[1 - who].wait(2 * ALONE)
        row["other"] = other
        if status == other == 0:
            return None
        if not both:
            row["alone"] = round(time.monotonic() - killed, 1)
            why = why or alone(started[1 - who], other, row["alone"])
    elif status == 0:
        return None
    after = lives.steps_saved(run_dir)
    row |= {"saved": max(after, default=0), "seconds": round(time.monotonic() - begun, 1)}
    if max(after, default=0) < max(before, default=0):
        why = why or f"saved were {before}, and after the kill {after}"
    if not first:
        why = why or goes_on(started[0], before, killed=True)
    return row | {"why": why}


def alone(life: Life, status: int | None, seconds: float) -> str:
    """What is wrong with the end of the process that was not killed."""
    said = life.said()
    if status is None or seconds > ALONE:
        return f"the other process had not ended after {seconds:g} s"
    if status == 0:
        return ""  # it had just come to its end
    if not re.search(
        r"^jaxcl.*(start again|Start all processes again|start the others|processes have come)", said, re.M
    ):
        return f"the other process ended with {status} and no sentence: {said[-300:]}"
    return ""
