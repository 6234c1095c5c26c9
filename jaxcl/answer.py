"""The answer of a study: its runs, made by `sweep`, and their page. (What is asked is `jaxcl.study`'s.)

A study is worked at by one command or several, also at once with other seeds; the page is of all runs that lie there.
"""

from __future__ import annotations

import functools
import json
import math
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxcl.config import MAY_CHANGE, SAME_STEPS, load_config
from jaxcl.records import read_json, write_whole
from jaxcl.runs import Unevaluated, device
from jaxcl.study import (
    Study,
    compared_table,
    comparisons,
    grids,
    load_study,
    question,
    settings,
    settings_table,
    tested,
)
from jaxcl.sweep import combinations, plot_sweep, sweep, write_results
from jaxcl.swept import folders_of, name_of
from jaxcl.tables import FEW_SEEDS, word
from jaxcl.train.saved import DIVERGED

# While the runs are made their page is written anew at most so often: a picture takes as long as a small run's steps.
SECONDS_BETWEEN_PAGES = 60.0


def run_study(
    path: str | Path,
    knobs_of: Callable[[str, Mapping[str, str]], Any],
    run_dir: str | Path,
    *,
    small: bool = False,
    seeds: Sequence[int] | None = None,
    together: int | None = None,
    command: Sequence[str] = (),
) -> Path:
    """Makes the runs of a study in run_dir, those that are not there yet, and returns its page, run_dir/NAME.md.

    knobs_of
        (config, {"knob": "value", ...}) -> the config's knobs.
    seeds
        in place of the study's own; more may be added later.
    together
        as for `sweep`.
    command
        the words of the command line, for the page.

    Raises ValueError where run_dir holds the runs of another study, or of this one with other settings; `Unevaluated`,
    after the page is written, where some runs could not be evaluated.
    """
    path, run_dir = Path(path), Path(run_dir)
    study = load_study(path, small=small)
    own = study.seeds
    study = study if seeds is None else study._replace(seeds=tuple(seeds))
    comparisons(study)  # what is wrong with them is said before the first run
    fixed = {knob: word(value) for knob, value in study.fixed.items()}

    @functools.cache  # the page asks for those of all runs each time, and to parse one takes 15 ms
    def parsed(*combination: tuple[str, str]) -> Any:
        made = knobs_of(study.config, {**fixed, **dict(combination)})
        for knob, value in combination:
            if not _alike(has := word(getattr(made, knob, None)), value):
                raise ValueError(
                    f"The study varies --{knob.replace('_', '-')}, so it cannot be set for all runs: the run"
                    f" {name_of(dict(combination))} would have {has}. Leave it out."
                )
        return made

    def knobs(combination: Mapping[str, str]) -> Any:
        return parsed(*combination.items())

    run_dir.mkdir(parents=True, exist_ok=True)
    # Another study's folder is refused before anything is made.
    _record(run_dir, path, study, knobs({}), small=small)
    began = {"began": time.strftime("%Y-%m-%d %H:%M:%S"), "device": device(), "process": os.getpid()}
    started, drawn = (time.perf_counter(), time.process_time()), [-math.inf]

    module = load_config(study.config)

    def page() -> Path:
        """Of all seeds whose runs lie there, also those of another command or process."""
        seeds_there = [read_json(file).get("seed") for file in run_dir.glob("*/knobs.json")]
        all_seeds = sorted({*study.seeds, *(seed for seed in seeds_there if isinstance(seed, int))})
        shown = study._replace(seeds=tuple(all_seeds))
        all_of = combinations(grids(shown))
        folders = folders_of(run_dir, study.config, all_of, [knobs(combination) for combination in all_of])
        results = write_results(run_dir, all_of, folders, config=module)
        said = _command(command, own, all_seeds)
        return write_page(path, shown, results, run_dir, command=said)

    def after(results: list[dict[str, Any]]) -> None:
        session = {**began, "seconds": round(time.perf_counter() - started[0], 1)}
        session["processor_seconds"] = round(time.process_time() - started[1], 1)
        # Read anew: another process may work at other seeds.
        record = _record(run_dir, path, study, knobs({}), small=small)
        others = [one for one in record["sessions"] if not began.items() <= one.items()]
        record = {**record, "sessions": [*others, session]}
        write_whole(run_dir / "study.json", json.dumps(record, indent=2) + "\n")
        if results and time.perf_counter() - drawn[0] > SECONDS_BETWEEN_PAGES:
            page()
            drawn[0] = time.perf_counter()

    failed = None
    try:
        results = sweep(
            study.config,
            knobs,
            grids(study),
            run_dir,
            protocols=study.protocols,
            baselines=study.baselines,
            together=together,
            after=after,
        )
    except Unevaluated as error:
        results, failed = error.results, error
    if results:
        written = page()
    if failed is not None:
        raise failed
    if not results:
        raise ValueError(
            "Every run of the study diverged, so there is nothing to report; lower --learning-rate."
        )
    return written


def _alike(one: str, other: str) -> bool:
    """Whether two words are the same value of a knob.

    >>> _alike("10.0", "10"), _alike("16,32", "16,32"), _alike("0.9", "0.1"), _alike("True", "False")
    (True, True, False, False)
    """

    def value(text: str) -> Any:
        try:
            return float(text)
        except ValueError:
            return text

    return list(map(value, one.split(","))) == list(map(value, other.split(",")))


