"""What the papers' training steps need of machines that are not there: `jaxcl plan` of a list of rows, and their table.

    python benchmarks/plans.py                     # compiles the rows that this environment has a compiler for
    python benchmarks/plans.py --only moco v5p     # of those, the rows with one of these words in their command
    python benchmarks/plans.py --render            # compiles nothing, writes the table in results/plans.md

Rows for TPUs need `jaxcl[tpu]`, those for GPUs `jaxcl[cuda]`: run it once in an environment with each. A row takes
minutes of a core, so what was found is kept as results/plans/NAME.json and is not compiled again; delete the file to
have it anew. A row that fails is kept with its reason.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from jaxcl import machines
from jaxcl.plan import bound_in_words, duration, size

HERE = Path(__file__).resolve().parent
KEPT, OUT = HERE / "results" / "plans", HERE / "results" / "plans.md"
SIMCLR, MOCO, BYOL = "configs/simclr_imagenet.py", "configs/moco_imagenet.py", "configs/byol.py"
LOOC, CPC, AMDIM, CMC = "configs/looc.py", "configs/cpc.py", "configs/amdim.py", "configs/cmc.py"
YADIM, MOCO100 = "configs/yadim.py", "configs/moco_imagenet100.py"
SIMCLR_V2, LARGEST = "configs/simclr_v2.py", "--depth 152 --width 3 --sk"

# What a person asked -> the words behind `jaxcl plan`. In the order of their worth, as an interrupted night keeps the
# first of them.
ROWS: list[tuple[str, str]] = [
    ("SimCLR, ResNet-50, 4k", f"{SIMCLR} --machine tpu-v5e-64 --input images"),
    ("SimCLR, ResNet-50, 4k", f"{SIMCLR} --machine h100-8 --input images --remat"),
    ("SimCLR, ResNet-50, 4k", f"{SIMCLR} --machine h100-8 --input images --chunks 4"),
    ("SimCLR, ResNet-50, 8k", f"{SIMCLR} --machine h100-8 --input images --batch-size 8192 --chunks 4"),
    ("SimCLR, ResNet-50, 32k", f"{SIMCLR} --machine h100-8 --input images --batch-size 32768 --chunks 16"),
    (
        "SimCLR, ResNet-152 (2x), 4k",
        f"{SIMCLR} --machine h100-8 --input images --depth 152 --width 2 --chunks 8",
    ),
    (
        "SimCLR, ResNet-152 (2x), 8k",
        f"{SIMCLR} --machine h100-8 --input images --batch-size 8192 --depth 152 --width 2 --chunks 16",
    ),
    (
        "SimCLR, ResNet-152 (2x), 32k",
        f"{SIMCLR} --machine h100-8 --input images --batch-size 32768 --depth 152 --width 2 --chunks 64",
    ),
    ("BYOL, ResNet-50, 4k", f"{BYOL} --preset imagenet --machine h100-8 --input images --remat"),
    ("MoCo v2, ResNet-50, 256", f"{MOCO} --machine h100-8 --input images"),
    ("MoCo v2, ResNet-50, 256", f"{MOCO} --machine h100 --input images"),
    ("LooC++, ResNet-50, 256", f"{LOOC} --preset looc_plus_plus --machine h100-8 --input images"),
    ("CMC, two ResNet-50 of half the width, 128", f"{CMC} --preset imagenet --machine h100 --input images"),
    ("AMDIM, 480", f"{AMDIM} --preset imagenet --machine h100-8 --input images"),
    ("CPC of 53 blocks, 3,072", f"{CPC} --preset imagenet_henaff --machine h100-8 --input images"),
    (
        "CPC of 53 blocks, 3,072",
        f"{CPC} --preset imagenet_henaff --machine h100-8 --input images --chunks 8",
    ),
    (
        "CPC of 53 blocks, one direction, 3,072",
        f"{CPC} --preset imagenet_pseudo_code --machine h100-8 --input images --chunks 8",
    ),
    ("CPC of 56 blocks, 3,072", f"{CPC} --preset imagenet --machine h100-8 --input images --chunks 4"),
    ("MoCo with mixed features, ResNet-50, 256", f"{MOCO100} --preset v1_ft --machine h100 --input images"),
    ("YADIM, 200", f"{YADIM} --preset imagenet --machine h100-8 --input images"),
    ("MoCo v2, ResNet-50, 256", f"{MOCO} --machine tpu-v5e-16 --input images"),
    ("BYOL, ResNet-50, 4k", f"{BYOL} --preset imagenet --machine tpu-v5e-64 --input images"),
    ("SimCLR, ResNet-50, 8k", f"{SIMCLR} --machine tpu-v5p-128 --input images --batch-size 8192"),
    ("SimCLR, ResNet-50, 32k", f"{SIMCLR} --machine tpu-v5e-256 --input images --batch-size 32768"),
    (
        "SimCLR, ResNet-152 (2x), 4k",
        f"{SIMCLR} --machine tpu-v5e-64 --input images --depth 152 --width 2 --remat",
    ),
    ("SimCLR, ResNet-50, 4k, two views by the host", f"{SIMCLR} --machine tpu-v5e-64"),
    ("AMDIM, 626 M parameters", f"{AMDIM} --preset imagenet_large --machine h100-8 --input images"),
    ("CMC, two ResNet-50 of double width", f"{CMC} --preset imagenet_2x --machine h100-8 --input images"),
    (
        "SimCLRv2, ResNet-152 (3x, SK)",
        f"{SIMCLR_V2} --depth 152 --width 3 --sk --machine h100-8 --input images --chunks 16",
    ),
]
# The presets for CIFAR-10 and STL-10, each on one GPU.
ROWS += [
    (f"{config.stem.upper()}, {preset}", f"configs/{config.name} --preset {preset} --machine h100" + images)
    for preset, images in (("cifar10", ""), ("stl10", " --input images"))
    for config in map(Path, (BYOL, AMDIM, CPC, CMC, YADIM))
]  # fmt: skip


def name_of(words: str) -> str:
    """
    >>> name_of("configs/a.py --machine h100-8 --depth 50")
    'a-machine-h100-8-depth-50'
    """
    return re.sub(r"[^\w.]+", "-", words.removeprefix("configs/").replace(".py", "", 1))


def can_compile(words: str) -> bool:
    """Whether this environment has the compiler of a row's machine."""
    kind, _ = machines.parse(words.split("--machine ")[1].split()[0])
    needed = ("libtpu",) if kind in machines.SHAPES else ("jax_cuda12_plugin", "jax_cuda13_plugin")
    return any(importlib.util.find_spec(module) for module in needed)


