"""Words of the command line, and what they mean: knobs, presets, settings, several processes."""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import json
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def knobs_of(
    command: str, config: str | Path, words: Sequence[str], *, run_dir: str | Path | None = None
) -> Any:
    """A config's knobs as the words of a command line set them; --help among them prints the knobs and exits.

    run_dir
        of a run that is trained: its own config.py begins with the knobs that the run has.
    """
    import tyro

    from jaxcl.config import check_knobs, knobs_from_json, load_config, preset
    from jaxcl.records import read_text

    name, words = preset_among(words)
    module = load_config(config)
    presets, before = getattr(module, "PRESETS", {}), preset(module, name)
    had = Path(run_dir or "") / "knobs.json"
    if run_dir is not None and name is None and had.exists() and Path(config).parent.samefile(run_dir):
        before = knobs_from_json(module, read_text(had))
    knobs = tyro.cli(
        module.Knobs,
        args=words,
        default=before,
        prog=f"jaxcl {command} {config}" + ("" if name is None else f" --preset {name}"),
        description=f"--preset NAME sets all knobs at once: {', '.join(presets)}." if presets else None,
    )
    check_knobs(knobs)
    return knobs


def preset_among(words: Sequence[str]) -> tuple[str | None, list[str]]:
    """The preset that the words of a command line name, and the other words.

    >>> preset_among(["--seed", "1", "--preset", "stl10"]), preset_among(["--seed", "1"])
    (('stl10', ['--seed', '1']), (None, ['--seed', '1']))
    """
    parser = argparse.ArgumentParser("jaxcl", add_help=False, allow_abbrev=False)
    parser.add_argument("--preset")
    own, rest = parser.parse_known_args(words)
    return own.preset, rest


def add_baselines(parser: argparse.ArgumentParser, *, default: str) -> None:
    """--baselines: words of `baselines_of`."""
    parser.add_argument(
        "--baselines",
        nargs="*",
        choices=("raw", "untrained", "none"),
        metavar="NAME",
        help="what else to evaluate: raw (the pixels; slow with a linear classifier), untrained (the encoder before"
        f" training) or none; default: {default}; --baselines with no name means raw and untrained",
    )


def baselines_of(words: Sequence[str] | None, *, unless_given: Sequence[str]) -> list[str]:
    """The baselines that the words of --baselines name; None: it is not given.

    >>> baselines_of(None, unless_given=()), baselines_of(["raw"], unless_given=()), baselines_of([], unless_given=())
    ([], ['raw pixels'], ['raw pixels', 'untrained encoder'])
    """
    from jaxcl.runs import BASELINES

    if words is None:
        return list(unless_given)
    if "none" in words and len(set(words)) > 1:
        raise ValueError(f"--baselines none cannot be given with other names; got {' '.join(words)}.")
    return [] if "none" in words else [name for name in BASELINES if not words or name.split()[0] in words]


def add_processes(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--distributed",
        nargs="*",
        metavar="WORD",
        help="run as one of several processes: give no words where jax detects the cluster, else HOST:PORT of"
        " process 0, the number of processes, and the number of this one",
    )
    parser.add_argument(
        "--join-timeout",
        type=float,
        default=120.0,
        metavar="SECONDS",
        help="how long to wait for the other processes; default: 120",
    )


def add_trust(parser: Any) -> None:
    parser.add_argument(
        "--trust",
        action="store_true",
        help="execute the run's config.py; needed only for runs made elsewhere, so read it first",
    )


def speaks(own: argparse.Namespace) -> bool:
    """Whether this process is the one that prints: the only one, or the first of several."""
    if own.distributed is None:
        return True
    import jax

    return jax.process_index() == 0


def join_processes(words: Sequence[str], *, timeout: float) -> None:
    """Makes this process one of several; must come before anything else touches a device."""
    from jaxcl.processes import join

    if not words:
        join(timeout=timeout)
        return
    if len(words) != 3 or not (words[1].isdigit() and words[2].isdigit()):
        raise ValueError(
            f"--distributed takes nothing, or HOST:PORT, the number of processes and this one's number; got {words}."
        )
    join(address=words[0], processes=int(words[1]), process=int(words[2]), timeout=timeout)


def settings_of(words: Sequence[str]) -> dict[str, Any]:
    """["epochs=10", "drops=[0.5]", "schedule=steps"] -> {"epochs": 10, "drops": [0.5], "schedule": "steps"}"""
    settings = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or not value:
            raise ValueError(
                "--set takes NAME=VALUE, with a number, a word, true, false or a list for VALUE, as epochs=10 or"
                f" schedule=steps; got {word!r}."
            )
        try:
            settings[name.replace("-", "_")] = json.loads(value)
        except ValueError:
            settings[name.replace("-", "_")] = value
    return settings


