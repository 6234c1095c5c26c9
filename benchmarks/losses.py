"""Time and memory of the contrastive losses and of the sliced Wasserstein distance, beside other ways to compute them.

    python benchmarks/losses.py                    # N = 1,024 to 32,768; writes benchmarks/results/losses-cpu.md
    python benchmarks/losses.py --quick            # N = 1,024 and 4,096, prints only

Value and gradient, d = 128, temperature 0.1. Every contender is a process of its own, pinned to one core (Linux) and
told to use one thread, that waits between its turns; rounds go through all contenders in order, so that a busy
machine is busy for all of them. Reported are medians of CPU-seconds (a process's own time) and of wall seconds, and
of XLA programs the temporaries that the compiler plans. Contenders that are not installed, or whose memory would not
fit, are left out and named.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import sys
import time
from importlib import metadata
from pathlib import Path

from contenders import pin, processor, race, serve

WIDTH, TEMPERATURE = 128, 0.1
HERE = Path(__file__).resolve()

# name -> bytes it needs on a CPU at N images (or M rows), as measured or counted; None: never too much. What optax
# needs is the CPU back end's doing (see NOTE).
NT_XENT = {
    "jaxcl": None,
    "jaxcl, plain": lambda n: 4 * (2 * n) ** 2 * 1.2,
    "naive JAX": lambda n: 4 * (2 * n) ** 2 * 2.2,
    "optax": lambda n: 6192 * 2**20 * (n / 1024) ** 2,
    "PyTorch naive": lambda n: 4 * (2 * n) ** 2 * 3.4,
    "lightly": lambda n: 4 * (2 * n) ** 2 * 5,
    "pytorch-metric-learning": lambda n: 4 * (2 * n) ** 3,
}
SLICED = {
    "jaxcl": None,
    "jaxcl, quantiles": None,
    "jnp.sort": None,
    "torch.sort": None,
    "one-hot ranks": lambda m: 4 * WIDTH * m**2 * 2,
}


# --- contenders: (name, n) -> a function without arguments that computes once, and its planned temporaries -------


def xla(function, *arguments):
    import jax

    step = jax.jit(function).lower(*arguments).compile()
    jax.block_until_ready(step(*arguments))
    return lambda: jax.block_until_ready(step(*arguments)), step.memory_analysis().temp_size_in_bytes


def jax_nt_xent(name, n):
    from functools import partial

    import jax
    from accelerator_phases.nt_xent import masked_matrix, of_optax

    from jaxcl.losses import nt_xent

    z1, z2 = jax.random.normal(jax.random.key(0), (2, n, WIDTH))

    loss = {
        "jaxcl": partial(nt_xent, temperature=TEMPERATURE),
        "jaxcl, plain": partial(nt_xent, temperature=TEMPERATURE, block_size=0),
        "naive JAX": masked_matrix,
        "optax": of_optax,
    }[name]
    return xla(jax.value_and_grad(loss, (0, 1)), z1, z2)


def stand_in_for_torchvision():
    """lightly imports torchvision, whose losses do not use it: empty classes will do where it is missing or broken."""
    import importlib.machinery
    import types

    import torch

    class Empty(types.ModuleType):
        __path__, __version__ = (), "0"

        def __getattr__(self, name):
            if name.startswith("__"):
                raise AttributeError(name)
            return type(name, (torch.nn.Module,), {})

    class Finder:
        def find_spec(self, name, path, target=None):
            if name.split(".")[0] == "torchvision":
                return importlib.machinery.ModuleSpec(name, self)

        def create_module(self, spec):
            return Empty(spec.name)

        def exec_module(self, module):
            pass

    for name in [name for name in sys.modules if name.split(".")[0] in ("torchvision", "lightly")]:
        del sys.modules[name]
    sys.meta_path.insert(0, Finder())


def torch_nt_xent(name, n):
    import torch

    torch.set_num_threads(1)
    torch.manual_seed(0)
    z1, z2 = (torch.randn(n, WIDTH, requires_grad=True) for _ in range(2))

    def naive(a, b):
        z = torch.nn.functional.normalize(torch.cat([a, b]), dim=1)
        s = z @ z.T / TEMPERATURE
        s.fill_diagonal_(-torch.inf)
        return torch.nn.functional.cross_entropy(s, torch.arange(2 * n).roll(n))

    if name == "lightly":
        try:
            import torchvision  # noqa: F401
        except Exception:
            stand_in_for_torchvision()
        from lightly.loss import NTXentLoss

        loss = NTXentLoss(temperature=TEMPERATURE)
    elif name == "pytorch-metric-learning":
        from pytorch_metric_learning.losses import NTXentLoss

        theirs = NTXentLoss(temperature=TEMPERATURE)

        def loss(a, b):
            return theirs(torch.cat([a, b]), torch.arange(n).repeat(2))

    else:
        loss = naive

    def once():
        z1.grad = z2.grad = None
        loss(z1, z2).backward()

    once()
    return once, None


def sliced(name, m):
    """Drawing directions and prior is part of the work; only the sorting differs."""
    if name == "torch.sort":
        import torch

        torch.set_num_threads(1)
        z = torch.nn.functional.normalize(torch.randn(m, WIDTH), dim=1).requires_grad_()

        def once():
            z.grad = None
            w = torch.linalg.qr(torch.randn(WIDTH, WIDTH))[0]
            p = torch.nn.functional.normalize(torch.randn(m, WIDTH), dim=1)
            along, target = ((x @ w).T.contiguous().sort(dim=1).values for x in (z, p))
            (along - target).square().mean().backward()

        once()
        return once, None

    from functools import partial

    import jax
    import jax.numpy as jnp

    from jaxcl.losses import orthogonal_directions, sliced_wasserstein, uniform_sphere

    def by_ranks(x):
        """As the authors' notebook sorts where there is no sort: compare all pairs, multiply by one-hot ranks."""
        ranks = jnp.sum(x[:, :, None] > x[:, None, :], axis=-1)
        return jnp.einsum("pm,pmk->pk", x, jax.nn.one_hot(ranks, x.shape[1], dtype=x.dtype))

    def plainly(key, z, *, sort):
        keys = jax.random.split(key)
        w = orthogonal_directions(keys[0], WIDTH, WIDTH)
        return jnp.mean(jnp.square(sort((z @ w).T) - sort((uniform_sphere(keys[1], z.shape) @ w).T)))

    loss = {
        "jaxcl": sliced_wasserstein,
        "jaxcl, quantiles": partial(sliced_wasserstein, exact_quantiles=True),
        "jnp.sort": partial(plainly, sort=partial(jnp.sort, axis=1)),
        "one-hot ranks": partial(plainly, sort=by_ranks),
    }[name]
    z = uniform_sphere(jax.random.key(1), (m, WIDTH))
    return xla(jax.value_and_grad(loss, argnums=1), jax.random.key(0), z)


