"""The commands around a training run: train, plan, views, parts, configs, replay."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from pathlib import Path
from typing import Any

from jaxcl.cli.shows import aside
from jaxcl.cli.texts import PARTS_HELP, PLAN_HELP, TRAIN_HELP, VIEWS_HELP
from jaxcl.cli.words import (
    add_processes,
    add_trust,
    found_config,
    join_processes,
    knobs_of,
    preset_among,
    speaks,
)
from jaxcl.records import write_whole


def train(arguments: list[str]) -> int:
    """`jaxcl train CONFIG.py [--run-dir DIR] [--knob value ...]`"""
    parser = argparse.ArgumentParser("jaxcl train", add_help=False, allow_abbrev=False)
    parser.add_argument("config", nargs="?")
    parser.add_argument("--run-dir", type=Path)
    add_processes(parser)
    parser.add_argument("--anyway", action="store_true")
    own, rest = parser.parse_known_args(arguments)
    if own.config is None:
        print(TRAIN_HELP)
        return 0 if "--help" in rest or "-h" in rest else 2
    if own.distributed is not None:
        join_processes(own.distributed, timeout=own.join_timeout)
    from jaxcl.runs import train_run

    own.config = found_config(own.config)
    knobs = knobs_of("train", own.config, rest, run_dir=own.run_dir)
    named = [own.config.stem, *filter(None, [preset_among(rest)[0]])]
    run_dir = own.run_dir or Path("runs") / "_".join(named)
    train_run(own.config, knobs, run_dir, anyway=own.anyway)
    if speaks(own):
        print(f"\nDone. Next: {next_of(run_dir)}")
    return 0


def next_of(run_dir: Path) -> str:
    """What can be done with a run: one without labels has features, and no accuracy."""
    from jaxcl.records import read_json

    word = shlex.quote(str(run_dir))
    labelled = read_json(run_dir / "run.json")["about"]["classes"]
    first = f"jaxcl evaluate {word}" if labelled else f"jaxcl embed {word} --out features.csv"
    return f"{first}; jaxcl plot {word}"


def plan(arguments: list[str]) -> int:
    """`jaxcl plan CONFIG.py [--machine NAME] [--json FILE] [--knob value ...]`"""
    parser = argparse.ArgumentParser("jaxcl plan", add_help=False, allow_abbrev=False)
    parser.add_argument("config", nargs="?")
    parser.add_argument("--machine", default="here", metavar="NAME")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--advise", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--images", type=int, metavar="N")
    parser.add_argument("--shape", type=int, nargs=3, metavar=("HEIGHT", "WIDTH", "CHANNELS"))
    parser.add_argument("--classes", type=int, metavar="K")
    own, rest = parser.parse_known_args(arguments)
    if own.config is None:
        print(PLAN_HELP)
        return 0 if "--help" in rest or "-h" in rest else 2
    from jaxcl import machines
    from jaxcl.config import load_config, resolved
    from jaxcl.plan import about_of, advise, check_batch, lines, needs
    from jaxcl.plan import plan as plan_of

    path = found_config(own.config)
    config, knobs = load_config(path), resolved(knobs_of("plan", path, rest))
    # First of all: it decides what jax is to compile for.
    machine = machines.at_hand() if own.machine == "here" else machines.described(own.machine)
    check_batch(knobs.batch_size, machine)
    shape = None if own.shape is None else tuple(own.shape)
    about, said = about_of(config, knobs, images=own.images, shape=shape, classes=own.classes)
    if said:
        print(said, flush=True)
    print(
        f"Compiling the training step for {own.machine}; a large network takes minutes.",
        file=sys.stderr,
        flush=True,
    )
    named = [own.config, *(f"--preset {name}" for name in filter(None, [preset_among(rest)[0]]))]
    found = plan_of(config, knobs, about, machine, name=" ".join(named))
    if found.fits is False and own.advise:
        print(
            f"It does not fit: it needs {needs(found)} a device ({found.compile_seconds:.0f} s to compile). Trying what"
            " would:",
            file=sys.stderr,
            flush=True,
        )
        if own.json is not None:
            _write_json(own.json, found)  # trying takes long, and may be interrupted
        found = found._replace(advice=advise(config, knobs, about, machine, found, say=aside))
    print("\n".join(lines(found)))
    if own.json is not None:
        _write_json(own.json, found)
    return 0


def _write_json(path: Path, found: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, json.dumps(found._asdict(), indent=2) + "\n")


def replay(arguments: list[str]) -> int:
    """`jaxcl replay RUN_DIR [--step N]`"""
    parser = argparse.ArgumentParser(
        "jaxcl replay",
        description="Repeats a training step of a run and names the operation whose result is not finite. Default: the"
        " last step that was left out because its numbers were not finite.",
    )
    parser.add_argument("run_dir", type=Path, help="the directory of a run, as runs/quickstart")
    parser.add_argument("--step", type=int, metavar="N", help="the training step to repeat; the first is 1")
    parser.add_argument("--data-dir", metavar="DIR", help="directory of TFDS data; default: the run's")
    add_trust(parser)
    own = parser.parse_args(arguments)
    from jaxcl.replay import lines
    from jaxcl.replay import replay as replay_step

    found = replay_step(own.run_dir, step=own.step, data_dir=own.data_dir, trust=own.trust, say=aside)
    print("\n".join(lines(found)))
    return 0


def views(arguments: list[str]) -> int:
    """`jaxcl views CONFIG.py [--out FILE] [--images N] [--knob value ...]`"""
    parser = argparse.ArgumentParser("jaxcl views", add_help=False, allow_abbrev=False)
    parser.add_argument("config", nargs="?")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--images", type=int, default=8)
    own, rest = parser.parse_known_args(arguments)
    if own.config is None:
        print(VIEWS_HELP)
        return 0 if "--help" in rest or "-h" in rest else 2
    if own.images < 1:
        raise ValueError(f"--images is how many images are shown, at least 1; got {own.images}.")
    from jaxcl.report import draw_views

    own.config = found_config(own.config)
    knobs = knobs_of("views", own.config, rest)
    out = own.out or Path(f"{own.config.stem}-views.png")
    print(f"Views: {draw_views(own.config, knobs, out, n=own.images)}")
    return 0


def parts(arguments: list[str]) -> int:
    """`jaxcl parts CONFIG.py [--knob value ...]`"""
    if not arguments or arguments[0].startswith("-"):
        print(PARTS_HELP)
        return 0 if arguments and arguments[0] in ("-h", "--help") else 2
    import textwrap

    from jaxcl.config import load_config, open_data, recipe_of
    from jaxcl.five_parts import NAMES, five_parts

    word, *rest = arguments
    path = found_config(word)
    config, knobs = load_config(path), knobs_of("parts", path, rest)
    found = five_parts(recipe_of(config, knobs, open_data(config, knobs).about).method)
    found[NAMES["views"]].append(("made by", knobs.input))
    for name, lines in found.items():
        print(name)
        for role, text in lines:
            print(
                textwrap.fill(f"    {role:18}{text}", 110, subsequent_indent=22 * " ", break_long_words=False)
            )
    return 0


def configs(arguments: list[str]) -> int:
    """`jaxcl configs [NAME]`"""
    parser = argparse.ArgumentParser(
        "jaxcl configs",
        description="Lists the configs that come with jaxcl; with a name, prints that config, to be kept and changed:"
        " jaxcl configs quickstart > mine.py",
    )
    parser.add_argument("name", nargs="?", metavar="NAME", help="the config to print; default: list all")
    own = parser.parse_args(arguments)
    from jaxcl.shipped import about, named, shipped

    if own.name is not None:
        sys.stdout.write(named(own.name).read_text(encoding="utf-8"))
        return 0
    there = shipped()
    width = max(map(len, there), default=0)
    for name, path in there.items():
        print(f"{name:{width}}  {about(path)}")
    return 0
