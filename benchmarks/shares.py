"""How evenly the work of every method and of every loss is shared by eight devices: compiled and read, nothing is run.

    python benchmarks/shares.py                              # prints; keeps the numbers in --keep if given
    python benchmarks/shares.py --before OLD.json --write    # beside another commit's; writes results/shares-cpu.md

The methods are those of tests/methods (tiny networks of 8 channels on images of 16 pixels) at batch 64, the losses
those of tests/losses at 512 images and width 8. A whole training step is compiled for one CPU and for eight pretended
ones, in each placement, and counted by `jaxcl.cost`, without fusion. A share is what one of the eight does, or needs,
over an eighth of what the single one does: 1 is ideal, 8 is a device that does everything.

To measure another commit, check it out, lay this file, jaxcl/cost.py and jaxcl/testing.py into it, and run it there
with `--keep`.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve()
OUT = HERE.parent / "results" / "shares-cpu.md"
BATCH, ROWS, WIDTH, DEVICES = 64, 512, 8, 8


def table_of(path: str) -> Any:
    """A file of tests as a module."""
    spec = importlib.util.spec_from_file_location(Path(path).stem, HERE.parents[1] / path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def cases(chosen: list[str]):
    """(kind, name, make, carry, key, batch) of every method and loss."""
    import jax
    import jax.numpy as jnp
    import optax

    from jaxcl.testing import step_of
    from jaxcl.train import init_state, make_step

    tables = table_of("tests/methods/test_methods.py"), table_of("tests/losses/test_devices.py")
    tx, batch = optax.sgd(0.1, momentum=0.9), tables[0].batch_of(BATCH)
    for name, maker in tables[0].METHODS.items():
        if not chosen or name in chosen:
            key = jax.eval_shape(lambda: jax.random.key(0))
            state = jax.eval_shape(lambda key, maker=maker: init_state(key, maker(None), tx, batch), key)
            yield (
                "method",
                name,
                lambda axis, maker=maker: make_step(maker(axis), tx, axis_name=axis),
                state,
                key,
                batch,
            )
    of = jax.ShapeDtypeStruct
    rows = {name: of((ROWS, WIDTH), jnp.float32) for name in "xy"} | {"label": of((ROWS,), jnp.int32)}
    for name, loss in tables[1].LOSSES.items():
        if not chosen or name in chosen:
            yield "loss", name, step_of(loss), of((), jnp.float32), of((WIDTH, WIDTH), jnp.float32), rows


def measured(chosen: list[str], placements: list[str], kept: dict) -> dict:
    from jaxcl.testing import shares

    for kind, name, *arguments in cases(chosen):
        row = kept.setdefault(kind, {}).setdefault(name, {})
        missing = [placement for placement in placements if placement not in row]
        for placement, found in (
            shares(*arguments, placements=missing, devices=DEVICES).items() if missing else ()
        ):
            row[placement] = [found.products, found.operations, found.temporaries]
            print(f"{name}, {placement}: " + ", ".join(f"{x:.2f}" for x in row[placement]), flush=True)
        yield kept


def words(share: list[float] | None) -> str:
    return " / ".join(f"{x:.2f}" for x in share) if share else "-"


def markdown(now: dict, before: dict, commit: str) -> str:
    lines = [
        "# What each of eight devices does, over an eighth of what one does",
        "",
        "`python benchmarks/shares.py`, eight devices pretended on a CPU; compiled and read, nothing is run, so the"
        " numbers are exact and have no spread. Three a cell: FLOPs of matrix products and convolutions / all"
        " operations / temporaries (unfused). 1 is ideal, 8 is a device that does everything; - was not measured.",
        "",
        "Above 1.1 on purpose: the temporaries of blockwise losses (rows of all devices and a gradient for each); under"
        " an axis the sample of a sliced Wasserstein distance, which every device draws whole; directions or blocks"
        " that do not divide, and are filled up; NT-Xent of three views under an axis, where one device chooses blocks"
        " and eight have so few products each that they store them.",
        "",
        "The first column is of another commit, with larger networks in some rows. Before that commit, of the default"
        " configs for CPUs at batch 256 under `jit` (c8efd61, FLOPs): MoCo 3.36, LooC 4.75, CMC 1.83, SWD 1.52, YADIM"
        " 1.52, BYOL 1.39, SimCLR's small encoder 1.30.",
    ]
    for kind, title in (
        ("method", f"A training step of every method of tests/methods, batch {BATCH}, 16 pixels, SGD"),
        ("loss", f"Value and gradient of every loss of tests/losses, {ROWS} images, width {WIDTH}"),
    ):
        columns = list(dict.fromkeys(place for row in now.get(kind, {}).values() for place in row))
        lines += [
            "",
            f"## {title}",
            "",
            f"| | `jit`, {commit} | " + " | ".join(f"`{c}`" for c in columns) + " |",
        ]
        lines.append("|---|" + "---|" * (1 + len(columns)))
        for name, row in now.get(kind, {}).items():
            old = before.get(kind, {}).get(name, {}).get("jit")
            lines.append(
                f"| {name} | {words(old)} | " + " | ".join(words(row.get(c)) for c in columns) + " |"
            )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "names", nargs="*", help="methods and losses by their names; all of them if none is given"
    )
    parser.add_argument("--placements", nargs="+", default=["jit", "shard_map", "pmap"])
    parser.add_argument("--keep", type=Path, help="a JSON file; what is there already is not measured again")
    parser.add_argument("--before", type=Path, help="such a file of another commit")
    parser.add_argument("--commit", default="before", help="what to call that commit")
    parser.add_argument("--write", action="store_true", help=f"write {OUT.relative_to(HERE.parents[1])}")
    given = parser.parse_args()
    os.environ["JAX_PLATFORMS"] = "cpu"
    os.environ["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={DEVICES}"
    kept = json.loads(given.keep.read_text()) if given.keep and given.keep.exists() else {}
    for so_far in measured(given.names, given.placements, kept):
        if given.keep:
            given.keep.write_text(json.dumps(so_far, indent=1))
    before = json.loads(given.before.read_text()) if given.before else {}
    text = markdown(kept, before, given.commit)
    print(text)
    if given.write:
        OUT.write_text(text)


if __name__ == "__main__":
    main()
