"""What the phases share: programs that can be compiled without their device, timing, and counting of arithmetic."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

# A row is a flat dict of numbers and words; `emit` writes it down at once.
Row = dict[str, Any]
Emit = Callable[[Row], None]


class Program(NamedTuple):
    """A function and arguments that stand for it: shapes are enough to compile it, values are needed to run it."""

    name: str
    function: Callable
    arguments: tuple  # pytrees of jax.ShapeDtypeStruct
    precision: str | None = None  # jax_default_matmul_precision while it is traced
    donate: tuple[int, ...] = ()


def abstract(*arguments):
    """The shapes and types of pytrees of arrays."""
    import jax

    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), arguments)


def floats(*shape, dtype="float32"):
    import jax

    return jax.ShapeDtypeStruct(shape, dtype)


def random(tree, seed=0):
    """Values for a pytree of shapes: normal floats, whole numbers below 256, and keys."""
    import jax
    import jax.numpy as jnp

    leaves, structure = jax.tree.flatten(tree)
    keys = jax.random.split(jax.random.key(seed), max(1, len(leaves)))

    def value(key, leaf):
        if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            return key
        if jnp.issubdtype(leaf.dtype, jnp.floating):
            return jax.random.normal(key, leaf.shape, leaf.dtype)
        return jax.random.randint(key, leaf.shape, 0, 256).astype(leaf.dtype)

    return jax.tree.unflatten(structure, [value(key, leaf) for key, leaf in zip(keys, leaves, strict=True)])


def compiled(program: Program, *, mesh=None, notes: list[str] | None = None):
    """The program compiled for this process's device, or for that of a described one's mesh; `notes` gets what was
    out of the ordinary."""
    import contextlib

    import jax

    from jaxcl import programs

    arguments, made_for = program.arguments, contextlib.nullcontext()
    if mesh is not None:
        made_for = jax.sharding.use_abstract_mesh(mesh.abstract_mesh)
        whole = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())

        def placed(x):
            return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=whole)

        arguments = jax.tree.map(placed, arguments)
    precision = program.precision
    with made_for, jax.default_matmul_precision(precision) if precision else contextlib.nullcontext():
        ready = hasattr(program.function, "lower")  # compiled by jit already, with what it donates
        function = program.function if ready else jax.jit(program.function, donate_argnums=program.donate)
        return programs.compiled(function.lower(*arguments), notes=notes)


class Ready(NamedTuple):
    """What compiling a program gave: the compiled program or the error, the seconds it took beside the others of its
    phase, and what was out of the ordinary."""

    program: Any
    seconds: float
    notes: list[str]

    def __call__(self, *arguments):
        if isinstance(self.program, Exception):
            raise self.program
        return self.program(*arguments)


def compiled_together(programs: list[Program]) -> dict[str, Ready]:
    """name -> the compiled program. They are compiled beside each other, a thread a core: a lent device's minutes are
    few. (XLA tries out algorithms on the device for one program at a time.)"""
    import os
    from concurrent.futures import ThreadPoolExecutor

    def one(program: Program) -> Ready:
        start, notes = time.perf_counter(), []
        try:
            made = compiled(program, notes=notes)
        except Exception as error:
            made = error
        seconds = time.perf_counter() - start
        print(
            f"compiled {program.name} in {seconds:.1f} s", flush=True
        )  # the log tells what a phase waited for
        return Ready(made, seconds, notes)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        made = list(pool.map(one, programs))
    return dict(zip([program.name for program in programs], made, strict=True))


def memory(program) -> dict[str, int]:
    """`jaxcl.programs.memory`, imported late: the phases of PyTorch do without jax."""
    from jaxcl import programs

    return programs.memory(program)


def seconds_of(
    call: Callable[[], Any], wait: Callable[[Any], Any], *, budget: float, calls: int = 1
) -> list[float]:
    """Seconds a call, several times over: each entry is a run of as many calls as take a twentieth of the budget.

    call()      starts the work and returns what `wait` waits for; `calls` of them are one unit of work
    """
    wait(call())  # not counted: first touches, clocks that rise
    start = time.perf_counter()
    wait(call())
    once = time.perf_counter() - start
    repeat = max(1, min(1000, int(budget / 20 / max(once, 1e-6))))
    times, begin = [], time.perf_counter()
    while len(times) < 3 or (time.perf_counter() - begin < budget and len(times) < 20):
        start = time.perf_counter()
        for _ in range(repeat):
            result = call()
        wait(result)
        times.append((time.perf_counter() - start) / repeat / calls)
        if time.perf_counter() - begin > 4 * budget:
            break
    return times


def spread(times: list[float]) -> dict[str, float]:
    """Median, least and most, in milliseconds."""
    return {
        "ms": 1e3 * statistics.median(times),
        "ms_least": 1e3 * min(times),
        "ms_most": 1e3 * max(times),
    }


def time_program(program: Program, ready: Ready, *, budget: float) -> Row:
    """Runs a compiled program on random arguments: seconds to compile, memory, milliseconds."""
    import jax

    if isinstance(ready.program, Exception):
        raise ready.program
    row: Row = {"compile_seconds": ready.seconds, **memory(ready.program), "notes": ready.notes}
    arguments = random(program.arguments)
    times = seconds_of(lambda: ready(*arguments), jax.block_until_ready, budget=budget)
    return row | spread(times)


def arithmetic(function: Callable, *arguments) -> int:
    """`jaxcl.programs.arithmetic`, imported late."""
    from jaxcl import programs

    return programs.arithmetic(function, *arguments)


def table(header: list[str], rows: list[list[Any]]) -> list[str]:
    """Lines of a Markdown table; the first column is text."""

    def cell(value):
        if value is None:
            return ""
        if isinstance(value, float):
            return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
        return f"{value:,}" if isinstance(value, int) else str(value)

    lines = [f"| {' | '.join(header)} |", f"|---|{'---:|' * (len(header) - 1)}"]
    return lines + [f"| {' | '.join(map(cell, row))} |" for row in rows] + [""]


def mib(value: float | None) -> float | None:
    return None if value is None else value / 2**20
