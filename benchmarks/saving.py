"""What a save costs a training run: the time for which no step is sent, waiting for the disk or saving beside it.

    python benchmarks/saving.py [--megabytes 100 300] [--saves 6] [--folder runs]

A state of so many megabytes, half of it momentum, in 60 arrays; a step that multiplies matrices and changes all of it.
A save comes when the one before is written. Of each way the first save is told apart: its memory is new to the process.

stall           seconds between two steps over a save, less those of a step, the median
written         seconds from the save until all is on the disk
steps beside    how much longer a step takes while a copy is written

The table is written to benchmarks/results/saving-cpu.md.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).parent


def state_of(megabytes: float):
    import jax.numpy as jnp
    import numpy as np

    # Numbers as weights are: what is written is compressed, and constants would cost nothing.
    rng, rows = np.random.default_rng(0), round(megabytes * 1e6 / 4 / 60 / 512)
    names = [f"layer_{i}" for i in range(30)]
    return {
        part: {name: jnp.asarray(rng.standard_normal((rows, 512), np.float32)) for name in names}
        for part in ("params", "momentum")
    }


def make_step():
    import jax
    import jax.numpy as jnp

    def step(state, x):
        momentum = {name: 0.9 * m + 1e-3 * state["params"][name] for name, m in state["momentum"].items()}
        params = {name: w - 1e-3 * momentum[name] for name, w in state["params"].items()}
        for _ in range(8):
            x = jnp.tanh(x @ x)
        return {"params": params, "momentum": momentum}, x

    return jax.jit(step, donate_argnums=0)


def measured(megabytes: float, beside: bool, saves: int, folder: Path) -> dict:
    """A row of the table."""
    import jax
    import jax.numpy as jnp

    from jaxcl.train import checkpoint
    from jaxcl.train.saver import Saver

    step, state, x = make_step(), state_of(megabytes), jnp.full((700, 700), 1e-3)

    def one(state, x):
        return jax.block_until_ready(step(state, x))

    state, x = one(state, x)
    alone = []
    for _ in range(20):
        before = time.perf_counter()
        state, x = one(state, x)
        alone.append(time.perf_counter() - before)
    usual, stalls, written, during = statistics.median(alone), [], [], []
    with Saver() as saver:
        for number in range(1, saves + 1):
            before = time.perf_counter()
            (saver.save if beside else checkpoint.save)(folder, number, state)
            stalls.append(time.perf_counter() - before)
            while not (folder / str(number)).exists():
                begun = time.perf_counter()
                state, x = one(state, x)
                during.append(time.perf_counter() - begun)
            written.append(time.perf_counter() - before)
            saver.wait()
    return {
        "megabytes": megabytes,
        "beside": beside,
        "step": usual,
        "first": stalls[0],
        "stall": statistics.median(stalls[1:]),
        "longest": max(stalls[1:]),
        "written": statistics.median(written[1:]),
        "slower": statistics.mean(during) / usual if during else None,
    }


def table(rows: list[dict]) -> str:
    import jax

    lines = [
        "# What a save costs a training run",
        "",
        f"`python benchmarks/saving.py`, jax {jax.__version__}, {time.strftime('%Y-%m-%d')}, one core of a shared"
        f" two-core machine (load {os.getloadavg()[0]:.1f}), which also makes the steps: writing beside them slows them"
        " down, but none waits for the disk. Seconds.",
        "",
        "| state | saved | a step | stall: first | median | longest | written after | steps beside it |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        slower = "" if row["slower"] is None else f"{row['slower']:.1f} times as long"
        lines.append(
            f"| {row['megabytes']:g} MB | {'beside' if row['beside'] else 'waiting'} | {row['step']:.3f} |"
            f" {row['first']:.2f} | {row['stall']:.2f} | {row['longest']:.2f} | {row['written']:.2f} | {slower} |"
        )
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--megabytes", type=float, nargs="+", default=[100, 300])
    parser.add_argument("--saves", type=int, default=6)
    parser.add_argument(
        "--folder", type=Path, help="on the disk that is meant; by default one for temporary files"
    )
    parser.add_argument("--out", type=Path, default=HERE / "results")
    own = parser.parse_args()
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    rows = []
    for megabytes in own.megabytes:
        for beside in (False, True):
            folder = Path(tempfile.mkdtemp(dir=own.folder))
            rows.append(measured(megabytes, beside, own.saves, folder))
            shutil.rmtree(folder)
            print(rows[-1], flush=True)
    (own.out / "saving-cpu.md").write_text(table(rows))


if __name__ == "__main__":
    main()
