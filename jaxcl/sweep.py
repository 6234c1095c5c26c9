"""Many runs: every combination of some knobs' values, each in a run directory of its own."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from jaxcl.records import read_json
from jaxcl.runs import evaluate_run, evaluations, train_run


def combinations(grid: Mapping[str, Sequence[str]]) -> list[dict[str, str]]:
    """{"seed": ("0", "1"), "bits": ("0",)} -> one dict a combination, the last knob varying fastest.

    >>> combinations({"bits": ["0", "5"], "seed": ["0", "1"]})[1]
    {'bits': '0', 'seed': '1'}
    """
    return [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]


def sweep(
    config: str | Path,
    knobs_of: Callable[[Mapping[str, str]], Any],
    grid: Mapping[str, Sequence[str]],
    sweep_dir: str | Path,
    *,
    protocols: Sequence[str] = ("knn", "linear"),
    baselines: Sequence[str] = (),
) -> list[dict[str, Any]]:
    """Trains and evaluates every combination in sweep_dir/knob=value,...; what is there already is not done again.

    `knobs_of({"knob": "value", ...})` makes the config's knobs. Returns one result a run, protocol and encoder,
    with the combination under "knobs", and writes them to sweep_dir/sweep.json.
    """
    sweep_dir, results = Path(sweep_dir), []
    for combination in combinations(grid):
        name = ",".join(f"{knob}={value}" for knob, value in combination.items())
        run_dir = sweep_dir / name.replace("/", "_")
        # A result is written as soon as it is there, so an evaluation that was stopped has left some of them.
        wanted = {(protocol, encoder) for protocol in protocols for encoder in (run_dir.name, *baselines)}
        done = {(row["protocol"], row["encoder"]) for row in evaluations(run_dir)}
        if not wanted <= done:
            print(f"\n== {name}", flush=True)
            train_run(config, knobs_of(combination), run_dir)
            evaluate_run(run_dir, protocols, baselines=baselines)
            jax.clear_caches()  # programs that no other run will use; over a long sweep they fill the memory
        for row in evaluations(run_dir):
            encoder = "trained" if row["encoder"] == run_dir.name else row["encoder"]
            results.append(row | {"encoder": encoder, "knobs": combination})
        (sweep_dir / "sweep.json").write_text(json.dumps(results, indent=2) + "\n")
    return results


def plot_sweep(
    sweep_dir: str | Path,
    *,
    knob: str | None = None,
    lines: str | None = None,
    where: Mapping[str, str] | None = None,
    chance: float | None = None,
    out: str | Path | None = None,
) -> Path:
    """Draws accuracy against a knob (`plot.sweep_curves`) into sweep_dir/sweep.png, or `out`.

    Of what varies and is not fixed by `where`, the first knob is the x axis and the next, or the protocol, makes lines.
    """
    from jaxcl.plot import sweep_curves

    results = read_json(Path(sweep_dir) / "sweep.json", kind=list)
    knobs = [name for name in results[0]["knobs"] if name != "seed"]
    free = [
        name for name in knobs if name not in (where or {}) and len({r["knobs"][name] for r in results}) > 1
    ]
    knob = knob or next((name for name in free if name != lines), knobs[0] if knobs else "seed")
    kinds = {
        name: {row.get(name) for row in results}
        for name in ("protocol", "labels")
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