def kept(words: str) -> dict[str, Any] | None:
    path = KEPT / f"{name_of(words)}.json"
    return json.loads(path.read_text()) if path.exists() else None


def run(words: str) -> dict[str, Any]:
    """A row's plan, or why there is none; in a process of its own, as it decides what jax compiles for."""
    made = KEPT / f"{name_of(words)}.part"
    command = [sys.executable, "-m", "jaxcl", "plan", *words.split(), "--no-advise", "--json", str(made)]
    start = time.perf_counter()
    done = subprocess.run(command, cwd=HERE.parent, text=True, capture_output=True)
    if made.exists():
        found = {"plan": json.loads(made.read_text())}
        made.unlink()
    else:
        last = [line for line in (done.stderr or done.stdout).splitlines() if line.strip()][-1:]
        found = {"failed": " ".join(last) or f"ended with status {done.returncode}"}
    import jax

    return {
        "command": f"jaxcl plan {words}",
        "jax": jax.__version__,
        "date": time.strftime("%Y-%m-%d"),
        "seconds": round(time.perf_counter() - start),
    } | found


def cells(asked: str, words: str, found: dict[str, Any]) -> list[str]:
    command = f"`{words}`"
    if "failed" in found:
        return [asked, command, "", f"failed: {found['failed']}", *[""] * 6, str(found["seconds"])]
    plan = found["plan"]
    peak = (plan["peak_bytes"] + plan["input_bytes"]) / machines.GIB
    collectives = "; ".join(
        f"{row['count']} {kind} {size(row['bytes'])}B" for kind, row in (plan["collectives"] or {}).items()
    )
    parts = {part: plan[f"{part}_seconds"] for part in ("compute", "memory", "links")}
    floor = ", ".join(f"{part} {duration(x)}" for part, x in parts.items() if x is not None)
    return [
        asked,
        command,
        f"{plan['batch_size'] // plan['devices']}",
        f"{peak:.3g} of {plan['capacity_bytes'] / machines.GIB:.3g}: {'fits' if plan['fits'] else 'does not fit'}",
        f"{size(plan['flops_per_device'])}",
        "" if plan["bytes_accessed"] is None else f"{size(plan['bytes_accessed'])}B",
        collectives or "none",
        f"{duration(plan['step_seconds_floor'])} ({floor})",
        bound_in_words(plan["bound_by"], plan["memory_seconds"]),
        f"{plan['hours']:.3g} h, {plan['chip_hours']:.3g}",
        f"{plan['compile_seconds']:.0f}",
    ]


HEAD = "config and batch | `jaxcl plan ...` | images a device | memory, GiB a device | FLOP | accessed"
HEAD += " | collectives a step | floor of a step | bound by | whole run, chip-hours | to compile, s"


def markdown() -> str:
    lines = [f"| {HEAD} |", "|---|---|---:|---|---:|---:|---|---|---|---|---:|"]
    for asked, words in ROWS:
        found = kept(words)
        row = (
            cells(asked, words, found) if found else [asked, f"`{words}`", "", "not compiled yet", *[""] * 7]
        )
        lines.append(f"| {' | '.join(row)} |")
    return "\n".join(lines)


def write() -> None:
    """The table, between its marks in results/plans.md."""
    begin, end = "<!-- papers' sizes: benchmarks/plans.py -->", "<!-- end -->"
    before, rest = OUT.read_text().split(begin)
    OUT.write_text(f"{before}{begin}\n{markdown()}\n{end}{rest.split(end)[1]}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", metavar="WORD", help="rows with one of these in their command")
    parser.add_argument("--render", action="store_true", help="compile nothing")
    given = parser.parse_args()
    KEPT.mkdir(exist_ok=True)
    for _, words in ROWS:
        chosen = given.only is None or any(word in words for word in given.only)
        if given.render or not chosen or kept(words) is not None or not can_compile(words):
            continue
        print(f"jaxcl plan {words}", flush=True)
        found = run(words)
        print(
            f"  {found.get('failed') or 'fits: ' + str(found['plan']['fits'])} ({found['seconds']} s)",
            flush=True,
        )
        (KEPT / f"{name_of(words)}.json").write_text(json.dumps(found, indent=1) + "\n")
        write()
    write()


if __name__ == "__main__":
    main()
