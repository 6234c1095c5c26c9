"""kNN and the linear probe on features, and the sorting behind the sliced Wasserstein distance."""

from __future__ import annotations

import time
from functools import partial

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

TITLE = "Evaluation and sorting"


def sizes(toy: bool) -> dict[str, int]:
    if toy:
        return {"bank": 512, "queries": 128, "width": 16, "rows": 64, "directions": 8}
    return {"bank": 50_000, "queries": 10_000, "width": 512, "rows": 8192, "directions": 128}


def features(toy: bool):
    """Of a mixture of ten: train [n, d], labels, test, labels."""
    import numpy as np

    s, rng = sizes(toy), np.random.default_rng(0)
    centers = rng.normal(size=(10, s["width"]))

    def draw(n):
        labels = rng.integers(0, 10, n)
        return np.float32(centers[labels] + 3 * rng.normal(size=(n, s["width"]))), labels

    return *draw(s["bank"]), *draw(s["queries"])


def sorting(toy: bool) -> list[Program]:
    import jax
    import jax.numpy as jnp

    from jaxcl.losses import orthogonal_directions, sliced_wasserstein, uniform_sphere

    s = sizes(toy)
    width, rows, directions = s["directions"], s["rows"], s["directions"]

    def plainly(key, z):
        keys = jax.random.split(key)
        w = orthogonal_directions(keys[0], width, directions)
        along, target = (jnp.sort((x @ w).T, axis=1) for x in (z, uniform_sphere(keys[1], z.shape)))
        return jnp.mean(jnp.square(along - target))

    key = jax.eval_shape(lambda: jax.random.key(0))
    z = floats(rows, width)
    contenders = {
        "jaxcl": partial(sliced_wasserstein, projections=directions),
        "jaxcl, exact quantiles": partial(sliced_wasserstein, projections=directions, exact_quantiles=True),
        "jnp.sort": plainly,
    }
    return [
        Program(f"SWD, {name}", jax.value_and_grad(f, argnums=1), (key, z)) for name, f in contenders.items()
    ]


def programs(toy: bool) -> list[Program]:
    """The sorts, one tile row of kNN's search and one fit of the probe."""
    from importlib import import_module

    import jax.numpy as jnp

    knn, lbfgs = (import_module(f"jaxcl.evaluate.{name}") for name in ("knn", "lbfgs"))  # not the functions

    s = sizes(toy)
    bank, labels = floats(s["bank"], s["width"]), floats(s["bank"], dtype=jnp.int32)
    block = min(4096, s["bank"])
    search = partial(knn._nearest, k=10, block=block)
    fit = partial(lbfgs.fit_logistic, tolerance=1e-5, iterations=500, classes=10)
    return [
        *sorting(toy),
        Program("kNN, one block of queries", search, (bank, floats(min(256, s["queries"]), s["width"]))),
        Program("L-BFGS, 8 penalties", lambda x, y, l2: fit(x, y, l2), (bank, labels, floats(8))),
    ]


def run(toy: bool, emit: Emit) -> None:
    import numpy as np

    from jaxcl.evaluate import knn_accuracy, linear_probe

    s = sizes(toy)
    train, labels, test, test_labels = features(toy)
    for name, work in (
        ("kNN, k = 10", lambda: knn_accuracy(train, labels, test, test_labels, k=10)),
        (
            "linear probe, L-BFGS, 8 penalties",
            lambda: linear_probe(train, labels, test, test_labels).accuracy,
        ),
    ):
        start = time.perf_counter()
        first = work()
        seconds = time.perf_counter() - start
        times = seconds_of(work, np.float64, budget=0.05 if toy else 1.0)
        # A product of all queries with all rows of the bank; of the probe it says nothing.
        flops = 2 * s["bank"] * s["queries"] * s["width"] if name.startswith("kNN") else None
        emit(
            {
                "name": name,
                "accuracy": 100 * first,
                "compile_seconds": seconds,
                "flops": flops,
                **spread(times),
            }
        )
    ready = compiled_together(sorting(toy))
    for program in sorting(toy):
        emit(
            {"name": program.name, **time_program(program, ready[program.name], budget=0.05 if toy else 0.5)}
        )


def run_torch(toy: bool, emit: Emit) -> None:
    import torch

    from accelerator_phases import peers

    kind, s = peers.device(), sizes(toy)
    train, labels, test, test_labels = (torch.from_numpy(x).to(kind) for x in features(toy))

    def knn():
        bank, queries = (torch.nn.functional.normalize(x, dim=1) for x in (train, test))
        near = torch.cat([(part @ bank.T).topk(10, dim=1).indices for part in queries.split(2048)])
        votes = torch.nn.functional.one_hot(labels[near], 10).sum(1)
        return (votes.argmax(1) == test_labels).float().mean()

    times = seconds_of(knn, lambda x: float(x), budget=0.05 if toy else 1.0)
    flops = 2 * s["bank"] * s["queries"] * s["width"]
    emit({"name": "kNN, k = 10, torch.topk", "accuracy": 100 * float(knn()), "flops": flops, **spread(times)})

    width, rows = s["directions"], s["rows"]
    z = torch.nn.functional.normalize(torch.randn(rows, width, device=kind), dim=1).requires_grad_()

    def swd():
        z.grad = None
        w = torch.linalg.qr(torch.randn(width, width, device=kind))[0]
        p = torch.nn.functional.normalize(torch.randn(rows, width, device=kind), dim=1)
        along, target = ((x @ w).T.contiguous().sort(dim=1).values for x in (z, p))
        (along - target).square().mean().backward()

    emit(
        {
            "name": "SWD, torch.sort",
            **spread(seconds_of(swd, lambda _: peers.wait(), budget=0.05 if toy else 0.5)),
        }
    )


def report(rows, ceilings) -> list[str]:
    rate = ceilings.get("matmul bfloat16")
    cells = []
    for row in sorted(rows, key=lambda row: row["name"][:3]):
        fraction = 100 * row["flops"] / (row["ms"] / 1e3) / rate if row.get("flops") and rate else None
        cells.append(
            [
                row["name"],
                row["ms"],
                row.get("accuracy"),
                fraction,
                mib(row.get("temporary_bytes")),
                row.get("compile_seconds"),
            ]
        )
    return table(
        ["", "ms", "accuracy, %", "% of the matmul rate", "temporaries, MiB", "first call, s"], cells
    )
