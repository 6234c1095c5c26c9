"""The runs of a study and the page of their answer: what `jaxcl study` does with a `jaxcl.study.Study`."""

from __future__ import annotations

import json
import math
import os
import platform
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxcl.records import read_json, write_whole
from jaxcl.runs import device, evaluations
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
from jaxcl.sweep import combinations, name_of, plot_sweep, sweep
from jaxcl.tables import word
from jaxcl.train.population import DIVERGED

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

    Raises ValueError where run_dir holds the runs of another study, or of this one with other settings.
    """
    path, run_dir = Path(path), Path(run_dir)
    study = load_study(path, small=small)
    own = study.seeds
    study = study if seeds is None else study._replace(seeds=tuple(seeds))
    comparisons(study)  # what is wrong with them is said before the first run
    fixed = {knob: word(value) for knob, value in study.fixed.items()}

    def knobs(combination: Mapping[str, str]) -> Any:
        made = knobs_of(study.config, {**fixed, **combination})
        for knob, value in combination.items():
            if not _alike(has := word(getattr(made, knob, None)), value):
                raise ValueError(
                    f"The study varies --{knob.replace('_', '-')}: a run of {name_of(combination)} would have {has}."
                    " Leave it out of the command line."
                )
        return made

    run_dir.mkdir(parents=True, exist_ok=True)
    record = _record(run_dir, path, study, knobs({}), small=small)
    session: dict[str, Any] = {
        "began": time.strftime("%Y-%m-%d %H:%M:%S"),
        "device": device(),
        "process": f"{platform.node()}:{os.getpid()}:{time.time_ns()}",
    }
    started, drawn = (time.perf_counter(), time.process_time()), [-math.inf]

    def after(results: list[dict[str, Any]]) -> None:
        session["seconds"] = round(time.perf_counter() - started[0], 1)
        session["processor_seconds"] = round(time.process_time() - started[1], 1)
        _add_session(run_dir / "study.json", record, session)
        if time.perf_counter() - drawn[0] > SECONDS_BETWEEN_PAGES:
            whole, there = finished(study, run_dir)
            if there:
                write_page(path, whole, there, run_dir, command=_command(command, own, whole.seeds))
                drawn[0] = time.perf_counter()

    sweep(
        study.config,
        knobs,
        grids(study),
        run_dir,
        protocols=study.protocols,
        baselines=study.baselines,
        together=together,
        after=after,
    )
    whole, results = finished(study, run_dir)
    if not results:
        raise ValueError(
            "Every run of the study diverged, so there is nothing to report; lower --learning-rate."
        )
    write_whole(run_dir / "sweep.json", json.dumps(results, indent=2) + "\n")
    return write_page(path, whole, results, run_dir, command=_command(command, own, whole.seeds))


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


def _add_session(file: Path, record: Mapping[str, Any], session: Mapping[str, Any]) -> None:
    """Writes study.json with this session among those that stand there now: another process may have added its own."""
    now = read_json(file) if file.exists() else record
    others = [one for one in now["sessions"] if one.get("process") != session["process"]]
    text = json.dumps({**record, "sessions": [*others, session]}, indent=2)
    write_whole(file, text + "\n")


def finished(study: Study, run_dir: str | Path) -> tuple[Study, list[dict[str, Any]]]:
    """The study with all seeds that run_dir has runs of, beside its own, and the results of all its runs there that are
    evaluated by all protocols, whoever made them."""
    run_dir = Path(run_dir)
    begun = {folder.name.partition(",")[0].removeprefix("seed=") for folder in run_dir.glob("seed=*")}
    seeds = sorted({*study.seeds, *(int(seed) for seed in begun if seed.isdigit())})
    whole, results = study._replace(seeds=tuple(seeds)), []
    knobs = ["seed", *settings(whole)[0]]
    for run in combinations(grids(whole)):
        name = name_of(run).replace("/", "_")
        found = evaluations(run_dir / name)
        done = {(row["protocol"], row["encoder"]) for row in found}
        wanted = {(protocol, encoder) for protocol in study.protocols for encoder in (name, *study.baselines)}
        if wanted <= done and not (run_dir / name / DIVERGED).exists():
            named = {knob: run.get(knob, "") for knob in knobs}
            for row in found:
                encoder = "trained" if row["encoder"] == name else row["encoder"]
                results.append(row | {"encoder": encoder, "knobs": named})
    return whole, results


def _command(command: Sequence[str], own: Sequence[int], seeds: Sequence[int]) -> list[str]:
    """The command of a page of these seeds: of some of them by each of several commands, as if by one.

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
    varied = {knob for setting in settings(study) for knob in setting} | {"seed", "data_dir"}
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
    runs_there = {tuple(row["knobs"].items()) for row in results if row["encoder"] == "trained"}
    there, seeds = len(runs_there), len({dict(run)["seed"] for run in runs_there})
    parts = [f"# {title}"]
    if command:
        parts.append("```\n" + " ".join(command) + "\n```")
    parts += [asked] if asked else []
    if there < runs:
        gone = len(list(run_dir.glob(f"seed=*/{DIVERGED}")))
        parts.append(
            f"{there} of {runs} runs so far." + (f" {gone} diverged, without a result." if gone else "")
        )
    parts.append(
        f"Test accuracy in percent: mean and 95 % confidence interval (Student's t) over"
        f" {_number(seeds, 'seed')}." + (" Fewer than three seeds say next to nothing." if seeds < 3 else "")
    )
    parts.append(markdown(*settings_table(study, results)))
    header, rows = compared_table(study, results)
    if rows:
        corrected, cells = tested(study, results)
        of = f"all {cells} of them" if corrected == cells else f"the {corrected} of {cells} that have one"
        parts.append(
            "Differences seed by seed, in points: mean, 95 % interval, p value of a paired t test with Holm's"
            f" correction for {of}. They were chosen before the first run."
        )
        parts.append(markdown(header, rows))
    try:
        plot_sweep(run_dir, out=run_dir / f"{path.stem}.png", results=results, **study.picture)
        parts.append(f"![accuracy]({path.stem}.png)")
    except (ImportError, ValueError) as error:
        print(f"The picture is left out: {error}", file=sys.stderr)
    parts.append(_time_spent(run_dir, runs=there))
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
