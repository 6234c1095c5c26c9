"""The table: of each kind of case how many there were, and how many passed."""

from __future__ import annotations

import collections
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from endurance_parts.world import Row

HEAD = """\
# Endurance

Each case is a process of its own that is `jaxcl train`, or another command, on a run that takes a second; what happens
to it follows from its number. `python benchmarks/endurance.py --help` says how to do them again, the docstrings in
`benchmarks/endurance_parts` what a case of each kind must do to pass. In short: a run that was killed or stopped and
gone on with ends with the state (bit for bit), the log (each step once) and the files of the one that nothing happened
to; a damage is answered by a sentence and overwrites nothing, or does no harm.
"""


class Kind(NamedTuple):
    title: str
    holds: Callable[[Row], bool]


def _kills(processes: int, aim: str) -> Callable[[Row], bool]:
    return lambda row: (row["kind"], row.get("processes"), row.get("aim")) == ("kill", processes, aim)


def _signals(processes: int, sent: str) -> Callable[[Row], bool]:
    return lambda row: (
        (row["kind"], row.get("processes"), row.get("signal_sent")) == ("signal", processes, sent)
    )


def _damage(*targets: str) -> Callable[[Row], bool]:
    return lambda row: row["kind"] == "damage" and row["target"] in targets


def _devices(wanted: Callable[[Row], bool]) -> Callable[[Row], bool]:
    return lambda row: row["kind"] == "devices" and wanted(row)


KINDS = [
    Kind("SIGKILL at a save, one process", _kills(1, "save")),
    Kind("SIGKILL at any moment, one process", _kills(1, "moment")),
    Kind("SIGKILL at a save, of one of two processes or of both", _kills(2, "save")),
    Kind("SIGKILL at any moment, of one of two processes or of both", _kills(2, "moment")),
    Kind("SIGTERM", _signals(1, "SIGTERM")),
    Kind("SIGINT (Ctrl-C)", _signals(1, "SIGINT")),
    Kind("SIGINT twice within a tenth of a second", _signals(1, "SIGINT twice")),
    Kind("SIGTERM to one of two processes", _signals(2, "SIGTERM")),
    Kind("SIGINT to one of two processes", _signals(2, "SIGINT")),
    Kind("Damaged: a checkpoint's arrays", _damage("newest", "older")),
    Kind("Damaged: a checkpoint's manifest", _damage("manifest")),
    Kind("Damaged: a folder of checkpoints", _damage("folder")),
    Kind("Damaged: knobs.json", _damage("knobs")),
    Kind("Damaged: run.json", _damage("record")),
    Kind("Damaged: metrics.jsonl", _damage("log")),
    Kind("Damaged: config.py", _damage("config")),
    Kind("Damaged: the images (.npz)", _damage("images")),
    Kind("Damaged: other files of a run", _damage("rest")),
    Kind(
        "One, two, four or eight devices against one",
        _devices(lambda row: row["processes"] == 1 and len(row["devices"]) == 1),
    ),
    Kind("Stopped on eight devices, gone on with on eight", _devices(lambda row: row["devices"] == [8, 8])),
    Kind("Stopped on eight, then on two, ended on one", _devices(lambda row: row["devices"] == [8, 2, 1])),
    Kind("Eight devices of two processes against one device", _devices(lambda row: row["processes"] == 2)),
    Kind("Eight devices of four processes against one device", _devices(lambda row: row["processes"] == 4)),
    Kind("An hour of steps and saves", lambda row: row["kind"] == "soak"),
]


def text(rows: Sequence[Row]) -> str:
    lines = [HEAD, "| what | cases | passed |", "|---|---|---|"]
    for title, holds in KINDS:
        here = [row for row in rows if holds(row)]
        if here:
            lines.append(f"| {title} | {len(here)} | {sum(row['passed'] for row in here)} |")
    lines.append(f"| **together** | {len(rows)} | {sum(row['passed'] for row in rows)} |")
    lines += ["", *_beside(rows), *_commits(rows)]
    failed = [row for row in rows if not row["passed"]]
    if failed:
        lines += ["", "What failed:", "", *(f"- {_name(row)}: {_short(row['why'])}" for row in failed)]
    return "\n".join(lines) + "\n"


def _beside(rows: Sequence[Row]) -> list[str]:
    found = []
    alone = [row["alone"] for row in rows if "alone" in row]
    if alone:
        found.append(
            f"Where one of two processes was killed, the other had ended after {max(alone):g} s at the most"
            f" ({len(alone)} cases), with a sentence."
        )
    damaged = [row for row in rows if row["kind"] == "damage"]
    if damaged:
        refused = sum(row["status"] != 0 for row in damaged)
        found.append(f"Of the damages {refused} were refused with a sentence; the others did no harm.")
    compared = [row for row in rows if row["kind"] == "devices" and "difference" in row]
    if compared:
        found.append(
            f"The largest difference between numbers of devices or processes, after 20 steps and relative to the"
            f" largest entry of its array, is {max(row['difference'] for row in compared):.1e}; the next float32 for"
            f" a learning rate makes {min(row['last_bit'] for row in compared):.1e} to"
            f" {max(row['last_bit'] for row in compared):.1e}."
        )
    for row in rows:
        if row["kind"] == "soak" and "mb" in row:
            found.append(
                f"The soak: {row['seconds']} s, {row['steps']} steps, {row['saves']} saves, {row['knn']} kNN"
                f" accuracies; resident memory after ten minutes {row['mb'][0]:.0f} MB, at the end"
                f" {row['mb'][2]:.0f} MB, a slope of {row['mb_in_ten_minutes']:+.2f} MB in ten minutes (allowed: 1;"
                f" in its second half {row['mb_in_ten_minutes_of_the_second_half']:+.2f}; the ten minutes of"
                f" warm-up had {row['steps_in_warm_up']} steps);"
                f" {row['threads'][0]} to {row['threads'][1]} threads, {row['files'][0]} to {row['files'][1]}"
                " open files."
            )
    notes = collections.Counter(f"{row['kind']}: {row['note']}" for row in rows if "note" in row)
    found += [f"{n} of the rows of kind {note}." for note, n in notes.items()]
    return [f"- {line}" for line in found]


def _commits(rows: Sequence[Row]) -> list[str]:
    counted = collections.Counter(row.get("commit", "?") for row in rows)
    return [f"- Commits: {', '.join(f'{name} ({n})' for name, n in counted.items())}."] if counted else []


def _name(row: Row) -> str:
    keys = (
        "kind",
        "processes",
        "run",
        "kill",
        "signal",
        "case",
        "name",
        "target",
        "command",
        "at",
        "how",
        "who",
    )
    return ", ".join(f"{key} {row[key]}" for key in keys if key in row)


def _short(why: str) -> str:
    return " ".join(why.split())[:300]


def write(rows: Sequence[Row], file: Path) -> None:
    file.write_text(text(rows))
    print(text(rows), end="")
