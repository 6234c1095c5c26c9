"""An hour of steps and saves: memory, threads and file handles of the process must stay as they are.

A run of many log lines, saves and online kNN accuracies, looked at from outside twice a minute; at its end it is asked
to stop (SIGTERM), and its log must have each step once. Warm-up is the first ten minutes. It passes if after them the
resident memory grows by less than 1 MB in ten minutes (a least-squares line), and neither the number of threads nor
that of open files ends higher than it was (the median of the last tenth against that of the first).
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import statistics
import time
from pathlib import Path
from typing import NamedTuple

from endurance_parts import lives
from endurance_parts.world import CONFIG, Emit, Row, images

EVERY = 30.0  # seconds between two looks
WARM_UP = 600.0
MOST = 1.0  # MB in ten minutes
SAVES = 1000  # steps between two


class Sample(NamedTuple):
    seconds: float
    megabytes: float
    threads: int
    files: int
    step: int


def look(pid: int, begun: float, run_dir: Path) -> Sample:
    process = Path("/proc") / str(pid)
    status = dict(line.split(":", 1) for line in (process / "status").read_text().splitlines())
    return Sample(
        round(time.monotonic() - begun, 1),
        round(int(status["VmRSS"].split()[0]) / 1024, 3),
        int(status["Threads"]),
        len(os.listdir(process / "fd")),
        max(lives.steps_saved(run_dir), default=0),
    )


def slope(samples: list[Sample]) -> float:
    """Of a line through the resident memory: MB in ten minutes.

    >>> slope([Sample(600.0 * i, 100 + 2.0 * i, 1, 1, 0) for i in range(4)])
    2.0
    """
    return (
        600 * statistics.linear_regression([x.seconds for x in samples], [x.megabytes for x in samples]).slope
    )


def grown(values: list[int]) -> float:
    """The median of the last tenth less that of the first."""
    tenth = max(1, len(values) // 10)
    return statistics.median(values[-tenth:]) - statistics.median(values[:tenth])


def judged(samples: list[Sample], *, warm_up: float = WARM_UP) -> Row:
    """What a soak showed, and in "why" what is not as it should be."""
    warm = [x for x in samples if x.seconds >= warm_up]
    late = samples[len(samples) // 2 :]
    if len(warm) < 3:
        return {"why": f"too short: {len(warm)} looks after the first {warm_up:g} s"}
    found: Row = {
        "mb_in_ten_minutes": round(slope(warm), 3),
        "mb_in_ten_minutes_of_the_second_half": round(slope(late), 3),
        "steps_in_warm_up": max([0, *(x.step for x in samples if x.seconds < warm_up)]),
        "mb": [warm[0].megabytes, max(x.megabytes for x in warm), warm[-1].megabytes],
        "threads": [min(x.threads for x in warm), max(x.threads for x in warm)],
        "files": [min(x.files for x in warm), max(x.files for x in warm)],
    }
    why = f"memory grows by {found['mb_in_ten_minutes']} MB in ten minutes" if slope(warm) >= MOST else ""
    for name in ("threads", "files"):
        more = grown([getattr(x, name) for x in warm])
        why = why or (f"{more:g} more {name} at the end" if more > 0 else "")
    return found | {"why": why}


def run(work: Path, seconds: float, emit: Emit) -> None:
    folder = work / "soak"
    shutil.rmtree(folder, ignore_errors=True)
    run_dir = folder / "run"
    words = ["train", str(CONFIG), "--run-dir", str(run_dir), "--data", images(work), "--epochs", "5e6"]
    words += ["--log-every", "200", "--save-every", str(SAVES), "--knn-every", "500", "--keep-every", "40000"]
    life, begun = lives.command(words, file=folder / "said"), time.monotonic()
    samples: list[Sample] = []
    with open(folder / "samples.jsonl", "w") as out:
        while time.monotonic() - begun < seconds:
            if life.gone(min(EVERY, seconds / 20)):
                break  # of itself, or somebody else ended it: its status tells below
            samples.append(look(life.pid, begun, run_dir))
            print(json.dumps(samples[-1]._asdict()), file=out, flush=True)
    early = life.gone()
    life.send(signal.SIGTERM)
    status = life.wait()
    row = judged(samples, warm_up=min(WARM_UP, seconds / 6))
    steps = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    logged = [line["step"] for line in steps if "loss" in line]
    looked = [line["step"] for line in steps if "knn_accuracy" in line]
    saved = lives.steps_saved(run_dir)
    why = "" if status == 75 and not early else f"it ended with {status}: {life.said()[-300:]}"
    if len(set(logged)) != len(logged) or len(set(looked)) != len(looked):
        why = why or "a step stands twice in the log"
    last = max(saved, default=0)
    row |= {
        "seconds": round(time.monotonic() - begun),
        "steps": last,
        "saves": last // SAVES,
        "kept": len(saved),
    }
    row |= {"knn": len(looked), "looks": len(samples), "why": why or row["why"]}
    emit({"kind": "soak", **row, "passed": not row["why"]})