def build(kind, name, size):
    if kind == "sliced":
        return sliced(name, size)
    return (jax_nt_xent if name in ("jaxcl", "jaxcl, plain", "naive JAX", "optax") else torch_nt_xent)(
        name, size
    )


# --- one process a contender ----------------------------------------------------------------------------------------


def work(kind, name, size, core):
    pin(core)
    once, temporaries = build(kind, name, size)
    serve({"temporaries": temporaries}, once)


def measure(kind, contenders, size, rounds, core, memory):
    """name -> {"temporaries": bytes, "cpu": [s], "wall": [s]} or the reason why there is none."""
    results = {}
    fits = {name: needs is None or needs(size) <= memory for name, needs in contenders.items()}
    # Small first, and one large one alone: two that each just fit would not fit together.
    for name, needs in contenders.items():
        if not fits[name]:
            results[name] = f"needs about {needs(size) / 2**30:.0f} GiB"
    groups = [
        [n for n in contenders if fits[n] and (contenders[n] is None or contenders[n](size) < memory / 8)]
    ]
    groups += [[n, groups[0][0]] for n in contenders if fits[n] and n not in groups[0]]

    def command(name):
        return [sys.executable, str(HERE), "--worker", kind, name, str(size), "--core", str(core)]

    for group in groups:
        for name, result in race({name: command(name) for name in group}, rounds).items():
            if isinstance(result, dict) and isinstance(results.get(name), dict):
                # The first of all runs beside each large one, too.
                result = {**result, **{unit: results[name][unit] + result[unit] for unit in ("cpu", "wall")}}
            results[name] = result
    return {name: results[name] for name in contenders}


