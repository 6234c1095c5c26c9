"""What all cases share: images, the command that trains on them, and the run that nothing happens to."""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from endurance_parts import lives
from endurance_parts.lives import End

CONFIG = Path(__file__).with_name("config.py")
STEPS = {1: 60, 2: 40}  # of a run of so many processes; 4 an epoch, and saved after every fourth
Row = dict[str, Any]
Emit = Callable[[Row], None]


class World(NamedTuple):
    work: Path
    data: str
    processes: int
    unbroken: End
    saves: list[int]  # of process 0, which writes: events in [what comes before the first save, each save]

    @property
    def steps(self) -> int:
        return STEPS[self.processes]

    def words(self, run_dir: Path) -> list[str]:
        return train_words(run_dir, self.data, steps=self.steps)


def train_words(run_dir: Path, data: str, *, steps: int) -> list[str]:
    return ["train", str(CONFIG), "--run-dir", str(run_dir), "--data", data, "--epochs", f"{steps / 4:g}"]


def images(work: Path) -> str:
    """Where 64 images of 8 x 8 x 3 of four classes are: four steps of 16 an epoch."""
    import numpy as np

    file = work / "images.npz"
    if not zipfile.is_zipfile(file):
        work.mkdir(parents=True, exist_ok=True)
        draws = np.random.default_rng(0)
        pixels, labels = draws.integers(0, 256, (80, 8, 8, 3), np.uint8), np.arange(80) % 4
        np.savez(
            file,
            train_images=pixels[:64],
            train_labels=labels[:64],
            test_images=pixels[64:],
            test_labels=labels[64:],
        )
    return f"npz:{file}"


def world(work: Path, *, processes: int = 1) -> World:
    """Trains the unbroken run, anew whenever this is asked: the programs are those of today."""
    data, folder = images(work), work / f"unbroken-{processes}"
    shutil.rmtree(folder, ignore_errors=True)
    run_dir = folder / "run"
    counts = folder / "counts.json"
    started = lives.several(
        train_words(run_dir, data, steps=STEPS[processes]),
        processes=processes,
        file=folder / "said",
        before=lambda process: None if process else lives.counted(run_dir, counts),
    )
    for life in started:
        if life.wait() != 0:
            raise RuntimeError(f"The run that nothing happens to did not come to its end:\n{life.said()}")
    return World(work, data, processes, lives.end_of(run_dir, work), json.loads(counts.read_text()))
