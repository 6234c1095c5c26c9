"""Which evaluations of a run are complete. An evaluation that was stopped has left files too, so a mark beside them,
evaluated.json, says of which encoders a protocol's results are all there: of every kind of label, and with "joint"."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable
from pathlib import Path

from jaxcl.records import read_json, write_whole
from jaxcl.runs.directory import evaluations

FILE = "evaluated.json"


def evaluated(run_dir: str | Path) -> set[tuple[str, str]]:
    """(protocol, encoder) of the run's own images whose results are there and complete.

    Without a mark, as an older jaxcl evaluated the run, what is there counts as complete; with a damaged one nothing.
    """
    there = {(row["protocol"], row["encoder"]) for row in evaluations(run_dir) if "data" not in row}
    marked = _marked(Path(run_dir))
    return there if marked is None else there & marked


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
