"""Runs that are asked to stop (SIGTERM, Ctrl-C) four times each, and gone on with to the end.

A case is a signal, or two. It passes if the run ends with the status that is promised (75; 130), its newest checkpoint
is of the step that its sentence names, it goes on from there, and ends with the state, the log and the files of the
unbroken one. After a second Ctrl-C it may end unsaved, at once; of two processes one gets the signal, and both end.
"""

from __future__ import annotations

import random
import re
import signal
import time
from pathlib import Path

from endurance_parts import broken, lives
from endurance_parts.broken import goes_on
from endurance_parts.world import Emit, Row, World

STATUS = {"SIGTERM": 75, "SIGINT": 130}


def run(world: World, number: int, emit: Emit, signals: int) -> None:
    """One run. Its signals are told when it has come to its end."""

    def asked(k: int, run_dir: Path, file: Path, draw: random.Random) -> Row | None:
        what = ("SIGTERM", "SIGINT", "SIGTERM", "SIGINT twice")[k % 4]
        what = "SIGINT" if world.processes > 1 and "twice" in what else what
        return one(world, run_dir, file, draw, what, signals=signals)

    broken.run(world, "signal", number, emit, signals, asked)


def one(
    world: World, run_dir: Path, file: Path, draw: random.Random, what: str, *, signals: int
) -> Row | None:
    """One life that is asked to stop; None where it came to its end before."""
    before, who = lives.steps_saved(run_dir), draw.randrange(world.processes)
    newest = max([0, *before])
    step = newest + draw.randint(1, max(2, world.steps // (signals + 1)))
    delay, between = draw.uniform(0, 0.05), draw.uniform(0, 0.1)
    number = signal.Signals[what.split()[0]]
    started = lives.several(world.words(run_dir), processes=world.processes, file=file)
    reached = started[0].reach(step)
    time.sleep(delay)
    begun = time.monotonic()
    if reached:
        started[who].send(number)
        if "twice" in what:
            time.sleep(between)
            started[who].send(number)
    statuses = [life.wait(120) for life in started]
    said, after = started[0].said(), lives.steps_saved(run_dir)
    row: Row = {"signal_sent": what, "who": who, "at": f"after step {step}", "delay": round(delay, 3)}
    row |= {
        "statuses": statuses,
        "saved": max(after, default=0),
        "seconds": round(time.monotonic() - begun, 2),
    }
    if not any(statuses) or max(after, default=0) == world.steps:
        return None  # it came too late
    wanted = [STATUS["SIGTERM"]] * world.processes
    wanted[who] = STATUS[what.split()[0]]
    why = "" if statuses == wanted else f"it ended with {statuses}: {said[-300:]}"
    if "Traceback" in said:
        why = why or f"a traceback: {said[-300:]}"
    named = re.search(r"after step (\d+), and saved\. The same command resumes the run\.", said)
    if named:
        if after[-1:] != [int(named[1])]:
            why = why or f"it says that it saved step {named[1]}; saved are {after}"
    elif not ("twice" in what and "ended at once, unsaved" in said):
        why = why or f"no sentence says what was saved: {said[-300:]}"
    row["unsaved"] = not named
    return row | {"why": why or goes_on(started[0], before)}
