"""Does a run survive? Kills, signals, damage, other devices and an hour of saves, counted, by true runs of `jaxcl`.

    python benchmarks/endurance.py kills                 200 SIGKILLs, half at saves; of two processes too
    python benchmarks/endurance.py signals               60 SIGTERMs and Ctrl-Cs, some twice, some to one of two
    python benchmarks/endurance.py damage                500 damaged files, of runs and of their images
    python benchmarks/endurance.py devices               one to eight devices, two and four processes, every placement
    python benchmarks/endurance.py soak                  an hour of steps and saves: memory, threads, open files
    python benchmarks/endurance.py table                 benchmarks/results/endurance.md, of all that was done so far

Each case is a process that is the command as users give it, on a run that takes a second. A line a case is appended to
benchmarks/results/endurance.jsonl (--out); what stands there is not done again, so that each command can be ended and
given again. What a case does follows from its number. What fails is kept in the work folder (--work) to be looked at.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

WHAT = ("kills", "signals", "damage", "devices", "soak")
ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "benchmarks" / "results" / "endurance.jsonl"


def prepare(work: Path) -> None:
    """Before jax is imported: programs are compiled once, and quickly, the same on both sides of each comparison."""
    os.environ["JAX_PLATFORMS"] = "cpu"
    os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(work / "compiled"))
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    os.environ["XDG_STATE_HOME"] = str(work / "state")  # the secret by which one's own runs are known
    os.environ["OPENBLAS_NUM_THREADS"] = "1"  # who forks has one thread
    os.environ["MPLBACKEND"] = "Agg"
    import sklearn.linear_model  # noqa: F401
    import tensorboardX  # noqa: F401
    import tyro  # noqa: F401

    import jaxcl.cli
    import jaxcl.data
    import jaxcl.evaluate
    import jaxcl.methods
    import jaxcl.plan
    import jaxcl.runs
    import jaxcl.train
    import jaxcl.weights  # noqa: F401


def commit() -> str:
    found = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True
    )
    return found.stdout.strip()


def done(out: Path) -> list[dict]:
    return [json.loads(line) for line in out.read_text().splitlines()] if out.exists() else []


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", nargs="+", choices=[*WHAT, "table"])
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--work", type=Path, default=ROOT / "runs" / "endurance")
    parser.add_argument("--cases", type=int, help="fewer than the table asks for, or more")
    parser.add_argument("--processes", type=int, choices=[1, 2], help="kills and signals: of such runs alone")
    parser.add_argument("--first", type=int, default=0, help="number of the first run of kills or signals")
    parser.add_argument("--seconds", type=float, default=3600.0, help="of the soak")
    own = parser.parse_args()
    work, out = own.work.resolve(), own.out.resolve()
    work.mkdir(parents=True, exist_ok=True)
    if own.what != ["table"]:
        prepare(work)
    there, at = done(out), commit()

    def emit(row: dict) -> None:
        row = row | {"commit": at}
        out.parent.mkdir(parents=True, exist_ok=True)
        with open(out, "a", encoding="utf-8") as lines:
            lines.write(json.dumps(row) + "\n")
        there.append(row)
        print(json.dumps(row), flush=True)

    worlds: dict = {}
    for what in own.what:
        if what in RUNS:
            in_runs(what, there, work, emit, own, worlds)
        elif what == "damage":
            from endurance_parts import damage

            known = {row["case"] for row in there if row["kind"] == "damage"}
            made = damage.stage(work)
            for number in sorted(set(range(own.cases or DAMAGES)) - known):
                damage.run(made, number, emit)
        elif what == "devices":
            from endurance_parts import devices

            known = {row["name"] for row in there if row["kind"] == "devices"}
            wanted = [case for case in devices.cases() if devices.name_of(case) not in known]
            devices.run(work, wanted[: own.cases], emit)
        elif what == "soak":
            from endurance_parts import soak

            if not any(row["kind"] == "soak" and row["seconds"] >= own.seconds - 1 for row in there):
                soak.run(work, own.seconds, emit)
        else:
            from endurance_parts import table

            table.write(there, out.with_suffix(".md"))


# Processes -> how many at the least.
RUNS = {"kills": {1: 160, 2: 60}, "signals": {1: 48, 2: 16}}
PER_RUN = {"kills": 5, "signals": 4}
DAMAGES = 500


def in_runs(
    what: str,
    there: list[dict],
    work: Path,
    emit: Callable[[dict], None],
    own: argparse.Namespace,
    worlds: dict,
) -> None:
    """Kills or signals: several a run, until there are enough."""
    from endurance_parts import kills, signals
    from endurance_parts.world import world

    run = {"kills": kills.run, "signals": signals.run}[what]
    for processes in [own.processes] if own.processes else [1, 2]:

        def rows(processes=processes):
            kind = what.removesuffix("s")
            return [row for row in there if (row["kind"], row.get("processes")) == (kind, processes)]

        wanted = own.cases or RUNS[what][processes]
        if len(rows()) >= wanted:
            continue
        if processes not in worlds:
            worlds[processes] = world(work, processes=processes)
        number = max([own.first - 1, *(row["run"] for row in rows())]) + 1
        while len(rows()) < wanted:
            run(worlds[processes], number, emit, min(PER_RUN[what], wanted))
            number += 1


if __name__ == "__main__":
    from endurance_parts.lives import as_main

    as_main(main)
