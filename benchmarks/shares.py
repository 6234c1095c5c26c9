"""How evenly the work of every method and of every loss is shared by eight devices: compiled and read, nothing is run.

    python benchmarks/shares.py                              # prints; keeps the numbers in --keep if given
    python benchmarks/shares.py --before OLD.json --write    # beside another commit's; writes results/shares-cpu.md

The methods are those of tests/methods (tiny networks of 8 channels on images of 16 pixels) at batch 64, the losses
those of tests/losses at 512 images of width 8 and at 2,048 of width 32, and the configs those for CPUs at their own
sizes and batch 256, under `jit` alone, where no device is given its axis. A whole training step is compiled for one CPU
and for eight pretended ones, in each placement, and counted by `jaxcl.cost`, without fusion. A share is what one of the
eight does, or needs, over an eighth of what the single one does: 1 is ideal, 8 is a device that does everything.

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
CONFIGS_AT = HERE.parents[1] / "configs"
BATCH, DEVICES = 64, 8
SIZES = {"loss": (512, 8), "larger loss": (2048, 32)}
# name -> config and its knobs, and what a device had of the FLOPs before the law was kept (c8efd61)
CONFIGS: dict[str, tuple[str, dict[str, str], float | None]] = {
    "SimCLR": ("simclr_cifar10_cpu", {}, 1.30),
    "alignment + SWD": ("losses_cifar10", {"loss": "swd_sphere"}, 1.52),
    "MoCo": ("moco_cifar10_cpu", {}, 3.36),
    "LooC": ("looc_cpu", {}, 4.75),
    "BYOL": ("byol_cifar10_cpu", {}, 1.39),
    "AMDIM": ("amdim_cifar10_cpu", {}, None),
    "CPC": ("cpc_cifar10_cpu", {}, None),
    "CMC": ("cmc_cifar10_cpu", {}, 1.83),
    "YADIM": ("yadim_cifar10_cpu", {}, 1.52),
}


def table_of(path: str) -> Any:
    """A file of tests as a module."""
    spec = importlib.util.spec_from_file_location(Path(path).stem, HERE.parents[1] / path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def cases(chosen: list[str]):
    """(kind, name, make, carry, key, batch) of every method, loss and config."""
    import jax
    import jax.numpy as jnp
    import optax

    from jaxcl.config import load_config
    from jaxcl.losses import blockwise
    from jaxcl.plan import about_of
    from jaxcl.testing import step_of
    from jaxcl.train import init_state, make_step
    from jaxcl.train.state import blank_batch

    def step_and_state(method, tx, batch):
        """method: axis_name -> Method."""
        key = jax.eval_shape(lambda: jax.random.key(0))
        state = jax.eval_shape(lambda key: init_state(key, method(None), tx, batch), key)
        return lambda axis: make_step(method(axis), tx, axis_name=axis), state, key, batch

    def is_chosen(name):
        return not chosen or name in chosen

    tables = table_of("tests/methods/test_methods.py"), table_of("tests/losses/test_devices.py")
    for name in filter(is_chosen, tables[0].METHODS):
        tx, batch = optax.sgd(0.1, momentum=0.9), tables[0].batch_of(BATCH)
        yield "method", name, *step_and_state(tables[0].METHODS[name], tx, batch)
    for name in filter(is_chosen, CONFIGS):
        file, knobs, _ = CONFIGS[name]
        config = load_config(CONFIGS_AT / f"{file}.py")
        given = config.Knobs(**knobs, batch_size=256)
        about, _ = about_of(config, given, images=50_000, shape=(32, 32, 3), classes=10)
        recipe = config.recipe(given, about)
        yield (
            "config",
            name,
            *step_and_state(lambda axis, of=recipe: of.method, recipe.optimizer, blank_batch(about, 256)),
        )
    # Left to itself one device chooses blocks where each of eight stores its few products.
    blockwise.PLAIN_BELOW = float("inf")
    of = jax.ShapeDtypeStruct
    for kind, (images, width) in SIZES.items():
        rows = {name: of((images, width), jnp.float32) for name in "xy"} | {"label": of((images,), jnp.int32)}
        for name in filter(is_chosen, tables[1].LOSSES):
            loss = step_of(tables[1].LOSSES[name])
            yield kind, name, loss, of((), jnp.float32), of((width, width), jnp.float32), rows


def measured(chosen: list[str], placements: list[str], kept: dict) -> dict:
    from jaxcl.testing import shares

    for kind, name, *arguments in cases(chosen):
        row = kept.setdefault(kind, {}).setdefault(name, {})
        asked = ["jit"] if kind == "config" else placements
        missing = [placement for placement in asked if placement not in row]
        for placement, found in (
            shares(*arguments, placements=missing, devices=DEVICES).items() if missing else ()
        ):
            row[placement] = [found.products, found.operations, found.temporaries]
            print(f"{kind} {name}, {placement}: " + ", ".join(f"{x:.2f}" for x in row[placement]), flush=True)
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
        "Above 1.1 on purpose: the temporaries of blockwise losses (rows of all devices, a gradient for each, and a"
        " tile, however many devices there are); under an axis a prior of one's own, which every device draws whole;"
        " directions or blocks that do not divide, and are filled up; of small configs, most of whose memory is"
        " parameters, queue and their changes, the temporaries.",
    ]
    if "config" in now:
        lines += [
            "",
            "## A training step of the configs for CPUs, batch 256, their own sizes, `jit`",
            "",
            "| | FLOPs before the law (c8efd61) | now |",
            "|---|---|---|",
        ]
        lines += [
            f"| {name} (`{file}.py"
            + "".join(f" --{k} {v}" for k, v in knobs.items())
            + f"`) | {f'{was:.2f}' if was else '-'} | {words(now['config'].get(name, {}).get('jit'))} |"
            for name, (file, knobs, was) in CONFIGS.items()
        ]
    for kind, title in (
        ("method", f"A training step of every method of tests/methods, batch {BATCH}, 16 pixels, SGD"),
        *(
            (kind, f"Value and gradient of every loss of tests/losses, {images:,} images, width {width}")
            for kind, (images, width) in SIZES.items()
        ),
    ):
        columns = list(dict.fromkeys(place for row in now.get(kind, {}).values() for place in row))
        lines += [
            "",
            f"## {title}",
            "",
            "| "
            + " | ".join(
                ["", *([f"`jit`, {commit}"] if kind in before else []), *(f"`{c}`" for c in columns)]
            )
            + " |",
        ]
        lines.append("|---" * (1 + (kind in before) + len(columns)) + "|")
        for name, row in now.get(kind, {}).items():
            old = [before[kind].get(name, {}).get("jit")] if kind in before else []
            lines.append("| " + " | ".join([name, *map(words, [*old, *map(row.get, columns)])]) + " |")
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
