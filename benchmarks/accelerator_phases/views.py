"""Augmentation alone: two views of every image, SimCLR's whole recipe, beside torchvision v2 on the same device."""

from __future__ import annotations

from accelerator_phases.common import (
    Emit,
    Program,
    compiled_together,
    floats,
    mib,
    seconds_of,
    spread,
    table,
    time_program,
)

TITLE = "Augmentation: two views of each image, SimCLR's recipe at full strength"


def sizes(toy: bool) -> dict[int, int]:
    """Pixels a side -> images."""
    return {16: 8} if toy else {32: 512, 224: 256}


def programs(toy: bool) -> list[Program]:
    import jax
    import jax.numpy as jnp

    from jaxcl import augment

    found = []
    key = jax.eval_shape(lambda: jax.random.key(0))
    for size, n in sizes(toy).items():
        recipe = augment.simclr(size, strength=1.0, blur=size > 100 or toy)
        batch = {"image": floats(n, size, size, 3, dtype=jnp.uint8), "index": floats(n, dtype=jnp.int32)}
        for name, op, dtype in (
            ("jaxcl", recipe, jnp.float32),
            ("jaxcl, bfloat16 out", recipe, jnp.bfloat16),
            ("jaxcl, fused", augment.fuse(recipe), jnp.float32),
            ("jaxcl, fused in bfloat16", augment.fuse(recipe, dtype=jnp.bfloat16), jnp.bfloat16),
        ):
            views = augment.two_views(op, dtype=dtype)
            found.append(
                Program(f"{name}, {size} px", lambda key, batch, v=views: v(key, batch), (key, batch))
            )
    return found


def run(toy: bool, emit: Emit) -> None:
    ready = compiled_together(programs(toy))
    for program in programs(toy):
        name, _, size = program.name.removesuffix(" px").rpartition(", ")
        row = {"name": name, "size": int(size), "images": sizes(toy)[int(size)]}
        try:
            emit(row | time_program(program, ready[program.name], budget=0.05 if toy else 0.5))
        except Exception as error:
            emit(row | {"left_out": f"{type(error).__name__}: {str(error)[:100]}"})


def run_torch(toy: bool, emit: Emit) -> None:
    import torch

    from accelerator_phases import peers

    kind = peers.device()
    for size, n in sizes(toy).items():
        images = torch.randint(0, 256, (n, size, size, 3), dtype=torch.uint8, device=kind)
        blur = size > 100 or toy
        for name, augment, count in (
            ("torchvision v2, one draw a batch", peers.torchvision_v2, n),
            ("torchvision v2, each image", peers.torchvision_v2_each, min(n, 32)),
            ("PyTorch by hand, each image its own draws", peers.by_hand, n),
        ):

            def once(augment=augment, some=images[:count], size=size, blur=blur):
                return [augment(some, size, strength=1.0, blur=blur) for _ in range(2)]

            row = {"name": name, "size": size, "images": count}
            try:
                emit(row | spread(seconds_of(once, lambda _: peers.wait(), budget=0.05 if toy else 0.5)))
            except Exception as error:
                emit(row | {"left_out": f"{type(error).__name__}: {str(error)[:100]}"})


def report(rows, ceilings) -> list[str]:
    lines, rate = [], ceilings.get("copy")
    for size in dict.fromkeys(row["size"] for row in rows):
        cells = []
        for row in (row for row in rows if row["size"] == size):
            if "left_out" in row:
                cells.append([row["name"], row["left_out"], None, None, None])
                continue
            seconds = row["ms"] / 1e3
            out = 2 if "bfloat16" in row["name"] else 4
            moved = row["images"] * size * size * 3 * (1 + 2 * out)  # bytes that must come in and go out
            fraction = 100 * moved / seconds / rate if rate else None
            memory = mib(row.get("temporary_bytes"))
            cells.append([row["name"], row["images"] / seconds, fraction, memory, row.get("compile_seconds")])
        header = [f"{size} px", "pairs of views/s", "% of the copy rate", "temporaries, MiB", "to compile, s"]
        lines += table(header, cells)
    return lines
