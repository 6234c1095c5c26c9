"""Which evaluations of a run are complete. An evaluation that was stopped has left files too, so a mark beside them,
evaluated.json, says of which encoders a protocol's results are all there: of every kind of label, and with "joint".
Marked is what answers the run's own question alone: its own images, split and labels, the protocol's own settings."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from jaxcl.records import read_json, write_whole
from jaxcl.runs.directory import evaluations

FILE = "evaluated.json"


# What a result has that is of another question; "evaluated_on" alone, as an older jaxcl wrote it.
OTHERWISE = ("data", "variant", "evaluated_on")


def evaluated(run_dir: str | Path, *, step: int | None = None) -> set[tuple[str, str]]:
    """(protocol, encoder) of the run's own images whose results are there and complete; with `step`, of the encoder at
    that training step, as far as they say so.

    Without a mark, as an older jaxcl evaluated the run, what is there counts as complete; with a damaged one nothing.
    """
    own = [row for row in evaluations(run_dir) if not any(name in row for name in OTHERWISE)]
    of_others = {(row["protocol"], row["encoder"]) for row in own if not of_step(row, step)}
    there = {(row["protocol"], row["encoder"]) for row in own} - of_others
    marked = _marked(Path(run_dir))
    return there if marked is None else there & marked


def is_variant(row: Mapping[str, Any]) -> bool:
    """Whether a result of these images was asked otherwise than by the run's knobs and the protocol itself."""
    return any(name in row for name in OTHERWISE[1:])


def of_step(row: Mapping[str, Any], step: int | None) -> bool:
    """Whether a result is of the encoder at that training step, or does not say."""
    return step is None or row.get("step", step) == step


def mark_begun(run_dir: str | Path, protocols: Iterable[str]) -> None:
    """Before the results of these protocols are made, or made anew: they are not complete."""
    begun = set(protocols)
    _write(
        Path(run_dir),
        {(protocol, encoder) for protocol, encoder in evaluated(run_dir) if protocol not in begun},
    )


def mark_complete(run_dir: str | Path, protocols: Iterable[str], encoders: Iterable[str]) -> None:
    """The results of each of these protocols are there, of each of these encoders."""
    _write(Path(run_dir), (_marked(Path(run_dir)) or set()) | set(itertools.product(protocols, encoders)))


def _marked(run_dir: Path) -> set[tuple[str, str]] | None:
    file = run_dir / FILE
    if not file.exists():
        return None
    try:
        found = read_json(file)
    except ValueError:  # evaluated again, and written anew
        return set()
    lists = {protocol: encoders for protocol, encoders in found.items() if isinstance(encoders, list)}
    return {(protocol, str(encoder)) for protocol, encoders in lists.items() for encoder in encoders}


def _write(run_dir: Path, marked: set[tuple[str, str]]) -> None:
    by_protocol: dict[str, list[str]] = {}
    for protocol, encoder in sorted(marked):
        by_protocol.setdefault(protocol, []).append(encoder)
    write_whole(run_dir / FILE, json.dumps(by_protocol, indent=2) + "\n")
