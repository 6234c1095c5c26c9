"""Runs as their directories tell them: no config is executed, no image opened, no device asked.

A directory may come from a stranger or be damaged: what cannot be read is left out, and a sentence says so.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jaxcl.records import fits, in_utf8, read_json
from jaxcl.runs import BASELINES, evaluations
from jaxcl.runs.directory import program_of
from jaxcl.status import Status, runs_in, status
from jaxcl.swept import knobs_key
from jaxcl.tables import word
from jaxcl.train.log import read_metrics
from jaxcl.train.saved import DIVERGED

NOT_THERE = "\N{EN DASH}"  # the value of a knob that a run's config does not have


class Member(NamedTuple):
    """One run.

    name      of its directory; with that of its sweep where several are shown
    knobs     all its knobs, in words
    record    run.json
    log       metrics.jsonl, a dict a step
    results   of its evaluations; the run's own encoder is called "trained"
    pictures  (caption, file) of plots/
    """

    name: str
    folder: Path
    knobs: dict[str, str]
    record: Mapping[str, Any]
    status: Status
    diverged: str | None
    log: Sequence[Mapping[str, Any]]
    results: Sequence[Mapping[str, Any]]
    pictures: Sequence[tuple[str, Path]]


class Study(NamedTuple):
    """Runs side by side. `varying` are the knobs that differ, seeds aside, and `along` those that tell no more, as they
    differ just where one of them does: knob -> (that one, its value -> the knob's). `constant` are all others but the
    seed. `said` is what could not be read, a sentence each."""

    members: Sequence[Member]
    varying: tuple[str, ...]
    along: Mapping[str, tuple[str, Mapping[str, str]]]
    constant: Mapping[str, str]
    said: tuple[str, ...]


def gather(directories: Sequence[str | Path]) -> Study:
    """The runs in some directories, each of a run or of a sweep, ordered by their knobs.

    Raises FileNotFoundError where a directory holds no run, ValueError where none of the runs can be read.
    """
    folders = [folder for directory in directories for folder in runs_in(directory)]
    folders = list(dict.fromkeys(folder.resolve() for folder in folders))
    alone = len({folder.name for folder in folders}) == len(folders)
    members: list[Member] = []
    said: list[str] = []
    for folder in folders:
        name = in_utf8(folder.name if alone else f"{folder.parent.name}/{folder.name}")
        try:
            members.append(read_member(folder, name=name, said=said))
        except (ValueError, OSError, TypeError, ArithmeticError) as error:  # what damaged numbers may come to
            said.append(f"{name} is left out: {error}")
    if not members:
        raise ValueError(" ".join(said))
    return study_of(once_each(members, said), said)


def once_each(members: Sequence[Member], said: list[str]) -> list[Member]:
    """Of folders of one sweep that hold the same knobs of the same program, as of words in another order, the one with
    the most results; `said` names the others."""
    kept: dict[Any, Member] = {}
    for member in members:
        key: Any = member.folder
        if (member.folder.parent / "sweep.json").exists():
            try:
                key = member.folder.parent, program_of(member.folder), knobs_key(member.knobs)
            except (ValueError, OSError):  # a config that cannot be read is like no other
                pass
        other = kept.get(key)
        if other is None:
            kept[key] = member
            continue
        more = len(member.results) > len(other.results)
        kept[key], left = (member, other) if more else (other, member)
        said.append(f"{left.name} is left out: {kept[key].name} holds a run with the same knobs.")
    return list(kept.values())


def study_of(members: Sequence[Member], said: Sequence[str] = ()) -> Study:
    """Members with what they differ in, ordered by it."""
    everything = list(dict.fromkeys(name for member in members for name in member.knobs))
    members = [
        member._replace(knobs={name: member.knobs.get(name, NOT_THERE) for name in everything})
        for member in members
    ]
    values = {name: list(dict.fromkeys(member.knobs[name] for member in members)) for name in everything}
    varying = tuple(name for name in everything if len(values[name]) > 1 and name != "seed")
    seen = {(*(member.knobs[name] for name in varying), member.knobs.get("seed")) for member in members}
    if len(seen) < len(members):
        # The same knobs and seed twice: only their directories tell them apart.
        members = [member._replace(knobs=member.knobs | {"directory": member.name}) for member in members]
        varying = (*varying, "directory")
        values["directory"] = [member.name for member in members]
    said = [in_utf8(sentence) for sentence in said]
    if follows_the_seed("init", members, varying):
        varying = tuple(name for name in varying if name != "init")
        said.append("The runs start from others (--init), each setting and seed from its own.")
        values.pop("init")
    varying, along = apart_and_along(members, varying)
    places = {name: {value: i for i, value in enumerate(in_order(values[name]))} for name in varying}

    def place(member: Member) -> tuple[Any, ...]:
        return (
            *(places[name][member.knobs[name]] for name in varying),
            *order_of(member.knobs.get("seed", "")),
        )

    differ = {"seed", *varying, *along}
    constant = {name: found[0] for name, found in values.items() if name not in differ}
    return Study(sorted(members, key=place), varying, along, constant, tuple(said))


def follows_the_seed(knob: str, members: Sequence[Member], varying: Sequence[str]) -> bool:
    """Whether a knob differs between seeds of one setting, and setting and seed tell its value: a run that starts from
    the run of its own seed is no other setting."""
    if knob not in varying:
        return False
    settings = {tuple(member.knobs[name] for name in varying if name != knob) for member in members}
    seeded = {
        (*(member.knobs[name] for name in varying if name != knob), member.knobs.get("seed")): member.knobs[
            knob
        ]
        for member in members
    }
    with_it = {tuple(member.knobs[name] for name in varying) for member in members}
    return len(seeded) == len(members) and len(with_it) > len(settings)


def apart_and_along(
    members: Sequence[Member], varying: Sequence[str]
) -> tuple[tuple[str, ...], dict[str, tuple[str, Mapping[str, str]]]]:
    """Knobs that differ, and those that differ just where an earlier one does: two configs compared differ in many
    knobs, and are two settings of one."""
    first: dict[tuple[int, ...], str] = {}
    along: dict[str, tuple[str, Mapping[str, str]]] = {}
    for name in varying:
        values = [member.knobs[name] for member in members]
        order = list(dict.fromkeys(values))
        kept = first.setdefault(tuple(order.index(value) for value in values), name)
        if kept != name:
            along[name] = (kept, {member.knobs[kept]: member.knobs[name] for member in members})
    return tuple(first.values()), along


def in_order(values: Sequence[str]) -> list[str]:
    """Numbers by size, words as they came.

    >>> in_order(["0.5", "0.1"]), in_order(["swd", "nt_xent", "swd"])
    (['0.1', '0.5'], ['swd', 'nt_xent'])
    """
    values = list(dict.fromkeys(values))
    return sorted(values, key=number) if all(math.isfinite(number(value)) for value in values) else values


def number(value: str) -> float:
    """A word as a number, nan where it is none."""
    try:
        return float(value)
    except ValueError:
        return math.nan


def order_of(seed: str) -> tuple[float, str]:
    """How seeds are ordered: numbers first."""
    found = number(seed)
    return (found if math.isfinite(found) else math.inf, seed)


def setting_of(member: Member, varying: Sequence[str]) -> tuple[str, ...]:
    """The values of the knobs that differ."""
    return tuple(member.knobs[name] for name in varying)


def read_member(folder: Path, *, name: str, said: list[str]) -> Member:
    """One run. What can be left out of it is a sentence more in `said`; ValueError where it cannot be shown at all."""
    with warnings.catch_warnings(record=True) as noticed:
        warnings.simplefilter("always")
        stands, log = status(folder), read_metrics(folder)
    said += [f"{name}: {one.message}" for one in noticed]
    knobs = {knob: word(value) for knob, value in in_utf8(read_json(folder / "knobs.json")).items()}
    record = {}
    try:
        record = in_utf8(read_json(folder / "run.json"))
    except (ValueError, OSError) as error:
        said.append(f"{name}: where and when it ran is not known. {error}")
    if fits(record.get("config"), str):
        knobs = {"config": Path(record["config"]).stem} | knobs
    diverged = None
    if (folder / DIVERGED).exists():
        diverged = _said_of(folder / DIVERGED)
    try:
        found = in_utf8(evaluations(folder))
    except (ValueError, OSError) as error:
        said.append(f"{name}: its results are left out. {error}")
        found = []
    return Member(
        name=name,
        folder=folder,
        knobs=knobs,
        record=record,
        status=stands,
        diverged=diverged,
        log=log,
        results=own_called_trained(
            in_utf8(folder.name), [row for row in found if _is_result(row, name, said)]
        ),
        pictures=pictures_in(folder),
    )


def _said_of(file: Path) -> str:
    try:
        found = in_utf8(read_json(file))
    except (ValueError, OSError) as error:
        return str(error)
    at = f"at step {found['step']}: " if fits(found.get("step"), int) else ""
    return f"{at}{found.get('why', 'it is not said why')}"


def _is_result(row: Any, name: str, said: list[str]) -> bool:
    needed = {"encoder": str, "protocol": str, "accuracy": float}
    free = {
        "labels": str,
        "data": str,
        "variant": str,
        "evaluated_on": str,
        "interval": float | None,
        "step": int,
        "seconds": float,
    }
    free |= {"top5_accuracy": float | None, "mean_class_accuracy": float, "standard_error": float}
    good = isinstance(row, dict) and all(fits(row.get(key), kind) for key, kind in needed.items())
    good = good and 0 <= row["accuracy"] <= 100
    good = good and all(fits(row[key], kind) for key, kind in free.items() if key in row)
    for key in ("by_class", "groups"):
        if good and key in row:
            good = isinstance(row[key], dict) and all(fits(value, float) for value in row[key].values())
    if good and "by_class" in row:
        good = bool(row["by_class"]) and {"top5_accuracy", "mean_class_accuracy"} <= row.keys()
    if good and "groups" in row:
        good = all(fits(row.get(key), float) for key in ("clean_accuracy", "severe"))
    if not good:
        said.append(f"{name}: a result is left out, as it is not one of `jaxcl evaluate`.")
    return good


def own_called_trained(own: str, results: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The same with "trained" for the run's own encoder, which bears its directory's name; where that was changed, it
    is the first that is no baseline."""
    encoders = [row["encoder"] for row in results if row["encoder"] not in BASELINES]
    if encoders and own not in encoders:
        own = encoders[0]
    return [{**row, "encoder": "trained"} if row["encoder"] == own else row for row in results]


def pictures_in(folder: Path) -> list[tuple[str, Path]]:
    """The pictures that `jaxcl plot` left, with their captions."""
    from jaxcl.report.run import FIGURES

    plots = folder / "plots"
    if plots.is_symlink():
        return []
    captions: dict[str, str] = {}
    try:
        for row in read_json(plots / FIGURES, kind=list):
            if isinstance(row, dict) and fits(row.get("file"), str) and fits(row.get("caption"), str):
                captions[row["file"]] = in_utf8(row["caption"])
    except (ValueError, OSError):  # an older jaxcl drew them, or none are drawn
        pass
    files = {file.name: file for file in sorted(plots.glob("figure-*.png")) if file.is_file()}
    named = (
        captions
        if captions
        else {name: in_utf8(name.removesuffix(".png").replace("-", " ")) for name in files}
    )
    return [
        (caption, files[name])
        for name, caption in named.items()
        if name in files and not files[name].is_symlink()
    ]


def results_of(study: Study) -> list[dict[str, Any]]:
    """All results, with the knobs that vary and the seed under "knobs", as `jaxcl.tables` takes those of a sweep."""
    return [
        {
            **row,
            "knobs": {name: member.knobs[name] for name in (*study.varying, "seed") if name in member.knobs},
        }
        for member in study.members
        for row in member.results
    ]
