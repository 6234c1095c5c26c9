"""Many runs: every combination of some knobs' values, each in a run directory of its own.

Combinations that differ in numbers alone are trained together, by one program (`train.train_together`); those that
differ in shapes or functions one after another.
"""

from __future__ import annotations

import dataclasses
import gc
import itertools
import json
import sys
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import jax

from jaxcl.config import CommonKnobs, Recipe, load_config, open_data, recipe_of
from jaxcl.plan import DoesNotFit
from jaxcl.reads import knobs_read_by
from jaxcl.records import read_json, write_whole
from jaxcl.runs import (
    BASELINES,
    Members,
    Opened,
    Unevaluated,
    check_asked,
    evaluate_runs,
    evaluations,
    train_run,
    train_runs,
)
from jaxcl.runs.directory import silent
from jaxcl.runs.marks import is_variant, of_step
from jaxcl.swept import check_is_of, folder_name, folders_of, is_done, last_step, name_of
from jaxcl.train.checkpoint import latest
from jaxcl.train.population import mappable
from jaxcl.train.saved import DIVERGED, common_step
from jaxcl.typing import About

# After so many runs one after the other, programs are forgotten.
CLEARED = 8

# Where, in what does not fit, the remedy of `jaxcl train` begins, which a sweep does not have.
ANYWAY = " --anyway "

# Knob -> its values; of several grids the combinations of each.
Grid = Mapping[str, Sequence[str]]


def combinations(grid: Grid | Sequence[Grid]) -> list[dict[str, str]]:
    """{"seed": ("0", "1"), "bits": ("0",)} -> one dict a combination, the last knob varying fastest.

    Several grids may name different knobs: a loss without a temperature needs no run for each.

    >>> combinations({"bits": ["0", "5"], "seed": ["0", "1"]})[1]
    {'bits': '0', 'seed': '1'}
    >>> combinations([{"loss": ["nt_xent"], "temperature": ["0.1", "0.2"]}, {"loss": ["swd"]}])[1:]
    [{'loss': 'nt_xent', 'temperature': '0.2'}, {'loss': 'swd'}]
    """
    found = []
    for one in [grid] if isinstance(grid, Mapping) else grid:
        found += [dict(zip(one, values, strict=True)) for values in itertools.product(*one.values())]
    return [one for i, one in enumerate(found) if one not in found[:i]]


class Group(NamedTuple):
    """Runs that one program can train: which of the sweep's, and the numbers they differ in (beside their seeds)."""

    members: tuple[int, ...]
    numbers: tuple[str, ...]


def groups(config: ModuleType, runs: Sequence[CommonKnobs]) -> list[Group]:
    """Sorts runs into groups that can be trained together, in the order of their first members.

    Runs of a group have the same knobs but for the seed and for numbers that a training step reads as such
    (`mappable`): temperature, weight, learning rate, decay, strengths. A number that is 0 means "off" in this library,
    so it stands apart from others. What the config's own `data` reads stands apart too, and the seed where its `recipe`
    may read it; also where they hand the knobs on to what is no plain function (`knobs_read_by`). So do runs whose
    images the host makes or which stay encoded, those that start from another run, and those of another placement
    than jit.
    """
    fields = [field.name for field in dataclasses.fields(config.Knobs)]
    # A number that is declared a float may be written as 10.
    hints = typing.get_type_hints(config.Knobs)
    floats = [
        name
        for name in fields
        if hints[name] is float or all(isinstance(getattr(knobs, name), float) for knobs in runs)
    ]
    varying = [name for name in floats if len({getattr(knobs, name) for knobs in runs}) > 1]
    own_data = getattr(config, "data", None)
    read_by_data = knobs_read_by(own_data, fields) if callable(own_data) else set()
    own_seed = {"seed"} - read_by_data - knobs_read_by(config.recipe, fields)

    def kind(i: int, numbers: Sequence[str]) -> Any:
        """The same for runs that differ in these numbers and the seed alone."""
        knobs = runs[i]
        on_device = knobs.input in ("device", "resident") and not knobs.encoded
        starts_elsewhere = (
            knobs.init is not None or recipe_of(config, knobs, about_of(knobs)).given is not None
        )
        # A placement with an axis of its own would add members up.
        usual = knobs.placement == "jit" and not knobs.shard_state and knobs.nonfinite == "stop"
        if not (on_device and usual) or starts_elsewhere:
            return i
        values = {name: getattr(knobs, name) for name in fields if name not in own_seed}
        # In words: False is equal to a 0 of runs that have no such numbers.
        return tuple(
            ("off" if value == 0 else "on") if name in numbers else value for name, value in values.items()
        )

    abouts: dict[Any, About] = {}

    def about_of(knobs: CommonKnobs) -> About:
        free = {*varying, "seed"} - read_by_data
        which = tuple(getattr(knobs, name) for name in fields if name not in free)
        if which not in abouts:
            abouts[which] = open_data(config, knobs).about
        return abouts[which]

    found: dict[Any, tuple[list[int], tuple[str, ...]]] = {}
    read: dict[Any, tuple[str, ...]] = {}
    for i, knobs in enumerate(runs):
        alike = kind(i, varying)
        if alike not in read:
            about = about_of(knobs)
            tried = {name: getattr(knobs, name) for name in varying if name not in read_by_data}
            tried = {name: value for name, value in tried.items() if value != 0}
            read[alike] = mappable(partial(_recipe, config, knobs, about), tried, about) if tried else ()
        found.setdefault(kind(i, read[alike]), ([], read[alike]))[0].append(i)
    return [Group(tuple(members), numbers) for members, numbers in found.values()]


