"""One file of a stopped run is damaged, or its images are, and a command is given to it.

The damages are those of tests/test_damage.py (so pytest and hypothesis must be there). A case passes if the command
ends by itself, without a traceback, and either refuses with a sentence and leaves every file as it was, or does what
was asked: training then ends with the state of the run that was not damaged, bit for bit, and says so where it could
not use the newest checkpoint. What an old line of the log says in place of another number, nobody can know.
"""

from __future__ import annotations

import importlib.util
import random
import re
import shutil
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from endurance_parts import lives
from endurance_parts.lives import End
from endurance_parts.world import Emit, Row, images, train_words

ROOT = Path(__file__).resolve().parents[2]
STEPS = 16  # of which 8 are saved when it is damaged
TARGETS = ("newest", "older", "manifest", "folder", "knobs", "record", "log", "config", "images", "rest")
HOW = ("junk", "cut", "flip", "flip", "append", "delete", "folder", "link")


class Stage(NamedTuple):
    whole: Path  # a stopped run and its images
    now: Path  # the same, where it was made: what is damaged
    data: str
    end: End  # of the run that was not damaged
    words: list[str]
    tools: ModuleType  # tests/test_damage.py


def damages() -> ModuleType:
    file = ROOT / "tests" / "test_damage.py"
    spec = importlib.util.spec_from_file_location("test_damage", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def stage(work: Path) -> Stage:
    folder = work / "damage"
    shutil.rmtree(folder, ignore_errors=True)
    now, whole = folder / "now", folder / "whole"
    now.mkdir(parents=True)
    shutil.copy(images(work).removeprefix("npz:"), now / "images.npz")
    data, run_dir = f"npz:{now / 'images.npz'}", now / "run"
    words = train_words(run_dir, data, steps=STEPS)
    killed = lives.command(words, file=folder / "killed", before=lives.killed_at(run_dir, 3, 1, 0.0))
    assert killed.wait() == -9, killed.said()
    evaluated = lives.command(evaluate_words(run_dir), file=folder / "evaluated")
    assert evaluated.wait() == 0, evaluated.said()
    shutil.copytree(now, whole)
    unbroken = lives.command(words, file=folder / "unbroken")
    assert unbroken.wait() == 0, unbroken.said()
    return Stage(whole, now, data, lives.end_of(run_dir, folder), words, damages())


def evaluate_words(run_dir: Path) -> list[str]:
    return ["evaluate", str(run_dir), "--protocol", "knn", "--no-baselines"]


def run(made: Stage, number: int, emit: Emit) -> None:
    draw = random.Random(f"damage {number}")
    shutil.rmtree(made.now)
    shutil.copytree(made.whole, made.now, symlinks=True)
    run_dir, file = made.now / "run", made.now.parent / f"said-{number}"
    target = TARGETS[number % len(TARGETS)]
    path, how = damaged(made, target, draw)
    command = draw.choice(["train", "train", "train", "train", "evaluate", "status"])
    if command == "status" and target == "images":
        command = "train"
    words = {
        "train": made.words,
        "evaluate": evaluate_words(run_dir),
        "status": ["status", str(run_dir)],
    }[command]
    before = state_of(made)
    life = lives.command(words, file=file)
    status, said = life.wait(), life.said()
    name = path.relative_to(made.now).as_posix()
    row: Row = {
        "kind": "damage",
        "case": number,
        "target": target,
        "file": name,
        "how": how,
        "command": command,
    }
    why = wrong(made, command, target, status, said, before)
    spoken = [line for line in said.splitlines() if re.match(rf"jaxcl {command}: |.*Warning: ", line)]
    row |= {"status": status, "said": re.sub(rf"({made.now}|{ROOT})/", "", spoken[0] if spoken else "")[:200]}
    emit(row | {"why": why, "passed": not why})
    if not why:
        file.unlink()


def damaged(made: Stage, target: str, draw: random.Random) -> tuple[Path, str]:
    """Damages one file, or one folder of checkpoints; which, and how."""
    run_dir, saved = made.now / "run", made.now / "run" / "checkpoints"
    if target == "folder":
        path = draw.choice([saved, saved / "8", saved / "8" / "arrays", saved / "4"])
        how = draw.choice(["delete", "file", "link"])
        shutil.rmtree(path)
        if how == "file":
            path.write_text("no folder")
        elif how == "link":
            path.symlink_to("/nowhere/at/all")
        return path, how
    plain = sorted(path for path in run_dir.iterdir() if path.is_file())
    named = {"knobs": "knobs.json", "record": "run.json", "log": "metrics.jsonl", "config": "config.py"}
    within = {
        step: sorted(x for x in (saved / step).rglob("*") if x.is_file() and x.name != "manifest.json")
        for step in ("4", "8")
    }
    paths = {
        "newest": within["8"],
        "older": within["4"],
        "manifest": [saved / "4" / "manifest.json", saved / "8" / "manifest.json"],
        "images": [made.now / "images.npz"],
        "rest": [path for path in plain if path.name not in named.values()],
    } | {key: [run_dir / name] for key, name in named.items()}
    path, how = draw.choice(paths[target]), draw.choice(HOW)
    if how in ("cut", "flip") and not path.stat().st_size:
        how = "append"  # an empty file, as orbax's mark, has nothing to cut off
    argument: Any = draw.choice(made.tools.JUNK) if how == "junk" else draw.random()
    made.tools.harm(path, how, argument)
    what = f"junk {argument[:20]!r}" if how == "junk" else how
    return path, f"{what} at {argument:.3f}" if how in ("cut", "flip") else what


def state_of(made: Stage) -> dict[str, str]:
    """Every file and what it holds, but for the owner's and for what Python keeps."""
    found = made.tools.digest(made.now)
    return {name: x for name, x in found.items() if not re.search(r"owner\.json|__pycache__|\.pyc$", name)}


def wrong(
    made: Stage, command: str, target: str, status: int | None, said: str, before: dict[str, str]
) -> str:
    if status not in (0, 1, 2):
        return f"it ended with {status}: {said[-300:]}"
    if "Traceback" in said:
        return f"a traceback: {said[-500:]}"
    after = state_of(made)
    if status:
        if not re.search(rf"^jaxcl {command}: .{{20,}}", said, re.M):
            return f"it refused without a sentence: {said[-300:]}"
        changed = sorted(name for name in {**before, **after} if before.get(name) != after.get(name))
        return f"it refused, and changed {changed[:5]}" if changed else ""
    if command != "train":
        gone = sorted(name for name in before if after.get(name) != before[name])
        gone = [name for name in gone if not (command == "evaluate" and "evaluations" in name)]
        return f"it changed {gone[:5]}" if gone else ""
    try:
        end = lives.end_of(made.now / "run", made.now.parent)
    except (ValueError, OSError) as error:
        return f"what it left cannot be read: {error}"
    if end.state != made.end.state:
        return "another state at the end, without a word"
    if target == "newest" and not re.search("Damaged checkpoint|There is no checkpoint", said):
        return "the newest checkpoint was damaged, and nothing was said"
    if target != "log" and end.lines != made.end.lines:
        return "another log at the end, without a word"
    steps = [line["step"] for line in end.lines]
    return "" if len(set(steps)) == len(steps) else f"a step stands twice in the log: {steps}"