def found_config(word: str | Path) -> Path:
    """The config that a word of the command line means: a file, or the name of one that comes with jaxcl."""
    from jaxcl.shipped import found, shipped

    path = found(word)
    if not path.is_file() and (near := difflib.get_close_matches(path.stem, shipped(), 1)):
        raise FileNotFoundError(
            f"There is no config {word}. Did you mean {near[0]}? `jaxcl configs` lists those that come with jaxcl."
        )
    return path


def values_of(word: str) -> list[str]:
    """A word of a sweep: a value, or whole numbers from the first to the last.

    >>> values_of("0..3"), values_of("0.5")
    (['0', '1', '2', '3'], ['0.5'])

    Raises ValueError where the last comes before the first.
    """
    first, dots, last = word.partition("..")
    if dots and first.isdigit() and last.isdigit():
        if int(first) > int(last):
            raise ValueError(
                f"FIRST..LAST are the whole numbers from FIRST up to LAST; got {word}. Write {last}..{first}."
            )
        return [str(value) for value in range(int(first), int(last) + 1)]
    return [word]


def grid_of(words: Sequence[str]) -> tuple[dict[str, list[str]], list[str]]:
    """The words of a sweep: the values of its knobs, and the options that all of its runs have.

    Raises ValueError for a word that belongs to no option, or an option without a value.

    >>> grid_of(["--seed", "0..1", "--logger", "tensorboard", "wandb"])
    ({'seed': ['0', '1']}, ['--logger', 'tensorboard', 'wandb'])
    """
    from jaxcl.config import MAY_CHANGE

    given: dict[str, list[str]] = {}
    values: list[str] | None = None
    for word in words:
        if word.startswith("--"):
            name, equals, value = word[2:].partition("=")
            values = given.setdefault(name.replace("-", "_"), [])
            values += [value] if equals else []
        elif values is None:
            raise ValueError(
                f"{word!r} belongs to no knob; a sweep takes --KNOB VALUE VALUE ..., as --seed 0 1 2."
            )
        else:
            values.append(word)
    # What a run may change when it is resumed differs between the runs of no sweep, and no directory is named by it:
    # but for data_dir, by which directories always were.
    same = {name: found for name, found in given.items() if name in MAY_CHANGE - {"data_dir"}}
    for name in (name for name, found in given.items() if not found and name not in same):
        raise ValueError(
            f"--{name.replace('_', '-')} needs a value; one that is on or off takes True and False."
        )
    grid = {
        name: [value for word in found for value in values_of(word)]
        for name, found in given.items()
        if name not in same
    }
    for name in (name for name, found in same.items() if len(found) != 1 and name != "logger"):
        raise ValueError(
            f"--{name.replace('_', '-')} is the same for all runs of a sweep: one value; got {same[name]}."
        )
    return grid, [word for name, found in same.items() for word in (f"--{name.replace('_', '-')}", *found)]


def words_of(config: str | Path, combination: Mapping[str, str]) -> list[str]:
    """One value for each of some knobs of a config, as the words of a command line."""
    from jaxcl.config import load_config

    knobs = load_config(config).Knobs
    hints = typing.get_type_hints(knobs)
    defaults = {field.name: field.default for field in dataclasses.fields(knobs)}
    return [
        word
        for knob, value in combination.items()
        for word in option(knob, value, defaults.get(knob), several=takes_several(hints.get(knob)))
    ]


def takes_several(hint: Any) -> bool:
    """Whether a knob of this type holds several values.

    >>> takes_several(tuple[int, ...]), takes_several(tuple[float, float] | None), takes_several(str | None)
    (True, True, False)
    """
    return typing.get_origin(hint) is tuple or any(map(takes_several, typing.get_args(hint)))


def option(knob: str, value: str, default: Any, *, several: bool = False) -> list[str]:
    """One value of a sweep as the words of a command line; `several` or a default of several: it is several.

    >>> option("features", "16,32", (8, 8)), option("fused", "False", True), option("min_area", "0.3", 0.2)
    (['--features', '16', '32'], ['--no-fused'], ['--min-area', '0.3'])
    """
    name = knob.replace("_", "-")
    if isinstance(default, bool):
        if value not in ("True", "False"):
            raise ValueError(f"--{name} is True or False in a sweep; got {value!r}.")
        return [f"--{name}" if value == "True" else f"--no-{name}"]
    return [f"--{name}", *(value.split(",") if several or isinstance(default, tuple) else [value])]
