"""NT-Xent, value and gradient, two views of N images: jaxcl's blockwise form beside one matrix, optax and PyTorch."""

from __future__ import annotations

from functools import partial

from accelerator_phases.common import Emit, Program, compiled_together, floats, mib, table, time_program

TITLE = "NT-Xent: value and gradient, d = 128, temperature 0.1"
WIDTH, TEMPERATURE = 128, 0.1
BLOCKS = (512, 1024, 4096)  # beside the default
FEW_PASSES = "BF16_BF16_F32"  # products of bfloat16 operands, summed in float32


def sizes(toy: bool) -> tuple[int, ...]:
    return (32,) if toy else (1024, 4096, 16384, 65536)


def masked_matrix(a, b):
    """What one writes first: all similarities in one matrix, its diagonal masked."""
    import jax
    import jax.numpy as jnp

    n = len(a)
    z = jnp.concatenate([a, b])
    z = z / jnp.linalg.norm(z, axis=1, keepdims=True)
    s = z @ z.T / TEMPERATURE
    s = jnp.where(jnp.eye(2 * n, dtype=bool), -jnp.inf, s)
    positive = jnp.concatenate([jnp.diagonal(s, n), jnp.diagonal(s, -n)])
    return jnp.mean(jax.nn.logsumexp(s, axis=1) - positive)


def of_optax(a, b):
    import jax.numpy as jnp
    import optax

    labels = jnp.tile(jnp.arange(len(a)), 2)
    return optax.losses.ntxent(jnp.concatenate([a, b]), labels, temperature=TEMPERATURE)


def too_large(name: str, n: int) -> str | None:
    """Why a contender is left out: what its matrices of 2N x 2N would need of a device of 80 GB."""
    matrices = {"masked matrix": 2, "jaxcl, plain": 2, "optax": 4, "PyTorch": 4, "PyTorch, compiled": 3}
    gib = matrices.get(name, 0) * 4 * (2 * n) ** 2 / 2**30
    return f"needs about {gib:.0f} GiB" if gib > 60 else None


def contenders(toy: bool, n: int) -> list[Program]:
    import jax

    from jaxcl.losses import nt_xent

    ours = partial(nt_xent, temperature=TEMPERATURE)
    blocks = (8,) if toy else BLOCKS
    z = floats(n, WIDTH)

    def program(name, loss, precision=None):
        return Program(f"{name}, N = {n}", jax.value_and_grad(loss, (0, 1)), (z, z), precision)

    return [
        program("jaxcl", partial(ours, block_size=16) if toy else ours),
        program("masked matrix", masked_matrix),
        program("jaxcl, plain", partial(ours, block_size=0)),
        *(program(f"jaxcl, blocks of {block}", partial(ours, block_size=block)) for block in blocks),
        program(f"jaxcl, {FEW_PASSES}", ours, FEW_PASSES),
        program("optax", of_optax),
    ]


def programs(toy: bool) -> list[Program]:
    return [p for n in sizes(toy) for p in contenders(toy, n) if not too_large(name_of(p), n)]


def name_of(program: Program) -> str:
    return program.name.rpartition(", N = ")[0]


def run(toy: bool, emit: Emit) -> None:
    for n in sizes(toy):
        ready = compiled_together([p for p in contenders(toy, n) if not too_large(name_of(p), n)])
        for program in contenders(toy, n):
            row = {"name": name_of(program), "n": n, "framework": "jax"}
            if reason := too_large(row["name"], n):
                emit(row | {"left_out": reason})
                continue
            try:
                emit(row | time_program(program, ready[program.name], budget=0.05 if toy else 0.5))
            except Exception as error:  # out of memory: the others go on
                emit(row | {"left_out": f"{type(error).__name__}: {str(error)[:100]}"})


def run_torch(toy: bool, emit: Emit) -> None:
    import time

    import torch

    from accelerator_phases.common import seconds_of, spread
    from accelerator_phases.peers import device, normalized_cross_entropy, wait

    kind = device()
    for n in sizes(toy):
        for name, loss in (
            ("PyTorch", normalized_cross_entropy),
            (
                "PyTorch, compiled",
                torch.compile(normalized_cross_entropy, backend="eager" if toy else "inductor"),
            ),
        ):
            row = {"name": name, "n": n, "framework": "torch"}
            if reason := too_large(name, n):
                emit(row | {"left_out": reason})
                continue
            z = [torch.randn(n, WIDTH, device=kind, requires_grad=True) for _ in range(2)]

            def once(loss=loss, z=z):
                for x in z:
                    x.grad = None
                loss(*z, TEMPERATURE).backward()

            try:
                if kind == "cuda":
                    torch.cuda.reset_peak_memory_stats()
                before = torch.cuda.memory_allocated() if kind == "cuda" else 0
                start = time.perf_counter()
                once()
                wait()
                first = time.perf_counter() - start
                times = seconds_of(once, lambda _: wait(), budget=0.05 if toy else 0.5)
                peak = torch.cuda.max_memory_allocated() - before if kind == "cuda" else None
                emit(row | {"compile_seconds": first, "temporary_bytes": peak, **spread(times)})
            except RuntimeError as error:
                emit(row | {"left_out": str(error)[:100]})
                if kind == "cuda":
                    torch.cuda.empty_cache()


def report(rows, ceilings) -> list[str]:
    ours = {row["n"]: row["ms"] for row in rows if row["name"] == "jaxcl" and "ms" in row}
    rate = ceilings.get("matmul bfloat16")
    cells = []
    for row in sorted(rows, key=lambda row: row["n"]):
        if "left_out" in row:
            cells.append([row["name"], row["n"], row["left_out"], None, None, None, None])
            continue
        flops = 4 * (2 * row["n"]) ** 2 * WIDTH
        share = 100 * flops / (row["ms"] / 1e3) / rate if rate else None
        ratio = row["ms"] / ours[row["n"]] if row["n"] in ours else None
        cells.append(
            [
                row["name"],
                row["n"],
                row["ms"],
                ratio,
                share,
                mib(row.get("temporary_bytes")),
                row["compile_seconds"],
            ]
        )
    header = [
        "",
        "N",
        "ms",
        "times jaxcl",
        "% of the matmul rate at 4 (2N)^2 d",
        "temporaries, MiB",
        "to compile, s",
    ]
    return table(header, cells)
