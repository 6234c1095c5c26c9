"""Does the memory of an input pipeline stay flat? Resident memory of the process over 10,000 small batches.

python benchmarks/input_memory.py device resident host files
"""

import argparse
import os
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import numpy as np
from PIL import Image

from jaxcl import augment, data, devices
from jaxcl.train import placement

SIDE, N, BATCH = 16, 512, 8


def megabytes() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def inputs(folder: Path):
    """Each: what reads, and what lays a batch out on the device."""
    pixels = np.random.default_rng(0).integers(0, 256, (N, SIDE, SIDE, 3), np.uint8)
    images = data.from_arrays(pixels)
    recipe = augment.simclr(SIDE, blur=False)
    mesh = devices.make_mesh(devices=1)
    split = partial(devices.split, mesh=mesh)
    yield "device", lambda: (partial(data.batches, images), split)
    yield "resident", lambda: (partial(data.index_batches, N), placement.resident(pixels, mesh))
    yield "host", lambda: (data.host_views(images, recipe, threads=2), split)

    def files():
        (folder / "train").mkdir()
        for i, one in enumerate(pixels):
            Image.fromarray(one).save(folder / "train" / f"{i}.{'jpg' if i % 8 else 'png'}")
        return data.host_views(data.find_images(f"folder:{folder}", "train"), recipe, threads=2), split

    yield "files", files


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("input", nargs="+", choices=["device", "resident", "host", "files"])
    parser.add_argument("--batches", type=int, default=10_000)
    own = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        made = dict(inputs(Path(folder)))
        for input in own.input:
            read, lay_out = made[input]()
            begun, seen = time.perf_counter(), []
            ahead = data.prefetch(lay_out(b) for b in read(batch_size=BATCH, seed=0, stop_step=own.batches))
            for step, batch in enumerate(ahead, start=1):
                jax.block_until_ready(batch)
                if step % (own.batches // 10) == 0:
                    seen.append(megabytes())
            seconds = time.perf_counter() - begun
            grown = seen[-1] - seen[1]
            print(
                f"{input}: {own.batches} batches of {BATCH} in {seconds:.0f} s; MB at each tenth:",
                " ".join(f"{mb:.0f}" for mb in seen),
                f"; {grown:+.1f} MB after the second",
                flush=True,
            )


if __name__ == "__main__":
    sys.exit(main())
