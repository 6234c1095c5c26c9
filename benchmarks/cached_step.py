"""Large batches on little memory: SimCLR's training step with --chunks and --remat, what it needs and what it costs.

    python benchmarks/cached_step.py cpu [--batch 128 512] [--chunks 1 4 16]    runs it on this machine's CPU
    python benchmarks/cached_step.py h100 [--batch 512] [--chunks 1 4]          compiles it for a described H100

cpu: a ResNet-18 of 16 channels, 32 pixels, float32. Memory is what the compiled step plans for temporaries, seconds are
the CPU's for a step (the lesser of two), the error is the norm of the gradient's difference to that of the step which
keeps everything, with `batch_norm(groups=chunks)` in place of chunks, relative to the gradient's.
h100: a ResNet-18, 32 pixels, bfloat16, SGD with momentum; needs jax's CUDA packages and no GPU. Nothing is run there.

The table is written to benchmarks/results/cached-step-WHERE.md; a row that is there already stays.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import time
from pathlib import Path

HERE = Path(__file__).parent
SIZE = 32
BATCHES = {"cpu": [128, 512], "h100": [512]}
CHUNKS = {"cpu": [1, 4, 16], "h100": [1, 4]}


def method_of(where: str, *, chunks: int = 1, remat: bool = False, groups: int = 1):
    import jax.numpy as jnp

    from jaxcl import augment, losses, methods, nets

    norm, of_encoder = nets.batch_norm(), nets.batch_norm(groups=groups)
    if where == "cpu":
        encoder = nets.resnet(18, stem="cifar", features=16, norm=of_encoder, zero_init_last_gamma=False)
    else:
        encoder = nets.resnet(18, stem="cifar", norm=of_encoder, dtype=jnp.bfloat16)
    encoder = nets.remat(encoder) if remat else encoder
    return methods.simclr(
        views=augment.two_views(augment.simclr(SIZE, strength=0.5, blur=False)),
        encoder=nets.chunked(encoder, chunks) if chunks > 1 else encoder,
        head=nets.projection_head(layers=2, out=128, norm=norm),
        loss=losses.keyless(losses.nt_xent, temperature=0.5),
    )


def step_and_state(where: str, method, mesh):
    """On a CPU SGD with a learning rate of 1 and nothing else: what it changes is the gradient."""
    import jax
    import numpy as np
    import optax

    from jaxcl.train import init_state, make_step, optim, placement

    tx = optax.sgd(1.0) if where == "cpu" else optim.sgd(0.1, momentum=0.9, weight_decay=1e-4)
    two = {"image": np.zeros((2, SIZE, SIZE, 3), np.uint8), "index": np.arange(2, dtype=np.int32)}

    def start(key):
        return init_state(key, method, tx, two)

    return (
        placement.place(make_step(method, tx), "jit", mesh),
        start,
        jax.eval_shape(start, jax.random.key(0)),
    )


def measured(where: str, batch: int, chunks: int, remat: bool, mesh) -> dict:
    """A row of the table."""
    import jax
    import numpy as np
    import optax

    step, start, shapes = step_and_state(where, method_of(where, chunks=chunks, remat=remat), mesh)
    images = jax.ShapeDtypeStruct((batch, SIZE, SIZE, 3), np.uint8)
    example = {"image": images, "index": jax.ShapeDtypeStruct((batch,), np.int32)}
    begun = time.perf_counter()
    compiled = step.lower(shapes, jax.eval_shape(lambda: jax.random.key(0)), example).compile()
    row = {
        "batch": batch,
        "chunks": chunks,
        "remat": remat,
        "compile_seconds": time.perf_counter() - begun,
        "temporary_bytes": compiled.memory_analysis().temp_size_in_bytes,
    }
    if where != "cpu":
        return row
    runs = [run(compiled, start, np.arange(batch)) for _ in range(2)]
    row["cpu_seconds"] = min(seconds for seconds, _ in runs)
    if chunks > 1 or remat:
        truth = kept_whole(where, batch, chunks, mesh)
        wrong = optax.global_norm(jax.tree.map(np.subtract, runs[0][1], truth))
        row["error"] = float(wrong / optax.global_norm(truth))
    return row


def run(program, start, order):
    """CPU-seconds of a step on images in this order, and the gradient."""
    import jax
    import numpy as np

    pixels = np.random.default_rng(0).integers(0, 256, (len(order), SIZE, SIZE, 3), np.uint8)
    state = jax.jit(start)(jax.random.key(0))
    before = jax.device_get(state.params)
    begun = time.process_time()
    state, _ = program(state, jax.random.key(1), {"image": pixels[order], "index": order.astype(np.int32)})
    after = jax.device_get(state.params)
    return time.process_time() - begun, jax.tree.map(np.subtract, before, after)


@functools.cache
def kept_whole(where: str, batch: int, chunks: int, mesh):
    """The gradient of the step that keeps everything, with groups in place of chunks."""
    import numpy as np

    step, start, _ = step_and_state(where, method_of(where, groups=chunks), mesh)
    # The images of a chunk are dealt out, those of a group are neighbours.
    return run(step, start, np.arange(batch).reshape(-1, chunks).T.ravel())[1]


def mesh_of(where: str):
    from jaxcl import devices

    if where == "cpu":
        return devices.make_mesh(devices=1)
    from jax.experimental import topologies

    described = (HERE / "accelerator_phases" / f"{where}.txt").read_text()
    topology = topologies.get_topology_desc(
        platform="cuda", topology_name="1x1x1", topology="1x1x1", target_config=described
    )
    return topologies.make_mesh(topology, (1,), (devices.AXIS,))


def table(where: str, rows: list[dict]) -> str:
    import jax

    cpu = where == "cpu"
    network = (
        "a ResNet-18 of 16 channels, 32 pixels, float32"
        if cpu
        else "a ResNet-18, 32 pixels, bfloat16, compiled for a described H100 (nothing was run)"
    )
    lines = [
        f"# SimCLR's training step in chunks: {network}",
        "",
        f"`python benchmarks/cached_step.py {where}`, jax {jax.__version__}, {time.strftime('%Y-%m-%d')};"
        " compiled on a busy machine",
        "",
        "| images | --chunks | --remat | temporaries, MiB | to compile, s |" + cpu * " CPU-seconds | error |",
        "|---|---|---|---|---|" + cpu * "---|---|",
    ]
    for row in sorted(rows, key=lambda row: (row["batch"], row["chunks"], row["remat"])):
        cells = [str(row["batch"]), str(row["chunks"]), "yes" if row["remat"] else ""]
        cells += [f"{row['temporary_bytes'] / 2**20:,.0f}", f"{row['compile_seconds']:.0f}"]
        if cpu:
            cells += [f"{row['cpu_seconds']:.1f}", f"{row['error']:.0e}" if "error" in row else ""]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("where", choices=list(BATCHES))
    parser.add_argument("--batch", type=int, nargs="+")
    parser.add_argument("--chunks", type=int, nargs="+")
    parser.add_argument("--remat", type=int, nargs="+", choices=[0, 1], default=[0, 1])
    parser.add_argument("--out", type=Path, default=HERE / "results")
    own = parser.parse_args()
    os.environ["JAX_PLATFORMS"] = "cpu"
    if own.where != "cpu":  # there is nothing to time algorithms on
        os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_gpu_autotune_level=0"
    mesh = mesh_of(own.where)

    kept = own.out / f"cached-step-{own.where}.jsonl"
    rows = [json.loads(line) for line in kept.read_text().splitlines()] if kept.exists() else []
    for batch in own.batch or BATCHES[own.where]:
        for chunks in own.chunks or CHUNKS[own.where]:
            for remat in own.remat:
                if (batch, chunks, bool(remat)) in {
                    (row["batch"], row["chunks"], row["remat"]) for row in rows
                }:
                    continue
                rows.append(measured(own.where, batch, chunks, bool(remat), mesh))
                print(rows[-1], flush=True)
                kept.write_text("".join(json.dumps(row) + "\n" for row in rows))
                kept.with_suffix(".md").write_text(table(own.where, rows))


if __name__ == "__main__":
    main()
