"""Numbers of devices and of processes: the same run on each, and one that is gone on with on others.

A case is a run of 20 steps. It is compared with the run on one device under `jit`: every array of its state and its
losses. It passes if the largest difference (of an array, by its largest entry) is at most that which a last bit makes:
another run on one device has a learning rate that is the next float32, and differences are allowed FACTOR times those
of it, as each step rounds anew in each reduction over devices. A run that goes on, on as many devices as before, must
be the unbroken one bit for bit.
"""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from endurance_parts import lives
from endurance_parts.world import Emit, Row, images

CONFIG = Path(__file__).with_name("devices_config.py")
METHODS = ("simclr", "moco", "byol")
PLACEMENTS = ("jit", "shard_map", "pmap")
STEPS = 20
RATE = 0.02  # as the config has it
FACTOR = 30.0

Values = dict[str, Any]


def train(
    work: Path,
    name: str,
    knobs: Sequence[str],
    *,
    devices: int,
    processes: int = 1,
    until: int | None = None,
) -> str:
    """A life of a run: to the end, or asked to stop (SIGTERM) at step `until`. What went wrong, or ""."""
    run_dir = work / "devices" / name
    words = [
        "train",
        str(CONFIG),
        "--run-dir",
        str(run_dir),
        "--data",
        images(work),
        "--epochs",
        str(STEPS // 4),
    ]
    started = lives.several(
        [*words, *knobs], processes=processes, devices=devices, file=work / "devices" / f"said {name}"
    )
    if until is not None:
        started[0].reach(until)
        started[0].send(signal.SIGTERM)
    wanted = 0 if until is None else 75
    statuses = [life.wait() for life in started]
    return "" if statuses == [wanted] * processes else f"ended with {statuses}: {started[0].said()[-300:]}"


def values(work: Path, name: str) -> Values:
    """The arrays of the state at the end, and the losses of the log."""
    run_dir, file = work / "devices" / name, work / "devices" / f"{name}.npz"

    def act() -> None:
        from jaxcl.train import checkpoint

        saved = json.loads((run_dir / "checkpoints" / str(STEPS) / "manifest.json").read_text())["arrays"]
        like = {key: np.zeros(shape, dtype) for key, (dtype, shape) in saved.items()}
        np.savez(file, **checkpoint.restore(run_dir / "checkpoints", like, step=STEPS)[0])

    life = lives.start(act, work / "devices" / "read")
    if life.wait() != 0:
        raise ValueError(life.said()[-300:])
    with np.load(file) as archive:
        arrays = dict(archive)
    lines = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    return arrays | {"losses": np.array([line["loss"] for line in lines])}


def difference(one: Values, other: Values) -> float:
    """The largest over arrays: of |a - b|, by the largest |b|."""
    if one.keys() != other.keys():
        return float("inf")
    found = [0.0]
    for name, b in other.items():
        a, b = (np.asarray(x, np.float64) for x in (one[name], b))
        if b.size:
            found.append(float(np.abs(a - b).max() / max(np.abs(b).max(), 1e-6)))
    return max(found)


def cases() -> list[dict[str, Any]]:
    """Each: on how many devices one after another, of how many processes, by which method and placement."""
    found: list[dict[str, Any]] = []
    for method in METHODS:
        found += [
            {"method": method, "placement": placement, "devices": [n], "processes": 1}
            for placement in PLACEMENTS
            for n in ((1, 2, 4, 8) if method == "simclr" else (8,))
            if (placement, n) != ("jit", 1)
        ]
    for placement in PLACEMENTS:
        common = {"method": "simclr", "placement": placement}
        found += [{**common, "devices": list(path), "processes": 1} for path in ((8, 8), (8, 2, 1))]
        found += [{**common, "devices": [8], "processes": processes} for processes in (2, 4)]
    return found


def name_of(case: dict[str, Any]) -> str:
    return "-".join([case["method"], case["placement"], *map(str, case["devices"]), f"of{case['processes']}"])


def run(work: Path, wanted: Sequence[dict[str, Any]], emit: Emit) -> None:
    shutil.rmtree(work / "devices", ignore_errors=True)
    one: dict[str, Values] = {}
    bit: dict[str, float] = {}
    whole: dict[str, Values] = {}

    def reference(method: str) -> Values:
        if method not in one:
            knobs = ["--method", method, "--placement", "jit"]
            next_rate = repr(float(np.nextafter(np.float32(RATE), np.float32(1))))
            for name, more in {"one": [], "bit": ["--learning-rate", next_rate]}.items():
                why = train(work, f"{name}-{method}", [*knobs, *more], devices=1)
                if why:
                    raise RuntimeError(why)
            one[method] = values(work, f"one-{method}")
            bit[method] = difference(values(work, f"bit-{method}"), one[method])
        return one[method]

    for case in wanted:
        method, placement, processes, path = (
            case[key] for key in ("method", "placement", "processes", "devices")
        )
        knobs, name = ["--method", method, "--placement", placement], name_of(case)
        base, why = reference(method), ""
        for i, n in enumerate(path):
            until = None if i == len(path) - 1 else (i + 1) * STEPS // len(path) - 2
            why = why or train(work, name, knobs, devices=n // processes, processes=processes, until=until)
        row: Row = {"kind": "devices", **case, "name": name}
        if not why:
            found = values(work, name)
            if path == [8] and processes == 1:
                whole[f"{method}-{placement}"] = found
            row |= {"difference": difference(found, base), "last_bit": bit[method]}
            if row["difference"] > FACTOR * bit[method]:
                why = f"differs by {row['difference']:.1e}, a last bit by {bit[method]:.1e}"
            if path == [8, 8]:
                if f"{method}-{placement}" not in whole:
                    why = why or train(work, f"whole-{placement}", knobs, devices=8)
                    whole[f"{method}-{placement}"] = values(work, f"whole-{placement}")
                row["from_unbroken"] = difference(found, whole[f"{method}-{placement}"])
                why = why or ("not the unbroken run" if row["from_unbroken"] else "")
        emit(row | {"why": why, "passed": not why})