def _recipe(config: ModuleType, knobs: CommonKnobs, about: About, values: Mapping[str, Any]) -> Recipe:
    return recipe_of(config, dataclasses.replace(knobs, **values), about)


# The common knobs that say which images there are.
DATA = "data data_dir evaluate_on train_on labels layout value_range size encoded".split()


def data_of(config: ModuleType, knobs: CommonKnobs, group: Group) -> Any:
    """A key that is equal for runs that are evaluated on the same images. If the config has its own `data`, only runs
    of one group are known to share them."""
    if callable(getattr(config, "data", None)):
        return group
    return tuple(getattr(knobs, name) for name in DATA)


def sweep(
    config: str | Path,
    knobs_of: Callable[[Mapping[str, str]], Any],
    grid: Grid | Sequence[Grid],
    sweep_dir: str | Path,
    *,
    protocols: Sequence[str] = ("knn", "linear"),
    baselines: Sequence[str] = (),
    together: int | None = None,
    after: Callable[[list[dict[str, Any]]], None] | None = None,
) -> list[dict[str, Any]]:
    """Trains and evaluates every combination in sweep_dir/knob=value,...; what is there already is not done again.

    A run that is there under another name is taken up by its knobs (`swept.folders_of`). Raises ValueError, before
    anything is trained, where one is of other knobs or another program.

    `knobs_of({"knob": "value", ...})` makes the config's knobs. Returns one result a run, protocol and encoder,
    with the combination under "knobs", and writes them to sweep_dir/sweep.json. A run that diverged has no result, and
    is tried again once its diverged.json is removed. Raises `Unevaluated` at the end, with the results, where some runs
    could not be evaluated.

    grid
        of several grids all combinations of each; under "knobs" a result has "" for a knob that only others name.
    after
        gets the results so far whenever there are new ones.

    together
        at most so many runs in one program, of those that differ in numbers alone (`groups`); where the memory does not
        hold them, half as many. 1: one after the other. None: all on an accelerator, where a small run leaves it idle;
        one after the other on a CPU, where together they take as long or longer (benchmarks/results/population-cpu.md).
        Those of one program are evaluated at once, too, which on a CPU gains nothing either and costs the linear
        probe 2.6 times as much (members-cpu.md); one after the other they share one compiled program and their images.
    """
    if together is not None and together < 1:
        raise ValueError(f"together is how many runs one program trains, at least 1; got {together}.")
    check_asked(protocols, baselines=baselines)
    if together is None and jax.default_backend() == "cpu":
        together = 1
    sweep_dir = Path(sweep_dir)
    all_of = combinations(grid)
    if not all_of:
        raise ValueError("A sweep without a run: a knob of every grid has no values. Give each at least one.")
    knobs = [knobs_of(combination) for combination in all_of]
    folders = folders_of(sweep_dir, config, all_of, knobs)
    for name, folder in zip(map(folder_name, all_of), folders, strict=True):
        if folder.name != name:
            print(f"{name} has the same knobs as {folder.name}, so it is the same run.", flush=True)
    module = load_config(config)
    done = {folder: is_done(folder, module, protocols, baselines) for folder in folders}
    for folder, own_knobs in zip(folders, knobs, strict=True):
        check_is_of(folder, config, own_knobs, done=done[folder])
    todo = [i for i, folder in enumerate(folders) if not done[folder] and folder not in folders[:i]]
    if not todo:
        return _ended(sweep_dir, all_of, folders, module)
    each = [Group((j,), ()) for j in range(len(todo))]
    check_labels(module, knobs[todo[0]], protocols)
    sorted_out = each if len(todo) == 1 else groups(module, [knobs[i] for i in todo])
    # Those that are trained one after the other share what evaluates them, too.
    opened, shared = Opened(), dict[int, Members]()
    for group in sorted_out:
        own_data = data_of(module, knobs[todo[group.members[0]]], group)
        members = Members(group.numbers, opened, own_data)
        shared |= {todo[j]: members for j in group.members}
    sorted_out = each if together == 1 else sorted_out
    since_cleared, unevaluated = 0, list[str]()
    for group in sorted_out:
        for part in _at_one_step([todo[j] for j in group.members], folders):
            left, most = part, together or len(part)
            while left:
                own = left[:most]
                print(f"\n== {'; '.join(name_of(all_of[i]) for i in own)}", flush=True)
                fits = True
                try:
                    if len(own) == 1:
                        _train_one(config, knobs[own[0]], folders[own[0]])
                    else:
                        chosen = [knobs[i] for i in own], [folders[i] for i in own]
                        train_runs(config, *chosen, numbers=group.numbers)
                except (DoesNotFit, jax.errors.JaxRuntimeError) as error:
                    if len(own) == 1 or not _too_large(error):
                        raise
                    most, fits = -(-len(own) // 2), False
                    why = str(error).partition(ANYWAY)[0][:500]
                    print(f"{len(own)} runs are too many for one program: {why}\nTrying {most}.", flush=True)
                if not fits:  # here the error is gone, and with it what its traceback held of the device
                    jax.clear_caches()
                    gc.collect()
                    continue
                left = left[most:]
                try:
                    evaluate_runs(
                        [folders[i] for i in own if not (folders[i] / DIVERGED).exists()],
                        protocols=protocols,
                        members=shared[own[0]],
                        baselines=baselines,
                        at_once=1 if together == 1 else len(own),
                        say=partial(print, flush=True) if len(own) > 1 else silent,
                    )
                except Unevaluated as error:
                    print(f"{error} The sweep goes on with the others.", file=sys.stderr, flush=True)
                    unevaluated.append(str(error))
                since_cleared += len(own)
                if since_cleared >= CLEARED or len(own) > 1:
                    # Programs that no other run will use: over a long sweep they fill the memory.
                    jax.clear_caches()
                    since_cleared = 0
                results = write_results(sweep_dir, all_of, folders, config=module)
                if after is not None:
                    after(results)
    results = _ended(sweep_dir, all_of, folders, module)
    if unevaluated:
        raise Unevaluated(" ".join(unevaluated), results)
    return results


def check_labels(config: ModuleType, knobs: CommonKnobs, protocols: Sequence[str]) -> None:
    """Raises ValueError, before anything is trained, where a protocol needs labels and the images have none."""
    needing = [name for name in protocols if name not in ("rotation", "hue")]
    of_files = knobs.data.partition(":")[0] in ("folder", "npz", "npy") and knobs.train_on == "train"
    if not needing or not of_files or callable(getattr(config, "data", None)):
        return
    if not open_data(config, knobs).about.classes:
        kind = knobs.data.partition(":")[0]
        remedy = "Give a file of labels (--labels FILE)"
        remedy = "Put labels into that file (train_labels, test_labels)" if kind == "npz" else remedy
        raise ValueError(
            f"A sweep evaluates by {', '.join(needing)}, which needs labels, and the images of {knobs.data} have none."
            f" {remedy}, or --protocol rotation hue; `jaxcl train` trains without."
        )


def _train_one(config: str | Path, knobs: CommonKnobs, folder: Path) -> None:
    """As `train_run`; where it diverges, that is said and kept, and the sweep goes on."""
    try:
        train_run(config, knobs, folder)
    except DoesNotFit as error:
        why = str(error).partition(ANYWAY)[0]
        raise DoesNotFit(
            f"{folder.name}: {why} Give all runs a smaller --batch-size, or more --chunks, and another --run-dir."
        ) from error
    except FloatingPointError as error:
        print(error, file=sys.stderr)
        (folder / DIVERGED).write_text(json.dumps({"why": str(error)}) + "\n")


def _too_large(error: Exception) -> bool:
    """Whether a program needs more memory than there is: found before its first step, or by XLA in the midst of it."""
    return isinstance(error, DoesNotFit) or "RESOURCE_EXHAUSTED" in str(error)


def _at_one_step(members: Sequence[int], folders: Sequence[Path]) -> Iterator[list[int]]:
    """Those that have not begun; those that have and can go on from one step; else each alone, from its own."""
    begun = [i for i in members if latest(folders[i] / "checkpoints") is not None]
    fresh = [i for i in members if i not in begun]
    if fresh:
        yield fresh
    if begun and common_step([folders[i] / "checkpoints" for i in begun]):
        yield begun
    else:
        yield from ([i] for i in begun)


def _ended(
    sweep_dir: Path, all_of: Sequence[dict[str, str]], folders: Sequence[Path], config: ModuleType
) -> list[dict[str, Any]]:
    """The results, once it is said of which runs there are none."""
    for folder in dict.fromkeys(folders):
        if (folder / DIVERGED).exists():
            print(
                f"{folder.name} diverged, and has no result. To try it again, as with --nonfinite skip, which leaves"
                f" out steps that are not finite, remove {folder / DIVERGED} and give the same command.",
                file=sys.stderr,
            )
    return write_results(sweep_dir, all_of, folders, config=config)


def write_results(
    sweep_dir: Path,
    all_of: Sequence[dict[str, str]],
    folders: Sequence[Path],
    *,
    config: ModuleType | None = None,
) -> list[dict[str, Any]]:
    """The results of what is evaluated, also as sweep.json. What a run was asked otherwise than the others ("variant")
    is left out, and so are, where the config is given, results of before a run's last step."""
    results = []
    names = dict.fromkeys(name for combination in all_of for name in combination)
    for combination, folder in zip(all_of, folders, strict=True):
        named = {name: combination.get(name, "") for name in names}
        last = None if config is None else last_step(folder, config)
        for row in evaluations(folder):
            own = row["encoder"] in (
                folder.name,
                *BASELINES,
            )  # one that stands beside it has steps of its own
            if is_variant(row) or (own and not of_step(row, last)):
                continue
            encoder = "trained" if row["encoder"] == folder.name else row["encoder"]
            results.append(row | {"encoder": encoder, "knobs": named})
    write_whole(sweep_dir / "sweep.json", json.dumps(results, indent=2) + "\n")
    return results


def plot_sweep(
    sweep_dir: str | Path,
    *,
    knob: str | None = None,
    lines: str | Sequence[str] | None = None,
    where: Mapping[str, str] | None = None,
    chance: float | None = None,
    out: str | Path | None = None,
) -> Path:
    """Draws accuracy against a knob (`plot.sweep_curves`) into sweep_dir/sweep.png, or `out`.

    Of what varies and is not fixed by `where`, the first knob is the x axis and the next, or the protocol, makes lines.
    """
    from jaxcl.plot import sweep_curves

    results = read_json(Path(sweep_dir) / "sweep.json", kind=list)
    if not results:
        raise ValueError(f"{sweep_dir} has no results yet, so there is nothing to draw.")
    knobs = [name for name in results[0]["knobs"] if name != "seed"]
    free = [
        name for name in knobs if name not in (where or {}) and len({r["knobs"][name] for r in results}) > 1
    ]
    told = () if lines is None else (lines,) if isinstance(lines, str) else tuple(lines)
    knob = knob or next((name for name in free if name not in told), knobs[0] if knobs else "seed")
    kinds = {
        name: {row.get(name) for row in results}
        for name in ("protocol", "labels", "data")
        if name not in (where or {})
    }
    rest = [name for name in free if name != knob] + [name for name, found in kinds.items() if len(found) > 1]
    figure = sweep_curves(
        results, knob=knob, lines=lines or next(iter(rest), None), where=where, chance=chance
    )
    path = Path(out) if out is not None else Path(sweep_dir) / "sweep.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150, facecolor="white", bbox_inches="tight")
    return path
