"""The commands of many runs: sweep, study, report."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxcl.cli.shows import show
from jaxcl.cli.texts import STUDY_HELP
from jaxcl.cli.words import (
    add_baselines,
    baselines_of,
    found_config,
    grid_of,
    knobs_of,
    values_of,
    words_of,
)


def report(arguments: list[str]) -> int:
    """`jaxcl report DIR ... [--out FILE] [--static]`"""
    from jaxcl.report import report_runs

    parser = argparse.ArgumentParser(
        "jaxcl report",
        description="One page, a single HTML file, of runs and sweeps: accuracy with its intervals, against each knob"
        " and two at a time, differences by seed, curves of all runs, scores, pictures that `jaxcl plot` drew, what"
        " ran where. It reads the directories alone: no config is executed and no image opened.",
    )
    parser.add_argument(
        "directories", nargs="+", type=Path, metavar="DIR", help="directories of runs or of sweeps"
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FILE",
        help="default: DIR/report.html; for several directories, report.html here",
    )
    parser.add_argument(
        "--static",
        action="store_true",
        help="static pictures only, without the interactive panels of plotly; the page is 5 MB smaller",
    )
    own = parser.parse_args(arguments)
    made = report_runs(own.directories, out=own.out, interactive=False if own.static else None)
    for sentence in made.left_out:
        print(sentence)
    print(f"Report: {made.page}")
    return 0


def sweep(arguments: list[str]) -> int:
    """`jaxcl sweep CONFIG.py [--run-dir DIR] [--protocol NAME ...] --knob value value ...`"""
    from jaxcl.runs import Unevaluated
    from jaxcl.sweep import sweep as run_sweep
    from jaxcl.tables import FEW_SEEDS, differences_table, fewest_seeds, sweep_table

    parser = argparse.ArgumentParser(
        "jaxcl sweep",
        allow_abbrev=False,
        description="Trains and evaluates every combination of the values that are given for knobs"
        " (--seed 0 1 2, or 0..2; --temperature 0.1 0.5), skips what is done already, and prints means with their 95 %"
        " intervals over seeds, and differences by seed. A knob that holds several values takes each choice as one"
        " word: --features 16,32 32,64; one that is on or off takes True and False. --logger is that of every run, as"
        " `jaxcl train` takes it.",
    )
    parser.add_argument("config", type=Path, help="a config's file, or the name of one that comes with jaxcl")
    parser.add_argument("--run-dir", type=Path, metavar="DIR", help="default: runs/CONFIG-sweep")
    parser.add_argument(
        "--protocol",
        nargs="+",
        default=["knn", "linear"],
        metavar="NAME",
        help="how to evaluate, as for `jaxcl evaluate`; default: knn and linear",
    )
    add_baselines(parser, default="none")
    parser.add_argument(
        "--together",
        type=int,
        metavar="N",
        help="how many runs one program trains at once, where they differ only in numbers (seeds, temperature, rates);"
        " default: on an accelerator as many as fit in its memory, on a CPU 1",
    )
    own, rest = parser.parse_known_args(arguments)
    own.config = found_config(own.config)
    grid, same = grid_of(rest)
    sweep_dir = own.run_dir or Path("runs") / f"{own.config.stem}-sweep"
    failed = None
    try:
        results = run_sweep(
            own.config,
            lambda combination: knobs_of("sweep", own.config, [*words_of(own.config, combination), *same]),
            grid or {"seed": ["0"]},
            sweep_dir,
            protocols=own.protocol,
            baselines=baselines_of(own.baselines, unless_given=()),
            together=own.together,
        )
    except Unevaluated as error:
        if not error.results:
            raise
        results, failed = error.results, error
    if not results:
        raise ValueError(
            "Every run of the sweep diverged, so there is nothing to report; lower --learning-rate."
        )
    show(
        "Accuracy on test images, percent: mean and 95 % confidence interval over seeds",
        *sweep_table(results),
    )
    header, rows = differences_table(results)
    if rows:
        show("Difference by seed: mean, 95 % interval, p value (Holm)", header, rows)
    if fewest_seeds(results) < 3:
        print(f"{FEW_SEEDS} Add seeds, as --seed 0..4.")
    print(f"One page of all this: jaxcl report {sweep_dir}")
    if failed is not None:
        raise failed
    return 0


def study(arguments: list[str]) -> int:
    """`jaxcl study [NAME] [--small] [--run-dir DIR] [--knob value ...]`"""
    parser = argparse.ArgumentParser("jaxcl study", add_help=False, allow_abbrev=False)
    parser.add_argument("study", nargs="?")
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--seed", nargs="+", metavar="SEED")
    parser.add_argument("--together", type=int, metavar="N")
    parser.add_argument("--run-dir", type=Path)
    parser.add_argument("--help", "-h", action="store_true")
    own, rest = parser.parse_known_args(arguments)
    if own.help:
        print(STUDY_HELP)
        return 0
    from jaxcl.shipped import about, studies

    if own.study is None:
        there = studies()
        for name, path in there.items():
            print(f"{name:{max(map(len, there))}}  {about(path)}")
        return 0
    from jaxcl.answer import run_study
    from jaxcl.runs import Unevaluated
    from jaxcl.study import load_study, settings

    path = studies().get(own.study, Path(own.study))
    asked = load_study(path, small=own.small)
    seeds = None if own.seed is None else [int(seed) for word in own.seed for seed in values_of(word)]
    varied = {knob for setting in settings(asked) for knob in setting}
    # --knob, --no-knob and --knob=value
    names = {word: word[2:].partition("=")[0].replace("-", "_") for word in rest if word.startswith("--")}
    if taken := [word for word, name in names.items() if {name, name.removeprefix("no_")} & varied]:
        raise ValueError(
            f"The study varies {', '.join(taken)}, so it cannot be set for all runs. For other values change a copy of"
            f" {path}, or use `jaxcl sweep`."
        )

    def knobs(config: str, combination: Mapping[str, str]) -> Any:
        return knobs_of("study", config, [*words_of(config, combination), *rest])

    named = f"{path.stem}-small-study" if own.small else f"{path.stem}-study"
    run_dir, failed = own.run_dir or Path("runs") / named, None
    try:
        page = run_study(
            path,
            knobs,
            run_dir,
            small=own.small,
            seeds=seeds,
            together=own.together,
            command=["jaxcl", "study", *arguments],
        )
    except Unevaluated as error:
        if not error.results:
            raise
        page, failed = run_dir / f"{path.stem}.md", error
    print(page.read_text(encoding="utf-8"))
    print(f"Page: {page}")
    if failed is not None:
        raise failed
    return 0
