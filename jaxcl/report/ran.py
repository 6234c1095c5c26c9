"""What ran where, and for how long: tables of every run and of every device."""

from __future__ import annotations

import math
import shlex
import time
from collections.abc import Mapping, Sequence
from typing import Any

from jaxcl.records import fits
from jaxcl.report import html
from jaxcl.report.figures import spread_of
from jaxcl.report.gather import Member, Study
from jaxcl.status import duration
from jaxcl.tables import column

# Seconds between two lines of a log, beyond which a run stood still, if it is usually quicker.
STOOD_STILL = 600.0


def runs_tables(study: Study) -> list[str]:
    """Every run, and what ran where for how long."""
    protocols = list(spread_of(study))
    seeds = [member.knobs.get("seed", "") for member in study.members]
    header = [*study.varying, "seed", "state", "step", "loss", *protocols, "images/s", "began", "trained for"]
    rows = []
    for member in study.members:
        found = {column(row): row["accuracy"] for row in member.results if row["encoder"] == "trained"}
        stands = member.status
        rows.append(
            [
                *(member.knobs[name] for name in study.varying),
                member.knobs.get("seed", ""),
                stands.state,
                "" if stands.step is None else str(stands.step),
                _number(stands.loss),
                *(f"{found[protocol]:.1f}" if protocol in found else "" for protocol in protocols),
                _number(stands.images_per_second, form=",.0f"),
                when(member.log),
                trained_for([member]),
            ]
        )
    if not all(
        all(f"{name}={member.knobs[name]}" in member.name for name in study.varying)
        for member in study.members
    ):
        header = ["run", *header]
        rows = [[member.name, *row] for member, row in zip(study.members, rows, strict=True)]
    pieces = ["<h2>Runs</h2>"]
    if len(study.members) > 1 or not any(seeds):
        pieces.append(html.table("Every run", header, rows, kinds="sort filter"))
    devices: dict[tuple[str, str], list[Member]] = {}
    for member in study.members:
        devices.setdefault((device_of(member), _versions(member)), []).append(member)
    rows = [
        [device, versions, str(len(there)), _sum(there), trained_for(there), _evaluated(there)]
        for (device, versions), there in devices.items()
    ]
    header = ["device", "versions", "runs", "trained for, all added up", "by the clock", "evaluated for"]
    pieces.append(html.table("What ran where, and how long", header, rows))
    pieces.append(
        html.paragraphs(
            [
                "From the first line of a log to its last, without times in which a run stood still; what comes before"
                " the first line (compilation, the first steps) is not in it. By the clock, runs that were trained at"
                " the same time count once."
            ],
            kind="soft",
        )
    )
    commands = dict.fromkeys(filter(None, (_command(member.record) for member in study.members)))
    if commands:
        pieces.append(html.table("Begun by", ["command"], [[command] for command in list(commands)[:10]]))
    return pieces


def _number(value: Any, *, form: str = ".4g") -> str:
    return format(value, form) if isinstance(value, int | float) else ""


def device_of(member: Member) -> str:
    """The devices that a run began on, in words."""
    return str(member.record.get("device", "not known"))


def _versions(member: Member) -> str:
    versions = member.record.get("versions")
    if not isinstance(versions, dict):
        return ""
    return ", ".join(f"{name} {versions[name]}" for name in ("jaxcl", "jax") if name in versions)


def _command(record: Mapping[str, Any]) -> str:
    command = record.get("command")
    if not fits(command, tuple[str, ...]) or not command:
        return ""
    return shlex.join(["jaxcl", *command[1:]])


def trained_for(members: Sequence[Member]) -> str:
    """How long runs trained by the clock, in words; "" where their logs do not say."""
    spent = [span for member in members for span in spans(member.log)]
    return duration(seconds(spent)) if spent else ""


def _sum(members: Sequence[Member]) -> str:
    return duration(sum(seconds(spans(member.log)) for member in members))


def _evaluated(members: Sequence[Member]) -> str:
    return duration(sum(row.get("seconds", 0.0) for member in members for row in member.results))


def spans(log: Sequence[Mapping[str, Any]]) -> list[tuple[float, float]]:
    """When a run trained, in seconds since 1970: from its first line to its last, without the times it stood still.

    >>> spans([{"step": 1, "time": 0.0}, {"step": 2, "time": 5.0}, {"step": 3, "time": 9000.0}])
    [(0.0, 5.0)]
    """
    times = sorted(record["time"] for record in log if fits(record.get("time"), float))
    gaps = sorted(b - a for a, b in zip(times, times[1:], strict=False))
    most = max(STOOD_STILL, 10 * gaps[(len(gaps) - 1) // 2]) if gaps else 0.0
    return [(a, b) for a, b in zip(times, times[1:], strict=False) if b - a <= most]


def seconds(of: Sequence[tuple[float, float]]) -> float:
    """How long spans last together; where they overlap, once.

    >>> seconds([(0.0, 5.0), (3.0, 8.0), (10.0, 11.0)])
    9.0
    """
    total, end = 0.0, -math.inf
    for a, b in sorted(of):
        total += max(0.0, b - max(a, end))
        end = max(end, b)
    return total


def when(log: Sequence[Mapping[str, Any]]) -> str:
    """The day and minute of the first line of a log, in this machine's time; "" without one."""
    times = [record["time"] for record in log if fits(record.get("time"), float)]
    try:
        return time.strftime("%Y-%m-%d %H:%M", time.localtime(min(times))) if times else ""
    except (OverflowError, ValueError, OSError):
        return ""