def _command(command: Sequence[str], own: Sequence[int], seeds: Sequence[int]) -> list[str]:
    """The command of a page of these seeds, which several commands may have made, each some of them.

    >>> _command(["jaxcl", "study", "mine", "--seed", "3", "4", "--small"], (0, 1), (0, 1, 3, 4))
    ['jaxcl', 'study', 'mine', '--small', '--seed', '0', '1', '3', '4']
    """
    kept, within = [], False
    for one in command:
        within = one == "--seed" or (within and not one.startswith("--"))
        kept += [] if within or one.startswith("--seed=") else [one]
    return kept if not kept or set(seeds) == set(own) else [*kept, "--seed", *map(str, seeds)]


def _record(run_dir: Path, path: Path, study: Study, knobs: Any, *, small: bool) -> dict[str, Any]:
    """What study.json says, or will say: which study it is, and when it was worked at, on which device."""
    varied = {knob for setting in settings(study) for knob in setting}
    varied |= {"seed", *MAY_CHANGE, *(SAME_STEPS - {"input"})}
    shared = {name: value for name, value in vars(knobs).items() if name not in varied}
    shared = json.loads(json.dumps(shared))
    mine = {"study": path.stem, "small": small, "config": Path(study.config).name, "knobs": shared}
    file = run_dir / "study.json"
    if not file.exists():
        return {**mine, "sessions": []}
    there = read_json(file)
    other = [f"{name} {there.get(name)!r}, not {mine[name]!r}" for name in mine if name != "knobs"]
    other = [said for said, name in zip(other, mine, strict=False) if there.get(name) != mine[name]]
    before = there.get("knobs", {})
    other += [
        f"--{name.replace('_', '-')} {before.get(name)!r}, not {value!r}"
        for name, value in shared.items()
        if before.get(name) != value
    ]
    if other:
        raise ValueError(
            f"{run_dir} holds the runs of another study: {'; '.join(other)}. Choose another --run-dir."
        )
    return there


# --- the page ----------------------------------------------------------------------------------------------------


def write_page(
    path: str | Path,
    study: Study,
    results: Sequence[Mapping[str, Any]],
    run_dir: str | Path,
    *,
    command: Sequence[str] = (),
) -> Path:
    """Writes run_dir/NAME.md and, where matplotlib is installed, run_dir/NAME.png: question, command, table,
    comparisons, picture, and how long it took on which device."""
    path, run_dir = Path(path), Path(run_dir)
    title, asked = question(path)
    runs = len(settings(study)) * len(study.seeds)
    there = {tuple(row["knobs"].items()) for row in results if row["encoder"] == "trained"}
    finished, seeds = len(there), len({dict(run)["seed"] for run in there})
    parts = [f"# {title}"]
    if command:
        parts.append("```\n" + " ".join(command) + "\n```")
    parts += [asked] if asked else []
    if finished < runs:
        diverged = sorted(file.parent.name for file in run_dir.glob(f"*/{DIVERGED}"))
        so_far = " so far" if finished + len(diverged) < runs else ""
        without = f" Without a result, as they diverged: {'; '.join(diverged)}." if diverged else ""
        parts.append(f"{finished} of {runs} runs{so_far}.{without}")
    parts.append(
        f"Test accuracy in percent: mean and 95 % confidence interval (Student's t) over"
        f" {_number(seeds, 'seed')}." + (f" {FEW_SEEDS}" if seeds < 3 else "")
    )
    parts.append(markdown(*settings_table(study, results)))
    header, rows = compared_table(study, results)
    if rows:
        parts.append(
            "Differences seed by seed, in points: mean, 95 % interval, p value of a paired t test with Holm's"
            f" correction for {_corrected(study, results)}. They were chosen before the first run."
        )
        parts.append(markdown(header, rows))
    try:
        plot_sweep(run_dir, out=run_dir / f"{path.stem}.png", **study.picture)
        parts.append(f"![accuracy]({path.stem}.png)")
    except (ImportError, ValueError) as error:
        print(f"The picture is left out: {error}", file=sys.stderr)
    parts.append(_time_spent(run_dir, runs=finished))
    page = run_dir / f"{path.stem}.md"
    write_whole(page, "\n\n".join(parts) + "\n")
    return page


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table as Markdown.

    >>> print(markdown(("loss", "knn"), [("swd", "44.6")]))
    | loss | knn |
    |---|---|
    | swd | 44.6 |
    """
    lines = [header, ["---"] * len(header), *rows]
    made = ["| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines]
    made[1] = "|" + "---|" * len(header)
    return "\n".join(made)


def _corrected(study: Study, results: Sequence[Mapping[str, Any]]) -> str:
    n, all_there_are = tested(study, results)
    return f"all {n} of them" if n == all_there_are else f"those {n} of {all_there_are} that can be tested"


def _number(n: int, what: str) -> str:
    return f"{n} {what}" + ("" if n == 1 else "s")


def _time_spent(run_dir: Path, *, runs: int) -> str:
    """How long the sessions took, on which devices, and with which versions."""
    file = run_dir / "study.json"
    sessions = read_json(file)["sessions"] if file.exists() else []
    by_device: dict[str, list[float]] = {}
    for session in sessions:
        spent = by_device.setdefault(session["device"], [0.0, 0.0])
        spent[0] += session.get("seconds", 0.0) / 60
        spent[1] += session.get("processor_seconds", 0.0) / 60
    said = "; ".join(
        f"{device_name}: {minutes:.0f} minutes by the clock, {processor:.0f} of processor time"
        for device_name, (minutes, processor) in by_device.items()
    )
    versions = {}
    for record in sorted(run_dir.glob("*/run.json"))[:1]:
        versions = read_json(record).get("versions", {})
    made_by = ", ".join(f"{name} {versions[name]}" for name in ("jaxcl", "jax", "python") if name in versions)
    date = sessions[-1]["began"][:10] if sessions else time.strftime("%Y-%m-%d")
    return f"{_number(runs, 'run')}. {said}. {made_by}; {date}."
