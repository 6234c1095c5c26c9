"""What goes through memory in a training step, by what it is for: compiled for a described machine and read.

    python benchmarks/traffic.py configs/simclr_imagenet.py --machine tpu-v5e-1 --input images --batch-size 64
    python benchmarks/traffic.py --text step.hlo --views 128       # of a program that was kept with --keep step.hlo

Bytes are those of `jaxcl.programs.moved`; what XLA holds in a chip's own memory (a layout with S(1)) is counted apart,
as it never reaches the large one. Parts are told by the names that jax
gives to operations: the pass, and the layer whose code made it. A fused operation carries the name of its last one.
"""

from __future__ import annotations

import argparse
import re
from collections import Counter
from pathlib import Path
from typing import Any

from jaxcl import hlo
from jaxcl.programs import moved


def name_of(each: hlo.Instruction) -> str:
    found = re.search(r'op_name="([^"]*)"', each.rest)
    return found[1] if found else ""


def part_of(each: hlo.Instruction, computations: Any) -> str:
    """What an operation is for, in words."""
    name = name_of(each)
    inside = [each]
    for _, called in hlo.called(each):
        inside += computations.get(called, ())
    kinds = {one.operation for one in inside}
    back = "transpose(" in name
    direction = "backward" if back else "forward"
    if "convolution" in kinds:
        return f"convolutions, {direction}"
    if re.search(r"BatchNorm|norm", name):
        return f"batch norm, {direction}"
    if "max_pool" in name or "select-and-scatter" in kinds or "reduce-window" in kinds:
        return f"max pool, {direction}"
    if re.search(r"ResNet|stage\d|Block", name):
        return f"other layers (relu, sums of branches), {direction}"
    if "vmap(" in name:
        return "views"
    if each.operation in ("copy-start", "slice-start"):
        return "brought to the chip ahead of time"
    return "optimizer, loss, metrics and what has no name"


def table(text: str, views: int) -> list[str]:
    computations, _ = hlo.read(text)
    through, stays, count = Counter[str](), Counter[str](), Counter[str]()
    for each, times, bytes_, inside in moved(text):
        part = part_of(each, computations)
        through[part] += bytes_
        stays[part] += inside
        count[part] += times
    lines = [
        "| part | operations | MB a view through memory | MB a view on the chip |",
        "|---|---:|---:|---:|",
    ]
    for part, bytes_ in through.most_common():
        lines.append(
            f"| {part} | {count[part]} | {bytes_ / views / 1e6:.2f} | {stays[part] / views / 1e6:.2f} |"
        )
    total, inside = sum(through.values()), sum(stays.values())
    lines.append(f"| all | {sum(count.values())} | {total / views / 1e6:.1f} | {inside / views / 1e6:.1f} |")
    return lines


def largest(text: str, views: int, number: int) -> list[str]:
    found = sorted(moved(text), key=lambda row: -row[2])[:number]
    return [
        f"{bytes_ / views / 1e6:8.2f} MB x{times} {each.operation} {each.type[:70]} {name_of(each)[:150]}"
        for each, times, bytes_, _ in found
    ]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("config", nargs="?")
    parser.add_argument("--machine", default="tpu-v5e-1")
    parser.add_argument("--keep", type=Path, help="where to keep the program's text")
    parser.add_argument("--text", type=Path, help="a text that was kept")
    parser.add_argument("--views", type=int, default=128, help="of a device, in that text")
    parser.add_argument("--largest", type=int, default=0, help="also the largest operations")
    given, words = parser.parse_known_args()
    views = given.views
    if given.text:
        text = given.text.read_text()
    else:
        from jaxcl import machines, plan
        from jaxcl.cli import knobs_of
        from jaxcl.config import load_config, resolved

        config, knobs = load_config(given.config), resolved(knobs_of("plan", given.config, words))
        machine = machines.described(given.machine)
        about, _ = plan.about_of(config, knobs)
        recipe, _, _, traced = plan.trace_step(config, knobs, about, machine)
        compiled, needed = plan.compile_for(traced, machine, [])
        if compiled is None:
            parser.error(
                f"it needs {needed} bytes a device, which are more than there are; lower --batch-size"
            )
        text, views = compiled.as_text(), 2 * recipe.batch_size // len(machine.devices)
        told = (compiled.cost_analysis() or {}).get("bytes accessed")  # None for GPUs
        own = "" if told is None else f"{told / views / 1e6:.1f} MB a view by the compiler's own count; "
        print(f"{own}{views} views a device")
        if given.keep:
            given.keep.write_text(text)
    print("\n".join(table(text, views)))
    if given.largest:
        print("\n".join(largest(text, views, given.largest)))


if __name__ == "__main__":
    main()