def table(title, size_name, per_size):
    lines = [f"## {title}", ""]
    lines += [
        f"| {size_name} | | CPU s | times jaxcl | wall s | XLA temporaries, MiB |",
        "|---:|---|---:|---:|---:|---:|",
    ]
    for size, results in per_size.items():
        base = (
            statistics.median(results["jaxcl"]["cpu"]) if isinstance(results["jaxcl"], dict) else float("nan")
        )
        for name, result in results.items():
            if isinstance(result, str):
                lines.append(f"| {size:,} | {name} | - | - | - | {result} |")
                continue
            cpu, wall = (statistics.median(result[unit]) for unit in ("cpu", "wall"))
            temporaries = result["temporaries"]
            memory = "" if temporaries is None else f"{temporaries / 2**20:,.1f}"
            lines.append(f"| {size:,} | {name} | {cpu:.4f} | {cpu / base:.2f} | {wall:.4f} | {memory} |")
    return "\n".join([*lines, ""])


NOTE = """\
Temporaries are those of XLA's CPU back end, and another back end plans others. Compiled for an H100
([accelerator-h100-memory.md](accelerator-h100-memory.md)), optax.losses.ntxent needs 50 MiB at N = 1,024 (here 6,195)
and 520 at 4,096, the masked matrix 49 and 516, jaxcl 25 and 32 with its default blocks of 2,048 there.
"""


def versions():
    names = ("jax", "jaxlib", "optax", "torch", "lightly", "pytorch-metric-learning")
    found = []
    for name in names:
        try:
            found.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            found.append(f"{name} not installed")
    return ", ".join(found)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="small sizes, printed only")
    parser.add_argument("--sizes", type=int, nargs="*", help="images N of NT-Xent")
    parser.add_argument("--rows", type=int, nargs="*", help="rows M of the sliced Wasserstein distance")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--core", type=int, default=0, help="the core to pin to; -1 for none")
    parser.add_argument("--memory-gib", type=float, default=16.0, help="leave out what would need more")
    parser.add_argument("--out", type=Path, default=HERE.parent / "results" / "losses-cpu.md")
    parser.add_argument("--worker", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        kind, name, size = options.worker
        return work(kind, name, int(size), options.core)
    sizes = (
        options.sizes
        if options.sizes is not None
        else [1024, 4096]
        if options.quick
        else [1024, 4096, 16384, 32768]
    )
    rows = options.rows if options.rows is not None else [1024] if options.quick else [1024, 8192, 65536]
    memory, started = options.memory_gib * 2**30, time.time()
    flags = ["--core", str(options.core)]
    nt_xent = {n: measure("nt_xent", NT_XENT, n, options.rounds, options.core, memory) for n in sizes}
    swd = {m: measure("sliced", SLICED, m, options.rounds, options.core, memory) for m in rows}
    text = "\n".join(
        [
            "# The losses on a CPU",
            "",
            f"- command: `python benchmarks/losses.py {' '.join([*flags, '--rounds', str(options.rounds)])}`",
            f"- device: {processor()}, one core of {os.cpu_count()}, {platform.system()}",
            f"- python {platform.python_version()}, {versions()}",
            f"- {time.strftime('%Y-%m-%d')}, took {(time.time() - started) / 60:.0f} minutes",
            f"- value and gradient; d = {WIDTH}, temperature {TEMPERATURE}, float32; {options.rounds} rounds",
            "",
            table("NT-Xent, two views of N images", "N", nt_xent),
            NOTE,
            table(f"Sliced Wasserstein distance of M rows, {WIDTH} projections", "M", swd),
        ]
    )
    print(text)
    if not options.quick:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(text)


if __name__ == "__main__":
    main()
