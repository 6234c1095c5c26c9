"""NT-Xent of many rows, gathered on every device or passed round a ring of them: compiled and read, nothing is run.

    python benchmarks/ring.py                                # prints
    python benchmarks/ring.py --machine tpu-v5e-64 --write   # writes results/ring.md

Value and gradient of `losses.nt_xent` by its projections, width 128, float32, under `jit`, for a described machine
(`jaxcl[tpu]` or `jaxcl[cuda]`; none of its devices is needed).
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

OUT = Path(__file__).resolve().parent / "results" / "ring.md"
WIDTH = 128


def measured(rows: int, machine, gathered: int) -> dict:
    """Of one device; `gathered` is what may be gathered (`blockwise.GATHERED`)."""
    import jax
    import jax.numpy as jnp

    from jaxcl import programs
    from jaxcl.devices import row
    from jaxcl.losses import blockwise, nt_xent
    from jaxcl.train.placement import place

    blockwise.GATHERED = gathered
    scalars = jax.ShapeDtypeStruct((), jnp.float32), jax.ShapeDtypeStruct((WIDTH,), jnp.float32)
    views = jax.ShapeDtypeStruct((rows // 2, WIDTH), jnp.float32)

    def step(carry, factor, batch):
        # Gradients by the rows, as a network would get them, and then by something small: nothing whole is returned.
        value, grad = jax.value_and_grad(lambda w: nt_xent(batch["x"] * w, batch["y"] * w, temperature=0.1))(
            factor
        )
        return carry, (value, grad)

    mesh = row(machine.devices)
    start = time.perf_counter()
    placed = place(step, "jit", mesh)
    traced = placed.trace(*scalars, {"x": views, "y": views})
    compiled = programs.compiled(traced.lower(), notes=[])
    found = programs.collectives(compiled.as_text(), devices=len(machine.devices))
    return {
        "rows": rows,
        "temporary": programs.memory(compiled)["temporary_bytes"],
        "sent": sum(one.times * one.sent for one in found),
        "kinds": programs.by_kind(found),
        "seconds": time.perf_counter() - start,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--machine", default="tpu-v5e-64")
    parser.add_argument("--rows", type=int, nargs="+", default=[2**17, 2**20, 2**22])
    parser.add_argument("--write", action="store_true")
    given = parser.parse_args()
    from jaxcl import machines
    from jaxcl.plan import size

    machine = machines.described(given.machine)
    import jax

    lines = [
        "# Rows gathered, or passed round a ring",
        "",
        f"`python benchmarks/ring.py --machine {given.machine} --rows {' '.join(map(str, given.rows))} --write`",
        "",
        f"Value and gradient of NT-Xent by its rows, width {WIDTH}, float32, {len(machine.devices)} devices of"
        f" {given.machine}, `jit`, jax {jax.__version__}, {time.strftime('%Y-%m-%d')}: compiled by the machine's own"
        " compiler, not run. Bytes of one device; its own rows are the batch's over the devices.",
        "",
        "| rows (two an image) | own rows | rows of all | temporaries, gathered | temporaries, ring | sent, gathered"
        " | sent, ring | by default |",
        "|---:|---:|---:|---:|---:|---:|---:|---|",
    ]
    from jaxcl.losses import blockwise

    threshold = blockwise.GATHERED
    for rows in given.rows:
        whole, ring = (measured(rows, machine, gathered) for gathered in (2**60, 0))
        of_all = 4 * rows * WIDTH
        cells = [f"{rows:,}", *(f"{size(x)}B" for x in (of_all / len(machine.devices), of_all))]
        cells += [f"{size(one[what])}B" for what in ("temporary", "sent") for one in (whole, ring)]
        cells.append("ring" if of_all > threshold else "gathered")
        lines.append("| " + " | ".join(cells) + " |")
        print(
            lines[-1],
            whole["kinds"],
            ring["kinds"],
            f"{whole['seconds']:.0f} s, {ring['seconds']:.0f} s",
            flush=True,
        )
    if given.write:
        OUT.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
